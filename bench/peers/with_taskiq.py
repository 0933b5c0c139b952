"""taskiq on Redis Streams: `python -m taskiq worker bench.peers.with_taskiq:broker` works, this module sends N jobs."""

import asyncio
import sys
from typing import Any

from taskiq_redis import RedisStreamBroker

from bench.peers import job

broker = RedisStreamBroker(job.SERVER)


@broker.task(task_name="nothing")
async def nothing(carried: dict[str, Any]) -> None:
    """Run the job."""
    await job.run(carried)


async def send(count: int) -> None:
    """Send so many jobs."""
    await broker.startup()
    await job.send_all(count, lambda number: nothing.kiq(job.payload(number)))
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(send(int(sys.argv[1])))
