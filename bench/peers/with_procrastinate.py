"""procrastinate: `python -m bench.peers.with_procrastinate prepare`, then `work` works, and N or `bulk N` sends."""

import asyncio
import sys
from typing import Any

import procrastinate

from bench.peers import job

PER_BATCH = 100
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=job.SERVER, max_size=job.WORKERS))


@app.task(name="nothing")
async def nothing(carried: dict[str, Any]) -> None:
    """Run the job."""
    await job.run(carried)


async def send_batch(first: int) -> None:
    """Send a batch of jobs in one call."""
    await nothing.batch_defer_async(*({"carried": job.payload(first + number)} for number in range(PER_BATCH)))


async def main(*words: str) -> None:
    """Do what the words say."""
    async with app.open_async():
        match words:
            case ["prepare"]:
                await app.schema_manager.apply_schema_async()
            case ["work"]:
                await app.run_worker_async(concurrency=job.WORKERS)
            case ["bulk", count]:
                await job.send_all(int(count) // PER_BATCH, lambda number: send_batch(number * PER_BATCH))
            case [count]:
                await job.send_all(int(count), lambda number: nothing.defer_async(carried=job.payload(number)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
