"""arq: `python -m bench.peers.with_arq work` works, `python -m bench.peers.with_arq N` sends."""

import asyncio
import sys
from typing import Any

from arq import create_pool, run_worker
from arq.connections import RedisSettings

from bench.peers import job

REDIS = RedisSettings.from_dsn(job.SERVER)


async def nothing(_: dict[Any, Any], carried: dict[str, Any]) -> None:
    """Run the job."""
    await job.run(carried)


class WorkerSettings:
    """As it comes, but that it looks for work every 20 ms instead of every 500."""

    functions = (nothing,)
    redis_settings = REDIS
    max_jobs = job.WORKERS
    poll_delay = 0.02


async def send(count: int) -> None:
    """Send so many jobs."""
    pool = await create_pool(REDIS)
    await job.send_all(count, lambda number: pool.enqueue_job("nothing", job.payload(number)))
    await pool.aclose()


if __name__ == "__main__":
    if sys.argv[1] == "work":
        asyncio.set_event_loop(asyncio.new_event_loop())
        run_worker(WorkerSettings)
    else:
        asyncio.run(send(int(sys.argv[1])))
