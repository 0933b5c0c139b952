"""Commits outcomes in batches; what a handler finished is kept until the store has taken it."""

import asyncio

from replayforge import crashpoints
from replayforge.batching import Batcher
from replayforge.domain.errors import Unavailable
from replayforge.domain.lifecycle import State
from replayforge.engine.outage import Outage
from replayforge.stores.store import Store
from replayforge.stores.transactions import Settlement
from replayforge.telemetry import Telemetry


class Settler:
    """Joins the outcomes of all workers into few commits, and tries again for as long as the store is away."""

    def __init__(self, store: Store, telemetry: Telemetry) -> None:
        self.store = store
        self.telemetry = telemetry
        self.batcher: Batcher[Settlement, bool] = Batcher(self.commit)
        self.outage = Outage("store", telemetry)
        self.giving_up = asyncio.Event()

    async def settle(self, settlement: Settlement) -> bool:
        """Return once the outcome is durable; False when it came after its lease was lost and was dropped."""
        return await self.batcher.add(settlement)

    async def commit(self, settlements: list[Settlement]) -> list[bool]:
        """Commit one batch, however long the store takes to answer; only a daemon that ends gives up."""
        while True:
            try:
                fenced = await self.store.settle(settlements)
            except Unavailable as error:
                if self.giving_up.is_set():
                    raise
                await self.outage.wait(error, self.giving_up)
            else:
                self.outage.over()
                crashpoints.reach("settle.committed")
                self.report(settlements, fenced)
                lost = set(map(id, fenced))
                return [id(settlement) not in lost for settlement in settlements]

    def report(self, settlements: list[Settlement], fenced: list[Settlement]) -> None:
        """Tell what was committed and what was dropped."""
        self.telemetry.emit("attempt.settled", len(settlements) - len(fenced))
        for settlement in fenced:
            self.telemetry.emit("attempt.fenced", event_id=settlement.event.id, token=settlement.event.lease_token)
        for settlement in settlements:
            if settlement.verdict.state is State.DEAD_LETTERED:
                reason = settlement.verdict.reason
                self.telemetry.emit("event.dead_lettered", event_id=settlement.event.id, reason=reason)
