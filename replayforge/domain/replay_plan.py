"""From where a replay begins: what of an event's journal it clears, and what stands in its way. Decisions only."""

import msgspec

from replayforge.domain.errors import Conflict
from replayforge.domain.journal import RECORDED, StepKind, StepState
from replayforge.domain.lifecycle import Reason, State

FROM_FAILURE = "failure"
FROM_START = "start"
STEP = "step:"  # before a name it says that a step is meant, whatever it is called
# What is done once more outside when it is done once more, and what neither does nor takes anything.
EFFECTS = frozenset({StepKind.STEP, StepKind.SEND, StepKind.CALL})
IDLE = frozenset({StepKind.SLEEP, StepKind.FIRST, StepKind.NOW})
NAMED_MAX = 12


class PastStep(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay has to know of a step; see StepRecord."""

    kind: StepKind
    step: str
    generation: int
    state: StepState
    begun: int
    recorded: int
    error_type: str | None = None
    other_id: str | None = None

    @property
    def place(self) -> int:
        """Where it stands in the order of all that its journal has seen."""
        return self.recorded or self.begun


class PastJournal(msgspec.Struct, frozen=True, kw_only=True):
    """The journal that an ended run has left; `ended_by` names the steps whose failures have ended it."""

    number: int
    ended_by: tuple[str, ...] = ()
    steps: tuple[PastStep, ...] = ()


class ReplayPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay does to a journal.

    The new run goes on with the journal `number`, in which the `cleared` steps are done again, as a new generation
    where it `rises`. `effects` is how many effects that are recorded happen once more. `signals` are the events that
    cleared waits have taken and give back, `children` those whose failed calls are cleared and that are replayed, too.
    """

    begins_from: str
    number: int = 1
    cleared: tuple[PastStep, ...] = ()
    rises: bool = False
    effects: int = 0
    signals: tuple[str, ...] = ()
    children: tuple[str, ...] = ()


def plan_replay(event_id: str, state: State, journal: PastJournal | None, begins_from: str | None) -> ReplayPlan:
    """Decide what a replay of an event in this state does to its journal; raises Conflict with what stands in its way.

    `begins_from` is `failure`, `start`, a step, as origin_of names it, or None for what is usual: `failure`. An event
    without a recorded step begins anew in any case.
    """
    if journal is None or not journal.steps:
        if begins_from not in (None, FROM_FAILURE, FROM_START):
            raise Conflict(f"Event {event_id} has recorded no step, so it cannot be replayed from {begins_from!r}.")
        return ReplayPlan(begins_from=FROM_START, number=1 if journal is None else journal.number)
    if begins_from == FROM_START:
        return from_start(journal)
    if begins_from not in (None, FROM_FAILURE):
        return from_step(event_id, journal, str(begins_from).removeprefix(STEP))
    if state is State.SUCCEEDED:
        raise Conflict(
            f"Event {event_id} has succeeded and remembers {len(journal.steps):,} steps: say from where it is to run"
            f" once more, `start` or the name of a step ({named(journal)})."
        )
    return from_failure(event_id, journal)


def from_start(journal: PastJournal) -> ReplayPlan:
    """Return the plan that begins the next journal; what the last one's waits have taken can be taken again."""
    return ReplayPlan(
        begins_from=FROM_START,
        number=journal.number + 1,
        effects=effects_of(journal.steps),
        signals=signals_of(journal.steps),
    )


def from_step(event_id: str, journal: PastJournal, name: str) -> ReplayPlan:
    """Return the plan that has a step done again, and everything that was recorded after it."""
    chosen = min((one for one in journal.steps if one.step == name), key=lambda one: one.begun, default=None)
    if chosen is None:
        raise Conflict(f"Event {event_id} has recorded no step {name!r}; it has {named(journal)}.")
    # One that is to be done again already has nothing after it.
    cleared = tuple(one for one in journal.steps if one is chosen or one.place > chosen.place > 0)
    return ReplayPlan(
        begins_from=origin_of(name),
        number=journal.number,
        cleared=cleared,
        rises=True,
        effects=effects_of(cleared),
        signals=signals_of(cleared),
    )


def from_failure(event_id: str, journal: PastJournal) -> ReplayPlan:
    """Return the plan that has those failed steps done again which have ended the run, unless others followed them."""
    failed = [one for one in journal.steps if one.state is StepState.FAILED and has_ended_run(one, journal)]
    for one in failed:
        later = next((step for step in journal.steps if step.begun > one.recorded and step.kind not in IDLE), None)
        if later is not None:
            raise Conflict(
                f"The step {later.step!r} of event {event_id} began after {one.step!r} had failed, as a compensation"
                f" does: say `start`, or the name of the step from which it is to be replayed ({named(journal)})."
            )
    return ReplayPlan(
        begins_from=FROM_FAILURE,
        number=journal.number,
        cleared=tuple(failed),
        children=tuple(one.other_id for one in failed if one.kind is StepKind.CALL and one.other_id is not None),
    )


def has_ended_run(failed: PastStep, journal: PastJournal) -> bool:
    """Tell whether a failed step has ended the run.

    That may have been a person, who cancelled the event or decided that a step in doubt had failed.
    """
    return failed.step in journal.ended_by or failed.error_type in ("Cancelled", Reason.IN_DOUBT)


def origin_of(step: str) -> str:
    """Return how a replay from a step is asked for: by its name, which says `step:` before where it could mean more."""
    return f"{STEP}{step}" if step in (FROM_FAILURE, FROM_START) or step.startswith(STEP) else step


def effects_of(steps: tuple[PastStep, ...]) -> int:
    """Return how many of the steps have had an effect outside, as far as is recorded."""
    return sum(one.kind in EFFECTS and one.state is StepState.DONE for one in steps)


def signals_of(steps: tuple[PastStep, ...]) -> tuple[str, ...]:
    """Return the events that waits among the steps have taken."""
    waits = (one for one in steps if one.kind is StepKind.WAIT and one.state in RECORDED)
    return tuple(one.other_id for one in waits if one.other_id is not None)


def named(journal: PastJournal) -> str:
    """Name the steps of a journal in their order, as far as they are few."""
    names = [origin_of(one.step) for one in sorted(journal.steps, key=lambda one: one.begun) if one.begun]
    return ", ".join(names[:NAMED_MAX]) + (f" and {len(names) - NAMED_MAX:,} more" if len(names) > NAMED_MAX else "")
