"""How states are shown to people, on pages and terminals alike: a glyph and words each, for colour is not enough."""

from typing import NamedTuple

from replayforge.domain.bulk_replay import JobState
from replayforge.domain.lifecycle import Outcome, State


class Sign(NamedTuple):
    """What stands for a state; the words are those of a sentence."""

    glyph: str
    words: str


STATES: dict[str, Sign] = {
    State.RECEIVED: Sign("·", "received"),
    State.SCHEDULED: Sign("◷", "scheduled"),
    State.QUEUED: Sign("○", "queued"),
    State.PROCESSING: Sign("◐", "processing"),
    State.RETRYING: Sign("↻", "retrying"),
    State.WAITING: Sign("◌", "waiting"),
    State.KEPT: Sign("◇", "kept"),
    State.HELD: Sign("‖", "held"),
    State.SUCCEEDED: Sign("✓", "succeeded"),
    State.DEAD_LETTERED: Sign("✕", "dead-lettered"),
    State.DISCARDED: Sign("⊘", "discarded"),
    State.CANCELLED: Sign("−", "cancelled"),
}
OUTCOMES: dict[str, Sign] = {
    Outcome.SUCCEEDED: Sign("✓", "succeeded"),
    Outcome.FAILED: Sign("✕", "failed"),
    Outcome.TIMED_OUT: Sign("⧖", "timed out"),
    Outcome.CRASHED: Sign("⚡", "crashed"),
    Outcome.INTERRUPTED: Sign("‖", "interrupted"),
}
# How a step stands: as its row says, and what its event and later generations add to that.
STEP_STATES: dict[str, Sign] = {
    "started": Sign("◐", "started"),
    "pending": Sign("◌", "pending"),
    "done": Sign("✓", "done"),
    "failed": Sign("✕", "failed"),
    "running": Sign("◐", "running"),
    "waiting": Sign("◌", "waiting"),
    "in_doubt": Sign("?", "in doubt"),
    "again": Sign("○", "to be done again"),
    "replaced": Sign("⊘", "replaced"),
    "open": Sign("−", "left open"),
}
JOB_STATES: dict[str, Sign] = {
    JobState.PENDING: Sign("○", "pending"),
    JobState.CANARY: Sign("◔", "trying the first"),
    JobState.RUNNING: Sign("◐", "running"),
    JobState.PAUSED: Sign("‖", "paused"),
    JobState.DONE: Sign("✓", "done"),
    JobState.CANCELLED: Sign("−", "cancelled"),
}
HANDLER_STATES: dict[str, Sign] = {
    "ready": Sign("●", "ready"),
    "paused": Sign("‖", "paused"),
    "failing": Sign("✕", "failing"),
    "superseded": Sign("◌", "superseded"),
}
