"""The log's way into the store: rows for new events, and the cursor that says how far it has come, at once."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial

import msgspec
from msgspec.structs import replace

from replayforge.domain.admission import ALL_WELCOME, Admission
from replayforge.domain.errors import Fatal, Unstorable
from replayforge.domain.event import ClaimedEvent, Entry, EventRecord, Meaning, StoredEvent, route, same_event
from replayforge.domain.identity import event_id_for_reuse
from replayforge.domain.lifecycle import Reason, State
from replayforge.stores import wakes
from replayforge.stores.batches import AdvancedCursor, PassedOver, StoredContent
from replayforge.stores.burial import ERROR_CHARACTERS_MAX, salvaged, storable_text
from replayforge.stores.driver import Batch, Computation, Fetch, Steps
from replayforge.stores.rows import KnownContent, stored_event
from replayforge.stores.tallies import tally, tally_deferred


class CursorMoved(Fatal):
    """The dispatch cursor was moved by somebody else; two daemons with one cloned log, or a store that fell back."""


class Projection(msgspec.Struct, frozen=True):
    """A stretch of a log, (after, through], on its way into the store; `durable` is where the log ends by now.

    The first `claims_max` events of it that are due and have admission are claimed as they are inserted; those without
    admission wait for their handlers. `bad` says of a single record what the store has against it: it is buried with
    what can be kept of it, its content too if `keep_content`. Of the `not_events`, `unreadable` are the offsets of
    records that were to be events, and `gaps` of them were gone before they were read. Events of the types that
    are `signals` are awaited and not handled: they are kept until a wait takes them. `lane_of` names the lane that an
    event is in, where there are lanes: it is fixed from now on, and the event waits there for its turn.
    Where anybody subscribes to anything, `subscribers` says to whom events of a type go.
    An event of an `exclusive` origin is cancelled while an earlier one is open.
    """

    log_id: str
    incarnation: str
    after: int
    through: int
    records: Sequence[tuple[int, EventRecord]]
    not_events: int
    now_us: int
    durable: int = 0
    claims_max: int = 0
    admission: Admission = ALL_WELCOME
    bad: str | None = None
    keep_content: bool = True
    unreadable: Sequence[int] = ()
    gaps: int = 0
    signals: Collection[str] = ()
    lane_of: Callable[[EventRecord], str | None] | None = None
    subscribers: Callable[[str], str | None] | None = None
    exclusive: Collection[str] = ()

    def first(self, count: int) -> "Projection":
        """Return the stretch as far as its first so many records, and whatever lies before the next one."""
        if count == len(self.records):
            return self
        through = self.records[count][0] - 1
        passed_over = through - self.after - count
        return replace(self, records=self.records[:count], through=through, not_events=passed_over)

    def buried(self, error: Unstorable, *, keep_content: bool) -> "Projection":
        """Return the stretch as far as its first record, which is to be buried."""
        return replace(self.first(1), bad=str(error), keep_content=keep_content, claims_max=0)


class Projected(msgspec.Struct, frozen=True):
    """What became of a stretch of a log: what was claimed, the entries of what can be published, and the counts.

    The cursor stands at `through` now. `buried` are the (id, event type) of records that the store could not take.
    `deferred` says for each handler without room how many have to wait for it, `woken` how many parked events are among
    the queued ones because what they waited for has come, `laned` how many wait for their turn in lanes.
    """

    through: int
    claimed: list[ClaimedEvent]
    queued: list[Entry]
    buried: list[tuple[str, str]]
    inserted: int
    copies: int
    key_reused: list[str]
    deferred: dict[str, int]
    woken: int = 0
    laned: int = 0
    overlapping: int = 0


class NewEvent(msgspec.Struct, frozen=True):
    """A record that gets a row: under which id, and, when its key was used before, for which event.

    `bad` says what the store has against it as it was, `beside` which event of its schedule is open that it must not
    run beside.
    """

    log_offset: int
    record: EventRecord
    id: str
    first_id: str | None = None
    bad: str | None = None
    beside: str | None = None


def project(node: str, owner: str, projection: Projection) -> Steps[Projected]:
    """Move the cursor and insert the rows of a stretch of the log; raises CursorMoved when the cursor is elsewhere."""
    if projection.bad is not None:
        fresh, copies = yield from salvage(projection)
    else:
        known = yield from meanings([record for _, record in projection.records])
        fresh, copies = yield from without_known_reuses(*(yield from sorted_out(projection, known)))
    moved = yield Batch("advance_cursor", [advanced_cursor(projection, len(fresh), copies)])
    if moved[0][0] != 1:
        raise CursorMoved(
            f"The store's cursor for log {projection.log_id} is not at offset {projection.after}: another daemon runs"
            " on a copy of this log, or the store was restored while this daemon ran. Stop one of them and restart."
        )
    unreadable = sum(offset <= projection.through for offset in projection.unreadable)
    if unreadable or projection.gaps:
        passed_over = PassedOver(log_id=projection.log_id, unreadable=unreadable, gaps=projection.gaps)
        yield Batch("count_passed_over", [passed_over])
    rows: list[ClaimedEvent] = []
    woken: list[Entry] = []
    deferred: Counter[str] = Counter()
    if projection.exclusive:
        fresh = yield from without_company(projection, fresh)
    if fresh:
        seqs = yield Fetch("reserve_seqs", {"count": len(fresh), "now_us": projection.now_us})
        # Where daemons share a store its clock says what is due, not the one of the daemon that accepted it.
        by_its_clock = replace(projection, now_us=seqs[0][1])
        rows = new_rows(by_its_clock, owner, [row[0] for row in seqs], fresh)
        kept = [key_of(row.event) for row in rows if row.event.state is State.KEPT]
        yield from wakes.lock_workflows(kept)
        yield Batch("insert_events", [row.event for row in rows])
        yield Batch("insert_contents", [stored_content(row) for row in rows])
        yield tally(node, Counter(row.event.state for row in rows))
        deferred.update(row.event.waits_for for row in rows if row.event.waits_for is not None)
        if deferred:
            yield tally_deferred(node, deferred)
        if edited := [(new.record.replay_of, new.id) for new in fresh if new.record.replay_of is not None]:
            yield Fetch("tell_replaced", {"pairs": edited})
        if kept:
            woken = yield from wakes.match_signals(node, kept, len(kept), by_its_clock.now_us)
    return Projected(
        through=projection.through,
        claimed=[row for row in rows if row.event.state is State.PROCESSING],
        queued=[row.event.entry for row in rows if is_ready(row.event)] + woken,
        woken=len(woken),
        laned=sum(row.event.blocked for row in rows),
        buried=[(new.id, new.record.event_type) for new in fresh if new.bad is not None],
        inserted=len(rows),
        copies=copies,
        key_reused=[new.record.event_type for new in fresh if new.first_id is not None and new.bad is None],
        deferred=dict(deferred),
        overlapping=sum(new.beside is not None for new in fresh),
    )


def key_of(event: StoredEvent) -> wakes.Key:
    """Return by what an event is found that is a signal."""
    return (event.application_name, event.workflow_id, event.event_type)


def is_ready(event: StoredEvent) -> bool:
    """Tell whether an event is queued and waits neither for its handler nor for its turn."""
    return event.state is State.QUEUED and event.waits_for is None and not event.blocked


def advanced_cursor(projection: Projection, inserted: int, copies: int) -> AdvancedCursor:
    """Return the row that moves the cursor over a stretch."""
    return AdvancedCursor(
        log_id=projection.log_id,
        incarnation=projection.incarnation,
        after=projection.after,
        through=projection.through,
        inserted=inserted,
        copies=copies,
        not_events=projection.not_events,
        durable_offset=max(projection.durable, projection.through),
        at_us=projection.now_us,
    )


def meanings(records: Sequence[EventRecord]) -> Steps[dict[str, Meaning | str]]:
    """Fetch what must be equal for a record to be a copy: the content of rows, the digest of what was removed.

    Nearly all are new, so payloads are looked for only where there are rows.
    """
    keyed = [record.id for record in records if record.idempotency_key is not None]
    rows = yield Fetch("known_contents", {"ids": [record.id for record in records], "keyed": keyed})
    known = [KnownContent(*row) for row in rows]
    kept = [one.seq for one in known if one.digest is None]
    contents: dict[int | None, bytes] = {}
    if kept:
        fetched = yield Fetch("contents", {"seqs": kept})
        contents = {seq: payload for seq, payload, _ in fetched}
    # An event whose content is gone is equal to nothing.
    return {one.id: one.digest or one.meaning(contents.get(one.seq, b"")) for one in known}


def salvage(projection: Projection) -> Steps[tuple[list[NewEvent], int]]:
    """Return the row that a record gets which the store cannot take as it is, under an id that no other event has.

    One that has it already is a copy.
    """
    ((offset, record),) = projection.records
    kept = salvaged(record, with_content=projection.keep_content)
    reuse_id = event_id_for_reuse(kept.id, projection.log_id, offset)
    rows = yield Fetch("events_by_ids", {"ids": [kept.id, reuse_id]})
    known = [stored_event(row) for row in rows]
    if any((event.log_id, event.log_offset) == (projection.log_id, offset) for event in known):
        return [], 1
    own_id = reuse_id if known or kept.id != record.id else kept.id
    error = f"The store cannot take the record at offset {offset} of log {projection.log_id}: {projection.bad}"
    return [NewEvent(offset, kept, own_id, bad=storable_text(error, ERROR_CHARACTERS_MAX))], 0


def without_known_reuses(fresh: list[NewEvent], copies: int) -> Steps[tuple[list[NewEvent], int]]:
    """Leave out what has a row of its own already because its key was reused: the log is projected once more."""
    own_ids = [new.id for new in fresh if new.first_id is not None]
    if not own_ids:
        return fresh, copies
    rows = yield Fetch("events_by_ids", {"ids": own_ids})
    known = {stored_event(row).id for row in rows}
    return [new for new in fresh if new.id not in known], copies + len(known)


def without_company(projection: Projection, fresh: list[NewEvent]) -> Steps[list[NewEvent]]:
    """Note of each event of an exclusive origin which earlier one is open; nobody else can decide so meanwhile."""
    origins = sorted({new.record.origin or "" for new in fresh}.intersection(projection.exclusive))
    if not origins:
        return fresh
    yield from wakes.lock_workflows([(origin,) for origin in origins])
    rows = yield Fetch("open_of_schedules", {"origins": origins})
    open_ids: dict[str | None, str] = {row[0]: row[1] for row in rows}
    noted = []
    for new in fresh:
        origin = new.record.origin
        if origin in projection.exclusive and new.first_id is None and new.bad is None:
            beside = open_ids.setdefault(origin, new.id)
            noted.append(new if beside == new.id else replace(new, beside=beside))
        else:
            noted.append(new)
    return noted


def sorted_out(projection: Projection, known: dict[str, Meaning | str]) -> Steps[tuple[list[NewEvent], int]]:
    """Sort out a stretch of the log; where contents have to be compared, which may take long, beside the event loop."""
    records = [record for _, record in projection.records]
    if not known and len({record.id for record in records}) == len(records):
        return sort_out(projection, known)
    size = sum(len(record.payload) for record in records)
    rows = yield Computation(partial(sort_out, projection, known), size)
    return rows[0][0]  # type: ignore[no-any-return]  # whatever the work returns


def sort_out(projection: Projection, known: dict[str, Meaning | str]) -> tuple[list[NewEvent], int]:
    """Tell new events, and other content under a used key, from copies of known ones, which are only counted."""
    contents = dict(known)
    fresh: list[NewEvent] = []
    copies = 0
    for offset, record in projection.records:
        first = contents.get(record.id)
        if first is None:
            contents[record.id] = record.meaning
            fresh.append(NewEvent(offset, record, record.id))
        elif record.origin is not None or same_event(first, record.meaning):
            copies += 1  # a handler that sends its child again, or a provider its delivery, means the first one
        else:
            own_id = event_id_for_reuse(record.id, projection.log_id, offset)
            fresh.append(NewEvent(offset, record, own_id, record.id))
    return fresh, copies


def new_rows(projection: Projection, owner: str, seqs: Sequence[int], fresh: Sequence[NewEvent]) -> list[ClaimedEvent]:
    """Return the rows of new events with what came with them, the first due ones already in the owner's hands."""
    rows: list[ClaimedEvent] = []
    claims_left, counter = projection.claims_max, projection.admission.counter()
    for seq, new in zip(seqs, fresh, strict=True):
        state, subscribers = first_state(new, projection), subscribers_of(new.record, projection)
        lane = first_lane(new, projection, state)
        taken = route(new.record.event_type, new.record.subscriber, subscribers)
        waits_for = counter.waits_for(taken) if state is State.QUEUED and lane is None else None
        if state is State.QUEUED and lane is None and waits_for is None and claims_left > 0:
            state = State.PROCESSING
            claims_left -= 1
            counter.admit(taken)
        event = new_event(projection, owner, seq, new, state, waits_for)
        if subscribers is not None:
            event = replace(event, subscribers=subscribers)
        if lane is not None:
            event = replace(event, lane=lane, blocked=int(state is State.QUEUED))
        rows.append(ClaimedEvent.of(event, new.record.content))
    return rows


