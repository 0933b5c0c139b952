"""How many events are claimed before a worker is free for them."""

from collections.abc import Iterable

PREFETCH_MAX = 256
PREFETCH_SECONDS = 0.1
WINDOW_SECONDS_MAX = 1.0  # in which nothing has ended
BUSY_SECONDS_MIN = 1e-6


class Prefetch:
    """As many as the workers begin within a tenth of a second, at the rate at which they work while they have events.

    The time that they wait for claims is left out, else slow claims would make claims small, and workers wait for more
    of them. It is never more than twice what has ended lately: few events tell little of the next ones.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.count = 0
        self.started = 0.0
        self.ended = 0
        self.idle_seconds = 0.0  # of all workers together
        self.before = (0, 0.0)  # what ended in the last window, and how long the workers had events

    def note_end(self) -> None:
        """Note that a worker is through with an event."""
        self.ended += 1

    def note_wait(self, since: float, now: float) -> None:
        """Note that a worker has waited for an event."""
        self.idle_seconds += now - max(since, self.started)

    def measure(self, now: float, idle_since: Iterable[float]) -> None:
        """Set the count anew, `PREFETCH_SECONDS` after the last time or later; given are the waits that last.

        A window lasts until something has ended in it. Two are looked at, since one may begin amid the events of one
        claim.
        """
        elapsed = now - self.started
        if not self.ended and elapsed < WINDOW_SECONDS_MAX:
            return
        for since in idle_since:
            self.note_wait(since, now)
        busy_seconds = max(0.0, elapsed - self.idle_seconds / self.workers)
        ended, seconds = self.ended + self.before[0], busy_seconds + self.before[1]
        self.before = self.ended, busy_seconds
        self.count = min(PREFETCH_MAX, 2 * ended, int(ended * PREFETCH_SECONDS / max(BUSY_SECONDS_MIN, seconds)))
        self.started, self.ended, self.idle_seconds = now, 0, 0.0
