"""What parked workflows wait for comes true: children that have ended, and signals of their workflow."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import starmap

import msgspec
from msgspec.structs import replace

from replayforge.domain.clock import MICROSECONDS_PER_SECOND
from replayforge.domain.event import Entry, StoredEvent, parent_of
from replayforge.domain.journal import StepRecord, StepState
from replayforge.domain.lifecycle import ANSWERING, State
from replayforge.stores.batches import EndedStep, TakenSignal
from replayforge.stores.driver import Batch, Fetch, Steps
from replayforge.stores.journals import (
    SignalTaken,
    StepCommit,
    reset_counts,
    wake,
    write_steps,
)
from replayforge.stores.rows import step_record
from replayforge.stores.tallies import moves, tally

STEP_FAILED = "StepFailed"
WAIT_TIMED_OUT = "WaitTimedOut"
NULL = b"null"
UNMATCHED = "unmatched"
MISSED_MAX = 100

Key = tuple[str, str, str]  # application, workflow, event type


class Child(msgspec.Struct, frozen=True):
    """A child event and how it stands."""

    id: str
    state: State
    result: bytes | None = None


class StepEnding(msgspec.Struct, frozen=True):
    """How a step comes to its end: with a result or a failure, and the event it has it from."""

    other_id: str
    result: bytes | None = None
    error_type: str | None = None
    error: str | None = None


class PendingStep(msgspec.Struct, frozen=True):
    """A step that waits, by the key of its row; `token` is that of its event, `place` the last one in its journal."""

    event_seq: int
    journal: int
    kind: str
    step: str
    generation: int
    token: int
    place: int
    other_id: str | None


class KeptSignal(msgspec.Struct, frozen=True):
    """A signal that no wait has taken yet."""

    seq: int
    id: str
    application_name: str
    workflow_id: str
    event_type: str
    created_at_us: int
    origin: str | None

    @property
    def key(self) -> Key:
        """Return by what it is found."""
        return (self.application_name, self.workflow_id, self.event_type)


class Waiter(msgspec.Struct, frozen=True):
    """A parked event, and a step of it that waits for a signal."""

    seq: int
    id: str
    step: str
    application_name: str
    workflow_id: str
    event_type: str

    @property
    def key(self) -> Key:
        """Return by what its signal is found."""
        return (self.application_name, self.workflow_id, self.event_type)


def lock_workflows(keys: Iterable[tuple[str, ...]]) -> Steps[None]:
    """Let nobody else match signals of these workflows, which begin with (application, workflow), before this ends."""
    workflows = sorted({key[:2] for key in keys})
    if workflows:
        yield Fetch("lock_workflows", {"workflows": workflows})


def lock_families(events: Iterable[StoredEvent]) -> Steps[None]:
    """Lock events and the parents of those that are children, all in the order of their row numbers."""
    family = list(events)
    origins = sorted({event.parent_id for event in family if event.parent_id is not None})
    if origins:
        parents = yield Fetch("events_named", {"ids": origins})
        yield Fetch("lock_events", {"seqs": sorted({event.seq for event in family} | {row[0] for row in parents})})


def end_steps(endings: Sequence[tuple[PendingStep, StepEnding]], at_us: int) -> Steps[None]:
    """Record how steps have ended, each after everything that its journal has seen."""
    nth: Counter[tuple[int, int]] = Counter()
    rows = []
    for step, ending in endings:
        nth[step.event_seq, step.journal] += 1
        rows.append(
            EndedStep(
                event_seq=step.event_seq,
                journal=step.journal,
                kind=step.kind,
                step=step.step,
                generation=step.generation,
                state=StepState.DONE if ending.error_type is None else StepState.FAILED,
                token=step.token,
                recorded=step.place + nth[step.event_seq, step.journal],
                result=ending.result,
                error_type=ending.error_type,
                error=ending.error,
                other_id=ending.other_id,
                at_us=at_us,
            )
        )
    yield Batch("end_steps", rows)


# Children


def answer_parents(node: str, children: Collection[Child], at_us: int) -> Steps[list[Entry]]:
    """Record how children have ended with the steps that called them, and wake their parents; returns their entries.

    Whoever calls this has locked the parents.
    """
    ended = {child.id: child for child in children if child.state in ANSWERING}
    if not ended:
        return []
    rows = yield Fetch("pending_calls", {"ids": sorted(ended)})
    calls = [(call, ended[call.other_id]) for call in starmap(PendingStep, rows) if call.other_id is not None]
    return (yield from answer_calls(node, calls, at_us))


def answer_calls(node: str, calls: Sequence[tuple[PendingStep, Child]], at_us: int) -> Steps[list[Entry]]:
    """Record the answers of calls, and wake whoever is parked of those that made them."""
    if not calls:
        return []
    yield from end_steps([(call, answer_of(child)) for call, child in calls], at_us)
    return (yield from wake(node, [call.event_seq for call, _ in calls], at_us))


def answer_of(child: Child) -> StepEnding:
    """Return how the step ends that called a child."""
    if child.state is State.SUCCEEDED:
        return StepEnding(child.id, NULL if child.result is None else child.result)
    return StepEnding(child.id, error_type=STEP_FAILED, error=f"Event {child.id}, which it called, was {child.state}.")


def look_for_answers(node: str, keys: Sequence[tuple[int, int, int]], at_us: int) -> Steps[list[Entry]]:
    """Wake those of the parked events, (row number, journal, token), whose children have ended; returns their entries.

    Such an answer is recorded already under the token of the lease that they were parked from, or is recorded now.
    """
    if not keys:
        return []
    rows = yield Fetch("ended_calls", {"parks": keys})
    calls = [(PendingStep(*row[:-2]), Child(row[-3], State(row[-2]), as_result(row[-1]))) for row in rows]
    woken = yield from answer_calls(node, calls, at_us)
    answered = yield Fetch("answered_calls", {"parks": keys, "timed_out": WAIT_TIMED_OUT})
    return woken + (yield from wake(node, [row[0] for row in answered], at_us))


def as_result(value: bytes | None) -> bytes | None:
    """Return the bytes of a result."""
    return None if value is None else bytes(value)


def mend(node: str, at_us: int) -> Steps[list[Entry]]:
    """Wake who is parked although what it waits for has come, which should never be found; returns their entries."""
    rows = yield Fetch("missed_wakes", {"count": MISSED_MAX})
    keys = [(row[4], row[5], row[6]) for row in rows if row[0] == UNMATCHED]
    yield from lock_workflows(keys)
    calls = sorted({(row[1], row[2], row[7]) for row in rows if row[0] != UNMATCHED})
    yield Fetch("lock_events", {"seqs": [call[0] for call in calls]})
    answered = yield from look_for_answers(node, calls, at_us)
    return answered + (yield from match_signals(node, keys, MISSED_MAX, at_us))


def any_missed() -> Steps[bool]:
    """Tell whether anybody is parked although what it waits for has come."""
    rows = yield Fetch("missed_wakes", {"count": 1})
    return bool(rows)


# Signals


def match_signals(node: str, keys: Iterable[Key], count: int, at_us: int) -> Steps[list[Entry]]:
    """Give kept signals to parked events that wait for such, the longest parked first; returns whom that has woken.

    Whoever calls this has locked the workflows. `count` is how many signals of one key, or waits for one, are new.
    """
    wanted = sorted(set(keys))
    woken: list[Entry] = []
    while wanted:
        waiters = [Waiter(*row) for row in (yield Fetch("parked_waiters", {"keys": wanted, "count": count}))]
        wanted = sorted({waiter.key for waiter in waiters})
        if not wanted:
            break
        kept = [KeptSignal(*row) for row in (yield Fetch("kept_signals", {"keys": wanted, "count": count}))]
        if not kept:
            break
        locked = yield Fetch("lock_events", {"seqs": sorted({waiter.seq for waiter in waiters})})
        parked = {row[0] for row in locked if row[3] == State.WAITING}
        woken += yield from give(node, paired(kept, [one for one in waiters if one.seq in parked]), at_us)
    return woken


def paired(kept: Sequence[KeptSignal], waiters: Sequence[Waiter]) -> list[tuple[KeptSignal, Waiter]]:
    """Return which signal goes to which waiter: the oldest to the longest parked, and only one to each event."""
    waiting: defaultdict[Key, list[Waiter]] = defaultdict(list)
    for waiter in waiters:
        waiting[waiter.key].append(waiter)
    served: set[int] = set()
    pairs = []
    for signal in sorted(kept, key=lambda one: one.seq):
        chosen = next((one for one in waiting[signal.key] if one.seq not in served), None)
        if chosen is not None:
            served.add(chosen.seq)
            pairs.append((signal, chosen))
    return pairs


def give(node: str, pairs: Sequence[tuple[KeptSignal, Waiter]], at_us: int) -> Steps[list[Entry]]:
    """Record signals with the steps that waited for them, and wake the events of these."""
    if not pairs:
        return []
    rows = yield Fetch("pending_waits", {"seqs": sorted(waiter.seq for _, waiter in pairs)})
    steps = {(step.event_seq, step.step): step for step in starmap(PendingStep, rows)}
    matched = [(signal, waiter) for signal, waiter in pairs if (waiter.seq, waiter.step) in steps]
    values = yield from values_of([signal for signal, _ in matched])
    endings = [(steps[one.seq, one.step], StepEnding(signal.id, values[signal.seq])) for signal, one in matched]
    yield from end_steps(endings, at_us)
    woken = yield from take(node, [(signal, waiter.id, waiter.step) for signal, waiter in matched], at_us)
    return woken + (yield from wake(node, [waiter.seq for _, waiter in pairs], at_us))


def values_of(signals: Sequence[KeptSignal]) -> Steps[dict[int, bytes]]:
    """Fetch what a wait returns for each of the signals, by their row numbers."""
    rows = (yield Fetch("contents", {"seqs": [signal.seq for signal in signals]})) if signals else []
    payloads = {row[0]: bytes(row[1]) for row in rows}
    return {
        signal.seq: msgspec.json.encode(
            {
                "id": signal.id,
                "event_type": signal.event_type,
                "payload": msgspec.Raw(payloads.get(signal.seq, NULL)),
                "created_at": signal.created_at_us / MICROSECONDS_PER_SECOND,
            }
        )
        for signal in signals
    }


def take(node: str, taken: Sequence[tuple[KeptSignal, str, str]], at_us: int) -> Steps[list[Entry]]:
    """Let kept signals succeed, each with the event and the step that took it; returns whom else that has woken."""
    rows = [
        TakenSignal(seq=signal.seq, result=msgspec.json.encode({"taken_by": event_id, "step": step}), at_us=at_us)
        for signal, event_id, step in taken
    ]
    yield Batch("take_signals", rows)
    yield tally(node, moves(State.KEPT, [State.SUCCEEDED] * len(rows)))
    children = [
        Child(signal.id, State.SUCCEEDED, row.result)
        for (signal, _, _), row in zip(taken, rows, strict=True)
        if parent_of(signal.origin) is not None
    ]
    return (yield from answer_parents(node, children, at_us))


def take_signal(
    node: str,
    owner: str,
    commit: StepCommit,
    taken: StepRecord,
    timed_out: StepRecord | None,
    now_us: int,
    *,
    again: bool = False,
) -> Steps[SignalTaken]:
    """Take the oldest kept signal for the wait of a running event, under its lease, together with what else it records.

    `taken` is the step as it is recorded then, but for the signal. Without a signal it is recorded as `timed_out` says,
    if that is given; else nothing is written. Asked `again`, since there was no answer, it first looks whether that was
    carried out: else the wait would take another signal, or none and stand for ever.
    """
    event = commit.event
    key = (event.application_name, event.workflow_id, taken.event_type or "")
    yield from lock_workflows([key])
    rows = yield Fetch("held_leases", {"leases": [event.lease], "owner": owner})
    if again or not rows:
        earlier = yield from taken_earlier(commit, taken)
        if earlier.record is not None or not rows:
            return earlier
    kept = [KeptSignal(*row) for row in (yield Fetch("kept_signals", {"keys": [key], "count": 1}))]
    record = timed_out
    if kept:
        values = yield from values_of(kept)
        record = replace(taken, result=values[kept[0].seq], other_id=kept[0].id)
        # Whoever called a signal has it queued by this; the publisher finds it in the store.
        yield from take(node, [(kept[0], event.id, taken.step)], now_us)
    if record is not None:
        yield from write_steps([replace(commit, records=(*commit.records, record))])
        yield from reset_counts([commit])
    return SignalTaken(fenced=False, record=record)


def taken_earlier(commit: StepCommit, taken: StepRecord) -> Steps[SignalTaken]:
    """Return what an earlier commit of the same wait, whose answer was lost, has recorded under the same token."""
    rows = yield Fetch("journal_steps", {"seq": commit.event.seq, "journal": commit.journal})
    ours = (taken.kind, taken.step, taken.generation, taken.token)
    for one in map(step_record, rows):
        if (one.kind, one.step, one.generation, one.token) == ours and one.recorded:
            return SignalTaken(fenced=False, record=one)
    return SignalTaken(fenced=True, record=None)
