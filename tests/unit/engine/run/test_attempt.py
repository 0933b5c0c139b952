"""One attempt: a task and a context of its own, and an end, whatever user code does."""

import asyncio
import contextlib
import decimal
import functools
import threading
from contextvars import ContextVar
from typing import Any

import pytest
import structlog

from replayforge import Context, Event, Handlers, Permanent, Retry
from replayforge.domain.event import StoredEvent
from replayforge.domain.lifecycle import Outcome
from replayforge.domain.verdict import Result
from replayforge.engine.run.attempt import AttemptEnvironment, RunningAttempt
from replayforge.engine.run.deadlines import Deadlines
from replayforge.event_loop import HandlerExited, make_task
from replayforge.telemetry import attempt_context
from tests.support.builders import claimed_event

MARK: ContextVar[str] = ContextVar("mark", default="")


def attempt_of(function: Any, number: int = 1, **options: Any) -> RunningAttempt:
    """Return an attempt of a handler that the function is registered as."""
    handlers = Handlers()
    handlers.on("test")(function)
    claimed = claimed_event(number, attempt_count=number - 1)
    return RunningAttempt(claimed, handlers.registered[0], AttemptEnvironment(**options))


async def result_of(function: Any, seconds: float = 5.0) -> Result:
    asyncio.get_running_loop().set_task_factory(make_task)
    return await attempt_of(function).outcome(seconds, Deadlines())


class Rude(BaseException):
    """An error that no `except Exception` sees."""


async def child_exits(event: Event, context: Context) -> None:
    async def exit_soon() -> None:
        raise SystemExit(3)

    await asyncio.create_task(exit_soon())


async def group_child_exits(event: Event, context: Context) -> None:
    async def exit_soon() -> None:
        raise KeyboardInterrupt

    async with asyncio.TaskGroup() as group:
        group.create_task(exit_soon())


async def own_cancel(event: Event, context: Context) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


def raising(error: BaseException) -> Any:
    async def handler(event: Event, context: Context) -> None:
        raise error

    return handler


def raising_in_thread(error: BaseException) -> Any:
    def handler(event: Event, context: Context) -> None:
        raise error

    return handler


ENDS = {
    "StopIteration in a thread": (raising_in_thread(StopIteration()), Outcome.FAILED, "StopIteration"),
    "StopIteration": (raising(StopIteration()), Outcome.FAILED, "StopIteration"),
    "StopAsyncIteration": (raising(StopAsyncIteration()), Outcome.FAILED, "StopAsyncIteration"),
    "exit": (raising(SystemExit(1)), Outcome.CRASHED, "SystemExit"),
    "exit in a thread": (raising_in_thread(SystemExit(1)), Outcome.CRASHED, "SystemExit"),
    "interrupt": (raising(KeyboardInterrupt()), Outcome.CRASHED, "KeyboardInterrupt"),
    "generator exit": (raising(GeneratorExit()), Outcome.CRASHED, "GeneratorExit"),
    "rude": (raising(Rude()), Outcome.CRASHED, "Rude"),
    "a child task exits": (child_exits, Outcome.CRASHED, "SystemExit(3)"),
    "a child of a group is interrupted": (group_child_exits, Outcome.CRASHED, "BaseExceptionGroup"),
    "it cancels itself": (own_cancel, Outcome.CRASHED, "cancelled its own task"),
    "CancelledError": (raising(asyncio.CancelledError()), Outcome.FAILED, "CancelledError"),
    "CancelledError in a thread": (raising_in_thread(asyncio.CancelledError()), Outcome.CRASHED, "CancelledError"),
    "TimeoutError": (raising(TimeoutError("mine")), Outcome.FAILED, "TimeoutError: mine"),
    "MemoryError": (raising(MemoryError()), Outcome.FAILED, "MemoryError"),
}


@pytest.mark.parametrize(("function", "outcome", "error"), ENDS.values(), ids=ENDS.keys())
async def test_every_end_is_a_result(function: Any, outcome: Outcome, error: str) -> None:
    """Whatever user code raises, wherever, the attempt ends with a result that names it."""
    result = await result_of(function)
    assert result.outcome is outcome
    assert error in (result.error or "")


async def test_nothing_of_one_attempt_reaches_the_next() -> None:
    """Context variables, structlog's and decimal's contexts set for one event are gone for the next, and for us."""
    seen: list[tuple[str, dict[str, Any], int]] = []

    async def stain(event: Event, context: Context) -> None:
        seen.append((MARK.get(), structlog.contextvars.get_contextvars(), decimal.getcontext().prec))
        MARK.set(event.id)
        structlog.contextvars.bind_contextvars(order=event.id)
        decimal.getcontext().prec = 3

    MARK.set("the daemon's")
    for number in (1, 2):
        await attempt_of(stain, number).outcome(5, Deadlines())
    assert seen == [("", {}, 28)] * 2
    assert (MARK.get(), structlog.contextvars.get_contextvars()) == ("the daemon's", {})


