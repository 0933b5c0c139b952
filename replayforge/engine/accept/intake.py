"""The way in: gives each event its id, finds duplicates, and returns once the log has made it durable."""

import asyncio
from asyncio import create_task, shield
from collections.abc import Sequence
from itertools import zip_longest

import msgspec
from msgspec.structs import replace

from replayforge import crashpoints
from replayforge.batching import Company
from replayforge.domain.clock import Clock, parse_time
from replayforge.domain.document import Unacceptable
from replayforge.domain.errors import Full, OutcomeUnknown, Overloaded, Rejected, ReplayForgeError, Unavailable
from replayforge.domain.event import (
    EVENT_RECORD_TYPE,
    Content,
    Envelope,
    EventRecord,
    Meaning,
    RetiredKey,
    StoredEvent,
    decode_record,
    encode_record,
    same_event,
)
from replayforge.domain.identity import event_id_for_key, new_event_id, to_bytes
from replayforge.domain.lifecycle import State
from replayforge.engine.accept.ingest_limiter import IngestLimiter
from replayforge.engine.accept.known_events import KnownEvents
from replayforge.engine.accept.window import Window, WindowEntry
from replayforge.forgelog.log import ForgeLog
from replayforge.forgelog.record import NewRecord
from replayforge.stores.store import Store
from replayforge.telemetry import Telemetry
from replayforge.turns import Turns, computed


class KeyReused(Rejected):
    """The idempotency key names another event already; use a new key for other content."""

    def __init__(self, event_id: str, key: str | None, key_memory: str) -> None:
        super().__init__(
            f"The idempotency key {key!r} already names event {event_id} with other content; it is remembered as long"
            f" as that event is kept, and {key_memory}."
        )
        self.event_id = event_id


class AlreadyStored(ReplayForgeError):
    """The event has a row already, or had one that retention has removed."""

    def __init__(self, known: tuple[StoredEvent, Content] | RetiredKey) -> None:
        super().__init__()
        self.known = known


DAY_SECONDS = 86_400


class Receipt(msgspec.Struct, frozen=True):
    """An event that is durable: where it lies in the log, and its row with its content when it was known before.

    `retired` is what is known of an event whose row retention has removed.
    """

    record: EventRecord
    log_offset: int
    duplicate: bool
    stored: tuple[StoredEvent, Content] | None = None
    retired: RetiredKey | None = None

    @property
    def event(self) -> EventRecord | StoredEvent:
        """The event that stands, which a duplicate's own record need not resemble beside its content."""
        return self.stored[0] if self.stored else self.record

    @property
    def state(self) -> State:
        """Where the event stands."""
        if self.retired:
            return self.retired.state
        return self.stored[0].state if self.stored else State.RECEIVED

    @property
    def run(self) -> int:
        """Which run of the event it is."""
        return self.stored[0].run if self.stored else 1


