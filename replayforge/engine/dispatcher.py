"""Projects the log into the store: rows and cursor in one transaction, then the entries go to the publisher."""

import asyncio

import msgspec

from replayforge import crashpoints
from replayforge.domain.clock import Clock
from replayforge.domain.errors import Fatal, OutcomeUnknown, Unavailable
from replayforge.domain.event import EVENT_RECORD_TYPE, EventRecord, decode_record
from replayforge.engine.outage import Outage
from replayforge.engine.publisher import Publisher
from replayforge.engine.window import Window
from replayforge.forgelog.errors import GapError, LogClosed, LogPoisoned
from replayforge.forgelog.log import ForgeLog
from replayforge.forgelog.record import Record
from replayforge.stores.projection import CursorMoved, Projection
from replayforge.stores.store import Store
from replayforge.telemetry import Telemetry

RECORDS_MAX = 500
STORED_SECONDS_MAX = 10.0


class Dispatcher:
    """Follows the log from the store's cursor. `projected` is the offset up to which rows are committed."""

    name = "dispatcher"

    def __init__(
        self,
        log: ForgeLog,
        store: Store,
        window: Window,
        publisher: Publisher,
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
        waiting = asyncio.ensure_future(self.log.wait_beyond(self.projected))
        stop = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait((waiting, stop), return_when=asyncio.FIRST_COMPLETED)
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
        projection = self.projection(records)
        # Until the answer is here nobody knows whether the commit happened, so the place is looked up again.
        self.certain = False
        try:
            projected = await self.store.project(projection)
        except CursorMoved:
            await self.find_own_commit(projection)
            return 0
        self.certain = True
        crashpoints.reach("dispatch.committed")
        await self.arrive(projection.through)
        self.publisher.offer(projected.queued)
        self.report(projection, projected.inserted, projected.copies, projected.key_reused)
        return len(records)

    async def pass_over(self, gap: GapError) -> int:
        """Move the cursor over records that are gone: removed by retention, or given up by an operator."""
        self.telemetry.emit("log.skipped", gap.last - self.projected, first=self.projected + 1, last=gap.last)
        self.certain = False
        await self.store.project(self.stretch(gap.last, []))
        self.certain = True
        await self.arrive(gap.last)
        return 0

    async def find_own_commit(self, projection: Projection) -> None:
        """Return when the cursor moved because an earlier try of ours had been committed; else the error stands."""
        await self.find_place()
        if self.projected < projection.through:
            raise CursorMoved(f"The store's cursor for log {self.log.log_id} was moved by somebody else.")

    async def find_place(self) -> None:
        """Read the cursor again; raises Fatal when it belongs to another incarnation."""
        standing = await self.store.cursor(self.log.log_id)
        if standing is None or standing[1] != self.incarnation:
            raise Fatal(
                f"The store's cursor for log {self.log.log_id} belongs to another daemon now: two daemons run on copies"
                " of one log, or the store was replaced. Stop one of them and restart."
            )
        if standing[0] < self.projected:
            raise Fatal(
                f"The store's cursor for log {self.log.log_id} fell back from {self.projected} to {standing[0]}: the"
                " store was restored while this daemon ran. Restart it with --adopt-store to run that range again."
            )
        self.certain = True
        if standing[0] > self.projected:
            # Rows may have been committed by a transaction whose answer was lost; the refill finds their entries.
            self.publisher.fall_behind()
        await self.arrive(standing[0])

    async def arrive(self, offset: int) -> None:
        """Note that everything up to `offset` has its row."""
        self.projected = offset
        self.window.release_through(offset)
        async with self.moved:
            self.moved.notify_all()

    async def wait_projected(self, offset: int) -> None:
        """Return once the record at `offset` has its row; raises OutcomeUnknown when the store takes too long."""
        try:
            async with asyncio.timeout(STORED_SECONDS_MAX), self.moved:
                await self.moved.wait_for(lambda: self.projected >= offset)
        except TimeoutError:
            raise OutcomeUnknown(
                "The event is durable in the log of this node, but the store did not take it in time; send it again"
                " with the same key."
            ) from None

    def projection(self, records: list[Record]) -> Projection:
        """Read a stretch of the log as events; records that are none are counted and passed over."""
        events: list[tuple[int, EventRecord]] = []
        for record in records:
            event = decoded(record)
            if event is not None:
                events.append((record.offset, event))
            elif record.type == EVENT_RECORD_TYPE:
                self.telemetry.emit("event.unreadable", offset=record.offset)
        return self.stretch(records[-1].offset, events)

    def stretch(self, through: int, events: list[tuple[int, EventRecord]]) -> Projection:
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
        )

    def report(self, projection: Projection, inserted: int, copies: int, key_reused: int) -> None:
        """Tell what became of the stretch."""
        self.telemetry.emit("event.dispatched", inserted)
        if copies:
            self.telemetry.emit("event.copied", copies, through=projection.through)
        if key_reused:
            self.telemetry.emit("event.dead_lettered", key_reused, reason="key_reused")


def decoded(record: Record) -> EventRecord | None:
    """Return the event a record holds, or None for a record somebody appended for another purpose."""
    if record.type != EVENT_RECORD_TYPE:
        return None
    try:
        return decode_record(record.payload)
    except msgspec.MsgspecError:
        return None
