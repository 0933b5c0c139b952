"""What workflows remember, in the store: their journals and steps are read and written, they are parked and woken."""

from collections.abc import Iterable, Sequence
from itertools import starmap

import msgspec

from replayforge.domain.event import Entry, Lease, StoredEvent
from replayforge.domain.journal import AwaitedEvent, Journal, StepRecord
from replayforge.domain.lifecycle import State
from replayforge.stores.batches import HeldStep, JournalNote, ParkedWait, RecordedStep, RemovedEvent
from replayforge.stores.driver import Batch, Fetch, Steps
from replayforge.stores.rows import step_record
from replayforge.stores.tallies import moves, tally

StepId = tuple[int, int, str, str, int]


class StepCommit(msgspec.Struct, frozen=True):
    """Steps of one journal of an event, to be recorded if its lease still stands.

    `run_started_at_us` is when the event's run began, for a journal that has no row yet; with `reset` the event owes
    nothing any more for its failed attempts and crashes. `payload` is what a restart leaves for the journal it begins,
    `ended_by` the steps whose failures have ended the run, if it has failed. `activation` is how many answers of its
    endpoint are committed then, `label` names the code that takes them. It is `noted` when an earlier commit has left
    the journal's row as it is to be.
    """

    event: StoredEvent
    journal: int
    records: tuple[StepRecord, ...]
    run_started_at_us: int
    reset: bool = False
    payload: bytes | None = None
    ended_by: tuple[str, ...] | None = None
    activation: int = 0
    noted: bool = False
    label: str = ""


class StepCommitted(msgspec.Struct, frozen=True):
    """What became of a commit of steps."""

    fenced: bool
    cancel_requested: bool


HELD = StepCommitted(fenced=False, cancel_requested=False)


class SignalTaken(msgspec.Struct, frozen=True):
    """What a wait has come to: the step as it is recorded now, or None while there is nothing to record."""

    fenced: bool
    record: StepRecord | None


class ParkedEvent(msgspec.Struct, frozen=True):
    """An event that is parked, the journal that it has then, and the events of its workflow that it waits for."""

    event: StoredEvent
    journal: int
    waits: tuple[AwaitedEvent, ...]
    at_us: int

    @property
    def awaited(self) -> list[tuple[str, str, str]]:
        """Return by what the signals are found that it waits for: application, workflow, type."""
        event = self.event
        return [(event.application_name, event.workflow_id, wait.event_type) for wait in self.waits]


def read_journal(event: StoredEvent, now_us: int) -> Steps[Journal]:
    """Fetch the current journal of an event; one that has recorded nothing yet has its first one, which is empty."""
    (
        (number, run, run_started_at_us, wakes, cancel_requested, payload, activation, first_start_us, time_us),
    ) = yield Fetch("journal", {"seq": event.seq, "run": event.run, "now_us": now_us})
    if run != event.run:  # nothing is recorded in this run yet
        run_started_at_us = event.updated_at_us if first_start_us is None else first_start_us
    rows = (yield Fetch("journal_steps", {"seq": event.seq, "journal": number})) if number is not None else []
    newest = {(record.kind, record.step): record for record in map(step_record, rows)}
    return Journal(
        number=number or 1,
        run_started_at_us=run_started_at_us,
        now_us=time_us,
        wakes=wakes or 0,
        cancel_requested=bool(cancel_requested),
        payload=None if payload is None else bytes(payload),
        activation=activation or 0,
        records=tuple(newest.values()),
    )


def record_steps(owner: str, commits: Sequence[StepCommit]) -> Steps[list[StepCommitted]]:
    """Record steps of events that are still held; those of an earlier commit whose answer was lost are not fenced.

    As a rule nothing is wrong with any of them, and that is found out by writing them. Else each is looked at.
    """
    if all(commit.records for commit in commits) and (yield from are_all_recorded(owner, commits)):
        return [HELD] * len(commits)
    return (yield from recorded_each(owner, commits))


def are_all_recorded(owner: str, commits: Sequence[StepCommit]) -> Steps[bool]:
    """Write the steps of those events that are held and not asked to end; if these are all, the rest is written too.

    As a rule there is no rest: most steps are neither the first of their journal nor follow a failure.
    """
    rows = {
        (commit.event.seq, record.kind, record.step, record.generation): HeldStep(
            commit.event.seq,
            commit.journal,
            *msgspec.structs.astuple(record),
            lease_token=commit.event.lease_token,
            owner=owner,
        )
        for commit in commits
        for record in commit.records
    }
    alone = not any(commit.reset or not commit.noted for commit in commits)
    ((changed,),) = yield Batch("record_held_steps", list(rows.values()), alone)
    if changed < len(rows):
        return False
    yield from note_journals([commit for commit in commits if not commit.noted])
    yield from reset_counts(commits)
    return True


