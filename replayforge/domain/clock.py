"""Time as a thing that is handed in, so that rules about time can be tested without waiting."""

import re
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from time import clock_gettime, monotonic, time_ns
from typing import Protocol

MICROSECONDS_PER_SECOND = 1_000_000
DRIFT_SECONDS_MAX = 300.0
TIME_FORM = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ]([01]\d:[0-5]\d|2[0-3]:[0-5]\d):([0-5]\d|60)(\.\d+)?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
# Where the system has a clock that cannot be set and goes on while the machine sleeps, that one.
ELAPSED_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """Where every part of the daemon reads the time."""

    def now_us(self) -> int:
        """Return the wall-clock time in microseconds since the Unix epoch, UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never runs backwards."""
        ...

    def elapsed(self) -> float:
        """Return seconds on a clock that never runs backwards and goes on while the machine sleeps."""
        ...


class SystemClock:
    """The machine's own clocks, read without a call of ours where that can be: each event asks some times."""

    monotonic = staticmethod(monotonic)
    elapsed = staticmethod(partial(clock_gettime, ELAPSED_CLOCK))

    def now_us(self) -> int:
        """Return the wall-clock time in microseconds since the Unix epoch, UTC."""
        return time_ns() // 1000


class SteadyClock:
    """Compares the wall clock with one that cannot be set, so that nothing is removed by age after a jump.

    A clock that was put right looks the same as one that was put wrong: what agrees is the wall clock of the start.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.wall_us = clock.now_us()
        self.elapsed = clock.elapsed()

    def drift_seconds(self) -> float:
        """Return by how much the wall clock has moved apart from the time that has passed since the start."""
        passed_seconds = self.clock.elapsed() - self.elapsed
        return (self.clock.now_us() - self.wall_us) / MICROSECONDS_PER_SECOND - passed_seconds

    def now_us(self) -> int | None:
        """Return the wall-clock time, or None while it stands where it cannot have come by itself."""
        return None if abs(self.drift_seconds()) > DRIFT_SECONDS_MAX else self.clock.now_us()


class SampledClock:
    """The wall clock of another machine, known from samples, and held against one here that cannot be set.

    It says what time it is there, or None while it has moved apart from the time that has passed since the first
    sample: then nothing that is judged by age may be removed.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.first: tuple[int, float] | None = None
        self.last: tuple[int, float] = (0, 0.0)

    def sample(self, now_us: int) -> None:
        """Take in what time it is there now."""
        self.last = (now_us, self.clock.elapsed())
        self.first = self.first or self.last

    def drift_seconds(self) -> float:
        """Return by how much it has moved apart, from the first sample to the last."""
        first = self.first or self.last
        return (self.last[0] - first[0]) / MICROSECONDS_PER_SECOND - (self.last[1] - first[1])

    def now_us(self) -> int | None:
        """Return what time it is there, or None while that cannot be trusted."""
        if self.first is None or abs(self.drift_seconds()) > DRIFT_SECONDS_MAX:
            return None
        return self.last[0] + to_us(self.clock.elapsed() - self.last[1])


def to_us(seconds: float) -> int:
    """Turn a duration in seconds into whole microseconds."""
    return round(seconds * MICROSECONDS_PER_SECOND)


def format_time(at_us: int) -> str:
    """Write a time in RFC 3339 UTC with microseconds, as the API shows it."""
    seconds, microseconds = divmod(at_us, MICROSECONDS_PER_SECOND)
    return f"{format_second(seconds)}.{microseconds:06d}Z"


@lru_cache(maxsize=1024)
def format_second(seconds: int) -> str:
    """Write a whole second; remembered, because neighbours in a list share it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]  # strftime drops the zeros of early years


def parse_time(text: str) -> int:
    """Read an RFC 3339 time, and nothing else that ISO 8601 knows; a leap second is the first one of the next minute.

    Returns microseconds since the Unix epoch, what is finer cut off. Raises ValueError when the text is not one of
    these, or one that cannot be written in UTC because it lies outside the years 1 to 9999 there.
    """
    found = TIME_FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is not an RFC 3339 time.")
    date, minute, second, fraction, offset = found.groups()
    leap = second == "60"
    zone = offset.upper().replace("Z", "+00:00")
    moment = datetime.fromisoformat(f"{date}T{minute}:{'59' if leap else second}{(fraction or '')[:7]}{zone}")
    try:
        moment = moment.astimezone(UTC) + timedelta(seconds=leap)
    except OverflowError:
        raise ValueError(f"{text[:40]!r} lies outside the years 1 to 9999.") from None
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
