"""From where a replay may begin, as forms offer it: in words, with how many recorded effects happen once more."""

from collections.abc import Sequence
from dataclasses import dataclass

from replayforge.domain.errors import Conflict
from replayforge.domain.event import StoredEvent
from replayforge.domain.lifecycle import State
from replayforge.domain.replay_plan import FROM_FAILURE, FROM_START, PastJournal, origin_of, plan_replay
from replayforge.web.pages.words import plural

STEPS_MAX = 200

Past = tuple[StoredEvent, PastJournal]


@dataclass(frozen=True, slots=True)
class ReplayOrigin:
    """A place from which a replay may begin; one that has an `objection` cannot be chosen."""

    name: str
    words: str
    objection: str = ""


def origins_of(pasts: Sequence[Past]) -> list[ReplayOrigin]:
    """Return from where these events may be replayed, nothing where they remember no step."""
    pasts = [(event, journal) for event, journal in pasts if journal.steps]
    if not pasts:
        return []
    if len(pasts) > 1:
        return [ReplayOrigin(FROM_FAILURE, "the failure that ended each"), from_start(pasts)]
    (event, journal) = pasts[0]
    steps = sorted((one for one in journal.steps if one.begun), key=lambda one: one.begun)
    names = dict.fromkeys(one.step for one in steps[:STEPS_MAX])
    return [*from_failure(event, journal), from_start(pasts), *(from_step(event, journal, name) for name in names)]


def from_failure(event: StoredEvent, journal: PastJournal) -> list[ReplayOrigin]:
    """Return the failure, unless there was none; where something stands in the way, that is said."""
    if event.state is State.SUCCEEDED:
        return []
    try:
        cleared = plan_replay(event.id, event.state, journal, FROM_FAILURE).cleared
    except Conflict as conflict:
        return [ReplayOrigin(FROM_FAILURE, "the failure", str(conflict))]
    again = f": {', '.join(one.step for one in cleared)} once more" if cleared else ", with all that is recorded"
    return [ReplayOrigin(FROM_FAILURE, f"the failure{again}")]


def from_start(pasts: Sequence[Past]) -> ReplayOrigin:
    """Return the start."""
    plans = [plan_replay(event.id, event.state, journal, FROM_START) for event, journal in pasts]
    return ReplayOrigin(FROM_START, f"the start: {repeated(sum(plan.effects for plan in plans))}")


def from_step(event: StoredEvent, journal: PastJournal, name: str) -> ReplayOrigin:
    """Return a step."""
    plan = plan_replay(event.id, event.state, journal, origin_of(name))
    return ReplayOrigin(plan.begins_from, f"step {name}: {repeated(plan.effects)}")


def repeated(effects: int) -> str:
    """Say how many effects happen once more."""
    return f"{plural(effects, 'recorded effect')} {'happens' if effects == 1 else 'happen'} again"
