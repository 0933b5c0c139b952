"""The daemon's event loop, and how it goes on whatever user code throws out of it."""

import asyncio
import sys
import traceback
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextvars import Context
from types import CoroutineType, TracebackType
from typing import Any, TypeVar

from replayforge.telemetry import Telemetry, attempt_context
from replayforge.threads import DaemonThreads, own_threads

T = TypeVar("T")

CALLBACK_CODE = asyncio.Handle._run.__code__  # noqa: SLF001 - the one place that knows in whose context it ran
STOPPED = "Event loop stopped before Future completed."


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
    return asyncio.Task(coroutine, loop=loop, context=context, **options)


class Escapes:
    """Counts what left the loop: SystemExit and KeyboardInterrupt out of callbacks, and `loop.stop()` by user code.

    Until `telemetry` is there the daemon has not begun, and these are what they look like: somebody at the keyboard.
    """

    def __init__(self) -> None:
        self.telemetry: Telemetry | None = None

    def note(self, error: BaseException) -> None:
        """Report what left the loop, and the attempt whose code it was, where that can be known."""
        assert self.telemetry is not None
        attempt = attempt_of(error.__traceback__) or {}
        what = "the loop was stopped" if isinstance(error, RuntimeError) else type(error).__name__
        self.telemetry.emit("callback.exited", error=what, place=place_of(error.__traceback__), **attempt)


def run_to_the_end(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T], escapes: Escapes) -> T:
    """Run a coroutine, and go on with it when user code makes the loop stop."""
    task: asyncio.Task[T] = OwnTask(coroutine, loop=loop)
    while True:
        try:
            return loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt, RuntimeError) as error:
            if task.done():
                raise
            if escapes.telemetry is None:
                task.cancel()
                loop.run_until_complete(asyncio.wait([task]))
                raise
            escapes.note(error)


def attempt_of(trace: TracebackType | None) -> Mapping[str, Any] | None:
    """Return the attempt in whose context the callback ran that raised; uvloop's callbacks do not tell theirs."""
    while trace is not None:
        if trace.tb_frame.f_code is CALLBACK_CODE:
            context: Context = trace.tb_frame.f_locals["self"]._context  # noqa: SLF001 - nothing else knows it
            return context.get(attempt_context)
        trace = trace.tb_next
    return None


def place_of(trace: TracebackType | None) -> str:
    """Return where an exception was raised: file, line and function."""
    frames = traceback.extract_tb(trace)
    return f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else "unknown"


def own_threads_for(executor: Any) -> Any:
    """Return the executor, or for calls of the daemon and its libraries that name none the daemon's own."""
    return own_threads if executor is None and attempt_context.get() is None else executor


class SelectorLoop(asyncio.SelectorEventLoop):
    """asyncio's loop, in which the calls that the daemon and its libraries make never wait for threads of handlers."""

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """Call a function in a thread; without an executor it is the daemon's own, or that of handlers for theirs."""
        return super().run_in_executor(own_threads_for(executor), func, *args)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the loop: uvloop's when it is installed."""
    try:
        import uvloop
    except ImportError:
        return SelectorLoop

    class UvLoop(uvloop.Loop):
        """uvloop's loop, with the same care for threads."""

        def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
            """Call a function in a thread; without an executor it is the daemon's own, or that of handlers."""
            return super().run_in_executor(own_threads_for(executor), func, *args)

    return UvLoop


class Furnishing:
    """What a loop is given so that user code and the daemon do not meet: a task factory, and threads for handlers.

    User code can undo it, and can change what the whole interpreter shares; `restore` puts that right, cheaply enough
    to be called after each attempt.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: DaemonThreads) -> None:
        self.loop = loop
        self.threads = threads
        self.recursion_limit = sys.getrecursionlimit()

    def install(self) -> None:
        """Give the loop what it needs."""
        self.loop.set_default_executor(self.threads)
        self.loop.set_task_factory(make_task)

    def restore(self) -> None:
        """Take back what an attempt has changed."""
        if sys.getrecursionlimit() < self.recursion_limit:
            sys.setrecursionlimit(self.recursion_limit)
        if self.loop.get_task_factory() is not make_task:
            self.loop.set_task_factory(make_task)