def recorded_each(owner: str, commits: Sequence[StepCommit]) -> Steps[list[StepCommitted]]:
    """Record steps of events that are held, and what else their commits change; says what became of each."""
    rows = yield Fetch("held_leases", {"leases": [commit.event.lease for commit in commits], "owner": owner})
    held = set(starmap(Lease, rows))
    valid = [commit for commit in commits if commit.event.lease in held]
    yield from write_steps(valid)
    yield from reset_counts(valid)
    requested = yield from cancel_requests(sorted({commit.event.seq for commit in commits}))
    ours = (yield from recorded_earlier(commits, held)) if len(valid) < len(commits) else set()
    return [
        StepCommitted(
            fenced=commit.event.lease not in held and not is_recorded(commit, ours),
            cancel_requested=commit.event.seq in requested,
        )
        for commit in commits
    ]


def write_steps(commits: Sequence[StepCommit], parked: Iterable[int] = ()) -> Steps[None]:
    """Write the steps of events that nobody else may touch now, and their journals where that changes anything."""
    steps = {
        recorded_step_id(row): row
        for commit in commits
        for row in (recorded_step(commit, record) for record in commit.records)
    }
    yield Batch("write_steps", list(steps.values()))
    yield from note_journals(commits, parked)


def note_journals(commits: Sequence[StepCommit], parked: Iterable[int] = ()) -> Steps[None]:
    """Write the journals of events that nobody else may touch now, where that changes anything."""
    notes = {commit.event.seq: journal_note(commit, parked) for commit in commits}
    if notes:
        yield Batch("note_journals", [notes[seq] for seq in sorted(notes)])


def reset_counts(commits: Sequence[StepCommit]) -> Steps[None]:
    """Let events that got on owe nothing any more."""
    if seqs := [commit.event.seq for commit in commits if commit.reset]:
        yield Fetch("reset_counts", {"seqs": seqs})


def recorded_step(commit: StepCommit, record: StepRecord) -> RecordedStep:
    """Return the row of a step."""
    return RecordedStep(commit.event.seq, commit.journal, *msgspec.structs.astuple(record))


def recorded_step_id(row: RecordedStep) -> StepId:
    """Return by what the row of a step is known."""
    return (row.event_seq, row.journal, row.kind, row.step, row.generation)


def journal_note(commit: StepCommit, parked: Iterable[int]) -> JournalNote:
    """Return the row of a journal, with the token under which it is parked if it is."""
    event = commit.event
    return JournalNote(
        event_seq=event.seq,
        number=commit.journal,
        run=event.run,
        run_started_at_us=commit.run_started_at_us,
        parked_token=event.lease_token if event.seq in parked else 0,
        payload=commit.payload,
        ended_by=None if commit.ended_by is None else msgspec.json.encode(commit.ended_by).decode(),
        activation=commit.activation,
        label=commit.label,
    )


def recorded_earlier(commits: Sequence[StepCommit], held: set[Lease]) -> Steps[set[StepId]]:
    """Fetch those of the rows of late commits that are there just as they were to be written."""
    keys = [
        (commit.event.seq, commit.journal, record.kind, record.step, record.generation, record.token, record.state)
        for commit in commits
        if commit.event.lease not in held
        for record in commit.records
    ]
    rows = yield Fetch("recorded_steps", {"keys": keys})
    return {(row[0], row[1], row[2], row[3], row[4]) for row in rows}


def is_recorded(commit: StepCommit, recorded: set[StepId]) -> bool:
    """Tell whether the steps of a commit are among those recorded; of one without steps nobody can tell."""
    rows = [recorded_step(commit, record) for record in commit.records]
    return bool(rows) and all(recorded_step_id(row) in recorded for row in rows)


def cancel_requests(seqs: Sequence[int]) -> Steps[set[int]]:
    """Fetch which of the events are asked to end."""
    rows = yield Fetch("cancel_requests", {"seqs": list(seqs)})
    return {seq for (seq,) in rows}


def park(parks: Sequence[ParkedEvent]) -> Steps[None]:
    """Note what parked events wait for; it replaces whatever they waited for before."""
    yield from forget_waits(one.event.seq for one in parks)
    waits = [
        ParkedWait(
            event_seq=one.event.seq,
            step=wait.step,
            application_name=one.event.application_name,
            workflow_id=one.event.workflow_id,
            event_type=wait.event_type,
            since_us=one.at_us,
        )
        for one in parks
        for wait in one.waits
    ]
    if waits:
        yield Batch("insert_waits", waits)


def forget_waits(seqs: Iterable[int]) -> Steps[None]:
    """Let events wait for no other events any more."""
    removed = [RemovedEvent(seq=seq) for seq in sorted(seqs)]
    if removed:
        yield Batch("delete_waits", removed)


def wake(node: str, seqs: Iterable[int], now_us: int) -> Steps[list[Entry]]:
    """Queue those of the events that are parked, which nobody else may touch now; returns their entries."""
    wanted = sorted(set(seqs))
    if not wanted:
        return []
    rows = yield Fetch("wake_events", {"seqs": wanted, "now_us": now_us})
    yield from count_wakes([row[0] for row in rows])
    yield tally(node, moves(State.WAITING, [State.QUEUED] * len(rows)))
    return [Entry(event_id, run) for _, event_id, run in rows]


def count_wakes(seqs: Sequence[int]) -> Steps[None]:
    """Count that events were woken."""
    if seqs:
        yield Fetch("count_wakes", {"seqs": list(seqs)})
