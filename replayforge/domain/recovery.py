"""What becomes of an event after an attempt, or after a crash in the middle of one: decisions only."""

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from replayforge.domain.clock import to_us
from replayforge.domain.lifecycle import ATTEMPT_SPENDING, Outcome, Reason, State
from replayforge.domain.retry import RetryPolicy

CRASHES_MAX = 3

VARIABLE_PARTS = (
    (re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`"), "'…'"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b|\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "…"),
    (re.compile(r"\b(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{8,}\b"), "…"),
    (re.compile(r"\d+"), "N"),
)


@dataclass(frozen=True, slots=True)
class Result:
    """How an attempt ended, before anybody decided what follows from it."""

    outcome: Outcome
    error: str | None = None
    value: bytes | None = None
    retry_after_seconds: float | None = None
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state an event goes to after an attempt; `due_at_us` is set when it has to wait."""

    state: State
    attempt_count: int
    crashes: int
    due_at_us: int | None = None
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class InFlight:
    """An event that was in the hands of a worker or a process that died."""

    event_id: str
    event_type: str
    run: int
    token: int
    attempt_count: int
    crashes: int
    owner: str
    started_at_us: int
    worker: str = ""


@dataclass(frozen=True, slots=True)
class Reclaim:
    """What to do with one event that a crash left behind. A suspect runs alone before anything is charged to it."""

    event: InFlight
    verdict: Verdict
    suspect: bool


def judge(
    result: Result, *, attempt_count: int, crashes: int, policy: RetryPolicy, now_us: int, rng: random.Random
) -> Verdict:
    """Decide what follows from the result of an attempt that ran to an end.

    Only failed and timed-out attempts are counted against `policy.max_attempts`.
    """
    spent = attempt_count + (result.outcome in ATTEMPT_SPENDING)
    if result.outcome is Outcome.SUCCEEDED:
        return Verdict(State.SUCCEEDED, spent, crashes)
    if result.outcome is Outcome.INTERRUPTED:
        return Verdict(State.QUEUED, spent, crashes)
    if result.permanent:
        return Verdict(State.DEAD_LETTERED, spent, crashes, reason=Reason.PERMANENT)
    if spent >= policy.max_attempts:
        return Verdict(State.DEAD_LETTERED, spent, crashes, reason=Reason.ATTEMPTS_EXHAUSTED)
    asked = result.retry_after_seconds
    delay_seconds = policy.delay_seconds(spent, rng) if asked is None else asked
    return Verdict(State.RETRYING, spent, crashes, due_at_us=now_us + to_us(delay_seconds))


def triage(in_flight: Iterable[InFlight], holds_on_crash: Callable[[str], bool]) -> list[Reclaim]:
    """Decide what becomes of events whose process died with all of them in flight.

    One event that was alone is charged with the crash; of several, each is only a suspect and is charged with nothing.
    `holds_on_crash` says of an event type whether a person must look before it runs again.
    """
    events = list(in_flight)
    alone = len(events) == 1
    return [after_crash(event, charged=alone, hold=holds_on_crash(event.event_type), suspect=True) for event in events]


def after_crash(event: InFlight, *, charged: bool, hold: bool, suspect: bool) -> Reclaim:
    """Decide for one event: bury it as poison after the third crash that was surely its own, else hold or requeue.

    `suspect` asks for the event to run alone next time, because its crash took the whole process along.
    """
    crashes = event.crashes + charged
    if crashes >= CRASHES_MAX:
        verdict = Verdict(State.DEAD_LETTERED, event.attempt_count, crashes, reason=Reason.POISON)
    elif hold:
        verdict = Verdict(State.HELD, event.attempt_count, crashes)
    else:
        verdict = Verdict(State.QUEUED, event.attempt_count, crashes)
    return Reclaim(event, verdict, suspect=suspect and verdict.state is State.QUEUED)


def error_signature(error: str) -> str:
    """Return the error with everything that varies from case to case replaced, so that like errors group together."""
    line = error.strip().splitlines()[0][:300] if error.strip() else "unknown error"
    for pattern, replacement in VARIABLE_PARTS:
        line = pattern.sub(replacement, line)
    return line[:200]
