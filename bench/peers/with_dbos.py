"""DBOS on PostgreSQL: `python -m bench.peers.with_dbos prepare`, then `work` works, and N or `steps N` sends."""

import sys
import time
from typing import Any

from dbos import DBOS, DBOSClient, DBOSConfig, EnqueueOptions

from bench.peers import job

VERSION = "bench"
POLL_SECONDS = 0.05
STEPS = 10
THREADS = 16


@DBOS.workflow(name="nothing")
async def nothing(carried: dict[str, Any]) -> None:
    """Run the job."""
    await job.run(carried)


@DBOS.step(name="no_effect")
async def no_effect() -> None:
    """Return at once."""


@DBOS.workflow(name="ten_steps")
async def ten_steps(_: dict[str, Any]) -> None:
    """Take ten steps that do nothing."""
    for _number in range(STEPS):
        await no_effect()


def launch() -> None:
    """Start DBOS, and its two queues: so many jobs at once, so many workflows with steps."""
    DBOS(
        config=DBOSConfig(
            name="bench",
            system_database_url=job.SERVER,
            application_version=VERSION,
            executor_id="bench",
            log_level="WARNING",
        )
    )
    DBOS.launch()
    for name, at_once in (("nothing", job.WORKERS), ("ten_steps", job.AT_ONCE)):
        DBOS.register_queue(name, worker_concurrency=at_once, polling_interval_sec=POLL_SECONDS)


def send(name: str, count: int) -> None:
    """Send so many workflows."""
    client = DBOSClient(system_database_url=job.SERVER)
    options = EnqueueOptions(queue_name=name, workflow_name=name, app_version=VERSION)
    job.send_all_from_threads(count, lambda number: client.enqueue(options, job.payload(number)), THREADS)
    client.destroy()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["prepare"]:
            launch()
            DBOS.destroy()
        case ["work"]:
            launch()
            while True:
                time.sleep(3600)
        case ["steps", count]:
            send("ten_steps", int(count))
        case [count]:
            send("nothing", int(count))
