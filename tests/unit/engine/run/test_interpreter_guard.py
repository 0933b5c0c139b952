"""What one handler changes for all of them is put back and named; what would end others is refused."""

import asyncio
import builtins
import datetime
import decimal
import gc
import json
import locale
import logging
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
from typing import Any

import pytest
import structlog

from replayforge.engine.run.interpreter_guard import InterpreterGuard
from replayforge.engine.run.process_state import Kept, ProcessState
from replayforge.event_loop import SelectorLoop, loop_factory
from replayforge.telemetry import Telemetry, attempt_context
from replayforge.threads import DaemonThreads
from tests.support.builders import stored_event
from tests.support.probe import Probe

CHANGES: dict[str, Callable[[], object]] = {
    "recursion limit": lambda: sys.setrecursionlimit(sys.getrecursionlimit() + 7),
    "task factory": lambda: asyncio.get_running_loop().set_task_factory(None),
    "exception handler": lambda: asyncio.get_running_loop().set_exception_handler(lambda loop, found: None),
    "debug mode of the loop": lambda: asyncio.get_running_loop().set_debug(True),
    "garbage collector": gc.disable,
    "garbage collector's thresholds": lambda: gc.set_threshold(1, 1, 1),
    "switch interval": lambda: sys.setswitchinterval(1.5),
    "profile function of threads": lambda: threading.setprofile(lambda *_: None),
    "default time-out of sockets": lambda: socket.setdefaulttimeout(0.001),
    "decimal.DefaultContext": lambda: setattr(decimal.DefaultContext, "prec", 2),
    "warning filters": lambda: warnings.simplefilter("error"),
    "hooks of asynchronous generators": lambda: sys.set_asyncgen_hooks(print, print),
    "running loop": lambda: asyncio._set_running_loop(None),
    "asyncio.sleep": lambda: setattr(asyncio, "sleep", Incomparable()),
    "asyncio.events.get_running_loop": lambda: delattr(asyncio.events, "get_running_loop"),
    "asyncio.wait": lambda: delattr(asyncio, "wait"),
    "json.dumps": lambda: setattr(json, "dumps", print),
    "time.monotonic": lambda: setattr(time, "monotonic", lambda: 0.0),
    "random.random": lambda: setattr(random, "random", lambda: 4),
}


class Incomparable:
    """What raises when it is compared."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    __hash__ = None  # type: ignore[assignment]


PROCESS_CHANGES: dict[str, Callable[[], object]] = {
    "working directory": lambda: os.chdir("/"),
    "umask": lambda: os.umask(0o777),
    "environment variables": os.environ.clear,
    "locale": lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8" if locale.setlocale(locale.LC_ALL) == "C" else "C"),
    "other signals": lambda: (
        signal.signal(signal.SIGHUP, signal.SIG_DFL),
        signal.signal(signal.SIGVTALRM, signal.SIG_IGN),
        signal.setitimer(signal.ITIMER_VIRTUAL, 1),
    ),
    "signal mask": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}),
    "configuration of logging": lambda: logging.basicConfig(force=True, level=logging.CRITICAL),
    "configuration of structlog": lambda: structlog.configure(processors=[Incomparable()]),  # type: ignore[list-item]
    "digits of an int": lambda: sys.set_int_max_str_digits(640),
    "RLIMIT_NOFILE": lambda: resource.setrlimit(
        resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    ),
    "sys.stdout": lambda: setattr(sys, "stdout", None),
    "sys.excepthook": lambda: setattr(sys, "excepthook", Incomparable()),
    "threading.excepthook": lambda: setattr(threading, "excepthook", print),
    "gc.callbacks": lambda: gc.callbacks.append(print),
    "sys.path_hooks": lambda: sys.path_hooks.pop(0),
    "sys.path": sys.path.clear,
    "sys.meta_path": lambda: setattr(sys, "meta_path", []),
    "decimal.DefaultContext": lambda: decimal.DefaultContext.traps.__setitem__(decimal.Inexact, True),
    "os.getpid": lambda: setattr(os, "getpid", lambda: 1),
    "builtins.len": lambda: setattr(builtins, "len", lambda _: 1),
    "builtins.bool": lambda: setattr(builtins, "bool", lambda _: True),
    "Thread.start": lambda: setattr(threading.Thread, "start", print),
    "Logger._log": lambda: delattr(logging.Logger, "_log"),
    "asyncio.tasks.sleep": lambda: delattr(asyncio.tasks, "sleep"),
    "datetime.datetime": lambda: setattr(datetime, "datetime", Incomparable()),
}


@pytest.mark.parametrize("name", PROCESS_CHANGES)
def test_a_change_of_the_process_is_put_back_and_named(name: str) -> None:
    """Each is as it was once all has been looked at, and nothing else is named."""
    state = ProcessState()
    PROCESS_CHANGES[name]()
    assert state.restore() + state.restore_functions() == [name]
    assert [kept.name for kept in state.all_kept if not kept.is_as_it_was()] == []


def test_the_time_zone_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that all handlers see the same."""
    state, before = ProcessState(), time.tzname
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    assert "time zone" in state.restore()
    assert (time.tzname, os.environ.get("TZ")) == (before, None)


