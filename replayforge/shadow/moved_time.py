"""Time as code that is only tried sees it: it begins where its run began, and what code waits for passes in no time."""

import asyncio
import ctypes
import gc
import selectors
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from time import monotonic
from time import time as wall_time
from typing import Any

PATIENCE_SECONDS = 0.02  # how long threads that nobody knows of may take before time goes on without them


class MovedClock:
    """A clock that can be set for each run, and that goes on by itself and by what is skipped."""

    def __init__(self, ahead_seconds: float) -> None:
        self.ahead_seconds = ahead_seconds
        self.skipped = 0.0
        self.wall_at_zero = wall_time() - monotonic()

    def begin(self, at_us: int) -> None:
        """Let it be this time now, for a run that began then."""
        self.wall_at_zero = at_us / 1e6 + self.ahead_seconds - self.monotonic()

    def skip(self, seconds: float) -> None:
        """Let so much time have passed."""
        self.skipped += max(0.0, seconds)

    def monotonic(self) -> float:
        """Return seconds that have passed."""
        return monotonic() + self.skipped

    def now(self) -> float:
        """Return seconds since the epoch."""
        return self.wall_at_zero + self.monotonic()

    def now_us(self) -> int:
        """See Clock.now_us."""
        return round(self.now() * 1e6)

    def elapsed(self) -> float:
        """See Clock.elapsed."""
        return self.monotonic()

    def install(self) -> None:
        """Have everybody in this process read it, as far as Python's own functions go."""
        for name in ("monotonic", "perf_counter"):
            setattr(time, name, self.monotonic)
            setattr(time, f"{name}_ns", lambda: round(self.monotonic() * 1e9))
        for name, moved in {"time": self.now, "time_ns": lambda: round(self.now() * 1e9), "sleep": self.skip}.items():
            setattr(time, name, moved)
        for name in ("localtime", "gmtime", "ctime"):
            setattr(time, name, with_moved_default(getattr(time, name), self.now))
        move_datetime(self.now)


def with_moved_default(function: Callable[[float], Any], now: Callable[[], float]) -> Callable[..., Any]:
    """Return a function of a time that takes the moved one where none is given."""
    return lambda seconds=None: function(now() if seconds is None else seconds)


def move_datetime(now: Callable[[], float]) -> None:
    """Have `datetime.now` and `utcnow` read the moved time; the others ask the module `time`.

    The class is one of C, whose methods nothing but its own dictionary can replace, and `datetime` may be anywhere by
    the name of the class itself.
    """

    def moved_now(cls: type[datetime], tz: tzinfo | None = None) -> datetime:
        return cls.fromtimestamp(now(), tz)

    def moved_utcnow(cls: type[datetime]) -> datetime:
        return cls.fromtimestamp(now(), UTC).replace(tzinfo=None)

    methods = gc.get_referents(datetime.__dict__)[0]
    methods["now"], methods["utcnow"] = classmethod(moved_now), classmethod(moved_utcnow)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime))


class SkippingSelector(selectors.DefaultSelector):
    """Lets time pass that a loop would only wait for. `is_busy` says whether a thread of the run is at work, for which
    it really waits; `rest` is called when nothing can happen any more."""

    def __init__(self, clock: MovedClock) -> None:
        super().__init__()
        self.clock = clock
        self.is_busy: Callable[[], bool] = lambda: False
        self.rest: Callable[[], bool] = lambda: False

    def ask(self, is_busy: Callable[[], bool], rest: Callable[[], bool]) -> None:
        """Have these asked from now on."""
        self.is_busy, self.rest = is_busy, rest

    def select(self, timeout: float | None = None) -> Any:
        """Return what is ready, as `selectors` says, without waiting for time to pass."""
        if timeout is not None and timeout <= 0:
            return super().select(0)
        if self.is_busy():
            return super().select(timeout)
        if ready := super().select(0):
            return ready
        if timeout is None:
            return [] if self.rest() else super().select(PATIENCE_SECONDS)
        if threading.active_count() > 1 and (ready := super().select(min(timeout, PATIENCE_SECONDS))):
            return ready
        self.clock.skip(timeout)
        return []


class SkippingLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, on a clock that skips what it would wait for."""

    def __init__(self, clock: MovedClock) -> None:
        self.moved = clock
        self.skipping = SkippingSelector(clock)
        super().__init__(self.skipping)

    def time(self) -> float:
        """Return the moved time."""
        return self.moved.monotonic()
