"""Open runs and the code that goes on with them: they are read, held where it cannot, and let go again."""

from collections import Counter
from collections.abc import Sequence
from itertools import starmap

import msgspec

from replayforge.domain.code_change import BREAKING, CodeChange, decode_change, encoded
from replayforge.domain.event import Entry, StoredEvent
from replayforge.domain.lifecycle import Reason, State
from replayforge.domain.recorded_run import RecordedRun
from replayforge.stores.batches import MovedEvent, NotedAction, NotedChange
from replayforge.stores.burial import ERROR_CHARACTERS_MAX, storable_text
from replayforge.stores.decisions import what_it_waits_for
from replayforge.stores.driver import Batch, Fetch, Steps
from replayforge.stores.recordings import runs_of
from replayforge.stores.rows import stored_event
from replayforge.stores.tallies import WAITS_FOR, moves, tally

# Where a run stands that code goes on with later; the held ones among them are those that the gate has held.
OPEN_RUNS = (State.HELD, State.QUEUED, State.RETRYING, State.WAITING)


class OpenRun(msgspec.Struct, frozen=True):
    """An event with a journal whose run is not over.

    `label` is that of the code that parked it. `change` is why it is held, or what somebody has let pass.
    """

    recorded: RecordedRun
    label: str
    change: CodeChange | None

    @property
    def event(self) -> StoredEvent:
        """The event, as it stands."""
        return self.recorded.event

    @property
    def is_held(self) -> bool:
        """Whether the gate has held it."""
        return self.event.state is State.HELD


class ChangedRun(msgspec.Struct, frozen=True):
    """A run as it was looked at, and what the code does otherwise."""

    event: StoredEvent
    change: CodeChange


def open_runs(state: State, after_seq: int, count: int) -> Steps[list[OpenRun]]:
    """Fetch the next runs in this state that have a journal; of held ones those that the gate has held."""
    reason = Reason.CODE_CHANGED if state is State.HELD else None
    rows = yield Fetch("open_runs", {"state": state, "reason": reason, "after_seq": after_seq, "count": count})
    recorded = yield from runs_of([stored_event(row[:-2]) for row in rows])
    return [
        OpenRun(run, row[-2], None if row[-1] is None else decode_change(row[-1]))
        for run, row in zip(recorded, rows, strict=True)
    ]


def open_run(event: StoredEvent) -> Steps[OpenRun | None]:
    """Fetch the run of an event that was claimed just now, as it stood before; None where it has no journal."""
    rows = yield Fetch("story", {"seq": event.seq})
    if not rows:
        return None
    (recorded,) = yield from runs_of([msgspec.structs.replace(event, lease_token=event.lease_token - 1)])
    label, change = rows[0][3:5]
    return OpenRun(recorded, label, None if change is None else decode_change(change))


def hold(node: str, changed: Sequence[ChangedRun], now_us: int) -> Steps[list[str]]:
    """Hold those of the runs that stand as they were looked at; returns their ids."""
    yield Fetch("lock_events", {"seqs": sorted(one.event.seq for one in changed)})
    waited_for: dict[int, str] = {}
    for event in (one.event for one in changed):
        pattern = yield from what_it_waits_for(event)
        if pattern is not None:
            waited_for[event.seq] = pattern
    wanted = [
        (
            one.event.seq,
            one.event.run,
            one.event.state,
            one.event.lease_token,
            storable_text(one.change.words, ERROR_CHARACTERS_MAX),
        )
        for one in changed
    ]
    rows = yield Fetch("hold_events", {"holds": wanted, "now_us": now_us})
    seqs = {row[0] for row in rows}
    held = [one for one in changed if one.event.seq in seqs]
    yield from note_changes(held)
    notes = [noted(one.event, "held", one.change.words, now_us) for one in held]
    yield Batch("insert_actions", notes)
    moved = Counter[str]({State.HELD: len(held)})
    moved.subtract(one.event.state for one in held)
    moved.subtract(WAITS_FOR + waited_for[seq] for seq in seqs & waited_for.keys())
    yield tally(node, moved)
    return [one.event.id for one in held]


def note_changes(changed: Sequence[ChangedRun]) -> Steps[None]:
    """Note with the journals of runs what the code does otherwise; of one that it continues nothing."""
    rows = [
        NotedChange(seq=one.event.seq, code_change=encoded(one.change) if one.change.fate in BREAKING else None)
        for one in changed
    ]
    if rows:
        yield Batch("note_code_changes", rows)


def release(node: str, events: Sequence[StoredEvent], words: str, now_us: int) -> Steps[list[Entry]]:
    """Queue those of the events that are held still, which the code continues again; returns their entries."""
    rows = yield Fetch("lock_events", {"seqs": sorted(event.seq for event in events)})
    still = {(seq, run) for seq, _, run, state in rows if state == State.HELD}
    released = [event for event in events if (event.seq, event.run) in still]
    queued = [
        MovedEvent(
            seq=event.seq,
            run=event.run,
            state=State.HELD,
            target=State.QUEUED,
            reason=None,
            due_at_us=None,
            at_us=now_us,
        )
        for event in released
    ]
    yield Batch("move_event", queued)
    yield Batch("note_code_changes", [NotedChange(seq=event.seq, code_change=None) for event in released])
    yield Batch("insert_actions", [noted(event, "released", words, now_us) for event in released])
    yield tally(node, moves(State.HELD, [State.QUEUED] * len(released)))
    return list(starmap(Entry, ((event.id, event.run) for event in released)))


def noted(event: StoredEvent, action: str, words: str, at_us: int) -> NotedAction:
    """Return the row that notes what the gate did to a run."""
    return NotedAction(
        event_seq=event.seq,
        at_us=at_us,
        run=event.run,
        action=action,
        detail=storable_text(words, ERROR_CHARACTERS_MAX),
    )
