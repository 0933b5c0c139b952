"""Runs the function of a step until it has returned or failed for the last time, and has that recorded."""

import asyncio
import inspect
from asyncio import current_task, shield, sleep, timeout
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from sys import audit
from typing import Any

import msgspec
from msgspec import UnsetType

from replayforge import crashpoints
from replayforge.domain.journal import (
    AfterFailure,
    StepDecision,
    StepError,
    StepKind,
    StepRecord,
    StepState,
    after_failure,
    due_in,
    step_key,
)
from replayforge.domain.lifecycle import Outcome
from replayforge.domain.retry import BadPayload, RetryPolicy
from replayforge.domain.verdict import Result
from replayforge.engine.handlers.context import StepCall, running_step_key
from replayforge.engine.handlers.functions import is_coroutine_function
from replayforge.engine.handlers.results import arguments_in_words, error_of, raised, returned
from replayforge.engine.handlers.step_messages import ReportedError, ReportedStep
from replayforge.engine.run.journal_records import JournalRecords
from replayforge.engine.run.user_threads import call_in_thread
from replayforge.engine.run.waits import Waits


class StepRunner:
    """Runs the steps of one attempt. `policy` is that of its handler, for steps that say nothing of their own."""

    def __init__(self, records: JournalRecords, waits: Waits, policy: RetryPolicy) -> None:
        self.records = records
        self.waits = waits
        self.policy = policy
        self.running = 0
        self.lingering: asyncio.Future[Any] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a step's function runs, were it beyond its time."""
        return self.running > 0 or (self.lingering is not None and not self.lingering.done())

    async def run(self, call: StepCall, step: str, earlier: StepRecord | None) -> StepRecord:
        """Return the record of a step that has returned, or failed for good; `earlier` is one to be tried again."""
        policy = self.policy if call.attempts is None else replace(self.policy, max_attempts=call.attempts)
        if earlier is None:
            words = arguments_in_words(call.args, call.kwargs) if call.args or call.kwargs else ""
            record = self.records.begun(StepKind.STEP, step, arguments=words, tries=1)
        else:
            await self.waits.stand_until(earlier, earlier.due_at_us, retried=True)
            record = msgspec.structs.replace(earlier, tries=earlier.tries + 1)
        while True:
            if call.once:
                await self.records.commit(msgspec.structs.replace(record, state=StepState.STARTED))
            result, error = await self.tried_in_span(call, step, record)
            if error is None:
                return await self.done(record, result, pure=call.pure)
            if not result.counts:
                record = msgspec.structs.replace(record, tries=record.tries - 1)
            after = self.after(result, record.tries, policy)
            pending = self.failed(record, error, after)
            if pending.state is StepState.FAILED:
                await self.records.commit(pending)
                return pending
            await self.wait(pending, after, once=call.once)
            record = msgspec.structs.replace(pending, tries=pending.tries + 1)

    def reported(self, report: ReportedStep, earlier: StepRecord | None, since_us: int) -> StepRecord:
        """Return the record of a step that was taken elsewhere since a time, and has ended or is to be tried again."""
        record = earlier or self.records.begun(StepKind.STEP, report.step)
        record = msgspec.structs.replace(record, tries=record.tries + 1, started_at_us=since_us)
        if isinstance(report.error, ReportedError):
            error = StepError(report.error.type, report.error.message)
            result = Result(Outcome.FAILED, report.error.message, permanent=report.error.permanent)
            return self.failed(record, error, self.after(result, record.tries, self.policy))
        value = b"null" if isinstance(report.ok, UnsetType) else msgspec.json.format(report.ok, indent=-1)
        limit = self.records.tools.limits.result_bytes_max
        if len(value) <= limit:
            return self.records.ended(record, StepState.DONE, result=value)
        words = f"The step's result has {len(value):,} bytes of JSON, more than {limit:,}."
        return self.records.ended(record, StepState.FAILED, error=StepError("bad_result", words))

    def failed(self, record: StepRecord, error: StepError, after: AfterFailure) -> StepRecord:
        """Return the record of a step whose try failed: for good, or until its next try is due."""
        if after.decision is StepDecision.FAIL:
            return self.records.ended(record, StepState.FAILED, error=error)
        pending = self.records.ended(record, StepState.PENDING, error=error)
        return msgspec.structs.replace(pending, due_at_us=due_in(self.records.now_us(), after.delay_seconds))

    async def done(self, record: StepRecord, result: Result, *, pure: bool) -> StepRecord:
        """Record the result; that of a pure step may be recorded with something else."""
        done = self.records.ended(record, StepState.DONE, result=result.value)
        if pure:
            self.records.ride(done)
        else:
            await self.records.commit(done)
        return done

    def after(self, result: Result, tries: int, policy: RetryPolicy) -> AfterFailure:
        """Decide what follows from a try that failed."""
        return after_failure(
            tries=tries,
            permanent=result.permanent,
            retry_after_seconds=result.retry_after_seconds,
            policy=policy,
            in_place_seconds=self.records.tools.in_place_seconds,
            rng=self.records.tools.rng,
        )

    async def wait(self, pending: StepRecord, after: AfterFailure, *, once: bool) -> None:
        """Wait for the next try, in place or parked; of a step that is to run once it is known that it ended."""
        if once:
            await self.records.commit(pending)
        if after.decision is StepDecision.PARK:
            await self.waits.stand_until(pending, pending.due_at_us, retried=True)
            return
        self.running += 1
        try:
            await sleep(after.delay_seconds)
        finally:
            self.running -= 1

    async def tried_in_span(self, call: StepCall, step: str, record: StepRecord) -> tuple[Result, StepError | None]:
        """Call the step's function once, in a span of its own where traces are sent."""
        tracer = self.records.attempt.environment.tracer
        if tracer is None:
            return await self.tried(call, step, record)
        with tracer.step(f"step {step}", {"replayforge.step": step, "replayforge.try": record.tries}) as span:
            result, error = await self.tried(call, step, record)
            span.end(result.outcome, None if error is None else f"{error.type}: {error.message}")
            return result, error

    async def tried(self, call: StepCall, step: str, record: StepRecord) -> tuple[Result, StepError | None]:
        """Call the step's function once; returns what came of it, and the error that is to be kept of it, if any."""
        if crashpoints.armed:
            await crashpoints.reach_within("step.started")
            audit(crashpoints.STEP_BEGAN, step)
        self.running += 1
        key = partial(step_key, self.records.event.id, self.records.number, step, record.generation)
        mark, time = running_step_key.set(key), None
        try:
            if call.timeout_seconds is None:
                result = self.judged(await self.called(call, step))
            else:
                async with timeout(call.timeout_seconds) as time:
                    result = self.judged(await self.called(call, step))
        except asyncio.CancelledError as cancelled:
            await self.note_cancel(record, cancelled)
            return failed_with(cancelled)
        except TimeoutError as error:
            if time is None or not time.expired():
                return failed_with(error)
            words = f"The step {step!r} did not end within {call.timeout_seconds:g} s."
            return Result(Outcome.TIMED_OUT, words), StepError("TimeoutError", words)
        except Exception as error:
            return failed_with(error)
        finally:
            self.running -= 1
            if running_step_key.get() is key:  # else what a loop has left behind is closed in another context
                running_step_key.reset(mark)
        if crashpoints.armed:
            await crashpoints.reach_within("step.returned")
        if result.outcome is Outcome.SUCCEEDED:
            return result, None
        return result, StepError("bad_result", result.error or "")

    def called(self, call: StepCall, step: str) -> Coroutine[Any, Any, Any]:
        """Call the step's function; a plain one gets a thread."""
        if is_coroutine_function(call.function):
            coroutine: Coroutine[Any, Any, Any] = call.function(*call.args, **call.kwargs)
            return coroutine
        return self.called_in_thread(call, step)

    async def called_in_thread(self, call: StepCall, step: str) -> Any:
        """Call a plain function, when an earlier call that took too long has ended."""
        if self.lingering is not None:
            await shield(self.lingering)
        thread = call_in_thread(partial(thrown_or_returned, call), f"step {step}")
        try:
            came = await shield(thread)
        finally:
            if not thread.done():
                self.lingering = thread
        if isinstance(came, Thrown):
            raise came.error
        return await came if inspect.isawaitable(came) else came

    def judged(self, value: Any) -> Result:
        """Return what a value comes to that a step has returned."""
        return returned(value, "The step's result", self.records.tools.limits.result_bytes_max)

    async def note_cancel(self, record: StepRecord, cancelled: asyncio.CancelledError) -> None:
        """Record that user code has cancelled the step, and let the cancellation go on.

        Returns for one that came out of the step's own function. When the attempt itself ends, nothing is recorded.
        """
        task = current_task()
        if self.records.attempt.is_ending:
            raise cancelled
        if task is None or not task.cancelling():
            return
        error = StepError("cancelled", "The handler cancelled the step.")
        await self.records.commit(self.records.ended(record, StepState.FAILED, error=error))
        raise cancelled


class Thrown(msgspec.Struct, frozen=True):
    """What a step's function has raised in its thread; no future could carry every exception."""

    error: BaseException


def thrown_or_returned(call: StepCall) -> Any:
    """Call a step's plain function and return what it returned, or raised."""
    try:
        return call.function(*call.args, **call.kwargs)
    except BaseException as error:  # whatever ends the function must reach the handler
        return Thrown(error)


def failed_with(error: BaseException) -> tuple[Result, StepError]:
    """Return the result of a step's function that raised, and what is kept of the error.

    A bad payload is raised again: it says nothing of the step, and the journal must not keep it for better code.
    """
    if isinstance(error, BadPayload):
        raise error
    return raised(error), error_of(error)
