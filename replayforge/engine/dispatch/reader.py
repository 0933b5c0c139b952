"""Claims the events whose entries it reads off the stream, and runs suspects alone before them."""

import asyncio
from asyncio import ensure_future, shield, timeout, wait
from collections.abc import Awaitable, Coroutine
from typing import Any

from replayforge import crashpoints
from replayforge.domain.clock import Clock
from replayforge.domain.errors import Unavailable
from replayforge.domain.event import ClaimedEvent, Entry
from replayforge.domain.poison import seconds_alone
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.claim_desk import ClaimDesk
from replayforge.engine.dispatch.incarnation import IncarnationFile
from replayforge.engine.service_loop import Outage, cancelled_by, run_until
from replayforge.stores.store import Store
from replayforge.stores.transactions import ClaimResult
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
        desk: ClaimDesk,
        incarnation: IncarnationFile,
        clock: Clock,
        telemetry: Telemetry,
        *,
        solo_seconds: float,
    ) -> None:
        self.stream = stream
        self.store = store
        self.buffer = buffer
        self.desk = desk
        self.incarnation = incarnation
        self.clock = clock
        self.telemetry = telemetry
        self.solo_seconds = solo_seconds
        self.outage = Outage()
        self.store_outage = Outage(telemetry)
        self.unacked: list[Delivery] = []
        self.more = False  # whether more entries may lie behind those that were read last
        self.paced_last = False  # whether the last claim was of what rates have released
        self.claiming: asyncio.Future[list[ClaimedEvent]] | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        """Read and claim until told to stop; a claim that has begun is finished all the same."""
        try:
            await cancelled_by(stopping, run_until(stopping, self.tick, outage=self.outage))
        finally:
            if self.claiming is not None:
                await wait([self.claiming])

    async def tick(self) -> float:
        """Run the suspects, then claim one batch, in turns off the stream and of what rates have released; there is
        always a next one to wait for."""
        await self.hand_back_unacked()
        while self.desk.suspects_first and await self.run_suspect():
            continue
        room = await self.buffer.wait_for_room()
        count, in_haste = min(room, CLAIM_MAX), self.desk.suspects_first or self.more
        paced = [] if self.paced_last else await self.desk.take_paced(count)
        self.paced_last = bool(paced)
        if paced:
            await self.finished(self.claim_queued(paced))
            return 0.0
        self.unacked = await self.stream.read(count, 0 if in_haste else READ_WAIT_SECONDS)
        self.more = len(self.unacked) == count
        self.desk.note_backlog(more=self.more)
        if self.unacked:
            await self.claim(self.unacked)
        return 0.0

    async def hand_back_unacked(self) -> None:
        """Let go of what a crash of this service left between read and ack."""
        if self.unacked:
            await self.stream.hand_back(self.unacked)
            self.unacked = []

    async def claim(self, deliveries: list[Delivery]) -> None:
        """Claim the events behind these entries and remove the entries."""
        entries = [delivery.entry for delivery in deliveries]
        await self.finished(self.claim_queued(entries))
        await self.stream.ack(deliveries)
        self.unacked = []
        self.desk.note_acked()
        crashpoints.reach("claim.acked")

    async def finished(self, claiming: Coroutine[Any, Any, list[ClaimedEvent]]) -> list[ClaimedEvent]:
        """Finish a claim even if the reader ends meanwhile: what was claimed is always in the buffer."""
        self.claiming = ensure_future(claiming)
        try:
            return await shield(self.claiming)
        finally:
            if self.claiming.done():
                self.claiming = None

    async def claim_queued(self, entries: list[Entry]) -> list[ClaimedEvent]:
        """Claim what is admitted of the events of these entries."""
        with self.desk.claim_queued(len(entries)) as claim:
            asking = self.store.claim(entries, self.clock.now_us(), claim.admission, self.desk.preference)
            given = await self.given(asking)
            self.desk.hand_on_later(given.preferred)
            await claim.take(given.taken, queued=given.left, deferred=given.deferred, buried=given.buried)
        return given.taken

    async def claim_suspect(self) -> list[ClaimedEvent]:
        """Claim the likeliest suspect, if its handler may have it; what else runs beside it is no longer alone."""
        with self.desk.claim_suspect() as claim:
            given = await self.given(self.store.claim_suspect(self.clock.now_us(), claim.admission))
            if given.taken and self.buffer.idle_now:
                self.incarnation.begin_alone(given.taken[0].lease)
            await claim.take(given.taken, queued=given.left, deferred=given.deferred, buried=given.buried)
        return given.taken

    async def given(self, asking: Awaitable[ClaimResult]) -> ClaimResult:
        """Return what the store gives; that it is away is told apart from an outage of the stream."""
        try:
            claim = await asking
        except Unavailable as error:
            self.store_outage.report(error)
            raise
        self.store_outage.over()
        crashpoints.reach("claim.committed")
        return claim

    async def run_suspect(self) -> bool:
        """Run the likeliest suspect with nothing else in flight, as far as that can be had within its time alone.

        False when there was none, or when it runs on beyond its time, so that everything else has its turn now.
        """
        self.incarnation.end_alone()  # a crash of this service may have left it standing
        known = await self.store.next_suspect()
        if known is None:
            self.desk.note_no_suspects()
            return False
        seconds = seconds_alone(known.deaths, self.solo_seconds)
        await within(self.buffer.wait_until_idle(), seconds)
        try:
            claimed = await self.finished(self.claim_suspect())
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
