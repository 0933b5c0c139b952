"""Whether this process is out of processor time, and what it does in the time it gets; measured when asked for."""

from pathlib import Path
from time import process_time
from typing import NamedTuple

SATURATED = 0.9  # of a processor
MEASURED_SECONDS = 1.0
KEPT_PER_SECOND = 0.85  # of a rate, while it is lower
THREADS = Path("/proc/self/task")  # in each, schedstat: nanoseconds on a processor, nanoseconds waiting for one, turns
NANOSECONDS_PER_SECOND = 1_000_000_000
USED_SECONDS_MIN = 1e-3  # less says nothing


class Totals(NamedTuple):
    """What had come of this process at a moment, in all."""

    at: float
    used_seconds: float
    waited_seconds: float
    accepted: int
    ended: int


class Saturation:
    """The last measurement, at least `MEASURED_SECONDS` long: whether a processor was wanted all the time.

    The rates are the highest of late: where all the time goes to what comes in, workers do much less than they can, and
    where much is refused, less comes in than could. `events_per_processor_second` tells how much is accepted, or ended,
    in the time that the process gets: little, where handlers compute.
    """

    def __init__(self) -> None:
        self.is_there = False
        self.ended_per_second = 0.0
        self.events_per_processor_second = 0.0
        self.before = Totals(0.0, 0.0, 0.0, 0, 0)

    def measure(self, now: float, accepted: int, ended: int) -> bool:
        """Measure anew if it is time, and tell whether there is none left; given are counts of events in all."""
        before = self.before
        if (seconds := now - before.at) >= MEASURED_SECONDS:
            self.before = totals = Totals(now, process_time(), waited_seconds(), accepted, ended)
            used_seconds = max(USED_SECONDS_MIN, totals.used_seconds - before.used_seconds)
            wanted_seconds = used_seconds + totals.waited_seconds - before.waited_seconds
            self.is_there = wanted_seconds >= SATURATED * seconds
            ended_now, accepted_now = ended - before.ended, accepted - before.accepted
            kept = KEPT_PER_SECOND**seconds
            self.ended_per_second = max(kept * self.ended_per_second, ended_now / seconds)
            self.events_per_processor_second = max(
                kept * self.events_per_processor_second, max(ended_now, accepted_now) / used_seconds
            )
        return self.is_there


def waited_seconds() -> float:
    """Return how long the threads there are have waited in all for a processor that others had, or a quota withheld.

    All of them, since the loop waits for threads that wait. Where the system does not say, it is as if nobody else were
    there.
    """
    return sum(map(waited_nanoseconds, THREADS.glob("*/schedstat"))) / NANOSECONDS_PER_SECOND


def waited_nanoseconds(scheduling: Path) -> int:
    """Return how long one thread has waited; 0 for one that has ended, or of which nothing is said."""
    try:
        return int(scheduling.read_bytes().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
