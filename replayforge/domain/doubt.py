"""What a person decides about a step that is to run once and had begun when nobody could see how it ended."""

from collections.abc import Sequence

import msgspec

from replayforge.domain.errors import Conflict
from replayforge.domain.journal import StepRecord, StepState
from replayforge.domain.lifecycle import State

IN_DOUBT = "in_doubt"


def steps_in_doubt(records: Sequence[StepRecord]) -> list[str]:
    """Return the names of the steps of which nobody knows how they ended."""
    return [record.step for record in records if record.state is StepState.STARTED]


def resolved_step(
    records: Sequence[StepRecord], step: str, *, target: State, result: bytes | None, words: str, now_us: int
) -> StepRecord:
    """Return a step in doubt as somebody has decided about it; raises Conflict when it is not in doubt.

    With a result it has ended with that. Without one it is to be done again where its event is queued, and has failed
    where that becomes a dead letter.
    """
    known = next((one for one in records if one.step == step and one.state is StepState.STARTED), None)
    if known is None:
        doubts = ", ".join(steps_in_doubt(records)) or "none of its steps"
        raise Conflict(f"The step {step!r} is not in doubt; {doubts} is.")
    ended = {"recorded": max(max(one.begun, one.recorded) for one in records) + 1, "ended_at_us": now_us}
    if result is not None:
        return msgspec.structs.replace(known, state=StepState.DONE, result=result, **ended)
    if target is State.QUEUED:
        return msgspec.structs.replace(known, state=StepState.PENDING, begun=0, tries=0)
    failure = words or "Somebody has decided that it failed."
    return msgspec.structs.replace(known, state=StepState.FAILED, error_type=IN_DOUBT, error=failure, **ended)
