"""What pages are shown of the past: the metrics history of a range, cached for as long as asking for it costs."""

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from replayforge.domain.clock import Clock
from replayforge.domain.metrics_history import MetricsHistory, Range
from replayforge.engine.report.metrics_recorder import MetricsRecorder
from replayforge.web.http.context import Context, context_of
from replayforge.web.live.cached_answer import Remembered

QUEUED_COUNTED_MAX = 1000
CHEAP_SECONDS = 0.05  # one percent of the time between two writes


@dataclass(frozen=True, slots=True)
class Past:
    """The metrics history of a range, and the types of what is queued now, counted up to a number."""

    metrics_history: MetricsHistory
    queued: Mapping[str, int]


class Memory:
    """Remembers the past of each range; what this daemon has written since makes it ask again, if that costs little."""

    def __init__(self, metrics_recorder: MetricsRecorder, clock: Clock) -> None:
        self.metrics_recorder = metrics_recorder
        self.clock = clock
        self.writes_seen = 0
        self.remembered: dict[Range, Remembered[Past]] = {}

    def of(self, chosen: Range) -> Remembered[Past]:
        """Return what is remembered of a range."""
        if self.metrics_recorder.writes != self.writes_seen:
            self.writes_seen = self.metrics_recorder.writes
            for past in self.remembered.values():
                if past.cost_seconds <= CHEAP_SECONDS:
                    past.expire()
        return self.remembered.setdefault(chosen, Remembered(self.clock))


MEMORY: web.AppKey[Memory] = web.AppKey("memory", Memory)


async def past_of(request: web.Request, chosen: Range) -> Past:
    """Return what happened within a range, a little late where finding it takes long."""
    context = context_of(request)
    return await request.config_dict[MEMORY].of(chosen).get(lambda: look_back(context, chosen))


async def look_back(context: Context, chosen: Range) -> Past:
    """Ask the store what happened within a range."""
    return Past(
        await context.metrics_recorder.read(chosen), await context.overview.store.queued_types(QUEUED_COUNTED_MAX)
    )
