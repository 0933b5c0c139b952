"""What the pages know of this moment: how fast events come and go, and the telemetry events worth a line."""

from asyncio import get_running_loop, sleep
from collections import deque
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from replayforge.domain.clock import Clock
from replayforge.domain.metrics_history import ACCEPTED, DEAD_LETTERED, INDEX, SUCCEEDED
from replayforge.engine.report.metrics_recorder import MetricsRecorder
from replayforge.telemetry import CATALOG, LOUD

SAMPLE_SECONDS = 5.0
RATE_SECONDS = 10.0
SAMPLES_MAX = 4  # enough for one that is older than the span of a rate
TELEMETRY_EVENTS_MAX = 60
QUIET = frozenset({"log.opened", "log.retained", "daemon.started", "service.restarted", "event.copied"})
LINES = LOUD - QUIET


@dataclass(frozen=True, slots=True)
class Sample:
    """How many events were accepted and how many came to an end by one moment of the monotonic clock, in seconds."""

    at: float
    accepted: int
    done: int


@dataclass(frozen=True, slots=True)
class TelemetryEvent:
    """Something worth a line: `level` is that of telemetry's catalog."""

    at_us: int
    name: str
    level: str
    count: int
    fields: dict[str, Any]


class LiveRates:
    """Samples the counters every few seconds, and listens for what is worth a line.

    It knows nothing of the time before this process. `lag_ms` is how late the event loop was at its worst of late.
    """

    def __init__(self, metrics_recorder: MetricsRecorder, clock: Clock) -> None:
        self.metrics_recorder = metrics_recorder
        self.clock = clock
        self.samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)
        self.telemetry_events: deque[TelemetryEvent] = deque(maxlen=TELEMETRY_EVENTS_MAX)
        self.lags_ms: deque[float] = deque(maxlen=12)
        self.samples.append(self.now())

    def listen(self, name: str, count: int, fields: dict[str, Any]) -> None:
        """Remember one of LINES, what is worth a line; called in any thread."""
        self.telemetry_events.append(TelemetryEvent(self.clock.now_us(), name, CATALOG[name].level, count, fields))

    async def tick(self) -> None:
        """Wait for the next sample and take it."""
        loop = get_running_loop()
        due = loop.time() + SAMPLE_SECONDS
        await sleep(SAMPLE_SECONDS)
        self.lags_ms.append(max(0.0, (loop.time() - due) * 1000))
        self.samples.append(self.now())

    def now(self) -> Sample:
        """Return the counters as they are."""
        counts = self.metrics_recorder.counts_since_start()
        done = counts[INDEX[SUCCEEDED]] + counts[INDEX[DEAD_LETTERED]]
        return Sample(self.clock.monotonic(), counts[INDEX[ACCEPTED]], done)

    @property
    def lag_ms(self) -> float:
        """How late the event loop was at its worst within the last minute."""
        return max(self.lags_ms, default=0.0)

    def rates(self) -> tuple[float, float]:
        """Return how many events a second were accepted and came to an end, over the last ten seconds or so."""
        now = self.now()
        before = now.at - RATE_SECONDS
        then = next((sample for sample in reversed(self.samples) if sample.at <= before), self.samples[0])
        seconds = max(1.0, now.at - then.at)
        return (now.accepted - then.accepted) / seconds, (now.done - then.done) / seconds


LIVE_RATES: web.AppKey[LiveRates] = web.AppKey("live_rates", LiveRates)
