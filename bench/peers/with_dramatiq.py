"""dramatiq on Redis: `python -m dramatiq bench.peers.with_dramatiq` works, this module sends N jobs."""

import sys
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.peers import job

dramatiq.set_broker(RedisBroker(url=job.SERVER))


@dramatiq.actor(actor_name="nothing")
def nothing(carried: dict[str, Any]) -> None:
    """Run the job."""
    job.run_in_thread(carried)


if __name__ == "__main__":
    job.send_all_from_threads(int(sys.argv[1]), lambda number: nothing.send(job.payload(number)), threads=8)
