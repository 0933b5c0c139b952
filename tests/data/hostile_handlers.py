"""Handlers that misbehave, each in its own way, and two honest ones that must not notice.

Their event types are `hostile.NAME`; `MISBEHAVIOURS` says of each how its event ends: the state, and a text that the
event's last error holds, or "" where the misbehaviour only leaves something behind. `COSTS` holds, where that would
cost others something, a text by which it is named.
"""

import asyncio
import atexit
import contextlib
import contextvars
import decimal
import gc
import json
import logging.config
import os
import random
import resource
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import structlog

from replayforge import Context, Event, Handlers, Permanent, Retry

handlers = Handlers()
if (
    __name__ == "hostile_handlers"
):  # in the daemon, which hears signals while it reads this, and none of these is its end
    signal.raise_signal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
MISBEHAVIOURS: dict[str, tuple[str, str]] = {}
COSTS: dict[str, str] = {}
STAIN: contextvars.ContextVar[str] = contextvars.ContextVar("stain", default="")
FOR_EVER = threading.Event()


def hostile(state: str, error: str = "", *, said: str = "", **options: Any) -> Callable[[Any], Any]:
    """Register a misbehaviour under its function's name."""

    def register(function: Any) -> Any:
        name = function.__name__
        MISBEHAVIOURS[f"hostile.{name}"] = (state, error)
        if said:
            COSTS[f"hostile.{name}"] = said
        return handlers.on(f"hostile.{name}", **{"max_attempts": 1, "timeout_seconds": 0.5} | options)(function)

    return register


@handlers.on("honest.async")
async def honest(event: Event, context: Context) -> str:
    assert STAIN.get() == ""
    assert not structlog.contextvars.get_contextvars()
    assert decimal.getcontext().prec == 28
    await asyncio.sleep(0)
    return event.id


@handlers.on("honest.thread")
def honest_thread(event: Event, context: Context) -> str:
    assert STAIN.get() == ""
    return event.id


@handlers.on("honest.executor")
async def honest_executor(event: Event, context: Context) -> str:
    return await asyncio.to_thread(str, event.id)


# Errors


class Rude(BaseException):
    """An error that no `except Exception` sees."""


class Speechless(Exception):
    """An error that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class HostileMeta(type):
    """A class of classes that answers no question."""

    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(f"{name} is nobody's business")

    def __eq__(cls, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __hash__(cls) -> int:
        raise RuntimeError("no hash")


class Unreadable(Exception):
    """An error of which everything but the type raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("nothing to see")


@dataclass
class OwnRetry(Retry):
    """A Retry that never calls its base class."""

    code: int = 1


@hostile("dead_lettered", "StopIteration")
def stop_iteration_in_thread(event: Event, context: Context) -> Any:
    return next(iter(()))


@hostile("dead_lettered", "StopIteration")
async def stop_iteration(event: Event, context: Context) -> Any:
    return next(iter(()))


@hostile("dead_lettered", "StopIteration")
async def stop_iteration_in_executor(event: Event, context: Context) -> Any:
    return await asyncio.to_thread(next, iter(()))


@hostile("dead_lettered", "SystemExit")
async def exit_program(event: Event, context: Context) -> None:
    sys.exit(3)


@hostile("dead_lettered", "SystemExit")
def exit_in_thread(event: Event, context: Context) -> None:
    sys.exit(3)


@hostile("dead_lettered", "KeyboardInterrupt")
async def interrupt(event: Event, context: Context) -> None:
    raise KeyboardInterrupt


@hostile("dead_lettered", "GeneratorExit")
async def generator_exit(event: Event, context: Context) -> None:
    raise GeneratorExit


@hostile("dead_lettered", "Rude")
async def rude(event: Event, context: Context) -> None:
    raise Rude


async def exit_soon() -> None:
    sys.exit(4)


async def interrupt_soon() -> None:
    raise KeyboardInterrupt


@hostile("dead_lettered", "SystemExit")
async def exit_in_child(event: Event, context: Context) -> None:
    await asyncio.create_task(exit_soon())


@hostile("dead_lettered", "BaseExceptionGroup")
async def interrupt_in_group(event: Event, context: Context) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(interrupt_soon())
        group.create_task(asyncio.sleep(1))


