"""What people decide about events, each as one transaction: they are moved by hand, or asked to end."""

from enum import StrEnum

import msgspec

from replayforge.domain.doubt import resolved_step
from replayforge.domain.errors import Conflict
from replayforge.domain.event import Entry, StoredEvent
from replayforge.domain.lifecycle import OPEN, TERMINAL, Reason, State
from replayforge.stores import journals, wakes
from replayforge.stores.batches import MovedEvent, NotedAction, RecordedStep
from replayforge.stores.driver import Batch, Fetch, Steps
from replayforge.stores.tallies import WAITS_FOR, moves, tally
from replayforge.stores.wakes import Child


class CancelAnswer(StrEnum):
    """What a request to cancel an event has come to."""

    CANCELLED = "cancelled"
    REQUESTED = "requested"  # its handler is told at its next call
    REFUSED = "refused"  # it is running, and its handler makes no calls at which it could be told
    MOVED = "moved"  # it is no longer what the caller saw


class Resolution(msgspec.Struct, frozen=True):
    """What is decided about a step in doubt: where its event goes, and the result that the step has, if it has one.

    Without a name the only step in doubt is meant; `words` are why.
    """

    target: State
    step: str | None
    result: bytes | None = None
    words: str = ""


class CancelOutcome(msgspec.Struct, frozen=True):
    """The answer to a request to cancel, and the entries of events that are queued by it."""

    answer: CancelAnswer
    woken: list[Entry] = []


def move(
    node: str,
    event: StoredEvent,
    target: State,
    action: str,
    detail: str,
    now_us: int,
    acted_by: str = "",
    result: bytes | None = None,
) -> Steps[list[Entry] | None]:
    """Move an event by hand from the state the caller saw; None when it moved meanwhile.

    With a `result` it has that from now on. Returns the entries of parents whom its end has woken.
    """
    given_up = event.state is State.HELD and target is State.DEAD_LETTERED
    reason = detail if target is State.DISCARDED else (event.reason or Reason.GIVEN_UP) if given_up else None
    moved = MovedEvent(
        seq=event.seq,
        run=event.run,
        state=event.state,
        target=target,
        reason=reason,
        due_at_us=None,
        at_us=now_us,
        result=result,
    )
    yield from wakes.lock_families([event])
    waits_for = yield from what_it_waits_for(event)
    changed = yield Batch("move_event", [moved])
    if changed[0][0] != 1:
        return None
    if waits_for is not None:
        yield tally(node, {WAITS_FOR + waits_for: -1})
    yield Batch("insert_actions", [note(event, action, detail, now_us, acted_by)])
    yield tally(node, moves(event.state, [target]))
    if event.state is State.WAITING:
        yield from end_park(event, target)
    if event.parent_id is None or target not in TERMINAL:
        return []
    return (yield from wakes.answer_parents(node, [Child(event.id, target, result)], now_us))


def retry(node: str, event: StoredEvent, detail: str, now_us: int, acted_by: str = "") -> Steps[list[Entry] | None]:
    """Queue an event that waits for a time, and let every step of it that is to be tried again be due.

    None when it moved meanwhile. Raises Conflict for one that is parked for something else than another try.
    """
    yield from wakes.lock_families([event])
    yield Fetch("lock_events", {"seqs": [event.seq]})
    steps = yield Fetch("hasten_steps", {"seq": event.seq})
    if event.state is State.WAITING and not steps:
        raise Conflict(f"Event {event.id} is waiting, and none of its steps is to be tried again: no hurry helps it.")
    return (yield from move(node, event, State.QUEUED, "retried", detail, now_us, acted_by))


def resolve_step(
    node: str, event: StoredEvent, resolution: Resolution, detail: str, now_us: int, acted_by: str = ""
) -> Steps[list[Entry] | None]:
    """Decide about a step in doubt and let its event go on, or end; None when it moved meanwhile.

    Raises Conflict for a step that is not in doubt; nothing is written then.
    """
    yield from wakes.lock_families([event])
    yield Fetch("lock_events", {"seqs": [event.seq]})
    journal = yield from journals.read_journal(event, now_us)
    resolved = resolved_step(
        journal.records,
        resolution.step,
        target=resolution.target,
        result=resolution.result,
        words=resolution.words,
        now_us=journal.now_us,
    )
    moved = yield from move(node, event, resolution.target, "decided", detail, now_us, acted_by)
    if moved is not None:
        row = RecordedStep(event.seq, journal.number, *msgspec.structs.astuple(resolved))
        yield Batch("rewrite_steps", [row])
    return moved


def note(event: StoredEvent, action: str, detail: str, now_us: int, acted_by: str) -> NotedAction:
    """Return the row that notes what was done to an event."""
    return NotedAction(
        event_seq=event.seq, at_us=now_us, run=event.run, action=action, detail=detail, acted_by=acted_by
    )


def end_park(event: StoredEvent, target: State) -> Steps[None]:
    """Let an event that was parked wait no longer."""
    if target is State.QUEUED:
        yield from journals.count_wakes([event.seq])
    if target not in OPEN:
        yield from journals.forget_waits([event.seq])


def what_it_waits_for(event: StoredEvent) -> Steps[str | None]:
    """Fetch which handler a queued event waits for by now, and let nobody change that before the transaction ends."""
    if event.state is not State.QUEUED:
        return None
    rows = yield Fetch("waiting", {"seq": event.seq})
    return rows[0][0] if rows else None


def request_cancel(
    node: str, event: StoredEvent, detail: str, now_us: int, *, compensates: bool, acted_by: str = ""
) -> Steps[CancelOutcome]:
    """Cancel an event that is not running; one that is, and remembers anything, is asked to end.

    So is one whose handler `compensates`, wherever it stands, if it has begun: it is queued to be told.
    """
    yield from wakes.lock_families([event])
    ((_, _, run, state),) = yield Fetch("lock_events", {"seqs": [event.seq]})
    if (run, state) != (event.run, event.state):
        return CancelOutcome(CancelAnswer.MOVED)
    if event.state is State.PROCESSING or compensates:
        rows = yield Fetch("request_cancel", {"seq": event.seq})
        if rows:
            yield Batch("insert_actions", [note(event, "cancel_requested", detail, now_us, acted_by)])
            yield Fetch("hasten_events", {"seqs": [event.seq], "now_us": now_us})
            return CancelOutcome(CancelAnswer.REQUESTED, (yield from journals.wake(node, [event.seq], now_us)))
    if event.state is State.PROCESSING:
        return CancelOutcome(CancelAnswer.REFUSED)
    woken = yield from move(node, event, State.CANCELLED, "cancelled", detail, now_us, acted_by)
    return CancelOutcome(CancelAnswer.MOVED) if woken is None else CancelOutcome(CancelAnswer.CANCELLED, woken)


def discard_unclaimed(node: str, before_us: int, count: int, now_us: int) -> Steps[int]:
    """Discard signals that nobody has taken since a time, of workflows that have no open event; returns how many."""
    rows = yield Fetch("unclaimed", {"before_us": before_us, "count": count})
    if rows:
        seqs = [row[0] for row in rows]
        yield Fetch("discard_signals", {"seqs": seqs, "reason": Reason.UNCLAIMED, "now_us": now_us})
        notes = [
            NotedAction(event_seq=seq, at_us=now_us, run=run, action="discarded", detail=Reason.UNCLAIMED)
            for seq, _, run in rows
        ]
        yield Batch("insert_actions", notes)
        yield tally(node, moves(State.KEPT, [State.DISCARDED] * len(rows)))
    return len(rows)
