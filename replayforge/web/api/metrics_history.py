"""The metrics history of a range as pages and the API show it, cached for as long as asking for it costs."""

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from replayforge.domain.clock import Clock
from replayforge.domain.metrics_history import MetricsHistory, Range
from replayforge.engine.report.metrics_recorder import MetricsRecorder
from replayforge.web.http.context import WebContext, context_of
from replayforge.web.live.cached_answer import CachedAnswer

QUEUED_COUNTED_MAX = 1000
CHEAP_SECONDS = 0.05  # one percent of the time between two writes


@dataclass(frozen=True, slots=True)
class RangeHistory:
    """The metrics history of a range, and the types of what is queued now, counted up to a number."""

    metrics_history: MetricsHistory
    queued: Mapping[str, int]


class HistoryCache:
    """Remembers the history of each range; what was written since makes it ask again, if that costs little."""

    def __init__(self, metrics_recorder: MetricsRecorder, clock: Clock) -> None:
        self.metrics_recorder = metrics_recorder
        self.clock = clock
        self.writes_seen = 0
        self.ranges: dict[Range, CachedAnswer[RangeHistory]] = {}

    def of(self, chosen: Range) -> CachedAnswer[RangeHistory]:
        """Return what is remembered of a range."""
        if self.metrics_recorder.writes != self.writes_seen:
            self.writes_seen = self.metrics_recorder.writes
            for answer in self.ranges.values():
                if answer.cost_seconds <= CHEAP_SECONDS:
                    answer.expire()
        return self.ranges.setdefault(chosen, CachedAnswer(self.clock))


HISTORIES: web.AppKey[HistoryCache] = web.AppKey("histories", HistoryCache)


async def history_of(request: web.Request, chosen: Range) -> RangeHistory:
    """Return what happened within a range, a little late where finding it takes long."""
    context = context_of(request)
    return await request.config_dict[HISTORIES].of(chosen).get(lambda: read_history(context, chosen))


async def read_history(context: WebContext, chosen: Range) -> RangeHistory:
    """Ask the store what happened within a range."""
    return RangeHistory(
        await context.metrics_recorder.read(chosen), await context.queries.queued_types(QUEUED_COUNTED_MAX)
    )
