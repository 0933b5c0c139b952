"""A daemon inside a test that dies at one crash point after the other, and is started again each time."""

from collections.abc import Sequence
from typing import Any

from replayforge.testing import Crashed, Forge

LIVES_MAX = 12


class Lives:
    """A Forge that is started again after each crash, with the next point armed."""

    def __init__(self, forge: Forge, crashes: Sequence[str]) -> None:
        self.forge = forge
        self.crashes = list(crashes)
        self.deaths: list[str] = []
        self.arm()

    def arm(self) -> None:
        if self.crashes:
            self.forge.crash_at(self.crashes[0])

    async def until_done(self, what: Any) -> Any:
        """Do something until the daemon outlives it."""
        for _ in range(LIVES_MAX):
            try:
                return await what()
            except Crashed:
                await self.begin_anew()
        raise AssertionError(f"still dying: {self.deaths}")

    async def begin_anew(self) -> None:
        """Start the daemon again, which may die at its next point before it is done with that."""
        while True:
            self.deaths.append(self.crashes.pop(0))
            self.arm()
            try:
                return await self.forge.restart()
            except Crashed:
                continue

    async def send(self, event_type: str, payload: Any = None) -> Any:
        return await self.until_done(lambda: self.forge.send(event_type, payload, idempotency_key=event_type))

    async def advance(self, **time: float) -> None:
        await self.until_done(lambda: self.forge.advance(**time))