def first_lane(new: NewEvent, projection: Projection, state: State) -> str | None:
    """Return the lane that a new event is in; what has ended from the start, and signals, are in none."""
    if projection.lane_of is None or state not in (State.QUEUED, State.SCHEDULED):
        return None
    return None if new.record.event_type in projection.signals else projection.lane_of(new.record)


def subscribers_of(record: EventRecord, projection: Projection) -> str | None:
    """Return to whom a new event goes, from now on; one that is for a subscriber goes to no others."""
    if projection.subscribers is None or record.subscriber is not None:
        return None
    return projection.subscribers(record.event_type)


def first_state(new: NewEvent, projection: Projection) -> State:
    """Return where a new event begins; one whose key was used before is a dead letter from the start."""
    if new.first_id is not None or new.bad is not None:
        return State.DEAD_LETTERED
    if new.beside is not None:
        return State.CANCELLED
    if new.record.run_at_us is not None and new.record.run_at_us > projection.now_us:
        return State.SCHEDULED
    return State.KEPT if new.record.event_type in projection.signals else State.QUEUED


def new_event(
    projection: Projection, owner: str, seq: int, new: NewEvent, state: State, waits_for: str | None
) -> StoredEvent:
    """Return the row of a new event."""
    record, claimed = new.record, state is State.PROCESSING
    reason = error = None
    if new.first_id is not None:
        reason = Reason.KEY_REUSED
        error = f"The idempotency key {record.idempotency_key!r} already names event {new.first_id} with other content."
    if new.bad is not None:
        reason, error = Reason.BAD_PAYLOAD, new.bad
    if new.beside is not None:
        reason, error = Reason.OVERLAP, f"Event {new.beside} of the same schedule was still open."
    return StoredEvent(  # in the order of its fields: so many names would be looked for one by one, 1.3 us an event
        seq,
        new.id,
        record.application_name,
        record.workflow_id,
        record.event_type,
        record.service_name,
        record.idempotency_key,
        record.created_at_us,
        projection.now_us,
        projection.log_id,
        new.log_offset,
        record.replay_of,
        record.max_attempts,
        state,
        1,  # run
        0,  # attempt_count
        int(claimed),  # starts
        0,  # crashes
        owner if claimed else None,
        int(claimed),  # lease_token
        record.run_at_us if state is State.SCHEDULED else None,
        reason,
        error,
        None if new.beside is not None else reason,
        None,  # result
        waits_for,
        record.origin,
        record.subscriber,
        trace=record.trace,
    )


def stored_content(one: ClaimedEvent) -> StoredContent:
    """Return the row that keeps what came with a new event."""
    return StoredContent(seq=one.event.seq, payload=one.content.payload, metadata=one.content.metadata)
