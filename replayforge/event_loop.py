"""The daemon's event loop, and how it goes on whatever user code throws out of it."""

import asyncio
import traceback
from asyncio import get_running_loop, wait
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextvars import Context
from time import monotonic
from types import CoroutineType, FrameType, TracebackType
from typing import Any, TypeVar

from replayforge.crashpoints import victim
from replayforge.telemetry import Telemetry, attempt_context
from replayforge.threads import own_threads

T = TypeVar("T")

CALLBACK_CODE = asyncio.Handle._run.__code__  # noqa: SLF001 - the one place that knows in whose context it ran
STOPPED = "Event loop stopped before Future completed."
ESCAPES_MAX = 300
ESCAPES_SECONDS = 10.0


class HandlerExited(BaseException):
    """User code ended with an exception that ends programs, such as SystemExit.

    A BaseException like those it stands for, so that no `except Exception` of a handler takes it for a failure.
    """


class OwnTask(asyncio.Task[Any]):
    """A task of the daemon: user code that cancels whatever runs cannot reach it."""

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the task, unless an attempt asks for it; returns whether it was done."""
        return attempt_context.get() is None and super().cancel(msg)


class Contained(Coroutine[Any, Any, Any]):
    """A coroutine of user code as it was, but for exceptions that would leave the loop and end the daemon.

    `identity` says of which attempt it is part.
    """

    def __init__(self, coroutine: "CoroutineType[Any, Any, Any]", identity: Mapping[str, Any]) -> None:
        self.coroutine = coroutine
        self.identity = identity

    def send(self, value: Any) -> Any:
        """Go on until the coroutine waits again."""
        try:
            return self.coroutine.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise exited(error) from error

    def throw(self, *error: Any) -> Any:
        """Go on with an exception at the place where the coroutine waits."""
        try:
            return self.coroutine.throw(*error)
        except (SystemExit, KeyboardInterrupt) as raised:
            raise exited(raised) from raised

    def close(self) -> None:
        """End the coroutine."""
        self.coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.coroutine.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.coroutine, name)


def exited(error: BaseException) -> HandlerExited:
    """Return what stands for an exception that ends programs; what it says is the user's, and may raise."""
    try:
        return HandlerExited(repr(error))
    except Exception:
        return HandlerExited(type(error).__name__)


def make_task(
    loop: asyncio.AbstractEventLoop, coroutine: Any, *, context: Context | None = None, **options: Any
) -> "asyncio.Task[Any]":
    """Make a task, as the loop's task factory: one of the daemon's own, or one of user code that is contained."""
    attempt = attempt_context.get() if context is None else context.get(attempt_context)
    if attempt is None:
        return OwnTask(coroutine, loop=loop, context=context, **options)
    if type(coroutine) is CoroutineType:
        coroutine = Contained(coroutine, attempt)
    task = asyncio.Task(coroutine, loop=loop, context=context, **options)
    if (take := getattr(attempt, "take", None)) is not None:
        take(task)
    return task


def own_context() -> Context:
    """Return the context of what the daemon does by itself, also where user code has asked for it."""
    context = Context()
    if (whose := victim.get()) is not None:
        context.run(victim.set, whose)
    return context


