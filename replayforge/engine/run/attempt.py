"""Runs user code: one task and context for each call of a handler, its time-out, and an end that nothing can skip."""

import asyncio
import inspect
import threading
from asyncio import get_running_loop, shield, wait
from collections.abc import Callable, Collection, Mapping
from contextvars import Context as Variables
from functools import partial
from threading import get_ident
from typing import Any, Protocol
from weakref import WeakSet

from replayforge.domain.event import ClaimedEvent, Lease, StoredEvent
from replayforge.domain.lifecycle import Outcome
from replayforge.domain.step_errors import Parking
from replayforge.domain.verdict import Result
from replayforge.engine.handlers.context import NO_ATTEMPT, Calls, Context
from replayforge.engine.handlers.registry import Handler
from replayforge.engine.handlers.results import raised, returned
from replayforge.engine.run.chaos import Chaos
from replayforge.engine.run.deadlines import Deadlines
from replayforge.engine.run.stopping import Stopping
from replayforge.engine.run.user_threads import call_in_thread
from replayforge.event_loop import OwnTask
from replayforge.supervisor import SimulatedCrash
from replayforge.telemetry import attempt_context
from replayforge.tracing import Attributes, Tracer, TraceSpan

# How long user code has to end after it was cancelled; then it is left to itself and the attempt is settled without it.
GRACE_SECONDS = 0.5
AWAITABLES_MAX = 8  # how many awaitables may come out of one another
PARKED = Result(Outcome.INTERRUPTED, "The event was parked.")
PLAIN_TYPES = frozenset({type(None), bool, int, float, str, dict, list})
NO_DETAILS: Mapping[str, Any] = {}


class AttemptTask(OwnTask):
    """The task that user code runs in, which it may cancel itself, and no other attempt may."""

    identity: Mapping[str, Any]

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the task, if the daemon or the attempt itself asks for it; returns whether it was done."""
        caller = attempt_context.get()
        return (caller is None or caller is self.identity) and asyncio.Task.cancel(self, msg)


class Identity(dict[str, Any]):
    """What `attempt_context` holds while an attempt runs: who it is, and the tasks that its code has made, if any."""

    tasks: WeakSet[asyncio.Task[Any]] | None = None

    def take(self, task: "asyncio.Task[Any]") -> None:
        """Take note of a task."""
        if self.tasks is None:
            self.tasks = WeakSet()
        self.tasks.add(task)


class OpenCalls(Calls, Protocol):
    """The calls that an attempt's code makes to its journal."""

    def close(self) -> None:
        """Answer none from now on."""

    def free_threads(self) -> None:
        """Have threads that wait for an answer go on with what ends them."""

    def left_behind(self) -> Any:
        """Return what is to be committed with the attempt's end."""


class NotBegun(Exception):
    """The handler was not called: by then somebody else may have had the event."""


def begins(_lease: Lease) -> bool:
    """Let every handler begin."""
    return True


def nothing_restored(_event: StoredEvent) -> None:
    """Put nothing right."""


class AttemptEnvironment:
    """What all attempts of a daemon have in common: the loop that runs here, and what is done before and after each.

    `may_begin` is asked last of all before a handler is called: whatever ran before may have taken longer than a lease.
    `restore` puts right what its code has changed for all, before anything else runs.
    """

    def __init__(
        self,
        *,
        may_begin: Callable[[Lease], bool] = begins,
        restore: Callable[[StoredEvent], object] = nothing_restored,
        open_journal: "Callable[[RunningAttempt], OpenCalls] | None" = None,
        stopping: Stopping | None = None,
        tracer: Tracer | None = None,
        chaos: Chaos | None = None,
    ) -> None:
        self.loop = get_running_loop()
        self.loop_thread = get_ident()
        self.may_begin = may_begin
        self.restore = restore
        self.open_journal = open_journal
        self.stopping = stopping or Stopping()
        self.tracer = tracer
        self.chaos = chaos


