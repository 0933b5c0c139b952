"""What follows from an attempt that ran to an end: done, tried again and when, or a dead letter. Decisions only."""

import random
import re

import msgspec

from replayforge.domain.clock import to_us
from replayforge.domain.lifecycle import ATTEMPT_SPENDING, Outcome, Reason, State
from replayforge.domain.retry import RetryPolicy

VARIABLE_PARTS = (
    (re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`"), "'…'"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b|\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "…"),
    (re.compile(r"\b(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{8,}\b"), "…"),
    (re.compile(r"\d+"), "N"),
)


class Result(msgspec.Struct, frozen=True):
    """How an attempt ended, before anybody decided what follows from it.

    One that does not count spends no attempt. Where the end itself decides, `state` says where the event goes to;
    `reason` why that is. `failed_steps` are those whose failures the exception carried that ended it.
    """

    outcome: Outcome
    error: str | None = None
    value: bytes | None = None
    retry_after_seconds: float | None = None
    permanent: bool = False
    reason: Reason | None = None
    state: State | None = None
    failed_steps: tuple[str, ...] = ()
    counts: bool = True


class Verdict(msgspec.Struct, frozen=True):
    """The state an event goes to after an attempt; `due_at_us` is set when it has to wait."""

    state: State
    attempt_count: int
    crashes: int
    due_at_us: int | None = None
    reason: Reason | None = None


def judge(
    result: Result, *, attempt_count: int, crashes: int, policy: RetryPolicy, now_us: int, rng: random.Random
) -> Verdict:
    """Decide what follows from the result of an attempt that ran to an end.

    Only failed and timed-out attempts that count are counted against `policy.max_attempts`.
    """
    if result.state is not None:
        return Verdict(result.state, attempt_count, crashes, reason=result.reason)
    spent = attempt_count + (result.counts and result.outcome in ATTEMPT_SPENDING)
    if result.outcome is Outcome.SUCCEEDED:
        return Verdict(State.SUCCEEDED, spent, crashes)
    if result.outcome is Outcome.INTERRUPTED:
        return Verdict(State.QUEUED, spent, crashes)
    if result.permanent:
        return Verdict(State.DEAD_LETTERED, spent, crashes, reason=result.reason or Reason.PERMANENT)
    if result.counts and spent >= policy.max_attempts:
        return Verdict(State.DEAD_LETTERED, spent, crashes, reason=Reason.ATTEMPTS_EXHAUSTED)
    asked = result.retry_after_seconds
    delay_seconds = policy.delay_seconds(max(1, spent), rng) if asked is None else asked
    return Verdict(State.RETRYING, spent, crashes, due_at_us=now_us + to_us(delay_seconds))


def error_signature(error: str) -> str:
    """Return the error with everything that varies from case to case replaced, so that like errors group together."""
    line = error.strip().splitlines()[0][:300] if error.strip() else "unknown error"
    for pattern, replacement in VARIABLE_PARTS:
        line = pattern.sub(replacement, line)
    return line[:200]
