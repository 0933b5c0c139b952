"""The states of an event and every way from one to another, as one value."""

from enum import StrEnum


class State(StrEnum):
    """Where an event stands; the words are those of the API."""

    RECEIVED = "received"
    SCHEDULED = "scheduled"
    QUEUED = "queued"
    PROCESSING = "processing"
    RETRYING = "retrying"
    WAITING = "waiting"  # parked by its own handler, for a time or for another event
    KEPT = "kept"  # a signal that no wait has taken yet
    HELD = "held"
    SUCCEEDED = "succeeded"
    DEAD_LETTERED = "dead_lettered"
    DISCARDED = "discarded"
    CANCELLED = "cancelled"


class Outcome(StrEnum):
    """How one attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    INTERRUPTED = "interrupted"


class Reason(StrEnum):
    """Why an event became a dead letter, is held, was cancelled, or was discarded without a person."""

    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    PERMANENT = "permanent"
    NO_HANDLER = "no_handler"
    POISON = "poison"
    SUSPECTED_POISON = "suspected_poison"
    KEY_REUSED = "key_reused"
    BAD_PAYLOAD = "bad_payload"
    STEP_FAILED = "step_failed"
    JOURNAL_FULL = "journal_full"
    DEADLINE = "deadline"
    IN_DOUBT = "in_doubt"  # a step that is to run once had begun, and nobody knows whether it ended
    CODE_CHANGED = "code_changed"  # the code would not go on as the journal of the run remembers
    OVERLAP = "overlap"  # a schedule's event whose predecessor was still open
    GIVEN_UP = "given_up"  # by a person, who decided so about an event that was held
    UNCLAIMED = "unclaimed"  # a signal that nobody had waited for within its time


TRANSITIONS: dict[State, frozenset[State]] = {
    State.RECEIVED: frozenset(
        {
            State.QUEUED,
            State.PROCESSING,
            State.SCHEDULED,
            State.DEAD_LETTERED,
            State.KEPT,
            State.SUCCEEDED,
            State.CANCELLED,
        },
    ),
    State.SCHEDULED: frozenset({State.QUEUED, State.CANCELLED, State.KEPT, State.SUCCEEDED}),
    State.QUEUED: frozenset({State.PROCESSING, State.DEAD_LETTERED, State.CANCELLED, State.HELD}),
    State.PROCESSING: frozenset(
        {
            State.SUCCEEDED,
            State.RETRYING,
            State.WAITING,
            State.DEAD_LETTERED,
            State.QUEUED,
            State.HELD,
            State.CANCELLED,
        },
    ),
    State.RETRYING: frozenset({State.QUEUED, State.CANCELLED, State.HELD}),
    State.WAITING: frozenset({State.QUEUED, State.CANCELLED, State.DEAD_LETTERED, State.HELD}),
    State.KEPT: frozenset({State.SUCCEEDED, State.DISCARDED}),
    State.HELD: frozenset({State.QUEUED, State.SUCCEEDED, State.DEAD_LETTERED}),
    State.SUCCEEDED: frozenset({State.QUEUED, State.KEPT}),
    State.DEAD_LETTERED: frozenset({State.QUEUED, State.DISCARDED}),
    State.DISCARDED: frozenset({State.QUEUED}),
    State.CANCELLED: frozenset({State.QUEUED}),
}

TERMINAL = frozenset({State.SUCCEEDED, State.DEAD_LETTERED, State.DISCARDED, State.CANCELLED})
OPEN = frozenset(State) - TERMINAL - {State.RECEIVED}
# What a replay of failed events runs anew. Cancelled and discarded ones were ended by a person, who decided that they
# are not to run; a held one still waits for such a decision.
FAILED = frozenset({State.DEAD_LETTERED})
TIMED = frozenset({State.SCHEDULED, State.RETRYING, State.WAITING})  # waiting for a time that their row names
ANSWERING = TERMINAL - FAILED  # ends of a child that answer its parent; one that failed may yet be replayed
UNDER_WAY = frozenset({State.QUEUED, State.PROCESSING})  # due and not ended: what a death may concern
PLACED = OPEN - {State.SCHEDULED, State.KEPT}  # what takes a place in its lane; what is scheduled does when it is due
HOLDING = PLACED | FAILED  # what keeps its place there, a dead letter only where it blocks
ATTEMPT_SPENDING = frozenset({Outcome.FAILED, Outcome.TIMED_OUT})
# How attempts end of which nobody knows what they did: their process or their worker died, or they were cut off.
CUT_SHORT = frozenset({Outcome.CRASHED, Outcome.INTERRUPTED})
# Why events are held of which a person must say what their attempts did; one without a reason has a cautious handler.
UNDECIDED = frozenset({Reason.SUSPECTED_POISON, Reason.IN_DOUBT})
UNSUCCESSFUL = frozenset({Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CRASHED})


def held_way_out(event_id: str) -> str:
    """Say how a held event gets on, for whoever is refused something else."""
    ways = "|".join(sorted(TRANSITIONS[State.HELD]))
    return f"A held event waits for a decision: `replayforge events resolve {event_id} --as {ways}`, or its page."


def sources_of(target: State) -> frozenset[State]:
    """Return the states from which `target` can be reached in one step."""
    return frozenset(state for state, targets in TRANSITIONS.items() if target in targets)


REPLAYABLE = TERMINAL & sources_of(State.QUEUED)
REPLAYABLE_WITHOUT_FORCE = REPLAYABLE - {State.SUCCEEDED}
CANCELLABLE = sources_of(State.CANCELLED)
