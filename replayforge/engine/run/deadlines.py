"""One timer for all running attempts: it ends those whose time is over."""

import asyncio
from typing import Protocol

# So much later than its deadline an attempt may be ended.
LOOK_SECONDS = 0.05


class Timed(Protocol):
    """What has a deadline."""

    def time_out(self) -> None:
        """End it, since its time is over."""


class Deadlines:
    """The deadlines of all running attempts, which are looked at together.

    A timer for each attempt would cost more than most handlers do; one that comes round every 50 ms costs nothing
    beside them, and nothing at all while none runs.
    """

    def __init__(self) -> None:
        self.running: dict[Timed, float] = {}
        self.timer: asyncio.TimerHandle | None = None

    def begin(self, timed: Timed, at: float, loop: asyncio.AbstractEventLoop) -> None:
        """Have something end once the loop's clock shows `at`, unless it has ended by then."""
        self.running[timed] = at
        if self.timer is None:
            self.timer = loop.call_later(LOOK_SECONDS, self.look, loop)

    def end(self, timed: Timed) -> None:
        """Note that something has ended."""
        self.running.pop(timed, None)

    def look(self, loop: asyncio.AbstractEventLoop) -> None:
        """End what is due, and look again later if anything runs."""
        self.timer = loop.call_later(LOOK_SECONDS, self.look, loop) if self.running else None
        now = loop.time()
        for timed in [timed for timed, at in self.running.items() if at <= now]:
            self.end(timed)
            timed.time_out()
