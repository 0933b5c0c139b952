"""Claims the events that waited for a handler, oldest first, once it may be given events again."""

import asyncio
from asyncio import create_task, ensure_future, wait

from replayforge import crashpoints
from replayforge.domain.clock import Clock
from replayforge.domain.errors import Unavailable
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.handler_limits import HandlerLimit, HandlerLimits
from replayforge.engine.dispatch.publisher import Publisher
from replayforge.engine.outage import Outage, report_buried
from replayforge.stores.store import Store
from replayforge.stores.waiting import Recalled
from replayforge.supervisor import wait_for_event
from replayforge.telemetry import Telemetry

RECALL_MAX = 256
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
        handler_limits: HandlerLimits,
        publisher: Publisher,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self.store = store
        self.buffer = buffer
        self.handler_limits = handler_limits
        self.publisher = publisher
        self.clock = clock
        self.telemetry = telemetry
        self.outage = Outage(telemetry)

    async def run(self, stopping: asyncio.Event) -> None:
        """Recall until told to stop; a claim that has begun is finished all the same."""
        stop = create_task(stopping.wait())
        stop.add_done_callback(lambda _: self.handler_limits.news.set())
        try:
            while not stopping.is_set():
                self.handler_limits.news.clear()
                try:
                    pause_seconds = await self.tick()
                except Unavailable as error:
                    await self.outage.wait(error, stopping)
                else:
                    self.outage.over()
                    await wait_for_event(self.handler_limits.news, pause_seconds)
        finally:
            stop.cancel()

    async def tick(self) -> float:
        """Recall for each handler that is ready once; returns the seconds until more may come without news."""
        for limit in self.handler_limits.ready():
            reserved = self.buffer.reserve(RECALL_MAX, fresh=False)
            if not reserved:
                await self.wait_for_room()
                return 0.0
            try:
                await self.recall_for(limit, reserved)
            finally:
                self.buffer.unreserve(reserved)
        if self.handler_limits.ready():
            return 0.0
        seconds = self.handler_limits.seconds_until_probe()
        return IDLE_SECONDS if seconds is None else max(0.0, seconds)

    async def wait_for_room(self) -> None:
        """Return when a worker may have become free, so that it is taken in turns with the reader, or on news."""
        self.buffer.changed.clear()
        waits = [ensure_future(event.wait()) for event in (self.buffer.changed, self.handler_limits.news)]
        try:
            await wait(waits, timeout=ROOM_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    async def recall_for(self, limit: HandlerLimit, reserved: int) -> None:
        """Claim what the handler may have of the events that wait for it, as far as the buffer has room."""
        room = limit.room(self.clock.monotonic())
        count = reserved if room is None else min(reserved, room)
        if not count:
            return
        self.handler_limits.promise({limit.pattern: count}, 1)
        try:
            await self.recall(limit, count)
        finally:
            self.handler_limits.promise({limit.pattern: count}, -1)

    async def recall(self, limit: HandlerLimit, count: int) -> None:
        """Claim the oldest events that wait for a handler and put them into the buffer."""
        deferred, now_us = limit.deferred, self.clock.now_us()
        with self.buffer.leases.claiming() as claim:
            recalled = await self.store.recall(limit.pattern, self.handler_limits.pattern_of, count, now_us)
            crashpoints.reach("recall.committed")
            self.handler_limits.acquire(recalled.taken)
            self.buffer.put(recalled.taken, claim)
        self.telemetry.emit("event.recalled", recalled.found, handler=limit.pattern)
        self.hand_on(recalled)
        report_buried(self.telemetry, recalled.buried)
        # What began to wait while the store was asked has not been seen by it, maybe.
        if recalled.found < count and not recalled.left and limit.deferred == deferred:
            self.handler_limits.note_waiting(limit.pattern, waiting=False)

    def hand_on(self, recalled: Recalled) -> None:
        """Have those run that are no longer this handler's, and the suspects, which run alone."""
        self.publisher.offer(recalled.entries)
        if recalled.suspects:
            self.buffer.suspects_first = True
