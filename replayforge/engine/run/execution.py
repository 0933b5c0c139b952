"""From a claimed event to what is to be settled: finds the handler, has it run, judges the result."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import structs

from replayforge import crashpoints
from replayforge.domain.clock import Clock, to_us
from replayforge.domain.event import ClaimedEvent, StoredEvent
from replayforge.domain.lifecycle import Outcome, Reason, State
from replayforge.domain.retry import RetryPolicy
from replayforge.domain.verdict import Result, Verdict, error_signature, judge
from replayforge.engine.handlers.registry import Handler, Handlers, policy_of
from replayforge.engine.run.attempt import AttemptEnvironment, NotBegun, RunningAttempt
from replayforge.engine.run.deadlines import Deadlines
from replayforge.engine.run.journal_ends import Left, Park, in_doubt
from replayforge.engine.run.journal_records import JournalTools
from replayforge.engine.run.journaling import Journaling
from replayforge.stores.transactions import Settlement

UNFINISHED = frozenset({Outcome.TIMED_OUT, Outcome.INTERRUPTED, Outcome.CRASHED})


class WorkerCrashed(Exception):
    """A handler ended in a way that takes its worker with it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for every execution: the defaults, the clock, where chance comes from, deadlines and journals."""

    retry: RetryPolicy
    timeout_seconds: float
    clock: Clock
    rng: random.Random
    deadlines: Deadlines
    journals: JournalTools


class Execution(msgspec.Struct, frozen=True):
    """One attempt of one claimed event. `started` is on the monotonic clock, so an attempt lasts as long as it lasted,
    whatever the wall clock does meanwhile. `attempt` runs the handler; there is none where there is no handler."""

    claimed: ClaimedEvent
    worker: str
    handler: Handler | None
    attempt: RunningAttempt | None
    started_at_us: int
    started: float

    @property
    def details(self) -> Mapping[str, Any]:
        """What the handler says of itself."""
        return self.attempt.details if self.attempt is not None else {}


def begin(
    claimed: ClaimedEvent, worker: str, handlers: Handlers, rules: Rules, environment: AttemptEnvironment
) -> Execution:
    """Find the handler of an event and make its attempt ready."""
    handler = handlers.find(claimed.event.route)
    attempt = None if handler is None else RunningAttempt(claimed, handler, environment)
    return Execution(claimed, worker, handler, attempt, rules.clock.now_us(), rules.clock.monotonic())


def opened(rules: Rules, attempt: RunningAttempt) -> Journaling:
    """Return the journal of an attempt whose code makes its first call to it."""
    row = attempt.claimed.event
    return Journaling(attempt, row, policy_of(attempt.handler, row.max_attempts, rules.retry), rules.journals)


async def execute(execution: Execution, rules: Rules) -> Settlement:
    """Run one attempt to its end and return what to settle.

    Raises WorkerCrashed or SimulatedCrash when the worker must die with the event in its hands, CancelledError when the
    worker is told to stop, and NotBegun when the handler was not called and is not to be.
    """
    crashpoints.reach("attempt.started")
    handler, attempt = execution.handler, execution.attempt
    if handler is None or attempt is None:
        result = without_handler(execution.claimed.event)
    else:
        result = await attempt.outcome(handler.timeout_seconds or rules.timeout_seconds, rules.deadlines)
        if not attempt.begun:
            raise NotBegun
        if attempt.simulated is not None:
            raise attempt.simulated
        if result.outcome is Outcome.CRASHED:
            raise WorkerCrashed(f"The handler ended with {result.error}")
    crashpoints.reach("attempt.finished")
    return settle(execution, result, rules)


def settle(execution: Execution, result: Result, rules: Rules) -> Settlement:
    """Judge the result of an attempt that has just ended and return what to settle."""
    ended_at_us = execution.started_at_us + to_us(rules.clock.monotonic() - execution.started)
    attempt = execution.attempt
    if attempt is None or attempt.calls is None:  # as most
        return settlement(execution, result, verdict(execution, result, rules, ended_at_us), ended_at_us)
    left = attempt.calls.left_behind()
    execution = with_progress(execution, left)
    if left.parked is not None and attempt.is_parked:
        return parked(execution, left, left.parked, ended_at_us)
    result = with_journal(result, left)
    decided = verdict(execution, result, rules, ended_at_us)
    return with_records(settlement(execution, result, decided, ended_at_us), left)


def left_by(execution: Execution) -> Left | None:
    """Return what an attempt leaves to be committed with its end; None for one that made no call to its journal."""
    attempt = execution.attempt
    left: Left | None = None if attempt is None or attempt.calls is None else attempt.calls.left_behind()
    return left


def with_progress(execution: Execution, left: Left) -> Execution:
    """Return the execution without what earlier attempts had spent, if it got any further than they."""
    claimed = execution.claimed
    if not left.progressed or not (claimed.event.attempt_count or claimed.event.crashes):
        return execution
    event = structs.replace(claimed.event, attempt_count=0, crashes=0)
    return structs.replace(execution, claimed=structs.replace(claimed, event=event))


def with_journal(result: Result, left: Left) -> Result:
    """Return what an attempt came to in the light of its journal: a step in doubt, a cancel that its code has heard."""
    if left.in_doubt is not None and result.outcome in UNFINISHED:
        return in_doubt(left.in_doubt)
    if left.cancelled and result.outcome is Outcome.SUCCEEDED:
        return structs.replace(result, state=State.CANCELLED)
    return result


def with_open_journal(interrupted: Settlement, execution: Execution) -> Settlement:
    """Return what to settle for an attempt that was cut short, with what its journal may not hold yet."""
    left = left_by(execution)
    if left is None:
        return interrupted
    if left.in_doubt is not None:
        doubt = in_doubt(left.in_doubt)
        verdict = structs.replace(interrupted.verdict, state=State.HELD, reason=doubt.reason)
        interrupted = structs.replace(interrupted, verdict=verdict, error=doubt.error)
    return with_records(interrupted, left)


def with_records(settled: Settlement, left: Left) -> Settlement:
    """Return what is to be committed together with what the journal holds that may not be durable."""
    return structs.replace(settled, journal=left.number, records=left.records, waited=left.waited, label=left.label)


def parked(execution: Execution, left: Left, park: Park, ended_at_us: int) -> Settlement:
    """Return what to settle for an event that waits from now on."""
    row, due = execution.claimed.event, park.due_in_seconds
    state = State.RETRYING if park.only_retries else State.WAITING
    due_at_us = None if due is None else ended_at_us + to_us(due)
    decided = Verdict(state, row.attempt_count, row.crashes, due_at_us=due_at_us)
    settled = settlement(execution, Result(Outcome.INTERRUPTED, park.last_error), decided, ended_at_us)
    signature = None if park.last_error is None else error_signature(park.last_error)
    return structs.replace(
        with_records(settled, left), parked=True, waits=park.waits, error_signature=signature, restart=left.restart
    )


def without_handler(event: StoredEvent) -> Result:
    """Return what an attempt comes to that there is no handler for."""
    whose = "" if event.subscriber is None else f" and subscriber {event.subscriber!r}"
    return Result(Outcome.FAILED, f"No handler is registered for events of type {event.event_type!r}{whose}.")


def verdict(execution: Execution, result: Result, rules: Rules, ended_at_us: int) -> Verdict:
    """Decide what follows from the result."""
    row = execution.claimed.event
    if execution.handler is None:
        return Verdict(State.DEAD_LETTERED, row.attempt_count, row.crashes, reason=Reason.NO_HANDLER)
    return judge(
        result,
        attempt_count=row.attempt_count,
        crashes=row.crashes,
        policy=policy_of(execution.handler, row.max_attempts, rules.retry),
        now_us=ended_at_us,
        rng=rules.rng,
    )


def settlement(execution: Execution, result: Result, decided: Verdict, ended_at_us: int) -> Settlement:
    """Put together what is to be committed."""
    return Settlement(
        event=execution.claimed.event,
        outcome=result.outcome,
        verdict=decided,
        worker=execution.worker,
        started_at_us=execution.started_at_us,
        ended_at_us=ended_at_us,
        error=result.error,
        error_signature=signature_of(result),
        result=result.value,
        failed_steps=result.failed_steps,
    )


def signature_of(result: Result) -> str | None:
    """Return by what errors of this kind are gathered; interruptions are all of one kind."""
    if result.outcome is Outcome.INTERRUPTED:
        return "interrupted"
    return None if result.error is None else error_signature(result.error)


def interruption(
    claimed: ClaimedEvent,
    worker: str,
    started_at_us: int,
    now_us: int,
    error: str = "The daemon stopped before the handler had finished.",
) -> Settlement:
    """Return what to settle for an attempt that was cut short by no fault of its own."""
    row = claimed.event
    return Settlement(
        event=row,
        outcome=Outcome.INTERRUPTED,
        verdict=Verdict(State.QUEUED, row.attempt_count, row.crashes),
        worker=worker,
        started_at_us=started_at_us,
        ended_at_us=max(started_at_us, now_us),
        error=error,
        error_signature="interrupted",
    )
