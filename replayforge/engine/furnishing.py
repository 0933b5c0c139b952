"""What handlers share with the daemon, loop and interpreter: set up for both, and put right after each attempt."""

import _signal  # type: ignore[import-not-found]
import asyncio
import contextlib
import decimal
import gc
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from replayforge.event_loop import make_task
from replayforge.threads import DaemonThreads

# signal.getsignal makes an enumeration's member of what it finds, and so takes twenty times as long.
signal_action = _signal.getsignal
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)


@dataclass(frozen=True, slots=True)
class Shared:
    """One thing that user code can change for everybody: how to look at it, and how to set it."""

    name: str
    look: Callable[[], Any]
    put: Callable[[Any], object]


class Furnishing:
    """What a loop is given so that user code and the daemon do not meet: a task factory, and threads for handlers.

    User code can undo it, and can change what the whole interpreter shares; `restore` puts that right, cheaply enough
    to be called after each attempt. What it cannot put right: modules whose functions were replaced.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: DaemonThreads) -> None:
        self.loop = loop
        self.threads = threads
        self.shared = shared_by_all(loop)
        self.looks = [one.look for one in self.shared]
        self.kept: list[Any] = []

    def install(self) -> None:
        """Give the loop what it needs."""
        self.loop.set_default_executor(self.threads)
        self.loop.set_task_factory(make_task)
        self.remember()

    def remember(self) -> None:
        """Keep how everything is: so it is to be, whatever attempts do."""
        self.kept = [look() for look in self.looks]

    def restore(self) -> list[str]:
        """Take back what an attempt has changed; returns the names of that."""
        found = [look() for look in self.looks]
        if found == self.kept:
            return []
        changed = [(one, kept) for one, now, kept in zip(self.shared, found, self.kept, strict=True) if now != kept]
        for one, kept in changed:
            one.put(kept)
        return [one.name for one, _ in changed]


def shared_by_all(loop: asyncio.AbstractEventLoop) -> list[Shared]:
    """Return what is looked after."""
    signals = [
        Shared(number.name, lambda number=number: signal_action(number), lambda to, number=number: heed(number, to))  # type: ignore[misc]
        for number in SIGNALS
    ]
    return [
        Shared("recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
        Shared("task factory", loop.get_task_factory, loop.set_task_factory),
        Shared("exception handler", loop.get_exception_handler, loop.set_exception_handler),
        Shared("debug mode of the loop", loop.get_debug, loop.set_debug),
        Shared("garbage collector", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
        Shared("garbage collector's thresholds", gc.get_threshold, lambda to: gc.set_threshold(*to)),
        Shared("switch interval", sys.getswitchinterval, sys.setswitchinterval),
        Shared("trace function", sys.gettrace, sys.settrace),
        Shared("profile function", sys.getprofile, sys.setprofile),
        Shared("trace function of threads", threading.gettrace, threading.settrace),
        Shared("profile function of threads", threading.getprofile, threading.setprofile),
        Shared("default time-out of sockets", socket.getdefaulttimeout, socket.setdefaulttimeout),
        Shared("stack size of threads", threading.stack_size, threading.stack_size),
        Shared("decimal.DefaultContext", decimal_defaults, set_decimal_defaults),
        Shared("warning filters", lambda: list(warnings.filters), filter_warnings),
        *signals,
    ]


def heed(number: signal.Signals, action: Any) -> None:
    """Have a signal do what it did; an alarm that was set goes with its handler."""
    if number is signal.SIGALRM:
        signal.setitimer(signal.ITIMER_REAL, 0)
    with contextlib.suppress(ValueError):  # not the main thread: then nothing could be changed either
        signal.signal(number, action)


def decimal_defaults() -> tuple[Any, ...]:
    """Return what new decimal contexts start from."""
    default = decimal.DefaultContext
    return (default.prec, default.rounding, default.Emin, default.Emax)


def set_decimal_defaults(values: tuple[Any, ...]) -> None:
    """Set what new decimal contexts start from."""
    default = decimal.DefaultContext
    default.prec, default.rounding, default.Emin, default.Emax = values


def filter_warnings(filters: list[Any]) -> None:
    """Set the filters of warnings; a context manager's end tells the interpreter that they are others."""
    with warnings.catch_warnings():
        pass
    warnings.filters[:] = filters  # type: ignore[index]
    with warnings.catch_warnings():
        pass
