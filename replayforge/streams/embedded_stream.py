"""The stream inside the process: ordered, without doubles, and as fast as a dictionary."""

import asyncio
from asyncio import timeout
from collections import OrderedDict
from collections.abc import Collection, Sequence
from itertools import count as count_up
from itertools import islice
from time import monotonic

from replayforge.domain.event import Entry
from replayforge.streams.stream import Delivery, StreamStats
from replayforge.telemetry import Telemetry


class EmbeddedStream:
    """Holds entries in memory only: a new process starts empty and is refilled from the store.

    An entry that is still queued is not queued a second time. A waiting reader wakes at once, without polling.
    """

    def __init__(self, telemetry: Telemetry, *, entries_max: int = 10_000) -> None:
        self.name = "embedded"
        self.entries_max = entries_max
        self.wiped = asyncio.Event()
        self.telemetry = telemetry
        self.queued: OrderedDict[Entry, None] = OrderedDict()
        self.pending: dict[str, tuple[Delivery, float]] = {}  # by handle, oldest first, with the time of reading
        self.filled = asyncio.Event()
        self.handles = map(str, count_up(1))

    async def open(self) -> None:
        """See Stream.open."""
        self.wiped.set()

    def take_wiped(self) -> bool:
        """See Stream.take_wiped."""
        wiped = self.wiped.is_set()
        self.wiped.clear()
        return wiped

    async def publish(self, entries: Sequence[Entry]) -> int:
        """See Stream.publish; an entry that is queued already needs no room."""
        published = 0
        for entry in entries:
            if entry not in self.queued and len(self.queued) + len(self.pending) >= self.entries_max:
                break
            self.queued[entry] = None
            published += 1
        if published:
            self.filled.set()
            self.telemetry.emit("entry.published", published)
        return published

    async def read(self, count: int, wait_seconds: float) -> list[Delivery]:
        """See Stream.read."""
        if not self.queued and wait_seconds > 0:
            await self.wait_until_filled(wait_seconds)
        return self.take(count)

    async def wait_until_filled(self, wait_seconds: float) -> None:
        """Return when something was queued, or after `wait_seconds`."""
        self.filled.clear()
        try:
            async with timeout(wait_seconds):
                await self.filled.wait()
        except TimeoutError:
            return

    def take(self, count: int) -> list[Delivery]:
        """Move up to `count` entries from queued to pending; without an await, so no cancel can come between."""
        taken = min(count, len(self.queued))
        deliveries = [Delivery(self.queued.popitem(last=False)[0], next(self.handles)) for _ in range(taken)]
        self.hold(deliveries)
        return deliveries

    def hold(self, deliveries: Sequence[Delivery]) -> None:
        """Keep the deliveries as pending from now on."""
        now = monotonic()
        self.pending.update([(delivery.handle, (delivery, now)) for delivery in deliveries])

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """See Stream.ack."""
        for delivery in deliveries:
            self.pending.pop(delivery.handle, None)

    async def hand_back(self, deliveries: Sequence[Delivery]) -> None:
        """See Stream.hand_back; the entries go to the front, where they came from."""
        for delivery in reversed(deliveries):
            if self.pending.pop(delivery.handle, None):
                self.queued[delivery.entry] = None
                self.queued.move_to_end(delivery.entry, last=False)
                self.filled.set()

    async def reclaim(self, min_idle_seconds: float, count: int) -> list[Delivery]:
        """See Stream.reclaim; here the reader that went away is a coroutine that died."""
        read_before = monotonic() - min_idle_seconds
        oldest = (delivery for delivery, read_at in self.pending.values() if read_at <= read_before)
        deliveries = list(islice(oldest, count))
        await self.ack(deliveries)
        self.hold(deliveries)
        if deliveries:
            self.telemetry.emit("entry.reclaimed", len(deliveries))
        return deliveries

    async def depth(self) -> int:
        """See Stream.depth."""
        return len(self.queued) + len(self.pending)

    async def remove_dead_consumers(self, nodes_alive: Collection[str]) -> int:
        """See Stream.remove_dead_consumers; the only reader is this process, and it is alive."""
        return 0

    async def stats(self) -> StreamStats:
        """See Stream.stats."""
        oldest_at = next((read_at for _, read_at in self.pending.values()), None)
        return StreamStats(
            backend=self.name,
            up=True,
            depth=await self.depth(),
            pending=len(self.pending),
            lag=len(self.queued),
            oldest_idle_seconds=monotonic() - oldest_at if oldest_at is not None else 0.0,
            consumers=1,
        )

    async def close(self) -> None:
        """See Stream.close."""
