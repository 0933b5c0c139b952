"""Puts entries on the stream up to a high-water mark; the rest waits in the store and is fetched when it runs low."""

import asyncio
from collections.abc import Sequence

from replayforge import crashpoints
from replayforge.domain.errors import Unavailable
from replayforge.domain.event import Entry
from replayforge.engine.service_loop import UNTIL_WOKEN, Outage, run_until
from replayforge.stores.store import Store
from replayforge.streams.stream import Stream
from replayforge.telemetry import Telemetry

LOW_WATER_SHARE = 0.1


class Publisher:
    """Keeps the stream filled, up to its `entries_max`. `behind` is true while queued rows may have no entry."""

    name = "publisher"

    def __init__(self, store: Store, stream: Stream, telemetry: Telemetry) -> None:
        self.store = store
        self.stream = stream
        self.telemetry = telemetry
        self.low_water = int(stream.entries_max * LOW_WATER_SHARE)
        self.offered: list[Entry] = []
        self.behind = True
        self.wake = asyncio.Event()
        self.outage = Outage()

    def offer(self, entries: Sequence[Entry]) -> None:
        """Hand in the entries of rows that were just queued; what finds no room is left to the refill."""
        if not entries:
            return
        if self.behind or len(self.offered) + len(entries) > self.stream.entries_max:
            self.behind = True
        else:
            self.offered.extend(entries)
        self.wake.set()

    def fall_behind(self) -> None:
        """Say that queued rows may have no entry, so that the store is asked."""
        self.behind = True
        self.wake.set()

    def running_low(self) -> None:
        """Say that entries were taken off the stream."""
        if self.behind:
            self.wake.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Publish until told to stop; after a crash the store is asked for what may have been missed."""
        self.behind = True
        await run_until(stopping, self.tick, wake=self.wake, outage=self.outage)

    async def tick(self) -> float:
        """Publish what was offered, then refill if the stream is low and the store may hold more."""
        try:
            await self.publish_and_refill()
        except Unavailable:
            self.behind = True
            raise
        return UNTIL_WOKEN

    async def publish_and_refill(self) -> None:
        """Do so once."""
        offered, self.offered = self.offered, []
        if offered:
            await self.publish(offered)
        if self.stream.take_wiped():
            self.behind = True
        if self.behind:
            depth = await self.stream.depth()
            if depth <= self.low_water:
                await self.refill(self.stream.entries_max - depth)

    async def refill_if_low(self) -> int:
        """Have the stream refilled when it is low while queued rows wait; returns 1 if so."""
        if await self.stream.depth() > self.low_water:
            return 0
        if not self.behind and not await self.store.queued_entries(1):
            return 0
        self.fall_behind()
        return 1

    async def refill(self, room: int) -> None:
        """Fetch queued rows in order, up to the high-water mark."""
        self.behind = False
        entries = await self.store.queued_entries(room)
        if len(entries) == room:
            self.behind = True
        if entries:
            published = await self.publish(entries)
            self.telemetry.emit("stream.refilled", published)

    async def publish(self, entries: Sequence[Entry]) -> int:
        """Put on the stream what finds room there, and remember if anything did not; returns how many did."""
        published = await self.stream.publish(entries)
        if published < len(entries):
            self.behind = True
        crashpoints.reach("publish.done")
        return published
