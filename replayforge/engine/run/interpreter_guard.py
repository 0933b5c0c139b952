"""What handlers share with the daemon, loop and interpreter: set up for both, and put right after each attempt."""

import _signal  # type: ignore[import-not-found]
import asyncio
import contextlib
import decimal
import gc
import json
import math
import random
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from types import ModuleType
from typing import Any

from replayforge.domain.event import StoredEvent
from replayforge.engine.run.process_state import ProcessState
from replayforge.event_loop import make_task
from replayforge.telemetry import Telemetry
from replayforge.threads import DaemonThreads

# signal.getsignal makes an enumeration's member of what it finds, and so takes twenty times as long.
signal_action = _signal.getsignal
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
PROCESS_EVERY_SECONDS = 0.05
LOOK_SECONDS = 0.1
# What is replaced most often; the rest of these modules is looked at less often, with the process.
FUNCTIONS = {
    asyncio.events: "get_running_loop",
    asyncio: "create_task current_task ensure_future gather shield sleep timeout to_thread wait wait_for",
    json: "dumps loads",
    random: "choice randint random uniform",
    time: "monotonic perf_counter sleep time time_ns",
}
MISSING = object()


@dataclass(frozen=True, slots=True)
class Shared:
    """One thing that user code can change for everybody: how to look at it, and how to set it."""

    name: str
    look: Callable[[], Any]
    put: Callable[[Any], object]