class RunningAttempt:
    """One call of a handler for one event.

    `result` is how user code ended by itself, `cut_short` what stands instead once it was told to end. `identity` is
    what `attempt_context` holds while it runs. `thread` is done when the thread of a plain function has ended. `calls`
    are those that its code makes to its journal, None until it makes one. One that `is_parked` has ended to go on
    later, and nothing that its code said in the end counts.
    """

    # What most attempts never have stands here, since to make one is to set all else.
    begun = is_parked = is_stopped = False
    task: AttemptTask | None = None
    thread: "asyncio.Future[Result | Pending] | None" = None
    calls: OpenCalls | None = None
    details: Mapping[str, Any] = NO_DETAILS
    result: Result | None = None
    cut_short: Result | None = None
    simulated: SimulatedCrash | None = None
    grace: asyncio.TimerHandle | None = None
    timeout_seconds = deadline = 0.0

    def __init__(self, claimed: ClaimedEvent, handler: Handler, environment: AttemptEnvironment) -> None:
        row = claimed.event
        self.claimed = claimed
        self.handler = handler
        self.environment = environment
        self.event = handler.event_class(
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
            subscriber=row.subscriber,
        )
        number = row.attempt_count + 1
        self.identity = Identity(event_id=row.id, event_type=row.event_type, run=row.run, attempt=number)
        self.loop = environment.loop
        self.ended: asyncio.Future[None] = self.loop.create_future()

    async def outcome(self, timeout_seconds: float, deadlines: Deadlines) -> Result:
        """Run the handler and return how it ended, soon after its time is over at the latest, whatever it does.

        When the caller is cancelled the handler is too, and CancelledError is raised once that had its time.
        """
        variables = Variables()
        variables.run(attempt_context.set, self.identity)
        tracer = self.environment.tracer
        span = None if tracer is None else self.begin_span(tracer, variables)
        self.timeout_seconds, self.deadline = timeout_seconds, self.loop.time() + timeout_seconds
        self.task = AttemptTask(self.guarded(), loop=self.loop, name=f"attempt {self.event.id}", context=variables)
        self.task.identity = self.identity
        deadlines.begin(self, self.deadline, self.loop)
        try:
            await self.ended
            if self.is_parked:
                await self.all_ended()
        except asyncio.CancelledError:
            self.is_stopped = True
            self.task.cancel()
            await wait([self.task], timeout=GRACE_SECONDS)
            if span is not None:
                span.end(Outcome.INTERRUPTED)
            raise
        finally:
            if self.calls is not None:
                self.calls.close()
            deadlines.end(self)
            if self.grace is not None:
                self.grace.cancel()
        result = self.concluded()
        if span is not None:
            span.end("parked" if self.is_parked else result.outcome, result.error)
        return result

    def begin_span(self, tracer: Tracer, variables: Variables) -> TraceSpan:
        """Begin the attempt's span, which is the current one where its code runs."""
        span = tracer.begin(f"attempt {self.event.event_type}", "consumer", self.claimed.event.trace, self.attributes)
        variables.run(span.make_current)
        return span

    @property
    def attributes(self) -> Attributes:
        """What a span says of it."""
        event = self.event
        return {
            "messaging.message.id": event.id,
            "replayforge.event_type": event.event_type,
            "replayforge.workflow_id": event.workflow_id,
            "replayforge.run": event.run,
            "replayforge.attempt": event.attempt,
        }

    def current_trace(self) -> str | None:
        """Return the trace that is handed on from here: that of the current span, or else the event's own."""
        tracer = self.environment.tracer
        return (None if tracer is None else tracer.current()) or self.claimed.event.trace

    def time_out(self) -> None:
        """Have the attempt end, since its time is over; one that does not end to be parked is not parked."""
        if self.is_parked:
            self.is_parked = False
            words = f"The handler did not end within {self.timeout_seconds:g} s when its event was to be parked."
            self.cut_short = Result(Outcome.TIMED_OUT, words)
            self.complete()
            return
        self.cut(Result(Outcome.TIMED_OUT, f"The handler did not finish within {self.timeout_seconds:g} s."))

    @property
    def is_ending(self) -> bool:
        """Whether its code was told to end, or has ended."""
        return self.cut_short is not None or self.is_stopped or self.ended.done()

    def live_tasks(self) -> list["asyncio.Task[Any]"]:
        """Return the tasks of its code that have not ended."""
        own = [] if self.task is None else [self.task]
        return [task for task in (*own, *(self.identity.tasks or ())) if not task.done()]

    @property
    def thread_waiter(self) -> "asyncio.Task[Any] | None":
        """The task that does nothing but wait for the thread of a plain function."""
        return self.task if self.thread is not None and not self.thread.done() else None

    def stop(self, result: Result) -> None:
        """Have the attempt end with this result, whatever its code says in the end."""
        if self.cut(result):
            self.is_stopped = True

    def park(self) -> None:
        """Have its code end, all of it, so that its event can wait; what it says from now on does not count."""
        if self.is_ending:
            return
        self.is_parked = True
        self.cut_short = PARKED
        self.cancel_all()

    def cancel_all(self, cancelled: Collection["asyncio.Task[Any]"] = ()) -> None:
        """Cancel every task of its code but those; a plain function ends by what its call to the journal raises."""
        for task in self.live_tasks():
            if task is not self.thread_waiter and task not in cancelled:
                task.cancel()

    async def all_ended(self) -> None:
        """Return when nothing of its code runs any more, or when its time is over and it is parked no longer.

        Each task is cancelled once, so that it can clean up behind itself.
        """
        cancelled: WeakSet[asyncio.Task[Any]] = WeakSet(self.live_tasks())
        while self.is_parked and (tasks := self.live_tasks()):
            await wait(tasks, timeout=GRACE_SECONDS)
            self.cancel_all(cancelled)
            cancelled.update(self.live_tasks())

    def cut(self, result: Result) -> bool:
        """Have the attempt end now, with this result unless user code still has something to say; False if it has
        ended, or was cut before."""
        if self.ended.done() or self.cut_short is not None or self.task is None:
            return False
        self.cut_short = result
        self.task.cancel()
        self.grace = self.loop.call_later(GRACE_SECONDS, self.complete)
        return True

    def complete(self) -> None:
        """Let the caller go on."""
        if not self.ended.done():
            self.ended.set_result(None)

    def concluded(self) -> Result:
        """Return what the attempt came to: what was done in the grace counts, unless it was only the way out."""
        own, cut_short = self.result, self.cut_short
        if cut_short is None:
            return own or Result(Outcome.FAILED, "The handler's task was destroyed from outside.")
        if self.is_parked or self.is_stopped:
            return cut_short
        if own is not None and (self.succeeded or own.permanent or own.retry_after_seconds is not None):
            return own
        return cut_short

    @property
    def succeeded(self) -> bool:
        """Whether user code has returned what can be kept."""
        return self.result is not None and self.result.outcome is Outcome.SUCCEEDED

    # In the task

    async def guarded(self) -> None:
        """Run user code and keep how it ended; nothing that it raises or returns gets any further."""
        try:
            environment, lease = self.environment, self.claimed.lease
            self.begun = environment.may_begin(lease)
            if not self.begun:
                return
            if environment.chaos is not None:
                await environment.chaos.inject(self.event)
            context = Context(self.event, lease.token, self.deadline, backing=self)
            self.result = await self.called(context)
        except SimulatedCrash as crash:
            self.simulated = crash
        except asyncio.CancelledError:
            self.result = self.cancelled()
        except Parking:  # of which nothing is left when the event is parked indeed
            self.result = Result(Outcome.FAILED, "Parking: the handler raised what only the daemon may raise.")
        except BaseException as error:  # whatever ends user code is its result
            self.result = raised(error)
        finally:
            try:
                self.environment.restore(self.claimed.event)
            finally:
                self.complete()

    async def called(self, context: Context) -> Result:
        """Call the handler; a plain function gets a thread, and what it returns to be awaited is awaited here."""
        function = self.handler.entry
        if self.handler.is_async:
            value = await function(self.event, context)
        else:
            call = partial(function, self.event, context)
            self.thread = call_in_thread(partial(result_of, call), self.event.event_type)
            answer = await shield(self.thread)
            if isinstance(answer, Result):
                return answer
            value = answer.awaitable
        if type(value) not in PLAIN_TYPES:
            for _ in range(AWAITABLES_MAX):
                if not inspect.isawaitable(value):
                    break
                value = await value
        return returned(value)

    def cancelled(self) -> Result:
        """Return the result of user code that ended by cancellation; one that cancels its own task dies of it."""
        if self.cut_short is None and self.task is not None and self.task.cancelling():
            return Result(Outcome.CRASHED, "CancelledError: the handler cancelled its own task.")
        return Result(Outcome.FAILED, "CancelledError: the handler cancelled itself.")

    def opened_calls(self) -> Calls:
        """Return what answers its code's calls to the journal."""
        if self.environment.open_journal is None:
            return NO_ATTEMPT.opened_calls()
        self.calls = self.environment.open_journal(self)
        return self.calls

    def stopping_event(self) -> asyncio.Event | threading.Event:
        """Return what tells its code that the daemon drains."""
        return self.environment.stopping.event(is_async=self.handler.is_async)

    def free_threads(self) -> None:
        """Have its threads that wait for an answer to a call go on with what ends them."""
        if self.calls is not None:
            self.calls.free_threads()

    def let_go(self) -> None:
        """Forget its calls, which know it: what is settled is to end at once, without the garbage collector."""
        self.calls = None

    def note(self, details: Mapping[str, Any]) -> None:
        """Keep what the handler says of itself."""
        self.details = details


class Pending:
    """What a plain function returned to be awaited, on the event loop."""

    def __init__(self, awaitable: Any) -> None:
        self.awaitable = awaitable


def result_of(call: Callable[[], Any]) -> Result | Pending:
    """Call user code and return how it ended, or what has to be awaited yet; an exception that it raised is a result.

    No future could carry every exception.
    """
    try:
        value = call()
        return Pending(value) if inspect.isawaitable(value) else returned(value)
    except BaseException as error:  # whatever ends the function must reach the worker
        return raised(error)
