"""What the pages know of the last hour: rates, one bar for each minute, and the happenings worth a line."""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from replayforge.domain.clock import MICROSECONDS_PER_SECOND, Clock, to_us
from replayforge.telemetry import HAPPENINGS, Telemetry

SAMPLE_SECONDS = 5.0
RATE_SECONDS = 10.0
MINUTES = 60
HAPPENINGS_MAX = 60
QUIET = frozenset({"log.opened", "log.retained", "daemon.started", "service.restarted", "event.copied"})
COUNTED = {
    "accepted": ("event.accepted",),
    "attempts": ("attempt.settled",),
    "dead": ("event.dead_lettered",),
    "crashes": ("worker.crashed", "service.crashed"),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """The counters at one moment of the monotonic clock, in seconds."""

    at: float
    accepted: int
    attempts: int
    dead: int
    crashes: int


@dataclass(frozen=True, slots=True)
class Minute:
    """What happened in one minute."""

    at_us: int
    accepted: int
    attempts: int
    dead: int
    crashes: int


@dataclass(frozen=True, slots=True)
class Happening:
    """Something worth a line: `level` is that of telemetry's table."""

    at_us: int
    name: str
    level: str
    count: int
    fields: dict[str, Any]


class Pulse:
    """Samples the counters every few seconds, and listens for what is worth a line.

    It knows nothing of the time before this process. `lag_ms` is how late the event loop was at its worst of late.
    """

    def __init__(self, telemetry: Telemetry, clock: Clock) -> None:
        self.telemetry = telemetry
        self.clock = clock
        self.samples: deque[Sample] = deque(maxlen=int((MINUTES + 1) * 60 / SAMPLE_SECONDS))
        self.happenings: deque[Happening] = deque(maxlen=HAPPENINGS_MAX)
        self.lags_ms: deque[float] = deque(maxlen=12)
        self.samples.append(self.now())

    def listen(self, name: str, count: int, fields: dict[str, Any]) -> None:
        """Remember what is worth a line; called in any thread."""
        level = HAPPENINGS[name][0]
        if level != "debug" and name not in QUIET:
            self.happenings.append(Happening(self.clock.now_us(), name, level, count, fields))

    async def tick(self) -> None:
        """Wait for the next sample and take it."""
        loop = asyncio.get_running_loop()
        due = loop.time() + SAMPLE_SECONDS
        await asyncio.sleep(SAMPLE_SECONDS)
        self.lags_ms.append(max(0.0, (loop.time() - due) * 1000))
        self.samples.append(self.now())

    def now(self) -> Sample:
        """Return the counters as they are."""
        counts = self.telemetry.counts
        figures = {name: sum(counts[part] for part in parts) for name, parts in COUNTED.items()}
        return Sample(self.clock.monotonic(), **figures)

    @property
    def lag_ms(self) -> float:
        """How late the event loop was at its worst within the last minute."""
        return max(self.lags_ms, default=0.0)

    def rates(self) -> tuple[float, float]:
        """Return events accepted and attempts ended per second, over the last ten seconds or so."""
        now = self.now()
        before = now.at - RATE_SECONDS
        then = next((sample for sample in reversed(self.samples) if sample.at <= before), self.samples[0])
        seconds = max(1.0, now.at - then.at)
        return (now.accepted - then.accepted) / seconds, (now.attempts - then.attempts) / seconds

    def minutes(self) -> list[Minute]:
        """Return one bar for each of the last sixty minutes that this process has seen, oldest first.

        They are counted back from now: a wall clock that was set meanwhile neither folds nor stretches them.
        """
        now, now_us = self.now(), self.clock.now_us()
        points = [*self.samples, now]
        last_of: dict[int, Sample] = {}
        for sample in points:
            last_of[(now_us - to_us(now.at - sample.at)) // (60 * MICROSECONDS_PER_SECOND)] = sample
        before, bars = points[0], []
        for minute, sample in last_of.items():
            bars.append(difference(minute * 60 * MICROSECONDS_PER_SECOND, before, sample))
            before = sample
        return bars[-MINUTES:]


def difference(at_us: int, before: Sample, after: Sample) -> Minute:
    """Return what happened between two samples."""
    return Minute(
        at_us,
        after.accepted - before.accepted,
        after.attempts - before.attempts,
        after.dead - before.dead,
        after.crashes - before.crashes,
    )


PULSE: web.AppKey[Pulse] = web.AppKey("pulse", Pulse)