@pytest.mark.parametrize("kind", ["coroutine", "thread"])
async def test_the_attempt_is_known_while_it_runs(kind: str) -> None:
    """`attempt_context` names event, run and attempt in the handler's task and in its thread, and nowhere else."""
    seen: list[Any] = []

    async def look(event: Event, context: Context) -> None:
        seen.append(attempt_context.get())

    def look_in_thread(event: Event, context: Context) -> None:
        seen.append(attempt_context.get())

    await result_of(look if kind == "coroutine" else look_in_thread)
    assert seen == [{"event_id": "event-1", "event_type": "test", "run": 1, "attempt": 1}]
    assert attempt_context.get() is None


async def test_cancel_left_behind_hits_nobody() -> None:
    """A timer that cancels the task of its attempt finds a task that has ended; the worker's own is another one."""
    own = asyncio.current_task()

    async def leave(event: Event, context: Context) -> None:
        task = asyncio.current_task()
        assert task is not None
        assert task is not own
        asyncio.get_running_loop().call_soon(task.cancel)

    assert (await result_of(leave)).outcome is Outcome.SUCCEEDED
    for _ in range(3):
        await asyncio.sleep(0)
    assert own is not None
    assert own.cancelling() == 0


async def test_handler_that_cancels_every_task_reaches_only_its_own() -> None:
    """Tasks of the daemon and of other attempts refuse to be cancelled by an attempt."""
    asyncio.get_running_loop().set_task_factory(make_task)
    gate, test = asyncio.Event(), asyncio.current_task()  # which was made before the factory was there
    ours = asyncio.create_task(gate.wait())

    async def wait(event: Event, context: Context) -> str:
        await gate.wait()
        return "done"

    async def cancel_all(event: Event, context: Context) -> None:
        for task in asyncio.all_tasks():
            if task not in (asyncio.current_task(), test):
                task.cancel()
        gate.set()

    neighbour = asyncio.create_task(attempt_of(wait, 2).outcome(5, Deadlines()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (await attempt_of(cancel_all).outcome(5, Deadlines())).outcome is Outcome.SUCCEEDED
    assert (await neighbour).value == b'"done"'
    assert await ours


async def swallow(event: Event, context: Context) -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


async def test_handler_that_swallows_its_cancellation_is_left_behind() -> None:
    """It is `timed_out` a grace after its time-out, while its task goes on; what that does later is harmless."""
    attempt = attempt_of(swallow)
    result = await attempt.outcome(0.01, Deadlines())
    assert result.outcome is Outcome.TIMED_OUT
    assert attempt.task is not None
    assert not attempt.task.done()
    attempt.task.get_coro().close()  # nothing else ends it


async def test_thread_that_does_not_end_is_left_behind() -> None:
    """A plain function past its time is `timed_out` at once; its late return changes nothing."""
    gate = threading.Event()

    def hang(event: Event, context: Context) -> str:
        gate.wait()
        return "late"

    attempt = attempt_of(hang)
    assert (await attempt.outcome(0.01, Deadlines())).outcome is Outcome.TIMED_OUT
    gate.set()
    assert attempt.thread is not None
    await attempt.thread
    assert attempt.concluded().outcome is Outcome.TIMED_OUT


async def test_what_is_done_in_the_grace_counts() -> None:
    """A handler that finishes its work when it is told to end has succeeded; one that only fails on the way out not."""

    async def finish(event: Event, context: Context) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "rolled up"
        return ""

    async def stumble(event: Event, context: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("the connection is gone")

    async def give_up(event: Event, context: Context) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise Permanent("no use") from None

    assert (await result_of(finish, 0.01)).value == b'"rolled up"'
    assert (await result_of(stumble, 0.01)).outcome is Outcome.TIMED_OUT
    assert (await result_of(give_up, 0.01)).permanent


async def test_worker_that_is_cancelled_cancels_the_handler() -> None:
    """The caller's cancellation is handed on to user code, and raised once that had its time."""
    cleaned = asyncio.Event()

    async def clean(event: Event, context: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    caller = asyncio.create_task(attempt_of(clean).outcome(5, Deadlines()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert cleaned.is_set()


async def give(event: Event, context: Context) -> str:
    return event.id


class Callable:
    """An object that can be called, as dependency containers make them."""

    async def __call__(self, event: Event, context: Context) -> str:
        return event.id


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*arguments: Any) -> Any:
        return function(*arguments)

    return wrapper


async def with_more(more: int, event: Event, context: Context) -> str:
    return event.id


FORMS: dict[str, Any] = {
    "function": give,
    "lambda": lambda event, context: give(event, context),
    "decorated": decorated(give),
    "partial": functools.partial(with_more, 1),
    "partial of a lambda": functools.partial(lambda more, event, context: give(event, context), 1),
    "object": Callable(),
    "method": Callable().__call__,
    "coroutine of a coroutine": lambda event, context: decorated(give)(event, context),
    "plain": lambda event, context: event.id,
}


@pytest.mark.parametrize("function", FORMS.values(), ids=FORMS.keys())
async def test_every_form_of_a_handler_works(function: Any) -> None:
    """However an async function is wrapped, what it returns is awaited."""
    result = await result_of(function)
    assert (result.outcome, result.value) == (Outcome.SUCCEEDED, b'"event-1"')


async def test_awaitable_that_gives_itself_for_ever() -> None:
    """Awaitables that come out of one another are awaited a few times and then refused, so that the loop goes on."""

    class Endless:
        def __await__(self) -> Any:
            return self
            yield

    async def endless(event: Event, context: Context) -> Any:
        return Endless()

    result = await result_of(endless)
    assert (result.outcome, result.permanent) == (Outcome.FAILED, True)


async def test_heartbeat_shows_what_can_be_shown() -> None:
    """What a handler says of itself is JSON for whoever looks; anything else is shown as a text, or named."""

    class Silent:
        def __str__(self) -> str:
            raise RuntimeError("no words")

    async def tell(event: Event, context: Context) -> None:
        context.heartbeat(done=3, of=[4], at=float("nan"), thing=object(), silent=Silent(), half="\ud800")
        context.heartbeat(done=4)

    attempt = attempt_of(tell)
    assert (await attempt.outcome(5, Deadlines())).outcome is Outcome.SUCCEEDED
    details = dict(attempt.details)
    assert (details["done"], details["of"], details["at"]) == (4, [4], "nan")
    assert details["thing"].startswith("<object object")
    assert "cannot be shown" in details["silent"]
    assert details["half"] == "\\ud800"


async def test_exit_in_a_detached_task_reaches_nobody() -> None:
    """A task that a handler left behind may end programs: it ends itself, and the attempt has succeeded."""
    left: list[asyncio.Task[None]] = []

    async def exit_soon() -> None:
        raise SystemExit(1)

    async def leave(event: Event, context: Context) -> None:
        left.append(asyncio.create_task(exit_soon()))

    assert (await result_of(leave)).outcome is Outcome.SUCCEEDED
    with pytest.raises(HandlerExited):
        await left[0]


async def test_task_of_user_code_looks_like_itself() -> None:
    """A contained coroutine shows its own name and code, and warns of nothing when it is cancelled before it began."""
    names: list[str] = []

    async def named() -> None:
        await asyncio.sleep(0)

    async def start(event: Event, context: Context) -> None:
        task = asyncio.create_task(named())
        names.append(repr(task))
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    assert (await result_of(start)).outcome is Outcome.SUCCEEDED
    assert "named" in names[0]


async def test_retry_in_time() -> None:
    """A handler that is told to end and asks for another attempt is given it."""

    async def later(event: Event, context: Context) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise Retry("half done", after=7) from None

    assert (await result_of(later, 0.01)).retry_after_seconds == 7


async def test_blocking_past_the_time_out_is_no_time_out_when_it_has_ended() -> None:
    """A handler that held the loop beyond its time and has returned has succeeded."""

    async def block(event: Event, context: Context) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() <= context.deadline:
            pass

    assert (await result_of(block, 0.01)).outcome is Outcome.SUCCEEDED


async def test_a_handler_is_not_called_when_it_may_not_begin_any_more() -> None:
    """Whether the event is still ours is asked in the attempt's own task, just before the handler would be called."""
    calls: list[str] = []

    async def handle(event: Event, context: Context) -> None:
        calls.append(event.id)

    for answer in (True, False):
        attempt = attempt_of(handle, may_begin=lambda _, answer=answer: answer)
        await attempt.outcome(5, Deadlines())
        assert attempt.begun is answer
    assert len(calls) == 1


async def test_what_it_changed_is_put_right_before_anything_else_runs() -> None:
    """Not even a callback that was waiting meets it; and if that fails, whoever waits for the attempt goes on."""
    order: list[str] = []

    async def change(event: Event, context: Context) -> None:
        asyncio.get_running_loop().call_soon(order.append, "others")
        order.append("change")

    def restore(event: StoredEvent) -> None:
        order.append("restore")
        raise Rude

    attempt = attempt_of(change, restore=restore)
    assert (await attempt.outcome(5.0, Deadlines())).outcome is Outcome.SUCCEEDED
    assert order == ["change", "restore", "others"]
    assert attempt.task is not None
    with pytest.raises(Rude):
        await attempt.task


async def test_what_a_handler_writes_into_its_details_is_its_own() -> None:
    """A handler that changes the mapping it is given changes nothing that other attempts see."""

    async def scribbles(event: Event, context: Context) -> dict[str, Any]:
        seen = dict(context.details)
        context.details["mine"] = event.id  # type: ignore[index]  # as those do who check no types
        return seen

    for _ in range(2):
        assert (await result_of(scribbles)).value == b"{}"
    assert attempt_of(scribbles).details == {}