def own_task(coroutine: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
    """Make a task of the daemon, also where user code waits for it and may be cancelled."""
    loop, context = get_running_loop(), own_context()
    if victim in context:  # whose loop it is makes the tasks of each daemon there
        return loop.create_task(coroutine, context=context)
    return OwnTask(coroutine, loop=loop, context=context)


class Escapes:
    """Counts what left the loop: SystemExit and KeyboardInterrupt out of callbacks, and `loop.stop()` by user code.

    Until `telemetry` is there the daemon has not begun, and these are what they look like: somebody at the keyboard.
    """

    def __init__(self) -> None:
        self.telemetry: Telemetry | None = None
        self.moments: deque[float] = deque(maxlen=ESCAPES_MAX)
        self.latest: Callable[[], str] = str  # the type of the event whose handler ran last

    def report_to(self, telemetry: Telemetry, latest: Callable[[], str]) -> None:
        """Take it that the daemon has begun: what leaves the loop from now on is some handler's doing."""
        self.telemetry, self.latest = telemetry, latest

    def note(self, error: BaseException, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Report what left the loop, and the attempt whose code it was, where that can be known."""
        stopped_by = getattr(loop, "stopped_by", None)
        stopped = str(error) == STOPPED
        if stopped or stopped_by is not None:
            self.report(error, "the loop was stopped", stopped_by)
        if not stopped:  # uvloop tells but one of several that came in one turn
            self.report(error, type(error).__name__, attempt_of(error))
        if isinstance(loop, Loop):
            loop.stopped_by = None

    def are_too_many(self) -> bool:
        """Count one more, and tell whether so many came lately that the loop makes no headway."""
        now = monotonic()
        self.moments.append(now)
        return len(self.moments) == ESCAPES_MAX and now - self.moments[0] < ESCAPES_SECONDS

    def report(self, error: BaseException, what: str, attempt: Mapping[str, Any] | None) -> None:
        """Report one of them."""
        assert self.telemetry is not None
        if attempt is None and (suspect := self.latest()):
            attempt = {"suspect": suspect}
        self.telemetry.emit("callback.exited", error=what, place=place_of(error.__traceback__), **(attempt or {}))


def run_to_the_end(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T], escapes: Escapes) -> T:
    """Run a coroutine, and go on with it when user code makes the loop stop, were it by a signal's handler that raises.

    A loop that cannot go on raises: OSError, or whatever it is that comes again and again.
    """
    task: asyncio.Task[T] = OwnTask(coroutine, loop=loop)
    while True:
        try:
            return loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt, Exception) as error:
            if task.done():
                raise
            if escapes.telemetry is None:
                task.cancel()
                loop.run_until_complete(wait([task]))
                raise
            escapes.note(error, loop)
            if isinstance(error, OSError) or escapes.are_too_many():
                raise


def attempt_of(error: BaseException) -> Mapping[str, Any] | None:
    """Return the attempt in whose context the callback ran that raised, where that can be known."""
    trace = error.__traceback__
    while trace is not None:
        if calls_back(trace.tb_frame):
            return attempt_called_by(trace.tb_frame)
        trace = trace.tb_next
    return getattr(error, "attempt", None)


def calls_back(frame: FrameType) -> bool:
    """Tell whether a frame is that of asyncio's loop as it calls a callback; uvloop's has none."""
    return frame.f_code is CALLBACK_CODE


def attempt_called_by(frame: FrameType) -> Mapping[str, Any] | None:
    """Return the attempt in whose context the loop calls a callback from this frame, if it is one."""
    context: Context = frame.f_locals["self"]._context  # noqa: SLF001 - nothing else knows it
    return context.get(attempt_context)


def marked(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Return a callback of an attempt as one whose exceptions that end programs name the attempt."""
    attempt = attempt_context.get()
    if attempt is None:
        return callback

    def call(*args: Any) -> None:
        try:
            callback(*args)
        except (SystemExit, KeyboardInterrupt) as error:
            error.attempt = attempt  # type: ignore[union-attr]
            raise

    return call


def place_of(trace: TracebackType | None) -> str:
    """Return where an exception was raised: file, line and function."""
    frames = traceback.extract_tb(trace)
    return f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else "unknown"


def own_threads_for(executor: Any) -> Any:
    """Return the executor, or for calls of the daemon and its libraries that name none the daemon's own."""
    return own_threads if executor is None and attempt_context.get() is None else executor


class Loop:
    """What the daemon's loop does otherwise: its own calls never wait for threads of handlers, and handlers, which run
    on it as guests, cannot take from others what all of them need."""

    stopped_by: Mapping[str, Any] | None = None

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """Call a function in a thread; without an executor it is the daemon's own, or that of handlers for theirs."""
        return super().run_in_executor(own_threads_for(executor), func, *args)  # type: ignore[misc]

    def set_default_executor(self, executor: Any) -> None:
        """Take the executor, unless a handler hands it over, which would make all handlers wait for its threads."""
        refuse_guests("set the loop's default executor, which all handlers share; name an executor with each call")
        super().set_default_executor(executor)  # type: ignore[misc]

    async def shutdown_default_executor(self, *args: Any, **options: Any) -> None:
        """End the executor, unless a handler asks for it."""
        refuse_guests("shut down the loop's default executor, which all handlers share")
        await super().shutdown_default_executor(*args, **options)  # type: ignore[misc]

    async def shutdown_asyncgens(self) -> None:
        """Close all generators, unless a handler asks for it: the daemon's own are among them."""
        refuse_guests("close the generators of all others")
        await super().shutdown_asyncgens()  # type: ignore[misc]

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, unless a handler replaces a method, without which nothing would go on."""
        if not name.startswith("_") and callable(getattr(type(self), name, None)):
            refuse_guests(f"replace {name} of the loop, which all of them share")
        super().__setattr__(name, value)

    def stop(self) -> None:
        """Stop; who did it is kept, since whoever runs the loop goes on with it."""
        self.stopped_by = attempt_context.get()
        super().stop()  # type: ignore[misc]


def refuse_guests(what: str) -> None:
    """Raise RuntimeError when an attempt asks for what would hit others."""
    if attempt_context.get() is not None:
        raise RuntimeError(f"a handler may not {what}")


class SelectorLoop(Loop, asyncio.SelectorEventLoop):  # type: ignore[misc]
    """asyncio's loop as the daemon's."""

    time = staticmethod(monotonic)  # asyncio looks up the clock in its module each time, where anybody can replace it


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the loop: uvloop's when it is installed."""
    try:
        import uvloop
    except ImportError:
        return SelectorLoop

    class UvLoop(Loop, uvloop.Loop):  # type: ignore[misc]
        """uvloop's loop as the daemon's; its callbacks do not tell whose they are, so those of timers are marked."""

        def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
            """Call something later."""
            return super().call_later(delay, marked(callback), *args, context=context)

        def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
            """Call something at a time."""
            return super().call_at(when, marked(callback), *args, context=context)

    return UvLoop
