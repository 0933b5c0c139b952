"""Projects the log into the store: rows and cursor in one transaction; what no worker is free for is published."""

import asyncio
import contextlib
from asyncio import ensure_future, timeout, wait
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from replayforge import crashpoints
from replayforge.domain.admission import ALL_WELCOME, Admission
from replayforge.domain.clock import Clock
from replayforge.domain.errors import Fatal, OutcomeUnknown, Unavailable
from replayforge.domain.event import EVENT_RECORD_TYPE, Claimed, EventRecord, decode_record
from replayforge.domain.lifecycle import Reason
from replayforge.engine.accept.window import Window
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.handler_limits import HandlerLimits
from replayforge.engine.dispatch.leases import Claim
from replayforge.engine.dispatch.publisher import Publisher
from replayforge.engine.outage import Outage, report_buried
from replayforge.forgelog.errors import GapError, LogClosed, LogPoisoned
from replayforge.forgelog.log import ForgeLog
from replayforge.forgelog.record import Record
from replayforge.stores.projection import CursorMoved, Projected, Projection
from replayforge.stores.store import Store
from replayforge.telemetry import Telemetry

RECORDS_MAX = 500
STORED_SECONDS_MAX = 10.0


class Dispatcher:
    """Follows the log from the store's cursor. `projected` is the offset up to which rows are committed.

    While workers are free and the reader sees no backlog, an event is claimed in the transaction that inserts it, and
    needs no entry on the stream. A few may so overtake others; a backlog that the reader sees is worked off first.
    """

    name = "dispatcher"

    def __init__(
        self,
        log: ForgeLog,
        store: Store,
        window: Window,
        publisher: Publisher,
        buffer: ClaimBuffer,
        handler_limits: HandlerLimits,
        clock: Clock,
        telemetry: Telemetry,
        *,
        incarnation: str,
        projected: int,
    ) -> None:
        self.log = log
        self.store = store
        self.window = window
        self.publisher = publisher
        self.buffer = buffer
        self.handler_limits = handler_limits
        self.clock = clock
        self.telemetry = telemetry
        self.incarnation = incarnation
        self.projected = projected
        self.certain = False
        self.moved = asyncio.Condition()
        self.outage = Outage(telemetry)

    async def run(self, stopping: asyncio.Event) -> None:
        """Project whatever becomes durable until told to stop."""
        self.certain = False
        while not stopping.is_set():
            try:
                if await self.more_to_project(stopping):
                    await self.tick()
            except LogClosed:
                await stopping.wait()
            except LogPoisoned as error:
                raise Fatal(
                    f"{error} Restart the daemon: the log is read again cold before anything goes on."
                ) from error
            except Unavailable as error:
                self.certain = False
                await self.outage.wait(error, stopping)
            else:
                self.outage.over()

    async def more_to_project(self, stopping: asyncio.Event) -> bool:
        """Wait for a record without a row, or for the end of the service; says whether it was a record."""
        if self.log.durable_offset > self.projected:
            return True
        waiting = ensure_future(self.log.wait_beyond(self.projected))
        stop = ensure_future(stopping.wait())
        try:
            await wait((waiting, stop), return_when=asyncio.FIRST_COMPLETED)
            return waiting.done() and waiting.result() > self.projected
        finally:
            waiting.cancel()
            stop.cancel()

    async def tick(self) -> int:
        """Wait for records beyond the cursor and project one stretch of them; returns how many."""
        if not self.certain:
            await self.find_place()
        await self.log.wait_beyond(self.projected)
        try:
            records = self.log.read(self.projected, records_max=RECORDS_MAX)
        except GapError as gap:
            return await self.pass_over(gap)
        if not records:
            return 0
        crashpoints.reach("dispatch.read")
        events = self.events_of(records)
        reserved = self.buffer.reserve(len(events))
        types = (event.event_type for _, event in events)
        try:
            with self.handler_limits.admission(reserved, types) as admission:
                stretch = self.stretch(records[-1].offset, events, admission, claims_max=reserved)
                await self.project(replace(stretch, unreadable=unreadable(records, events)))
        finally:
            self.buffer.unreserve(reserved)
        return len(records)

    async def project(self, projection: Projection) -> None:
        """Commit one stretch, and hand what is in it to the workers or to the publisher."""
        # Until the answer is here nobody knows whether the commit happened, so the place is looked up again.
        self.certain = False
        try:
            with self.buffer.leases.claiming() as claim:
                projected = await self.store.project(projection)
                self.certain = True
                crashpoints.reach("dispatch.committed")
                await self.hand_on(projected, claim)
        except CursorMoved:
            await self.find_own_commit(projection)
            return
        await self.arrive(projected.through)
        self.report(projected)

    async def hand_on(self, projected: Projected, claim: Claim) -> None:
        """Put what was claimed into the buffer and publish the rest; a buffer closed meanwhile takes nothing."""
        self.publisher.offer(projected.queued)
        self.handler_limits.note_deferred(projected.deferred)
        if self.buffer.closed:
            leases = [claimed.lease for claimed in projected.claimed]
            await self.store.hand_back(leases, self.clock.now_us())
        elif projected.claimed:
            self.handler_limits.acquire(projected.claimed)
            self.buffer.put(projected.claimed, claim)
            self.telemetry.emit("event.claimed", len(projected.claimed))

    async def pass_over(self, gap: GapError) -> int:
        """Move the cursor over records that are gone: removed by retention, or given up by an operator."""
        self.telemetry.emit("log.skipped", gap.last - self.projected, first=self.projected + 1, last=gap.last)
        self.certain = False
        await self.store.project(replace(self.stretch(gap.last, []), gaps=gap.last - self.projected))
        self.certain = True
        await self.arrive(gap.last)
        return 0

    async def find_own_commit(self, projection: Projection) -> None:
        """Return when the cursor moved because an earlier try of ours had been committed; else the error stands."""
        await self.find_place()
        if self.projected <= projection.after:
            raise CursorMoved(f"The store's cursor for log {self.log.log_id} was moved by somebody else.")

    async def find_place(self) -> None:
        """Read the cursor again; raises Fatal when it belongs to another incarnation."""
        cursor_now = await self.store.cursor(self.log.log_id)
        if cursor_now is None or cursor_now[1] != self.incarnation:
            raise Fatal(
                f"The store's cursor for log {self.log.log_id} belongs to another daemon now: two daemons run on copies"
                " of one log, or the store was replaced. Stop one of them and restart."
            )
        if cursor_now[0] < self.projected:
            raise Fatal(
                f"The store's cursor for log {self.log.log_id} fell back from {self.projected} to {cursor_now[0]}: the"
                " store was restored while this daemon ran. Restart it with --adopt-store to run that range again."
            )
        if cursor_now[0] > self.log.durable_offset:
            raise Fatal(
                f"The store's cursor for log {self.log.log_id} stands at {cursor_now[0]}, and the log ends at"
                f" {self.log.durable_offset}: somebody has set it. Set it back to {self.projected} and restart."
            )
        self.certain = True
        if cursor_now[0] > self.projected:
            # A transaction whose answer was lost has committed rows; the refill finds the entries of those it queued.
            await self.hand_back_unanswered()
            self.publisher.fall_behind()
        await self.arrive(cursor_now[0])

    async def hand_back_unanswered(self) -> None:
        """Queue again what that transaction claimed: nobody was told that the events are in this process's hands.

        While another claim is under way it may be that one which took them; the sweep finds out later.
        """
        try:
            records = self.log.read(self.projected, records_max=RECORDS_MAX)
        except GapError:  # what was passed over had no events to claim
            return
        rows = await self.store.events_by_ids([event.id for _, event in self.events_of(records)])
        claims = [
            Claimed.of(event, content) for event, content in rows.values() if event.lease_owner == self.store.owner
        ]
        unanswered = [claimed.lease for claimed in claims if not self.buffer.holds(claimed.lease)]
        if not self.buffer.leases.claims:
            await self.store.hand_back(unanswered, self.clock.now_us())

    async def arrive(self, offset: int) -> None:
        """Note that everything up to `offset` has its row."""
        self.projected = offset
        self.window.release_through(offset)
        async with self.moved:
            self.moved.notify_all()

    async def wait_projected(self, offset: int) -> None:
        """Return once the record at `offset` has its row; raises OutcomeUnknown when the store takes too long."""
        try:
            async with timeout(STORED_SECONDS_MAX), self.moved:
                await self.moved.wait_for(lambda: self.projected >= offset)
        except TimeoutError:
            raise OutcomeUnknown(
                "The event is durable in the log of this node, but the store did not take it in time; send it again"
                " with the same key."
            ) from None

    async def catch_up(self, timeout_seconds: float) -> None:
        """Return once everything that was accepted has its row, or when the time is over."""
        with contextlib.suppress(TimeoutError):
            async with timeout(timeout_seconds), self.moved:
                await self.moved.wait_for(lambda: len(self.window) == 0 or self.log.poisoned is not None)

    def events_of(self, records: list[Record]) -> list[tuple[int, EventRecord]]:
        """Read a stretch of the log as events, each with its offset; records that are none are passed over."""
        events: list[tuple[int, EventRecord]] = []
        for record in records:
            event = decoded(record)
            if event is not None:
                events.append((record.offset, event))
            elif record.type == EVENT_RECORD_TYPE:
                self.telemetry.emit("event.unreadable", offset=record.offset)
        return events

    def stretch(
        self,
        through: int,
        events: list[tuple[int, EventRecord]],
        admission: Admission = ALL_WELCOME,
        *,
        claims_max: int = 0,
    ) -> Projection:
        """Return the projection of everything beyond the cursor through an offset."""
        return Projection(
            log_id=self.log.log_id,
            incarnation=self.incarnation,
            after=self.projected,
            through=through,
            records=events,
            not_events=through - self.projected - len(events),
            now_us=self.clock.now_us(),
            durable=self.log.durable_offset,
            claims_max=claims_max,
            admission=admission,
        )

    def report(self, projected: Projected) -> None:
        """Tell what became of the stretch."""
        self.telemetry.emit("event.dispatched", projected.inserted)
        if projected.copies:
            self.telemetry.emit("event.copied", projected.copies, through=projected.through)
        for event_type, count in Counter(projected.key_reused).items():
            self.telemetry.emit("event.dead_lettered", count, event_type=event_type, reason=Reason.KEY_REUSED)
        report_buried(self.telemetry, projected.buried)


def unreadable(records: Sequence[Record], events: Sequence[tuple[int, EventRecord]]) -> list[int]:
    """Return the offsets of those records that were to be events and are none."""
    if len(events) == len(records):
        return []
    readable = {offset for offset, _ in events}
    return [one.offset for one in records if one.type == EVENT_RECORD_TYPE and one.offset not in readable]


def decoded(record: Record) -> EventRecord | None:
    """Return the event a record holds, or None for a record somebody appended for another purpose."""
    if record.type != EVENT_RECORD_TYPE:
        return None
    try:
        return decode_record(record.payload)
    except (msgspec.MsgspecError, RecursionError):
        return None
