"""How an attempt with a journal ends, and what it leaves to be committed."""

import msgspec

from replayforge.domain.journal import AwaitedEvent, StepRecord
from replayforge.domain.lifecycle import Outcome, Reason, State
from replayforge.domain.verdict import Result

CANCELLED = Result(Outcome.INTERRUPTED, "The event was cancelled.", state=State.CANCELLED)


class Park(msgspec.Struct, frozen=True):
    """What a parked event waits for, and when it is woken at the latest; `last_error` is that of a step that failed.

    `work_cut` says that the handler may have been doing something outside of its steps.
    """

    pending: tuple[StepRecord, ...]
    waits: tuple[AwaitedEvent, ...]
    due_in_seconds: float | None
    only_retries: bool
    work_cut: bool
    last_error: str | None


class Left(msgspec.Struct, frozen=True):
    """What an attempt leaves to be committed with its end: steps that may not be durable, and whether it had any.

    `in_doubt` names a step that is to run once, has begun, and may or may not have ended; `cancelled` says that the
    code was told of a cancel, `waited` that it waits, or has waited, for something outside. `restart` is what the next
    journal goes on with, `label` names the code.
    """

    number: int
    records: tuple[StepRecord, ...]
    progressed: bool
    cancelled: bool
    waited: bool
    in_doubt: str | None
    parked: Park | None
    restart: bytes | None = None
    label: str = ""


def ended(reason: Reason, words: str) -> Result:
    """Return the result of an attempt that the journal ends for good."""
    return Result(Outcome.FAILED, words, permanent=True, reason=reason)


def in_doubt(step: str) -> Result:
    """Return the result of an attempt that finds a step begun which must not begin a second time."""
    words = (
        f"The step {step!r} is to run once. It had begun, and nobody knows whether it ended: look outside, and resolve"
        " the event."
    )
    return Result(Outcome.INTERRUPTED, words, state=State.HELD, reason=Reason.IN_DOUBT)