class Intake:
    """Accepts events. Every acknowledged event is fsynced, and one key never names two events.

    A key is looked for in the window first, then in the store. While the store does not answer, events are accepted
    all the same, and the dispatcher compares later.
    """

    def __init__(
        self,
        log: ForgeLog,
        store: Store,
        window: Window,
        clock: Clock,
        telemetry: Telemetry,
        *,
        keys_seconds: float = 0.0,
    ) -> None:
        self.log = log
        self.window = window
        self.clock = clock
        self.telemetry = telemetry
        self.key_memory = remembered_in_words(keys_seconds)
        self.known = KnownEvents(store)
        self.limiter = IngestLimiter()
        self.arriving: list[tuple[EventRecord, NewRecord]] = []
        self.handing_over: asyncio.Task[None] | None = None
        self.company = Company(log.options.limits.batch_records_max)
        self.accepting = False
        self.draining = False
        self.disk_low = False

    def open(self) -> None:
        """Accept events from now on."""
        self.accepting = True

    def drain(self) -> None:
        """Say that the daemon stops; events are accepted all the same until `close`."""
        self.draining = True

    def close(self) -> None:
        """Accept nothing more; what has begun is finished."""
        self.accepting = False

    def note_disk(self, low: bool) -> None:
        """Accept nothing while the disk is nearly full."""
        self.disk_low = low

    async def accept(
        self, envelope: Envelope, replay_of: StoredEvent | None = None, *, trace: str | None = None
    ) -> Receipt:
        """Return the receipt of one event, which may be an edited replay; raises KeyReused, Rejected or Unavailable."""
        self.check_room(1)
        return await self.accept_record(self.record(envelope, self.clock.now_us(), replay_of, trace))

    async def accept_from(self, record: EventRecord) -> Receipt:
        """Return the receipt of an event that a source of webhooks has sent; raises as `accept` does."""
        self.check_room(1)
        return await self.accept_record(record)

    async def accept_slots(self, records: Sequence[EventRecord]) -> list[Receipt | ReplayForgeError]:
        """Return for each event of a schedule its receipt or why it was refused; raises Unavailable."""
        self.check_room(len(records))
        return await self.accept_records(records)

    async def accept_record(self, record: EventRecord) -> Receipt:
        """Have one record made durable, or find the event that its id names already."""
        if record.idempotency_key is None and self.window.find(record.id) is None and self.limiter.admit(1):
            # A fresh id cannot be known to anybody, so there is nothing to look up and nobody to wait for.
            place = self.window.reserve(record)
            leader = place.leader = place.offset.get_loop().create_future()
            self.append([record])
            return Receipt(record, await leader, duplicate=False)
        (receipt,) = await self.accept_records([record])
        if isinstance(receipt, Exception):
            raise receipt
        return receipt

    async def accept_child(self, record: EventRecord) -> int:
        """Make an event durable that a handler has sent, and return its log offset; it may be there already.

        No limit of the backlog holds it up: the handler that waits for it keeps a worker. Raises Unavailable.
        """
        place = self.window.find(record.id)
        if place is None:
            place = self.window.reserve(record)
            self.limiter.admit_first(1)
            self.append([record])
        return await shield(place.offset)

    async def accept_all(
        self, envelopes: Sequence[Envelope], traces: Sequence[str | None] = ()
    ) -> list[Receipt | ReplayForgeError]:
        """Return for each event its receipt or why it was refused; one refused event never affects the others.

        `traces` are those of the events, if they have any. Raises Unavailable when none can be accepted now.
        """
        self.check_room(len(envelopes))
        now_us = self.clock.now_us()
        results: list[Receipt | ReplayForgeError | None] = [None] * len(envelopes)
        records: list[tuple[int, EventRecord]] = []
        for index, (envelope, trace) in enumerate(zip_longest(envelopes, traces)):
            try:
                records.append((index, self.record(envelope, now_us, None, trace)))
            except Rejected as error:
                results[index] = error
        outcomes = await self.accept_records([record for _, record in records])
        for (index, _), outcome in zip(records, outcomes, strict=True):
            results[index] = outcome
        return [result for result in results if result is not None]

    @property
    def queued_events(self) -> int:
        """How many events wait to be let into the log."""
        return self.limiter.queued_events

    def check_load(self) -> None:
        """Raise Overloaded where so many events wait that whoever comes now is refused."""
        self.limiter.check_queue()
        self.check_window(1)

    def check_window(self, count: int) -> None:
        """Raise Overloaded where so many more events may not wait for their rows."""
        if not self.window.has_room(count):
            raise Overloaded(f"{len(self.window):,} accepted events wait for the store; send it again in a moment.")

    def check_room(self, count: int) -> None:
        """Raise Unavailable when so many events cannot be accepted now."""
        if not self.accepting:
            raise Unavailable("The daemon is recovering or stopping; send it again in a moment.")
        if self.disk_low:
            raise Full
        self.check_window(count)
        crashpoints.reach("ingest.received")

    def record(self, envelope: Envelope, now_us: int, replay_of: StoredEvent | None, trace: str | None) -> EventRecord:
        """Return the record of an event, with the id its key always has or a fresh one.

        One that was for a subscriber, and is replayed with changes, is for that one still.
        """
        if envelope.idempotency_key is None:
            event_id = new_event_id(now_us)
        else:
            event_id = event_id_for_key(envelope.application_name, envelope.idempotency_key)
        if not bytes(envelope.metadata).startswith(b"{"):
            raise Unacceptable("The metadata must be a JSON object.", "/metadata")
        return EventRecord(
            id=event_id,
            application_name=envelope.application_name,
            workflow_id=envelope.workflow_id,
            event_type=envelope.event_type,
            created_at_us=now_us,
            service_name=envelope.service_name,
            idempotency_key=envelope.idempotency_key,
            metadata=envelope.metadata,
            max_attempts=envelope.max_attempts,
            run_at_us=None if envelope.run_at is None else run_at_us(envelope.run_at),
            replay_of=None if replay_of is None else replay_of.id,
            subscriber=None if replay_of is None else subscriber_of(envelope, replay_of),
            trace=trace,
            payload=envelope.payload,
        )

    async def accept_records(self, records: Sequence[EventRecord]) -> list[Receipt | ReplayForgeError]:
        """Reserve, look up, append: the first of each id leads, later ones wait for it and share its fate."""
        leaders: dict[str, WindowEntry] = {}
        followed: list[WindowEntry] = []
        for record in records:
            place = self.window.find(record.id)
            if place is None:
                place = leaders[record.id] = self.window.reserve(record)
            followed.append(place)
        # A follower compares with what the leader brought, which the place forgets once it is durable.
        brought = [place.record for place in followed]
        leading = [record for record in records if record.id in leaders and leaders[record.id].record is record]
        await self.lead(leading)
        receipts, turns = [], Turns()
        for record, place, first in zip(records, followed, brought, strict=True):
            receipts.append(await self.receipt(record, place, first, led=record.id in leaders and first is record))
            if turns.is_over():
                await turns.pass_on()
        return receipts

    async def lead(self, records: list[EventRecord]) -> None:
        """Hand the records to the log that the store does not know; every place in the window is resolved later."""
        try:
            known = await self.known.find([record.id for record in records if record.idempotency_key is not None])
            fresh = [record for record in records if record.id not in known]
            if fresh and not self.limiter.admit(len(fresh)):
                await self.limiter.wait_turn(len(fresh))
        except BaseException as error:
            for record in records:
                self.window.abandon(record.id, Unavailable(f"The request that led was ended: {error!r}."))
            raise
        for record in records:
            if record.id in known:
                self.window.abandon(record.id, AlreadyStored(known[record.id]))
        if fresh:
            self.append(fresh)

    def append(self, records: list[EventRecord]) -> None:
        """Hand the records, which have been admitted, to the log, together with what others bring in the same turns.

        The window learns the outcome even if the caller goes away meanwhile.
        """
        self.arriving.extend([(record, new_record(record)) for record in records])
        if self.handing_over is None:
            self.handing_over = create_task(self.hand_over(), name="intake")

    async def hand_over(self) -> None:
        """Cut what arrived into pieces that each fit one batch of the log, so durable as a whole or not at all."""
        limits = self.log.options.limits
        await self.company.come(self.arriving)
        arrived, self.arriving, self.handing_over = self.arriving, [], None
        batch: list[tuple[EventRecord, NewRecord]] = []
        size = 0
        for record, encoded in arrived:
            if batch and (len(batch) == limits.batch_records_max or size >= limits.batch_bytes_max // 2):
                self.append_batch(batch)
                batch, size = [], 0
            batch.append((record, encoded))
            size += len(encoded.payload)
        self.append_batch(batch)

    def append_batch(self, pairs: list[tuple[EventRecord, NewRecord]]) -> None:
        """Hand one batch to the log."""
        records = [record for record, _ in pairs]
        try:
            durable = self.log.append([encoded for _, encoded in pairs])
        except Exception as error:  # whatever it is, those who wait must hear of it
            self.limiter.release(len(records))
            for record in records:
                self.window.abandon(record.id, error)
            return
        durable.add_done_callback(lambda future: self.resolve(records, future))

    def resolve(self, records: list[EventRecord], durable: asyncio.Future[int]) -> None:
        """Tell the window what the log said of these records, and admit the next ones."""
        self.limiter.release(len(records))
        error = OutcomeUnknown() if durable.cancelled() else durable.exception()
        if error is not None:
            for record in records:
                self.window.abandon(record.id, error)
            return
        self.telemetry.emit("event.accepted", len(records), records=records)
        for offset, record in enumerate(records, start=durable.result()):
            self.window.became_durable(record.id, offset)
        crashpoints.reach("log.appended", len(records))

    async def receipt(
        self, record: EventRecord, place: WindowEntry, first: EventRecord | None, *, led: bool
    ) -> Receipt | ReplayForgeError:
        """Return what came of one record: its own durability, or that of the event its key already names."""
        try:
            # Of a batch one is waited for; a shield around those that are there by then would be for nothing.
            offset = place.offset.result() if place.offset.done() else await shield(place.offset)
        except AlreadyStored as already:
            if isinstance(already.known, RetiredKey):
                compared = await self.compared(record, already.known.log_offset, already.known.digest)
                return replace(compared, retired=already.known) if isinstance(compared, Receipt) else compared
            event, content = already.known
            return await self.compared(record, event.log_offset, meaning_of(event, content), already.known)
        except ReplayForgeError as error:
            return error
        if led:
            return Receipt(record, offset, duplicate=False)
        if first is None:
            first = self.read_record(offset)
        compared = await self.compared(record, offset, first.meaning)
        return replace(compared, record=first) if isinstance(compared, Receipt) else compared

    async def compared(
        self, record: EventRecord, offset: int, first: Meaning | str, stored: tuple[StoredEvent, Content] | None = None
    ) -> Receipt | ReplayForgeError:
        """Tell a duplicate from other content under the same key."""
        if await computed(same_event, first, record.meaning, size=2 * len(record.payload)):
            self.telemetry.emit("event.duplicated")
            return Receipt(record, offset, duplicate=True, stored=stored)
        return KeyReused(record.id, record.idempotency_key, self.key_memory)

    async def find_unprojected(self, event_id: str) -> Receipt | None:
        """Return an event that is durable and has no row yet."""
        place = self.window.find(event_id)
        if place is None or not place.offset.done() or place.offset.exception() is not None:
            return None
        offset = place.offset.result()
        return Receipt(self.read_record(offset), offset, duplicate=False)

    def read_record(self, offset: int) -> EventRecord:
        """Read an event back from the log."""
        return decode_record(self.log.read(offset - 1, records_max=1)[0].payload)


def remembered_in_words(keys_seconds: float) -> str:
    """Say how long a key is remembered after its event is gone."""
    return f"{keys_seconds / DAY_SECONDS:,.4g} days beyond" if keys_seconds else "for ever beyond"


def new_record(record: EventRecord) -> NewRecord:
    """Return the bytes that go into the log for an event."""
    return NewRecord(encode_record(record), to_bytes(record.id), EVENT_RECORD_TYPE)


def meaning_of(event: StoredEvent, content: Content) -> Meaning:
    """Return what must be the same for a record to be this event."""
    return (event.workflow_id, event.event_type, content.payload)


def run_at_us(text: str) -> int:
    """Read the time an event is scheduled for."""
    try:
        return parse_time(text)
    except ValueError:
        raise Unacceptable(f"{text!r} is not an RFC 3339 time, such as 2026-11-22T10:00:00Z.", "/run_at") from None


def subscriber_of(envelope: Envelope, replay_of: StoredEvent) -> str | None:
    """Return for which subscriber an edited replay is; none where it became another type of event."""
    return replay_of.subscriber if envelope.event_type == replay_of.event_type else None