@hostile("succeeded")
async def exit_in_detached_task(event: Event, context: Context) -> None:
    context.event.__dict__["kept"] = asyncio.create_task(exit_soon())


@hostile("succeeded", said="with SystemExit")
async def exit_in_callback(event: Event, context: Context) -> None:
    asyncio.get_running_loop().call_soon(sys.exit, 5)


@hostile("succeeded", said="the loop was stopped")
async def stop_loop(event: Event, context: Context) -> None:
    asyncio.get_running_loop().stop()


@hostile("dead_lettered", "Cannot close a running event loop")
async def close_loop(event: Event, context: Context) -> None:
    loop = asyncio.get_running_loop()
    if type(loop).__module__.startswith("uvloop"):  # uvloop says the same in its own words
        raise RuntimeError("Cannot close a running event loop")
    loop.close()


@hostile("dead_lettered", "its own words raise")
async def speechless(event: Event, context: Context) -> None:
    raise Speechless


@hostile("dead_lettered", "Unreadable")
async def unreadable(event: Event, context: Context) -> None:
    raise Unreadable


@hostile("dead_lettered", "Nameless")
async def hostile_metaclass(event: Event, context: Context) -> None:
    kind = HostileMeta("Nameless", (Exception,), {})
    raise kind("nobody's business")


@hostile("dead_lettered", "never again")
async def permanent_in_group(event: Event, context: Context) -> None:
    raise ExceptionGroup("many", [ValueError(1), ExceptionGroup("more", [Permanent("never again")])])


@hostile("dead_lettered", "OwnRetry")
async def retry_of_own(event: Event, context: Context) -> None:
    raise OwnRetry(7)


@hostile("dead_lettered", "timedelta")
async def retry_after_text(event: Event, context: Context) -> None:
    raise Retry(after="soon")  # type: ignore[arg-type]


@hostile("dead_lettered", "from 0 to")
async def retry_after_ages(event: Event, context: Context) -> None:
    raise Retry(after=1e15)


@hostile("dead_lettered", "RecursionError")
async def recurse(event: Event, context: Context) -> None:
    def deeper(level: int) -> int:
        return deeper(level + 1) + 1

    deeper(0)


@hostile("dead_lettered", "MemoryError")
async def memory_error(event: Event, context: Context) -> None:
    raise MemoryError


# Return values


@hostile("dead_lettered", "nan at $.total[1]")
async def return_nan(event: Event, context: Context) -> Any:
    return {"total": [1, float("nan")]}


@hostile("dead_lettered", "not JSON")
async def return_loop(event: Event, context: Context) -> Any:
    endless: list[Any] = []
    endless.append(endless)
    return endless


@hostile("dead_lettered", "not JSON")
async def return_object(event: Event, context: Context) -> Any:
    return object()


@hostile("dead_lettered", "bytes of JSON")
async def return_megabyte(event: Event, context: Context) -> Any:
    return "x" * 1_000_000


@hostile("dead_lettered", "not JSON")
def return_generator(event: Event, context: Context) -> Any:
    return (number for number in range(3))


# Handlers that do not end


@hostile("dead_lettered", "did not finish")
async def hang(event: Event, context: Context) -> None:
    await asyncio.Event().wait()


@hostile("dead_lettered", "did not finish")
async def swallow_cancellation(event: Event, context: Context) -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


@hostile("dead_lettered", "did not finish")
def hang_in_thread(event: Event, context: Context) -> None:
    FOR_EVER.wait()


@hostile("dead_lettered", "did not finish")
async def hang_in_executor(event: Event, context: Context) -> None:
    await asyncio.gather(*[asyncio.to_thread(FOR_EVER.wait) for _ in range(3)])


@hostile("dead_lettered", "did not finish")
async def play_with_uncancel(event: Event, context: Context) -> None:
    task = asyncio.current_task()
    assert task is not None
    for _ in range(3):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        task.uncancel()
    await asyncio.sleep(3600)


@hostile("succeeded", said="held the event loop")
async def hold_the_loop(event: Event, context: Context) -> None:
    time.sleep(0.3)  # noqa: ASYNC251


@hostile("succeeded")
async def leave_generator_open(event: Event, context: Context) -> None:
    async def numbers() -> Any:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)

    await anext(numbers())


# Attacks on others


@hostile("dead_lettered", "cancelled its own task")
async def cancel_itself(event: Event, context: Context) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


