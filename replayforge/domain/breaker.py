"""When an endpoint that fails again and again is left alone for a while: decisions only."""

from dataclasses import dataclass
from enum import StrEnum

FAILURES_MAX = 5
OPEN_SECONDS_MIN = 5.0
OPEN_SECONDS_MAX = 300.0


class BreakerState(StrEnum):
    """Closed lets everything through, open nothing, half-open one attempt, whose end decides."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Breaker:
    """How an endpoint has answered of late: failures in a row, and how often in a row the breaker has opened.

    It opens at FAILURES_MAX, and again with every probe that fails, each time for twice as long up to
    OPEN_SECONDS_MAX; one success closes it. `open_until` is on the monotonic clock.
    """

    failures: int = 0
    openings: int = 0
    open_until: float = 0.0

    @property
    def tripped(self) -> bool:
        """Whether the breaker is not closed."""
        return self.openings > 0

    def state(self, now: float) -> BreakerState:
        """Return where the breaker stands."""
        if not self.tripped:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self.open_until else BreakerState.HALF_OPEN

    def failed(self, now: float) -> "Breaker":
        """Return the breaker after a failure; while it is not closed, the one of its probe."""
        if not self.tripped and self.failures + 1 < FAILURES_MAX:
            return Breaker(self.failures + 1)
        seconds = min(OPEN_SECONDS_MAX, OPEN_SECONDS_MIN * 2 ** min(self.openings, 16))
        return Breaker(self.failures + 1, self.openings + 1, now + seconds)


CLOSED = Breaker()
