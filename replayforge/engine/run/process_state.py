"""What of the whole process handlers can change: directory, limits, time zone, streams, logging, modules' functions."""

import _signal  # type: ignore[import-not-found]
import asyncio
import builtins
import contextlib
import datetime
import decimal
import functools
import gc
import inspect
import json
import locale
import logging
import os
import random
import resource
import select
import selectors
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import uuid
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from types import ModuleType
from typing import Any

import structlog

LIMITS = ("AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "NOFILE", "NPROC", "STACK")
ATTRIBUTES: tuple[tuple[ModuleType, str], ...] = (
    (sys, "displayhook"), (sys, "excepthook"), (sys, "stderr"), (sys, "stdin"), (sys, "stdout"),
    (sys, "unraisablehook"), (threading, "excepthook"),
)  # fmt: skip
LISTS: tuple[tuple[ModuleType, str], ...] = ((sys, "meta_path"), (sys, "path"), (sys, "path_hooks"))
MODULES = (
    builtins, asyncio, asyncio.events, asyncio.locks, asyncio.tasks, asyncio.timeouts, contextlib, datetime, decimal,
    functools, inspect, json, logging, os, random, select, selectors, signal, socket, struct, threading, time,
    traceback, uuid, warnings,
)  # fmt: skip
CLASSES = (
    threading.Thread, threading.Condition, threading.Event, asyncio.BaseEventLoop, asyncio.Event, asyncio.Condition,
    asyncio.Queue, asyncio.Semaphore, asyncio.Timeout, asyncio.TaskGroup, logging.Logger, logging.Handler,
    random.Random, json.JSONEncoder, json.JSONDecoder, socket.socket, ThreadPoolExecutor,
)  # fmt: skip
put_attribute = setattr  # the one of the builtins may be replaced, too
STRICT_UMASK = 0o077
TIME_ZONE = b"TZ"
MISSING = object()
# Two that nobody can hear, and those that are looked at after each attempt.
ELSEWHERE = {signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGALRM}
signal_action = _signal.getsignal  # signal.getsignal makes an enumeration's member of what it finds, which takes long

Look = Callable[[], Any]
Put = Callable[[Any], object]


@dataclass(slots=True)
class Kept:
    """One thing as it is to be, how to look at it, and how to set it."""

    name: str
    look: Look
    put: Put
    value: Any = None

    def restore(self) -> list[str]:
        """Set it if it has changed; returns its name then. What cannot be set any more stays as it is, and is said."""
        if self.is_as_it_was():
            return []
        with contextlib.suppress(Exception):
            self.put(self.value)
        if self.is_as_it_was():
            return [self.name]
        with contextlib.suppress(Exception):
            self.value = self.look()
        return [f"{self.name} (which cannot be put back)"]

    def is_as_it_was(self) -> bool:
        """Tell whether it has its value; whatever stands there may be the user's."""
        try:
            now = self.look()
            return now is self.value or (type(now) is type(self.value) and bool(now == self.value))
        except Exception:
            return False


class Functions:
    """The functions and classes of a module, which everybody looks up there each time, or the methods of a class."""

    def __init__(self, owner: ModuleType | type) -> None:
        self.owner = owner
        self.found = vars(owner)
        named = self.found.items() if isinstance(owner, type) else public(self.found.items())
        self.functions = {name: value for name, value in named if callable(value)}
        # All at once, and nothing else that lies there: what is looked at comes from memory that is cold by then.
        self.look: Callable[[Any], tuple[Any, ...]] = itemgetter(*self.functions)
        self.kept: tuple[Any, ...] = self.look(self.found)

    def restore(self) -> list[str]:
        """Set those that were replaced or deleted; returns their names."""
        changed = [name for name, value in self.functions.items() if self.found.get(name, MISSING) is not value]
        for name in changed:
            put_attribute(self.owner, name, self.functions[name])
        return [f"{self.owner.__name__}.{name}" for name in changed]

    def are_as_they_were(self) -> bool:
        """Tell whether none of them has changed; one may be gone, and what was put there may not compare."""
        try:
            return self.look(self.found) == self.kept
        except Exception:
            return False


class ProcessState:
    """How the process was when this was made. Only the main thread may ask that it be so again."""

    def __init__(self) -> None:
        self.functions = [Functions(owner) for owner in (*MODULES, *CLASSES)]
        self.all_kept = [Kept(name, look, put, look()) for name, look, put in looks()]

    def restore(self) -> list[str]:
        """Take back what has changed, but for functions; returns the names of that. It takes some dozens of
        microseconds, so it is not for each of many attempts."""
        changed: list[str] = []
        for kept in self.all_kept:
            if not kept.is_as_it_was():  # asked here, one call is spared for nearly all of them
                changed += kept.restore()
        return changed

    def restore_functions(self) -> list[str]:
        """Take back functions that were replaced, in some hundreds of microseconds; returns their names."""
        changed: list[str] = []
        for functions in self.functions:
            if not functions.are_as_they_were():
                changed += functions.restore()
        return changed


def public(named: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return what has names that are for everybody."""
    return [(name, one) for name, one in named if not name.startswith("_") or name in ("__import__", "__build_class__")]


def looks() -> list[tuple[str, Look, Put]]:
    """Return what is looked at: its name, how to look, how to set."""
    variables = [name for name in os.environb if name != TIME_ZONE]
    numbers = sorted(signal.valid_signals() - ELSEWHERE)
    found: list[tuple[str, Look, Put]] = [
        ("other signals", lambda: [signal_action(number) for number in numbers], partial(heed, numbers)),
        ("working directory", working_directory, os.chdir),
        ("umask", umask, os.umask),
        ("time zone", lambda: (os.environb.get(TIME_ZONE), time.tzname), lambda to: set_time_zone(to[0])),
        ("environment variables", partial(variables_of, variables), partial(put_variables, variables)),
        ("decimal.DefaultContext", decimal_defaults, set_decimal_defaults),
        ("locale", partial(locale.setlocale, locale.LC_ALL), partial(locale.setlocale, locale.LC_ALL)),
        ("signal mask", partial(signal.pthread_sigmask, signal.SIG_BLOCK, ()), set_signal_mask),
        ("gc.callbacks", lambda: list(gc.callbacks), lambda to: gc.callbacks.__setitem__(slice(None), to)),
        ("configuration of logging", logging_configuration, configure_logging),
        ("configuration of structlog", structlog_configuration, configure_structlog),
        ("digits of an int", sys.get_int_max_str_digits, sys.set_int_max_str_digits),
        (
            "tracking of coroutines' origins",
            sys.get_coroutine_origin_tracking_depth,
            sys.set_coroutine_origin_tracking_depth,
        ),
    ]
    found += [limit(f"RLIMIT_{name}") for name in LIMITS if hasattr(resource, f"RLIMIT_{name}")]
    found += [attribute(module, name) for module, name in ATTRIBUTES]
    found += [whole_list(module, name) for module, name in LISTS]
    if hasattr(os, "sched_getaffinity"):
        found.append(("processor affinity", partial(os.sched_getaffinity, 0), partial(os.sched_setaffinity, 0)))
    return found


def heed(numbers: Sequence[int], actions: Sequence[Any]) -> None:
    """Have signals do what they did, and let no timer send more of them."""
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(timer, 0)
    for number, action in zip(numbers, actions, strict=True):
        if action is not None and signal_action(number) is not action:  # None: it is not Python's
            signal.signal(number, action)


def limit(name: str) -> tuple[str, Look, Put]:
    """Return how to look at a limit of the system, and how to set it."""
    number = getattr(resource, name)
    return name, partial(resource.getrlimit, number), partial(resource.setrlimit, number)


def attribute(module: ModuleType, name: str) -> tuple[str, Look, Put]:
    """Return how to look at an attribute of a module, and how to set it."""
    return f"{module.__name__}.{name}", partial(getattr, module, name, MISSING), partial(setattr, module, name)


def whole_list(module: ModuleType, name: str) -> tuple[str, Look, Put]:
    """Return how to look for what is gone of a list, and how to put it back; libraries add to these when imported."""
    original: list[Any] = getattr(module, name)
    wanted = list(original)

    def missing() -> list[Any]:
        found = getattr(module, name)
        return [one for one in wanted if one not in found]

    def put(_: Any) -> None:
        original[:] = [*wanted, *(one for one in getattr(module, name) if one not in wanted)]
        setattr(module, name, original)

    return f"{module.__name__}.{name}", missing, put


def working_directory() -> str | None:
    """Return the working directory, None where it was removed."""
    with contextlib.suppress(OSError):
        return os.getcwd()  # noqa: PTH109 - Path.cwd makes an object each time
    return None


def umask() -> int:
    """Return the mask of new files, which tells itself only to who sets it; a strict one meanwhile harms nobody."""
    found = os.umask(STRICT_UMASK)
    os.umask(found)
    return found


def decimal_defaults() -> dict[str, Any]:
    """Return what new decimal contexts begin with."""
    default = decimal.DefaultContext
    found = {name: getattr(default, name) for name in ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")}
    return {**found, "traps": dict(default.traps)}


def set_decimal_defaults(values: dict[str, Any]) -> None:
    """Have new decimal contexts begin with that."""
    for name, value in values.items():
        setattr(decimal.DefaultContext, name, value)


def variables_of(names: Sequence[bytes]) -> list[bytes | None]:
    """Return these variables of the environment; what was added to it is anybody's own affair."""
    found = os.environ._data  # type: ignore[attr-defined]  # noqa: SLF001 - else each is encoded
    return [found.get(name) for name in names]


def set_time_zone(name: bytes | None) -> None:
    """Have the time zone that was named when the daemon began."""
    put_variables([TIME_ZONE], [name])
    time.tzset()


def put_variables(names: Sequence[bytes], values: Sequence[bytes | None]) -> None:
    """Set variables of the environment, and remove those without a value."""
    for name, value in zip(names, values, strict=True):
        if value is None:
            os.environb.pop(name, None)
        elif os.environb.get(name) != value:
            os.environb[name] = value


def set_signal_mask(signals: set[int]) -> None:
    """Block these signals and no others."""
    signal.pthread_sigmask(signal.SIG_SETMASK, signals)


def logging_configuration() -> tuple[Any, ...]:
    """Return what the standard library's root logger does with records."""
    root = logging.root
    return root.level, root.manager.disable, list(root.handlers), list(root.filters)


def configure_logging(values: tuple[Any, ...]) -> None:
    """Have the root logger do so."""
    root = logging.root
    root.setLevel(values[0])
    logging.disable(values[1])
    root.handlers[:], root.filters[:] = values[2:]


def structlog_configuration() -> dict[str, Any] | None:
    """Return what structlog was told, None for its defaults."""
    return structlog.get_config() if structlog.is_configured() else None


def configure_structlog(values: dict[str, Any] | None) -> None:
    """Tell structlog the same again."""
    structlog.reset_defaults()
    if values is not None:
        structlog.configure(**values)