def test_what_cannot_be_put_back_is_said_once() -> None:
    """It stays as it is from then on."""
    values = [1, 2]
    kept = Kept("thing", lambda: values[0], values.append, 3)
    assert (kept.restore(), kept.restore()) == (["thing (which cannot be put back)"], [])


def test_what_was_only_added_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries do that at their first use."""
    state = ProcessState()
    monkeypatch.setenv("OF_A_LIBRARY", "1")
    monkeypatch.syspath_prepend("/of/a/library")
    assert state.restore() == []
    assert sys.path[0] == "/of/a/library"


@pytest.fixture(params=[loop_factory(), SelectorLoop])
def runner(request: pytest.FixtureRequest) -> Any:
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_put_back_and_named(runner: asyncio.Runner, name: str) -> None:
    """Each is as it was, and nothing else is named."""

    async def change() -> tuple[list[str], list[str]]:
        guard = InterpreterGuard(asyncio.get_running_loop(), DaemonThreads(1, "handlers"), Telemetry())
        guard.install()
        before = guard.look()
        CHANGES[name]()
        restored = guard.changed()
        assert guard.look() == before
        return restored, guard.changed()

    assert runner.run(change()) == ([name], [])


async def test_what_nobody_ends_with_is_put_back_too() -> None:
    """While handlers run, everything is looked at again and again, and once more after the last."""
    telemetry, running = Telemetry(), [True, True, False]
    probe = Probe(telemetry)
    guard = InterpreterGuard(
        asyncio.get_running_loop(), DaemonThreads(1, "handlers"), telemetry, lambda: running.pop(0)
    )
    guard.attend()
    assert guard.looking is None  # no process of ours yet
    guard.remember()
    guard.attend()
    for count in (1, 2, 3):
        os.nice = asyncio.to_thread = None  # type: ignore[assignment]
        await probe.saw("interpreter.restored", count=count)
    assert guard.looking is None


async def test_the_end_of_an_attempt_has_looked_at_all_for_a_while() -> None:
    guard = InterpreterGuard(asyncio.get_running_loop(), DaemonThreads(1, "handlers"), Telemetry())
    guard.remember()
    assert guard.process is not None
    guard.restore(stored_event())
    nice, os.nice = os.nice, None  # type: ignore[assignment]
    guard.look_at_all(guard.process)
    assert os.nice is None
    guard.all_due = 0.0
    guard.look_at_all(guard.process)
    assert os.nice is nice


async def set_executor() -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))


async def replace_call_soon() -> None:
    asyncio.get_running_loop().call_soon = print  # type: ignore[assignment]


REFUSED: dict[str, Callable[[], Any]] = {
    "set the loop's default executor": set_executor,
    "shut down the loop's default executor": lambda: asyncio.get_running_loop().shutdown_default_executor(),
    "close the generators": lambda: asyncio.get_running_loop().shutdown_asyncgens(),
    "replace call_soon": replace_call_soon,
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_hits_all_others_is_refused_to_handlers(runner: asyncio.Runner, what: str) -> None:
    """The daemon's own generators live on, and so do the threads of other handlers."""

    async def ask() -> None:
        async def numbers() -> Any:
            yield 1
            yield 2

        ours = numbers()
        assert await anext(ours) == 1
        token = attempt_context.set({"event_id": "e"})
        try:
            with pytest.raises(RuntimeError, match=f"may not {what}"):
                await REFUSED[what]()
        finally:
            attempt_context.reset(token)
        assert await anext(ours) == 2
        assert await asyncio.to_thread(int, "3") == 3

    runner.run(ask())
