"""The calls of one attempt to its journal as they come in: in tasks of an async handler, in a plain one's thread."""

import asyncio
import concurrent.futures
import random
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context as Variables
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from replayforge.domain.event import StoredEvent
from replayforge.domain.retry import RetryPolicy
from replayforge.domain.step_errors import Parking
from replayforge.engine.handlers.context import ChildEvent, StepCall
from replayforge.engine.handlers.step_messages import ReportedStep
from replayforge.engine.run.attempt import RunningAttempt
from replayforge.engine.run.durable_waits import CallWait, DurableWait, SignalWait, SleepWait
from replayforge.engine.run.journal_answers import JournalAnswers
from replayforge.engine.run.journal_ends import Left
from replayforge.engine.run.journal_records import JournalTools
from replayforge.telemetry import attempt_context


class Waiting(Coroutine[Any, Any, Any]):
    """A wait as an async handler gets it: to be awaited, or handed to `ctx.first`."""

    def __init__(self, wait: DurableWait, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.wait = wait
        self.coroutine = coroutine

    def send(self, value: Any) -> Any:
        """Go on until the coroutine waits again."""
        return self.coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """Go on with an exception at the place where the coroutine waits."""
        return self.coroutine.throw(*error)

    def close(self) -> None:
        """End the coroutine."""
        self.coroutine.close()

    def __await__(self) -> Any:
        return self.coroutine.__await__()


class Journaling:
    """Has the calls of one attempt's ctx answered; see Context for what each promises.

    Recorded steps are durable under the attempt's lease token.
    """

    def __init__(self, attempt: RunningAttempt, event: StoredEvent, policy: RetryPolicy, tools: JournalTools) -> None:
        self.attempt = attempt
        self.is_async = attempt.handler.is_async
        self.thread = attempt.environment.loop_thread if self.is_async else threading.get_ident()
        self.answers = JournalAnswers(attempt, event, policy, tools)
        self.blocked_threads: set[concurrent.futures.Future[Any]] = set()

    # How calls come in

    def made(self, answer: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
        """Hand a call's coroutine to who asked for it; a plain function waits here for its end."""
        self.answers.check_usable()
        self.check_caller()
        return answer(*args) if self.is_async else self.awaited_in_thread(partial(answer, *args))

    def waited(self, wait: DurableWait) -> Any:
        """Hand a wait to who asked for it."""
        coroutine = self.made(self.answers.take_wait, wait)
        return Waiting(wait, coroutine) if self.is_async else coroutine

    def check_caller(self) -> None:
        """Raise what a call must hear that comes from elsewhere than its own handler."""
        if attempt_context.get() is not self.attempt.identity or threading.get_ident() != self.thread:
            raise RuntimeError(
                "ctx can be used only by its own handler: by an async one in tasks on its event loop, by a plain one in"
                " its own thread."
            )

    def awaited_in_thread(self, answer: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Have a call answered on the loop, and return or raise what comes of it in this thread."""
        waiting: concurrent.futures.Future[Any] = concurrent.futures.Future()
        variables = copy_context()

        def begin() -> None:
            task = self.attempt.loop.create_task(answer(), context=variables)
            task.add_done_callback(end)

        def end(task: "asyncio.Task[Any]") -> None:
            error = None if task.cancelled() else task.exception()
            if waiting.done():
                return
            if task.cancelled():
                waiting.set_exception(Parking())
            elif error is not None:
                waiting.set_exception(error)
            else:
                waiting.set_result(task.result())

        self.blocked_threads.add(waiting)
        try:
            self.attempt.loop.call_soon_threadsafe(begin, context=Variables())
            return waiting.result()
        finally:
            self.blocked_threads.discard(waiting)

    def free_threads(self) -> None:
        """Have threads that wait for an answer go on with what ends them."""
        for waiting in list(self.blocked_threads):
            if not waiting.done():
                waiting.set_exception(Parking())

    def close(self) -> None:
        """Answer no call from now on."""
        self.answers.close()
        self.free_threads()

    def left_behind(self) -> Left:
        """See JournalAnswers.left_behind."""
        return self.answers.left_behind()

    # The calls

    def step(self, call: StepCall) -> Any:
        """See Context.step."""
        return self.made(self.answers.take_step, call)

    def sleep(self, name: str, seconds: float) -> Any:
        """See Context.sleep."""
        return self.waited(SleepWait(self.answers.records, name, seconds=checked_seconds(seconds)))

    def sleep_until(self, name: str, at: datetime) -> Any:
        """See Context.sleep_until."""
        return self.waited(SleepWait(self.answers.records, name, at_us=checked_time(at)))

    def wait_for(self, event_type: str, key: str | None, timeout_seconds: float | None, name: str | None = None) -> Any:
        """See Calls.wait_for."""
        seconds = None if timeout_seconds is None else checked_seconds(timeout_seconds)
        return self.waited(SignalWait(self.answers.records, name or event_type, key, event_type, seconds))

    def send(self, child: ChildEvent) -> Any:
        """See Context.send."""
        return self.made(self.answers.take_send, child)

    def call(self, child: ChildEvent, timeout_seconds: float | None) -> Any:
        """See Context.call."""
        seconds = None if timeout_seconds is None else checked_seconds(timeout_seconds)
        return self.waited(CallWait(self.answers.records, child, seconds))

    def subscribers(self) -> Any:
        """See Calls.subscribers."""
        return self.made(self.answers.take_subscribers)

    def first(self, waits: dict[str, Any]) -> Any:
        """See Context.first."""
        wrong = [name for name, wait in waits.items() if not isinstance(wait, Waiting)]
        if wrong or not waits:
            raise TypeError(
                "ctx.first takes what ctx.sleep, ctx.wait_for and ctx.call give an async handler, not awaited yet:"
                f" first(paid=ctx.wait_for('paid'), late=ctx.sleep('late', 60)); see {', '.join(wrong) or 'no name'}."
            )
        for wait in waits.values():
            wait.close()
        return self.made(self.answers.take_first, {name: wait.wait for name, wait in waits.items()})

    def restart(self, payload: bytes) -> Any:
        """See Context.restart."""
        return self.made(self.answers.take_restart, payload)

    def now(self, name: str) -> Any:
        """See Context.now."""
        return self.made(self.answers.take_now, name)

    def random(self, name: str) -> Any:
        """See Context.random."""
        return self.made(self.answers.derive, "random", name, lambda digits: random.Random(digits).random())

    def uuid(self, name: str) -> Any:
        """See Context.uuid."""
        return self.made(self.answers.derive, "uuid", name, UUID)

    def remembered(self) -> Any:
        """See Calls.remembered."""
        return self.made(self.answers.take_stock)

    def report(self, did: tuple[ReportedStep, ...], *, answered: bool) -> Any:
        """See Calls.report."""
        return self.made(self.answers.take_reports, did, answered)


def checked_seconds(seconds: Any) -> float:
    """Return a length of time in seconds; raises ValueError for what is none."""
    if isinstance(seconds, timedelta):
        seconds = seconds.total_seconds()
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < float("inf"):
        raise ValueError(f"{seconds!r:.60} is not a number of seconds, 0 or more.")
    return float(seconds)


def checked_time(at: Any) -> int:
    """Return a time in microseconds since the epoch; raises ValueError for what is none."""
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise ValueError(f"{at!r:.60} is not a datetime with its zone, such as datetime.now(UTC) + timedelta(days=1).")
    return (at - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
