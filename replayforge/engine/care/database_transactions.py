"""Transactions of others in a shared database: ends those of daemons that stand still, warns of long foreign ones."""

from replayforge.stores.store import Store
from replayforge.telemetry import Telemetry

STALLED_SECONDS = 10.0
LONG_TRANSACTION_SECONDS = 300.0


class DatabaseTransactions:
    """Looks at the transactions that are open in the database; `long_ones` are the foreign ones, in words."""

    def __init__(self, store: Store, telemetry: Telemetry) -> None:
        self.store = store
        self.telemetry = telemetry
        self.long_ones: list[str] = []

    async def end_stalled(self) -> int:
        """End what daemons that stand still in the middle of a statement hold locked; they find their work undone."""
        ended = await self.store.end_stalled_transactions(STALLED_SECONDS)
        if ended:
            self.telemetry.emit("store.unlocked", count=ended)
        return ended

    async def look_for_long(self) -> int:
        """Warn of foreign transactions that have been open for long, and keep them in words until they have ended."""
        found = await self.store.long_transactions(LONG_TRANSACTION_SECONDS)
        for process, seconds, statement in found:
            self.telemetry.emit("store.held", process=process, seconds=round(seconds), statement=statement)
        self.long_ones = [held_in_words(*one) for one in found]
        return len(found)


def held_in_words(process: int, seconds: float, statement: str) -> str:
    """Say of a foreign transaction what it does and how to end it."""
    return (
        f"A foreign transaction has been open in the database for {seconds:,.0f} s, which keeps it from cleaning up"
        f" ({statement}): end it, or SELECT pg_terminate_backend({process})."
    )
