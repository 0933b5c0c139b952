"""The log's way into the store: rows for new events, and the cursor that says how far it has come, at once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from replayforge.domain.errors import Fatal
from replayforge.domain.event import EventRecord, same_event
from replayforge.domain.identity import event_id_for_reuse
from replayforge.domain.lifecycle import Reason, State
from replayforge.stores.driver import Batch, Fetch, Row, Steps
from replayforge.stores.tallies import tally

STATE = 12  # where new_row puts the state


class CursorMoved(Fatal):
    """The dispatch cursor was moved by somebody else; two daemons with one cloned log, or a store that fell back."""


@dataclass(frozen=True, slots=True)
class Projection:
    """A stretch of a log, (after, through], on its way into the store; `durable` is where the log ends by now."""

    log_id: str
    incarnation: str
    after: int
    through: int
    records: Sequence[tuple[int, EventRecord]]
    not_events: int
    now_us: int
    durable: int = 0


@dataclass(frozen=True, slots=True)
class Projected:
    """What became of a stretch of a log: (id, run) of what can be published, and how many records were what."""

    queued: list[tuple[str, int]]
    inserted: int
    copies: int
    key_reused: int


def project(node: str, projection: Projection) -> Steps[Projected]:
    """Move the cursor and insert the rows of a stretch of the log; raises CursorMoved when the cursor is elsewhere."""
    ids = [record.id for _, record in projection.records]
    known = yield Fetch("known_contents", {"ids": ids})
    fresh, copies, reused = sort_out(projection, known)
    moved = yield Batch("advance_cursor", [advance(projection, len(fresh), copies)])
    if moved[0][0] != 1:
        raise CursorMoved(
            f"The store's cursor for log {projection.log_id} is not at offset {projection.after}: another daemon runs"
            " on a copy of this log, or the store was restored while this daemon ran. Stop one of them and restart."
        )
    if fresh:
        seqs = yield Fetch("reserve_seqs", {"count": len(fresh)})
        rows = [(seq, *row) for (seq,), row in zip(seqs, fresh, strict=True)]
        yield Batch("insert_events", [row[:-2] for row in rows])
        yield Batch("insert_contents", [(row[0], *row[-2:]) for row in rows])
        yield tally(node, Counter(row[STATE] for row in fresh))
    queued = [(row[0], 1) for row in fresh if row[STATE] == State.QUEUED]
    return Projected(queued, len(fresh), copies, reused)


def advance(projection: Projection, inserted: int, copies: int) -> Row:
    """Return the parameters that move the cursor over a stretch."""
    return (
        projection.through,
        inserted,
        copies,
        projection.not_events,
        projection.now_us,
        max(projection.durable, projection.through),
        projection.log_id,
        projection.after,
        projection.incarnation,
    )


def sort_out(projection: Projection, known: Sequence[Row]) -> tuple[list[Row], int, int]:
    """Tell new events from copies of known ones and from other content under a used key.

    Returns (rows to insert, copies, rows among them whose key was used for other content).
    """
    contents = {row[0]: (row[1], row[2], as_bytes(row[3]), as_bytes(row[4])) for row in known}
    rows: list[Row] = []
    copies = reused = 0
    for offset, record in projection.records:
        first = contents.get(record.id)
        if first is None:
            contents[record.id] = record.meaning
            rows.append(new_row(projection, offset, record, record.id, None))
        elif same_event(first, record.meaning):
            copies += 1
        else:
            reused += 1
            own_id = event_id_for_reuse(record.id, projection.log_id, offset)
            rows.append(new_row(projection, offset, record, own_id, record.id))
    return rows, copies, reused


def new_row(projection: Projection, offset: int, record: EventRecord, event_id: str, first_id: str | None) -> Row:
    """Return the row of a new event without its number, its payload and metadata last.

    `first_id` is given when the key was used before: such a row is a dead letter from the start.
    """
    now_us = projection.now_us
    later = record.run_at_us is not None and record.run_at_us > now_us
    state = State.SCHEDULED if later else State.QUEUED
    reason = error = None
    if first_id is not None:
        state, reason = State.DEAD_LETTERED, Reason.KEY_REUSED
        error = f"The idempotency key {record.idempotency_key!r} already names event {first_id} with other content."
    return (
        event_id,
        record.application_name,
        record.workflow_id,
        record.event_type,
        record.service_name,
        record.idempotency_key,
        record.created_at_us,
        now_us,
        projection.log_id,
        offset,
        record.replay_of,
        record.max_attempts,
        state,
        record.run_at_us if state is State.SCHEDULED else None,
        reason,
        error,
        reason,
        bytes(record.payload),
        bytes(record.metadata),
    )


def as_bytes(text: str | bytes) -> bytes:
    """Return the bytes of a payload, which travels as text where rows travel as JSON."""
    return text.encode() if isinstance(text, str) else text