@hostile("succeeded")
async def cancel_later(event: Event, context: Context) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(0.05, task.cancel)


@hostile("succeeded")
async def cancel_everybody(event: Event, context: Context) -> None:
    for task in asyncio.all_tasks():
        if task is not asyncio.current_task() and not task.get_name().startswith("Task-"):
            task.cancel()


@hostile("succeeded")
async def stain_contexts(event: Event, context: Context) -> None:
    STAIN.set(event.id)
    structlog.contextvars.bind_contextvars(stain=event.id)
    decimal.getcontext().prec = 2


@hostile("succeeded")
def stain_thread(event: Event, context: Context) -> None:
    STAIN.set(event.id)


@hostile("succeeded")
async def strange_heartbeat(event: Event, context: Context) -> None:
    context.heartbeat(progress=object(), share=float("inf"), half="\ud800")


@hostile("succeeded", said="task factory")
async def replace_loop_parts(event: Event, context: Context) -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(lambda loop, coroutine, **options: asyncio.Task(coroutine, loop=loop, **options))
    loop.set_exception_handler(lambda loop, found: sys.exit(6))


@hostile("succeeded", said="recursion limit")
async def lower_recursion_limit(event: Event, context: Context) -> None:
    sys.setrecursionlimit(80)


@hostile("succeeded", said="garbage collector")
async def change_interpreter(event: Event, context: Context) -> None:
    random.seed(0)
    gc.disable()
    warnings.simplefilter("error")
    sys.excepthook = lambda *_: None
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


@hostile("succeeded", said="with KeyboardInterrupt")
async def exit_in_timer(event: Event, context: Context) -> None:
    asyncio.get_running_loop().call_later(0.01, exec, "raise KeyboardInterrupt")


@hostile("dead_lettered", "may not close the generators")
async def close_generators_of_others(event: Event, context: Context) -> None:
    await asyncio.get_running_loop().shutdown_asyncgens()


@hostile("dead_lettered", "may not shut down")
async def shut_down_executor(event: Event, context: Context) -> None:
    await asyncio.get_running_loop().shutdown_default_executor()


@hostile("dead_lettered", "may not set")
async def replace_executor(event: Event, context: Context) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))


@hostile("succeeded", said="SIGTERM")
async def take_signals(event: Event, context: Context) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)


@hostile("succeeded", said="switch interval")
async def change_defaults(event: Event, context: Context) -> None:
    decimal.DefaultContext.prec = 2
    socket.setdefaulttimeout(0.000_001)
    sys.setswitchinterval(5)


@hostile("succeeded")
async def set_alarm(event: Event, context: Context) -> None:
    signal.alarm(1)


@hostile("succeeded", said="configuration of structlog")
async def reconfigure_logging(event: Event, context: Context) -> None:
    structlog.configure(processors=[])
    logging.config.dictConfig({"version": 1, "root": {"handlers": [], "level": "CRITICAL"}})
    sys.stderr = None


@hostile("succeeded", said="working directory")
async def change_directory(event: Event, context: Context) -> None:
    os.chdir("/")


@hostile("succeeded")
async def leave_child(event: Event, context: Context) -> None:
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        signal.pause()
        os._exit(0)


@hostile("succeeded")
async def leave_threads(event: Event, context: Context) -> None:
    threading.Thread(target=FOR_EVER.wait).start()
    ThreadPoolExecutor(1).submit(FOR_EVER.wait)
    atexit.register(FOR_EVER.wait)


@hostile("succeeded", said="asyncio.sleep")
async def replace_functions(event: Event, context: Context) -> None:
    asyncio.sleep = asyncio.wait_for = json.dumps = time.monotonic = None  # type: ignore[assignment]


@hostile("succeeded", said="hooks of asynchronous generators")
async def take_hooks(event: Event, context: Context) -> None:
    sys.set_asyncgen_hooks(print, print)
    threading.excepthook = sys.unraisablehook = print


@hostile("dead_lettered", "may not replace call_soon")
async def replace_call_soon(event: Event, context: Context) -> None:
    asyncio.get_running_loop().call_soon = print  # type: ignore[assignment]


@hostile("succeeded", said="RLIMIT_NOFILE")
async def change_process(event: Event, context: Context) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    os.environ.clear()
    os.umask(0o777)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
