"""How a step stands, as pages name it: what its row says, and what its event and later generations add to that."""

from collections.abc import Sequence

from replayforge.domain.event import StoredEvent
from replayforge.domain.journal import RECORDED, StepKind, StepRecord, StepState
from replayforge.domain.lifecycle import OPEN, State

WAITS = frozenset({StepKind.SLEEP, StepKind.WAIT, StepKind.CALL})
UNDER_WAY = frozenset({"waiting", "running"})
KIND_WORDS = {
    StepKind.STEP: "step",
    StepKind.SLEEP: "sleep",
    StepKind.WAIT: "wait for an event",
    StepKind.SEND: "child event",
    StepKind.CALL: "child event, and its end",
    StepKind.FIRST: "the first of several",
    StepKind.NOW: "the time",
}


def states_of(event: StoredEvent, records: Sequence[StepRecord]) -> list[str]:
    """Return how each step of a journal stands."""
    newest = {(one.kind, one.step): one.generation for one in records}
    return [state_of(one, event, newest[one.kind, one.step]) for one in records]


def state_of(one: StepRecord, event: StoredEvent, generation: int) -> str:
    """Return how a step stands whose newest generation is this one."""
    if one.generation < generation:
        return "replaced"
    if one.state in RECORDED:
        return one.state.value
    if one.begun == 0:
        return "again"
    if event.state not in OPEN:
        return "open"
    if one.state is StepState.STARTED:
        return "in_doubt" if event.state is State.HELD else "running"
    return "waiting"


def bar_kind(one: StepRecord, state: str) -> str:
    """Return as what its stretch of time is drawn: only steps are work, the others are waits."""
    return "wait" if one.kind in WAITS else state


def end_of(one: StepRecord, state: str, now_us: int) -> int:
    """Return until when a step has gone on, or when it was heard of last."""
    return now_us if state in UNDER_WAY else max(one.started_at_us, one.ended_at_us or 0)
