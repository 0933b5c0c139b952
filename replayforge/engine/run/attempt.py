"""Runs user code: a task and a context of its own for each attempt, and one completion that nothing can skip."""

import asyncio
import contextlib
import inspect
import threading
from asyncio import get_running_loop, shield, wait
from collections.abc import Callable, Mapping
from contextvars import Context as Variables
from contextvars import copy_context
from typing import Any

from replayforge.domain.event import Event
from replayforge.domain.lifecycle import Outcome
from replayforge.domain.verdict import Result
from replayforge.engine.handlers.registry import Context, Handler
from replayforge.engine.handlers.results import raised, returned
from replayforge.engine.run.chaos import Chaos
from replayforge.engine.run.deadlines import Deadlines
from replayforge.event_loop import OwnTask
from replayforge.supervisor import SimulatedCrash
from replayforge.telemetry import attempt_context

# How long user code has to end after it was cancelled; then it is left to itself and the attempt is settled without it.
GRACE_SECONDS = 0.5
AWAITABLES_MAX = 8  # how many awaitables may come out of one another
PLAIN_TYPES = frozenset({type(None), bool, int, float, str, dict, list})


class AttemptTask(OwnTask):
    """The task that user code runs in, which it may cancel itself, and no other attempt may."""

    identity: Mapping[str, Any]

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the task, if the daemon or the attempt itself asks for it; returns whether it was done."""
        caller = attempt_context.get()
        return (caller is None or caller is self.identity) and asyncio.Task.cancel(self, msg)


class NotBegun(Exception):
    """The handler was not called: by then somebody else may have had the event."""


class RunningAttempt:
    """One run of a handler for one event.

    `result` is how user code ended by itself, `cut_short` what stands instead once it was told to end. `identity` is
    what `attempt_context` holds while it runs. `thread` is done when the thread of a plain function has ended.
    """

    def __init__(
        self,
        event: Event,
        lease_token: int,
        handler: Handler,
        chaos: Chaos | None,
        may_begin: Callable[[], bool] = lambda: True,
    ) -> None:
        self.event = event
        self.lease_token = lease_token
        self.handler = handler
        self.chaos = chaos
        self.may_begin = may_begin  # asked last of all: whatever ran before may have taken longer than a lease
        self.restore: Callable[[], object] = lambda: None
        self.begun = False
        self.identity: Mapping[str, Any] = {
            "event_id": event.id,
            "event_type": event.event_type,
            "run": event.run,
            "attempt": event.attempt,
        }
        self.details: Mapping[str, Any] = {}
        self.result: Result | None = None
        self.cut_short: Result | None = None
        self.simulated: SimulatedCrash | None = None
        self.loop = get_running_loop()
        self.ended: asyncio.Future[None] = self.loop.create_future()
        self.task: AttemptTask | None = None
        self.thread: asyncio.Future[Result | Pending] | None = None
        self.grace: asyncio.TimerHandle | None = None
        self.timeout_seconds = 0.0
        self.deadline = 0.0

    def restore_by(self, restore: Callable[[], object]) -> None:
        """Have what user code changed put right by a function, before anything else runs."""
        self.restore = restore

    async def outcome(self, timeout_seconds: float, deadlines: Deadlines) -> Result:
        """Run the handler and return how it ended, soon after its time is over at the latest, whatever it does.

        When the caller is cancelled the handler is too, and CancelledError is raised once that had its time.
        """
        variables = Variables()
        variables.run(attempt_context.set, self.identity)
        self.timeout_seconds, self.deadline = timeout_seconds, self.loop.time() + timeout_seconds
        self.task = AttemptTask(self.guarded(), loop=self.loop, name=f"attempt {self.event.id}", context=variables)
        self.task.identity = self.identity
        deadlines.begin(self, self.deadline, self.loop)
        try:
            await self.ended
        except asyncio.CancelledError:
            self.task.cancel()
            await wait([self.task], timeout=GRACE_SECONDS)
            raise
        finally:
            deadlines.end(self)
            if self.grace is not None:
                self.grace.cancel()
        return self.concluded()

    def time_out(self) -> None:
        """Have the attempt end, since its time is over."""
        self.cut(Result(Outcome.TIMED_OUT, f"The handler did not finish within {self.timeout_seconds:g} s."))

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
            self.begun = self.may_begin()
            if not self.begun:
                return
            if self.chaos is not None:
                await self.chaos.inject(self.event)
            self.result = await self.called(Context(self.event, self.lease_token, self.deadline, tell=self.note))
        except SimulatedCrash as crash:
            self.simulated = crash
        except asyncio.CancelledError:
            self.result = self.cancelled()
        except BaseException as error:  # whatever ends user code is its result
            self.result = raised(error)
        finally:
            try:
                self.restore()
            finally:
                self.complete()

    async def called(self, context: Context) -> Result:
        """Call the handler; a plain function gets a thread, and what it returns to be awaited is awaited here."""
        function = self.handler.function
        if self.handler.is_async:
            value = await function(self.event, context)
        else:
            self.thread = call_in_thread(lambda: function(self.event, context), self.event.event_type)
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

    def note(self, details: Mapping[str, Any]) -> None:
        """Keep what the handler says of itself."""
        self.details = details


class Pending:
    """What a plain function returned to be awaited, on the event loop."""

    def __init__(self, awaitable: Any) -> None:
        self.awaitable = awaitable


def call_in_thread(call: Callable[[], Any], name: str) -> "asyncio.Future[Result | Pending]":
    """Run user code in a daemon thread of its own, which never holds up the exit of the process.

    The future always gets a result, since it could not carry every exception; what user code raised is one.
    """
    loop = get_running_loop()
    future: asyncio.Future[Result | Pending] = loop.create_future()
    variables = copy_context()

    def finish(result: Result | Pending) -> None:
        if not future.done():
            future.set_result(result)

    def work() -> None:
        result = variables.run(result_of, call)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(finish, result)

    threading.Thread(target=work, name=f"handler {name}", daemon=True).start()
    return future


def result_of(call: Callable[[], Any]) -> Result | Pending:
    """Call user code and return how it ended, or what has to be awaited yet."""
    try:
        value = call()
        return Pending(value) if inspect.isawaitable(value) else returned(value)
    except BaseException as error:  # whatever ends the function must reach the worker
        return raised(error)
