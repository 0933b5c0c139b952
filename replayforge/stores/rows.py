"""The rows that queries return: for each kind the order of its columns, once, and the value that is made of them."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import msgspec

from replayforge.domain.admission import Pause
from replayforge.domain.bulk_replay import JobState, Member, ReplayJob
from replayforge.domain.event import Attempt, Entry, Meaning, RetiredKey, StoredEvent
from replayforge.domain.journal import StepKind, StepRecord, StepState
from replayforge.domain.lifecycle import Outcome, State
from replayforge.domain.poison import Isolation, Suspicion
from replayforge.domain.reclaim import InFlight
from replayforge.domain.reports import Group, Node

Row = Sequence[Any]


class KnownContent(NamedTuple):
    """What must be equal for a record to be a copy of a known event, but for its payload, or only the digest of it all
    where retention removed it."""

    id: str
    workflow_id: str
    event_type: str
    seq: int | None
    digest: str | None

    def meaning(self, payload: bytes) -> Meaning:
        """Return what must be equal, given the payload."""
        return (self.workflow_id, self.event_type, as_bytes(payload))


class WaitingEntry(NamedTuple):
    """An event that waits for its handler, as an entry of the stream; `suspect` says that it runs alone."""

    seq: int
    id: str
    run: int
    suspect: int

    @property
    def entry(self) -> Entry:
        """What the stream says of it."""
        return Entry(self.id, self.run)


class NamedEvent(NamedTuple):
    """How an event stands that somebody named; `error` is what it is gathered by."""

    seq: int
    id: str
    run: int
    state: State
    error: str


class Retirable(NamedTuple):
    """A finished event that has served its time; `keyed_bytes` is the size of its payload if it has a key."""

    seq: int
    id: str
    workflow_id: str
    event_type: str
    log_id: str
    log_offset: int
    created_at_us: int
    keyed_bytes: int | None


class KeptRefusal(NamedTuple):
    """A delivery that was refused, as it is kept; its body is cut where it is shorter than `size_bytes`."""

    seq: int
    source: str
    at_us: int
    reason: str
    url: str
    headers: str
    body: bytes
    size_bytes: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing of its body was cut off."""
        return len(self.body) == self.size_bytes


class StoredSchedule(NamedTuple):
    """Where a schedule stands: through `place_us` its slots are done. The timing is that of the last daemon started."""

    name: str
    timing: str
    place_us: int
    last_slot_us: int | None
    last_event_id: str | None
    paused_reason: str | None
    paused_by: str | None
    paused_since_us: int | None

    @property
    def pause(self) -> Pause | None:
        """The pause that somebody has put on it."""
        if self.paused_since_us is None:
            return None
        return Pause(self.name, self.paused_reason or "", self.paused_by or "", self.paused_since_us)


STATE = StoredEvent.__struct_fields__.index("state")
JOB_COLUMNS = tuple(field.name for field in fields(ReplayJob))
STEP_COLUMNS = StepRecord.__struct_fields__
IN_FLIGHT_COLUMNS = tuple(field.name for field in fields(InFlight) if field.name != "worker")
NODE_COLUMNS = tuple(field.name for field in fields(Node))
decode_suspicion = msgspec.json.Decoder(Suspicion).decode


def stored_event(row: Row) -> StoredEvent:
    """Read a row of the event columns."""
    values = list(row)
    values[STATE] = State(values[STATE])
    return StoredEvent(*values)


def attempt(row: Row) -> Attempt:
    """Read a row of the attempt columns."""
    event_id, token, run, number, outcome, ended_run, *rest = row
    return Attempt(event_id, token, run, number, Outcome(outcome), bool(ended_run), *rest)


def step_record(row: Row) -> StepRecord:
    """Read a row of the step columns."""
    values = dict(zip(STEP_COLUMNS, row, strict=True))
    values["kind"], values["state"] = StepKind(values["kind"]), StepState(values["state"])
    if values["result"] is not None:
        values["result"] = bytes(values["result"])
    return StepRecord(**values)


def left_event(row: Row) -> InFlight:
    """Read the row of an event that somebody left in processing."""
    values = dict(zip(IN_FLIGHT_COLUMNS, row, strict=True))
    values["isolation"], values["suspicion"] = Isolation(values["isolation"]), known_of(values["suspicion"])
    return InFlight(**values)


def known_of(text: str | None) -> Suspicion | None:
    """Read what a row says of an event's suspicion."""
    return None if text is None else decode_suspicion(text)


def retired_key(row: Row) -> RetiredKey:
    """Read a row of the keys of removed events."""
    event_id, digest, state, *rest = row
    return RetiredKey(event_id, digest, State(state), *rest)


def named_event(row: Row) -> NamedEvent:
    """Read how an event stands that somebody named."""
    seq, event_id, run, state, error = row
    return NamedEvent(seq, event_id, run, State(state), str(error))


def member(row: Row) -> Member:
    """Read a row of a member of a bulk replay."""
    seq, event_id, run, state = row
    return Member(seq, event_id, run, State(state))


def replay_job(row: Row) -> ReplayJob:
    """Read a row of the replay columns."""
    values = dict(zip(JOB_COLUMNS, row, strict=True))
    values["state"], values["resumes_as"] = JobState(values["state"]), JobState(values["resumes_as"])
    values["selection"] = msgspec.json.decode(values["selection"])
    return ReplayJob(**values)


def node(row: Row) -> Node:
    """Read a row of the nodes."""
    values = dict(zip(NODE_COLUMNS, row, strict=True))
    values["stopped"], values["given_up"] = bool(values["stopped"]), bool(values["given_up"])
    return Node(**values)


def group(row: Row) -> Group:
    """Read a row of a group."""
    name, count, first_at_us, last_at_us, event_types, sample, capped = row
    return Group(str(name), count, first_at_us, last_at_us, event_types, str(sample), bool(capped))


def as_bytes(text: str | bytes) -> bytes:
    """Return the bytes of a payload, which travels as text where rows travel as JSON."""
    return text.encode() if isinstance(text, str) else text
