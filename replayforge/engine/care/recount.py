"""Counts the store's rows now and then: the ledger alone does not see what was done past all daemons."""

from collections.abc import Mapping

from replayforge.domain.clock import Clock
from replayforge.domain.lifecycle import State
from replayforge.stores.store import Store

ROWS_FEW = 20_000  # are counted in a few milliseconds, whenever somebody asks
REST_FACTOR = 200  # a count may take this share of the time


class Recount:
    """By how many the rows of each state differ from the ledger, `differences`; empty where they agree."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.differences: Mapping[State, int] = {}
        self.rests_until = 0.0

    async def look(self) -> int:
        """Count all rows, unless the last count took so long that it is too early; returns how many states differ."""
        began = self.clock.monotonic()
        if began >= self.rests_until:
            self.differences = await self.store.recount()
            now = self.clock.monotonic()
            self.rests_until = now + REST_FACTOR * (now - began)
        return len(self.differences)

    async def corrected(self, tallies: Mapping[str, int]) -> dict[str, int]:
        """Return the ledger as the rows have them: few are counted now, many are as the last count has found them."""
        if sum(tallies.get(state, 0) for state in State) <= ROWS_FEW:
            self.differences = await self.store.recount(few=True)
        return {**tallies, **{state: tallies.get(state, 0) + more for state, more in self.differences.items()}}

    def in_words(self, tallies: Mapping[str, int]) -> list[str]:
        """Say in what the rows differ from the ledger."""
        found = [
            f"{tallies.get(state, 0) + more:,} rows are {state} and {tallies.get(state, 0):,} are on the ledger"
            for state, more in self.differences.items()
        ]
        if not found:
            return []
        return [f"Somebody changed the store's tables: {'; '.join(found)}. `replayforge check` names what is missing."]
