"""Claims the events that waited for a handler, oldest first, once it may be given events again."""

import asyncio
from asyncio import ensure_future, wait

from replayforge import crashpoints
from replayforge.domain.clock import Clock
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.claim_desk import ClaimDesk, ClaimInProgress
from replayforge.engine.dispatch.handler_limits import HandlerLimit, HandlerLimits
from replayforge.engine.service_loop import Outage, run_until
from replayforge.stores.store import Store
from replayforge.telemetry import Telemetry

CLAIM_MAX = 256
ROOM_SECONDS = 0.25
IDLE_SECONDS = 60.0  # whoever has news says so


class DeferredClaimer:
    """Gives each handler that is ready its turn, as far as there is room in the buffer.

    What waits goes straight from the store to the buffer, without the stream, so it is never in the way of others, and
    they are not in its way. Several daemons share what waits.
    """

    name = "deferred_claimer"

    def __init__(
        self,
        store: Store,
        buffer: ClaimBuffer,
        limits: HandlerLimits,
        desk: ClaimDesk,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self.store = store
        self.buffer = buffer
        self.limits = limits
        self.desk = desk
        self.clock = clock
        self.telemetry = telemetry
        self.outage = Outage(telemetry)

    async def run(self, stopping: asyncio.Event) -> None:
        """Claim what waited until told to stop; a claim that has begun is finished all the same."""
        await run_until(stopping, self.tick, wake=self.limits.news, outage=self.outage)

    async def tick(self) -> float:
        """Claim for each handler that is ready once; returns the seconds until more may come without news."""
        for limit in self.limits.ready():
            with self.desk.claim_deferred(limit, CLAIM_MAX) as claim:
                if claim.count:
                    await self.claim(limit, claim)
            if not claim.reserved:
                await self.wait_for_room()
                return 0.0
        if self.limits.ready():
            return 0.0
        seconds = self.limits.seconds_until_probe()
        return IDLE_SECONDS if seconds is None else max(0.0, seconds)

    async def wait_for_room(self) -> None:
        """Return when a worker may have become free, so that it is taken in turns with the reader, or on news."""
        waits = [ensure_future(one) for one in (self.buffer.next_change(), self.limits.news.wait())]
        try:
            await wait(waits, timeout=ROOM_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    async def claim(self, limit: HandlerLimit, claim: ClaimInProgress) -> None:
        """Claim the oldest events that wait for a handler."""
        deferred = limit.deferred
        recalled = await self.store.recall(limit.pattern, self.limits.pattern_of, claim.count, self.clock.now_us())
        crashpoints.reach("recall.committed")
        await claim.take(recalled.taken, queued=recalled.entries, suspects=recalled.suspects, buried=recalled.buried)
        self.telemetry.emit("event.recalled", recalled.found, handler=limit.pattern)
        # What began to wait while the store was asked has not been seen by it, maybe.
        if recalled.found < claim.count and not recalled.left and limit.deferred == deferred:
            self.limits.set_has_deferred(limit.pattern, False)
