"""One attempt, as a value that walks through its life: find the handler, run it, judge, describe what to settle."""

import asyncio
import random
import traceback
from dataclasses import dataclass
from typing import Any

import msgspec

from replayforge import crashpoints
from replayforge.domain.clock import Clock, to_us
from replayforge.domain.event import Claimed, Event
from replayforge.domain.lifecycle import Outcome, Reason, State
from replayforge.domain.recovery import Result, Verdict, error_signature, judge
from replayforge.domain.retry import Permanent, Retry, RetryPolicy
from replayforge.engine.chaos import Chaos
from replayforge.engine.handlers import Context, Handler, HandlerExited, Handlers, call
from replayforge.stores.transactions import Settlement
from replayforge.telemetry import Telemetry

ERROR_CHARACTERS_MAX = 8_000
RESULT_BYTES_MAX = 256 * 1024


class WorkerCrashed(Exception):
    """A handler ended in a way that takes its worker with it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for every execution: the defaults, the clock and where chance comes from."""

    retry: RetryPolicy
    timeout_seconds: float
    clock: Clock
    rng: random.Random


@dataclass(slots=True)
class Execution:
    """One attempt of one claimed event. `started` is on the monotonic clock, so an attempt lasts as long as it lasted,
    whatever the wall clock does meanwhile. `thread` is set while a plain function runs on after its time-out."""

    claimed: Claimed
    worker: str
    handler: Handler | None
    event: Event
    started_at_us: int
    started: float
    details: dict[str, Any]
    thread: asyncio.Future[Any] | None = None


def begin(claimed: Claimed, worker: str, handlers: Handlers, rules: Rules, details: dict[str, Any]) -> Execution:
    """Decode the event and find its handler."""
    row = claimed.event
    event = Event(
        id=row.id,
        application=row.application_name,
        workflow_id=row.workflow_id,
        event_type=row.event_type,
        service=row.service_name,
        idempotency_key=row.idempotency_key,
        payload_bytes=claimed.content.payload,
        metadata_bytes=claimed.content.metadata,
        created_at_us=row.created_at_us,
        run=row.run,
        attempt=row.attempt_count + 1,
    )
    clock, handler = rules.clock, handlers.find(row.event_type)
    return Execution(claimed, worker, handler, event, clock.now_us(), clock.monotonic(), details)


async def execute(
    claimed: Claimed,
    worker: str,
    handlers: Handlers,
    rules: Rules,
    chaos: Chaos | None,
    telemetry: Telemetry,
    details: dict[str, Any],
) -> tuple[Settlement, asyncio.Future[Any] | None]:
    """Run one attempt to its end and return what to settle, and the thread that still runs, if one does.

    `details` is where the handler says how far it is. Raises WorkerCrashed or SimulatedCrash when the worker must die
    with the event in its hands, and CancelledError when the worker is told to stop.
    """
    execution = begin(claimed, worker, handlers, rules, details)
    telemetry.emit("attempt.started")
    crashpoints.reach("attempt.started")
    result = await run(execution, rules, chaos)
    crashpoints.reach("attempt.finished")
    ended_at_us = execution.started_at_us + to_us(rules.clock.monotonic() - execution.started)
    decided = verdict(execution, result, handlers, rules, ended_at_us)
    return settlement(execution, result, decided, ended_at_us), execution.thread


async def run(execution: Execution, rules: Rules, chaos: Chaos | None) -> Result:
    """Call the handler under its time limit and say how it ended."""
    handler = execution.handler
    if handler is None:
        return Result(Outcome.FAILED, f"No handler is registered for events of type {execution.event.event_type!r}.")
    timeout_seconds = handler.timeout_seconds or rules.timeout_seconds
    limit = asyncio.timeout(timeout_seconds)
    try:
        async with limit:
            if chaos is not None:
                await chaos.strike(execution.event)
            return succeeded(await called(execution, handler, timeout_seconds))
    except TimeoutError as error:
        if limit.expired():
            return Result(Outcome.TIMED_OUT, f"The handler did not finish within {timeout_seconds:g} s.")
        return failed(error)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return Result(Outcome.FAILED, "CancelledError: the handler cancelled itself.")
    except (SystemExit, KeyboardInterrupt, GeneratorExit, HandlerExited) as error:
        raise WorkerCrashed(f"The handler ended with {error!r}.") from error
    except Exception as error:  # whatever a handler raises is its result
        return failed(error)


async def called(execution: Execution, handler: Handler, timeout_seconds: float) -> Any:
    """Call the handler and wait for it; a thread cannot be stopped, so it is remembered until it ends."""
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    context = Context(execution.event, execution.claimed.event.lease_token, deadline, execution.details)
    answer = call(handler, execution.event, context)
    if not isinstance(answer, asyncio.Future):
        return await answer
    execution.thread = answer
    value = await asyncio.shield(answer)
    execution.thread = None
    return value


def succeeded(value: Any) -> Result:
    """Return the result of a handler that returned."""
    try:
        encoded = None if value is None else msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError) as error:
        return Result(Outcome.FAILED, f"The handler's return value is no JSON: {error}.", permanent=True)
    if encoded is not None and len(encoded) > RESULT_BYTES_MAX:
        return Result(Outcome.FAILED, f"The handler returned {len(encoded):,} bytes of JSON.", permanent=True)
    return Result(Outcome.SUCCEEDED, value=encoded)


def failed(error: Exception) -> Result:
    """Return the result of a handler that raised."""
    lines = traceback.format_exception(error)
    text = f"{type(error).__name__}: {words_of(error)}\n\n{''.join(lines)}"[:ERROR_CHARACTERS_MAX]
    return Result(
        Outcome.FAILED,
        text.encode("utf-8", "backslashreplace").decode(),
        retry_after_seconds=error.after if isinstance(error, Retry) else None,
        permanent=isinstance(error, Permanent),
    )


def words_of(error: Exception) -> str:
    """Return what the error says; its class is the user's, so even that may raise."""
    try:
        return str(error)
    except Exception as raised:
        return f"(its own words raise {type(raised).__name__})"


def verdict(execution: Execution, result: Result, handlers: Handlers, rules: Rules, ended_at_us: int) -> Verdict:
    """Decide what follows from the result."""
    row = execution.claimed.event
    if execution.handler is None:
        return Verdict(State.DEAD_LETTERED, row.attempt_count, row.crashes, reason=Reason.NO_HANDLER)
    return judge(
        result,
        attempt_count=row.attempt_count,
        crashes=row.crashes,
        policy=handlers.policy(row.event_type, row.max_attempts, rules.retry),
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
        error_signature=None if result.error is None else error_signature(result.error),
        result=result.value,
    )


def interruption(
    claimed: Claimed,
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