class InterpreterGuard:
    """Keeps user code and the daemon apart that share a loop: gives it a task factory, and threads for handlers.

    User code can undo it, and can change what the whole interpreter shares; `restore` puts that right, cheaply enough
    to be called after each attempt. What it cannot put right: what is inside of the modules of packages. Where it was
    not installed, because loop and interpreter are somebody else's, it changes nothing.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threads: DaemonThreads,
        telemetry: Telemetry,
        runs_handlers: Callable[[], bool] = lambda: False,
    ) -> None:
        self.loop = loop
        self.threads = threads
        self.telemetry = telemetry
        self.runs_handlers = runs_handlers
        self.shared = shared_by_all(loop)
        self.look: Callable[[], tuple[Any, ...]] = tuple  # nothing is looked at yet
        self.kept: tuple[Any, ...] = ()
        self.process: ProcessState | None = None
        self.process_due = math.inf
        self.all_due = 0.0
        self.looking: asyncio.TimerHandle | None = None
        self.last: StoredEvent | None = None

    def install(self) -> None:
        """Give the loop what it needs."""
        self.loop.set_default_executor(self.threads)
        self.loop.set_task_factory(make_task)
        self.keep()

    def remember(self) -> None:
        """Keep how everything is, that of the process included: so it is to be, whatever attempts do."""
        self.keep()
        self.process, self.process_due = ProcessState(), 0.0

    def keep(self) -> None:
        """Keep how that is which is looked at after each attempt."""
        self.look = all_at_once([one.look for one in self.shared])
        self.kept = self.look()

    def restore(self, event: StoredEvent) -> None:
        """Take back what has changed by the end of an attempt for this event, and report it."""
        self.last, now, changed = event, monotonic(), []
        if now < self.process_due and self.is_as_it_was():
            return
        if self.process is not None:
            self.process_due = now + PROCESS_EVERY_SECONDS
            if now >= self.all_due:
                self.all_due = now + LOOK_SECONDS
                changed = self.process.restore_functions()  # first of all: everything else calls some of them
            changed += self.process.restore()
        changed += self.changed()
        if changed:
            self.report(changed)

    def attend(self) -> None:
        """Look at everything again and again while handlers run, and once more when none does: what one of them has
        changed may keep all others from coming to an end."""
        if self.looking is None and self.process is not None:
            self.looking = self.loop.call_later(LOOK_SECONDS, self.look_at_all, self.process)

    def look_at_all(self, process: ProcessState) -> None:
        """Take back all that has changed, whoever did it, unless the end of an attempt has just done so."""
        self.looking = None
        try:
            if monotonic() < self.all_due:
                return
            if changed := process.restore_functions() + process.restore() + self.changed():
                self.report(changed)
        finally:
            if self.runs_handlers():
                self.attend()

    def changed(self) -> list[str]:
        """Put back what is looked at after each attempt; returns the names of what had changed."""
        return [] if self.is_as_it_was() else put_back(zip(self.shared, self.kept, strict=True))

    def latest_type(self) -> str:
        """Return the type of the event whose attempt ended last, "" before the first one."""
        return "" if self.last is None else self.last.event_type

    def report(self, changed: Sequence[str]) -> None:
        """Say what was put back, and which event was the last to end before that."""
        last = self.last
        whose: dict[str, Any] = {} if last is None else {"event_id": last.id, "event_type": last.event_type}
        self.telemetry.emit("interpreter.restored", changed=", ".join(changed), **whose)

    def is_as_it_was(self) -> bool:
        """Tell whether nothing has changed of what is looked at each time."""
        try:
            return self.look() == self.kept
        except Exception:  # something was deleted, or what stands in its place does not even compare
            return False


def put_back(all_kept: Iterable[tuple[Shared, Any]]) -> list[str]:
    """Set what differs from what is kept; returns the names of that."""
    changed = []
    for one, kept in all_kept:
        now = one.look()
        # What a user has put there may compare in its own way.
        if now is not kept and not (type(now) is type(kept) and now == kept):
            with contextlib.suppress(Exception):  # what cannot be set must not cost more than its name
                one.put(kept)
            changed.append(one.name)
    return changed


def all_at_once(looks: Sequence[Callable[[], Any]]) -> Callable[[], tuple[Any, ...]]:
    """Return a function that calls all of them. It is compiled for these, since a loop over them takes twice as long,
    and reads attributes of modules by itself."""
    names: dict[str, Any] = {}
    words = []
    for number, look in enumerate(looks):
        if isinstance(look, Attribute):
            names[look.module.__name__] = look.module
            words.append(look.words)
        else:
            names[f"look{number}"] = look
            words.append(f"look{number}()")
    return eval(f"lambda: ({', '.join(words)},)", names)  # type: ignore[no-any-return]  # noqa: S307 - our own words


@dataclass(frozen=True, slots=True)
class Attribute:
    """Looks at one attribute of a module."""

    module: ModuleType
    name: str

    @property
    def words(self) -> str:
        """What does the same as a call, written down."""
        return f"{self.module.__name__}.{self.name}"

    def __call__(self) -> Any:
        """Return it as it is now."""
        return getattr(self.module, self.name, MISSING)


class Contents(Attribute):
    """Looks at what is in a list that a module has."""

    @property
    def words(self) -> str:
        """See Attribute."""
        return f"[*{self.module.__name__}.{self.name}]"

    def __call__(self) -> Any:
        """Return that as it is now."""
        return [*getattr(self.module, self.name)]


def shared_by_all(loop: asyncio.AbstractEventLoop) -> list[Shared]:
    """Return what is looked after."""
    return [
        Shared("recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
        Shared("running loop", asyncio._get_running_loop, asyncio._set_running_loop),  # noqa: SLF001 - else all stop
        Shared("task factory", loop.get_task_factory, loop.set_task_factory),
        Shared("exception handler", loop.get_exception_handler, loop.set_exception_handler),
        Shared("debug mode of the loop", loop.get_debug, loop.set_debug),
        Shared("hooks of asynchronous generators", sys.get_asyncgen_hooks, lambda to: sys.set_asyncgen_hooks(*to)),
        Shared("garbage collector", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
        Shared("garbage collector's thresholds", gc.get_threshold, lambda to: gc.set_threshold(*to)),
        Shared("switch interval", sys.getswitchinterval, sys.setswitchinterval),
        Shared("trace function", sys.gettrace, sys.settrace),
        Shared("profile function", sys.getprofile, sys.setprofile),
        Shared("trace function of threads", Attribute(threading, "_trace_hook"), threading.settrace),
        Shared("profile function of threads", Attribute(threading, "_profile_hook"), threading.setprofile),
        Shared("default time-out of sockets", socket.getdefaulttimeout, socket.setdefaulttimeout),
        Shared("stack size of threads", threading.stack_size, threading.stack_size),
        Shared("decimal.DefaultContext", partial(getattr, decimal.DefaultContext, "prec"), set_precision),
        Shared("warning filters", Contents(warnings, "filters"), filter_warnings),
        *[Shared(number.name, partial(signal_action, number), partial(heed, number)) for number in SIGNALS],
        *[
            Shared(f"{module.__name__}.{name}", Attribute(module, name), partial(setattr, module, name))
            for module, names in FUNCTIONS.items()
            for name in names.split()
        ],
    ]


def heed(number: signal.Signals, action: Any) -> None:
    """Have a signal do what it did; an alarm that was set goes with its handler."""
    if number is signal.SIGALRM:
        signal.setitimer(signal.ITIMER_REAL, 0)
    with contextlib.suppress(ValueError):  # not the main thread: then nothing could be changed either
        signal.signal(number, action)


def set_precision(digits: int) -> None:
    """Set with how many digits new decimal contexts begin."""
    decimal.DefaultContext.prec = digits


def filter_warnings(filters: list[Any]) -> None:
    """Set the filters of warnings; a context manager's end tells the interpreter that they are others."""
    with warnings.catch_warnings():
        pass
    warnings.filters[:] = filters  # type: ignore[index]
    with warnings.catch_warnings():
        pass
