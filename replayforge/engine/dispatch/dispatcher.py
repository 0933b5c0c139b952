"""The dispatcher: projects the log into the store, and hands what no worker is free for to the publisher."""

import asyncio
import contextlib
from asyncio import timeout
from collections import Counter
from collections.abc import Callable, Collection, Sequence

import msgspec
from msgspec.structs import replace

from replayforge import crashpoints
from replayforge.domain.admission import ALL_WELCOME, Admission
from replayforge.domain.clock import Clock
from replayforge.domain.errors import Fatal, OutcomeUnknown, Unavailable
from replayforge.domain.event import EVENT_RECORD_TYPE, EventRecord, Lease, decode_record, route
from replayforge.domain.lifecycle import Reason
from replayforge.engine.accept.window import Window
from replayforge.engine.dispatch.claim_desk import ClaimDesk
from replayforge.engine.dispatch.worker_wait import WorkerWait
from replayforge.engine.service_loop import UNTIL_WOKEN, Outage, run_until
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
    needs no entry on the stream. Where workers are soon free again the next ones wait for that in the log. A few may so
    overtake others; a backlog that the reader sees is worked off first.
    """

    name = "dispatcher"

    def __init__(
        self,
        log: ForgeLog,
        store: Store,
        window: Window,
        desk: ClaimDesk,
        clock: Clock,
        telemetry: Telemetry,
        *,
        incarnation: str,
        projected: int,
        signals: Collection[str] = (),
        lane_of: Callable[[EventRecord], str | None] | None = None,
        subscribers: Callable[[str], str | None] | None = None,
        exclusive: Collection[str] = (),
    ) -> None:
        self.log = log
        self.store = store
        self.window = window
        self.desk = desk
        self.worker_wait = WorkerWait(desk, window)
        self.clock = clock
        self.telemetry = telemetry
        self.incarnation = incarnation
        self.projected = projected
        self.signals = signals
        self.lane_of = lane_of
        self.subscribers = subscribers
        self.exclusive = exclusive
        self.ahead: list[Record] = []  # read from the log, and not projected yet
        self.certain = False
        self.moved = asyncio.Condition()
        self.wake = asyncio.Event()
        self.outage = Outage(telemetry)

    async def run(self, stopping: asyncio.Event) -> None:
        """Project whatever becomes durable until told to stop."""
        self.certain = False
        await run_until(stopping, self.tick, wake=self.wake, outage=self.outage)

    async def tick(self) -> float:
        """Project one stretch of the log, if there is something beyond the cursor; returns the seconds until the next.

        Raises Fatal when the log or the cursor is in no state to go on from.
        """
        try:
            if not self.log.is_beyond(self.projected):
                self.log.call_when_moved(self.wake.set)
                return UNTIL_WOKEN
        except LogClosed:
            return UNTIL_WOKEN
        except LogPoisoned as error:
            raise Fatal(f"{error} Restart the daemon: the log is read again cold before anything goes on.") from error
        try:
            if self.certain:
                await self.project_stretch()
            else:
                await self.find_place()
        except Unavailable:
            self.certain = False  # nobody knows whether a commit without an answer happened
            self.window.widen()  # while the store is away, the log takes what it can
            raise
        return 0.0

    async def project_stretch(self) -> None:
        """Project the next records beyond the cursor."""
        room = await self.worker_wait.room()
        try:
            records = self.next_records(RECORDS_MAX if room is None else room)
        except GapError as gap:
            await self.pass_over(gap)
            return
        if records:
            crashpoints.reach("dispatch.read")
            await self.project(records)

    def next_records(self, count: int) -> list[Record]:
        """Return up to so many records beyond the cursor; what is left over from the last read is not read again."""
        ahead = self.ahead
        if not ahead or ahead[0].offset != self.projected + 1:
            ahead = self.log.read(self.projected, records_max=RECORDS_MAX)
        self.ahead = ahead[count:]
        return ahead[:count]

    async def project(self, records: list[Record]) -> None:
        """Commit one stretch, claiming what there is room for; the publisher has the rest."""
        events, after = self.events_of(records), self.projected
        routes = (self.route_of(event) for _, event in events)
        try:
            with self.desk.claim_fresh(len(events), routes) as claim:
                stretch = self.stretch(records[-1].offset, events, claim.admission, claims_max=claim.count)
                projected = await self.store.project(replace(stretch, unreadable=unreadable(records, events)))
                crashpoints.reach("dispatch.committed")
                self.worker_wait.note_taken(claim.count, len(projected.claimed))
                if projected.woken:
                    crashpoints.reach("signal.matched", projected.woken)
                queued, deferred, buried = projected.queued, projected.deferred, projected.buried
                await claim.take(projected.claimed, queued=queued, deferred=deferred, buried=buried)
        except CursorMoved:
            await self.find_own_commit(after)
            return
        await self.arrive(projected.through)
        self.report(projected)

    def route_of(self, record: EventRecord) -> str:
        """Return by what the handler of an event will be found."""
        subscribers = None
        if self.subscribers is not None and record.subscriber is None:
            subscribers = self.subscribers(record.event_type)
        return route(record.event_type, record.subscriber, subscribers)

    async def pass_over(self, gap: GapError) -> None:
        """Move the cursor over records that are gone: removed by retention, or given up by an operator."""
        self.telemetry.emit("log.skipped", gap.last - self.projected, first=self.projected + 1, last=gap.last)
        await self.store.project(replace(self.stretch(gap.last, []), gaps=gap.last - self.projected))
        await self.arrive(gap.last)

    async def find_own_commit(self, after: int) -> None:
        """Return when the cursor moved because an earlier try of ours had been committed; else the error stands."""
        await self.find_place()
        if self.projected <= after:
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
            await self.desk.recover_unanswered(await self.claimed_unanswered())
        await self.arrive(cursor_now[0])

    async def claimed_unanswered(self) -> list[Lease]:
        """Return the leases of what that transaction claimed, and of whatever else there has a lease of this daemon."""
        try:
            records = self.log.read(self.projected, records_max=RECORDS_MAX)
        except GapError:  # what was passed over had no events to claim
            return []
        rows = await self.store.events_by_ids([event.id for _, event in self.events_of(records)])
        return [
            Lease(event.seq, event.lease_token) for event, _ in rows.values() if event.lease_owner == self.store.owner
        ]

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
                with self.worker_wait.suspended():
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
                with self.worker_wait.suspended():
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
            signals=self.signals,
            lane_of=self.lane_of,
            subscribers=self.subscribers,
            exclusive=self.exclusive,
        )

    def report(self, projected: Projected) -> None:
        """Tell what became of the stretch."""
        self.telemetry.emit("event.dispatched", projected.inserted)
        if projected.copies:
            self.telemetry.emit("event.copied", projected.copies, through=projected.through)
        if projected.overlapping:
            self.telemetry.emit("event.cancelled", projected.overlapping, reason=Reason.OVERLAP)
        for event_type, count in Counter(projected.key_reused).items():
            self.telemetry.emit("event.dead_lettered", count, event_type=event_type, reason=Reason.KEY_REUSED)


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
