"""A clock that stands still until somebody moves it."""

from replayforge.domain.clock import MICROSECONDS_PER_SECOND, SystemClock


class HandClock:
    """Shows the time of its making. Moved ahead, it looks to the daemon as if that much time had passed."""

    def __init__(self) -> None:
        system = SystemClock()
        self.at_us = system.now_us()
        self.seconds = system.monotonic()

    def now_us(self) -> int:
        """See Clock.now_us."""
        return self.at_us

    def monotonic(self) -> float:
        """See Clock.monotonic."""
        return self.seconds

    def elapsed(self) -> float:
        """See Clock.elapsed."""
        return self.seconds

    def move_to(self, at_us: int) -> None:
        """Show this time from now on; a time that has been is passed over."""
        ahead_us = max(0, at_us - self.at_us)
        self.at_us += ahead_us
        self.seconds += ahead_us / MICROSECONDS_PER_SECOND
