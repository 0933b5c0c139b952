"""In doubt: effects that may have happened unrecorded, and the decisions that a person can make about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from replayforge.domain.errors import Conflict
from replayforge.domain.event import Action, Attempt, StoredEvent
from replayforge.domain.journal import StepRecord, StepState
from replayforge.domain.lifecycle import TERMINAL, UNDECIDED, Reason, State


class DoubtDecision(StrEnum):
    """What a person says of an event in doubt: what was begun is done, it is to run again, or it has failed."""

    DONE = "done"
    AGAIN = "again"
    DEAD_LETTERED = "dead_lettered"


class Standing(StrEnum):
    """What becomes of an event in doubt."""

    UNDECIDED = "undecided"  # it is held until a person decides
    DECIDED = "decided"  # a person has decided
    STARTED_AGAIN = "started_again"  # nobody is asked: it is started again, and what it did may be done twice
    ENDED = "ended"  # it has ended, and is not started again by itself


@dataclass(frozen=True, slots=True)
class EventInDoubt:
    """An event of which attempts were cut short, newest first, and the steps of its journal that these may have begun.

    `decision` is the last one that a person has made about it.
    """

    event: StoredEvent
    attempts: Sequence[Attempt]
    steps: Sequence[StepRecord]
    decision: Action | None = None

    @property
    def standing(self) -> Standing:
        """What becomes of it."""
        if is_undecided(self.event):
            return Standing.UNDECIDED
        newest_us = self.attempts[0].ended_at_us if self.attempts else 0
        if self.decision is not None and self.decision.at_us >= newest_us:
            return Standing.DECIDED
        last_token = self.attempts[0].token if self.attempts else self.event.lease_token
        ended = self.event.state in TERMINAL and self.event.lease_token == last_token
        return Standing.ENDED if ended else Standing.STARTED_AGAIN


def is_undecided(event: StoredEvent) -> bool:
    """Tell whether an event is held until a person says what its attempt did."""
    return event.state is State.HELD and (event.reason is None or event.reason in UNDECIDED)


def target_of(event: StoredEvent, decision: DoubtDecision) -> State:
    """Return where an event that is undecided goes by a decision; one goes on whose step in doubt is done."""
    if decision is DoubtDecision.DEAD_LETTERED:
        return State.DEAD_LETTERED
    if decision is DoubtDecision.AGAIN or event.reason == Reason.IN_DOUBT:
        return State.QUEUED
    return State.SUCCEEDED


def decision_in_words(target: State, subject: str, reason: str, *, with_result: bool) -> str:
    """Say what a person has decided about a step or an event, the `subject`, for those who look at it later."""
    if target is State.DEAD_LETTERED:
        said = "had failed"
    elif target is State.QUEUED and not with_result:
        said = "runs again"
    else:
        said = "is done, with a result" if with_result else "is done"
    return f"{subject} {said}: {reason}" if reason else f"{subject} {said}"


def steps_in_doubt(records: Sequence[StepRecord]) -> list[str]:
    """Return the names of the steps of which nobody knows how they ended."""
    return [record.step for record in records if record.state is StepState.STARTED]


def resolved_step(
    records: Sequence[StepRecord], step: str | None, *, target: State, result: bytes | None, words: str, now_us: int
) -> StepRecord:
    """Return a step in doubt as somebody has decided about it; raises Conflict when it is not in doubt.

    Without a name the only one is meant, and Conflict is raised where there are several.
    With a result it has ended with that. Without one it is to be done again where its event is queued, and has failed
    where that becomes a dead letter.
    """
    doubtful = [one for one in records if one.state is StepState.STARTED and step in (None, one.step)]
    if len(doubtful) > 1:
        raise Conflict(f"Say which step is meant: {', '.join(steps_in_doubt(records))} are in doubt.")
    known = doubtful[0] if doubtful else None
    if known is None:
        which = "No step of this event is" if step is None else f"The step {step!r} is not"
        raise Conflict(f"{which} in doubt. In doubt: {', '.join(steps_in_doubt(records)) or 'none'}.")
    ended = {"recorded": max(max(one.begun, one.recorded) for one in records) + 1, "ended_at_us": now_us}
    if result is not None:
        return msgspec.structs.replace(known, state=StepState.DONE, result=result, **ended)
    if target is State.QUEUED:
        return msgspec.structs.replace(known, state=StepState.PENDING, begun=0, tries=0)
    failure = words or "Somebody has decided that it failed."
    return msgspec.structs.replace(known, state=StepState.FAILED, error_type=Reason.IN_DOUBT, error=failure, **ended)
