"""An answer that is asked for more often than it changes: kept for as long as finding it costs little time in all."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from replayforge.domain.clock import Clock

SHARE_OF_TIME = 0.005
Answer = TypeVar("Answer")


class CachedAnswer(Generic[Answer]):
    """Asks again when the answer is old, but never spends more than half a percent of the time on asking.

    A cheap answer is therefore always fresh, and one that takes 20 ms is at most 4 s old. `cost_seconds` is how long it
    takes to find: the shorter of the last two times, so that one moment in which the machine was busy is no cost.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.fresh_until = 0.0
        self.cost_seconds = 0.0
        self.last_seconds = 0.0
        self.answer: Answer | None = None

    async def get(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return the answer, asking when the one at hand is too old."""
        started = self.clock.monotonic()
        if self.answer is None or started >= self.fresh_until:
            self.answer = await ask()
            ended = self.clock.monotonic()
            self.cost_seconds = min(ended - started, self.last_seconds)
            self.last_seconds = ended - started
            self.fresh_until = ended + self.cost_seconds / SHARE_OF_TIME
        return self.answer

    def expire(self) -> None:
        """Ask again the next time."""
        self.fresh_until = 0.0
