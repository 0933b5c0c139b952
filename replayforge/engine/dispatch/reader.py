"""Reads entries off the stream, claims their events in one commit, and puts them into the claim buffer."""

import asyncio
from asyncio import ensure_future, shield, timeout, wait
from collections.abc import Awaitable

from replayforge import crashpoints
from replayforge.domain.clock import Clock
from replayforge.domain.errors import Unavailable
from replayforge.domain.event import Claimed, Entry
from replayforge.domain.poison import seconds_alone
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.handler_limits import HandlerLimits
from replayforge.engine.dispatch.incarnation import IncarnationFile
from replayforge.engine.dispatch.publisher import Publisher
from replayforge.engine.outage import Outage, report_buried
from replayforge.stores.store import Store
from replayforge.stores.transactions import Claim
from replayforge.streams.stream import Delivery, Stream
from replayforge.telemetry import Telemetry

READ_WAIT_SECONDS = 2.0
CLAIM_MAX = 500


class Reader:
    """Claims as many events as there is room for in the buffer, and no more.

    Suspects, events that were in flight when a process died, are run first and one at a time. Everything else waits for
    each at most `solo_seconds`, twice as long with each further death, so that a death in that time tells which it was.
    """

    name = "reader"

    def __init__(
        self,
        stream: Stream,
        store: Store,
        buffer: ClaimBuffer,
        handler_limits: HandlerLimits,
        publisher: Publisher,
        incarnation: IncarnationFile,
        clock: Clock,
        telemetry: Telemetry,
        *,
        solo_seconds: float,
    ) -> None:
        self.stream = stream
        self.store = store
        self.buffer = buffer
        self.handler_limits = handler_limits
        self.publisher = publisher
        self.incarnation = incarnation
        self.clock = clock
        self.telemetry = telemetry
        self.solo_seconds = solo_seconds
        self.outage = Outage()
        self.store_outage = Outage(telemetry)
        self.unacked: list[Delivery] = []
        self.more = False  # whether more entries may lie behind those that were read last
        self.claiming: asyncio.Future[list[Claimed]] | None = None

    def look_for_suspects(self) -> None:
        """Say that there may be suspects in the store."""
        self.buffer.suspects_first = True

    async def run(self, stopping: asyncio.Event) -> None:
        """Read and claim until told to stop; a claim that has begun is finished all the same."""
        reading = ensure_future(self.read_on(stopping))
        stop = ensure_future(stopping.wait())
        try:
            await wait((reading, stop), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
        finally:
            stop.cancel()
            reading.cancel()
            if self.claiming is not None:
                await wait([self.claiming])

    async def read_on(self, stopping: asyncio.Event) -> None:
        """Claim batch after batch, backing off while the stream or the store is away."""
        while not stopping.is_set():
            try:
                await self.hand_back_unacked()
                await self.tick()
            except Unavailable as error:
                await self.outage.wait(error, stopping)
            else:
                self.outage.over()

    async def hand_back_unacked(self) -> None:
        """Let go of what a crash of this service left between read and ack."""
        if self.unacked:
            await self.stream.hand_back(self.unacked)
            self.unacked = []

    async def tick(self) -> int:
        """Run the suspects, then claim one batch; returns how many events were claimed."""
        while self.buffer.suspects_first and await self.run_suspect():
            continue
        room = await self.buffer.wait_for_room()
        count, in_haste = min(room, CLAIM_MAX), self.buffer.suspects_first or self.more
        self.unacked = await self.stream.read(count, 0 if in_haste else READ_WAIT_SECONDS)
        self.more = len(self.unacked) == count
        self.buffer.older_first = self.more or self.publisher.behind
        return await self.claim(self.unacked) if self.unacked else 0

    async def claim(self, deliveries: list[Delivery]) -> int:
        """Claim the events behind these entries, put them into the buffer and remove the entries."""
        entries = [delivery.entry for delivery in deliveries]
        claimed = await self.claim_and_put(entries)
        await self.stream.ack(deliveries)
        self.unacked = []
        self.publisher.running_low()
        crashpoints.reach("claim.acked")
        return len(claimed)

    async def claim_and_put(self, entries: list[Entry] | None) -> list[Claimed]:
        """Claim and lay down as one, even if the reader ends meanwhile: what was claimed is always in the buffer."""
        self.claiming = ensure_future(self.claim_and_put_unshielded(entries))
        try:
            return await shield(self.claiming)
        finally:
            if self.claiming.done():
                self.claiming = None

    async def claim_and_put_unshielded(self, entries: list[Entry] | None) -> list[Claimed]:
        """Claim the events of these entries, or with None a suspect, and put them into the buffer."""
        with self.buffer.leases.claiming() as under_way:
            try:
                claim = await self.ask_for(entries)
            except Unavailable as error:
                self.store_outage.report(error)
                raise
            self.store_outage.over()
            crashpoints.reach("claim.committed")
            self.handler_limits.note_deferred(claim.deferred)
            if entries is None and claim.taken and self.buffer.idle_now:
                self.incarnation.begin_alone(claim.taken[0].lease)
            self.buffer.put(claim.taken, under_way)
        self.publisher.offer(claim.left)
        self.telemetry.emit("event.claimed", len(claim.taken))
        report_buried(self.telemetry, claim.buried)
        return claim.taken

    async def ask_for(self, entries: list[Entry] | None) -> Claim:
        """Have the store claim what is admitted of these entries, or with None a suspect."""
        count, now_us = 1 if entries is None else len(entries), self.clock.now_us()
        with self.handler_limits.admission(count, alone=entries is None) as admission:
            if entries is None:
                claim = await self.store.claim_suspect(now_us, admission)
            else:
                claim = await self.store.claim(entries, now_us, admission)
            self.handler_limits.acquire(claim.taken)
        return claim

    async def run_suspect(self) -> bool:
        """Run the likeliest suspect with nothing else in flight, as far as that can be had within its time alone.

        False when there was none, or when it runs on beyond its time, so that everything else has its turn now.
        """
        self.incarnation.end_alone()  # a crash of this service may have left it standing
        known = await self.store.next_suspect()
        if known is None:
            self.buffer.suspects_first = False
            return False
        seconds = seconds_alone(known.deaths, self.solo_seconds)
        await within(self.buffer.wait_until_idle(), seconds)
        try:
            claimed = await self.claim_and_put(None)
            return bool(claimed) and await within(self.buffer.wait_until_done(claimed[0].lease), seconds)
        finally:
            self.incarnation.end_alone()


async def within(waiting: Awaitable[None], seconds: float) -> bool:
    """Wait for something at most so long; returns whether it came."""
    try:
        async with timeout(seconds):
            await waiting
    except TimeoutError:
        return False
    return True
