"""The first page: how things stand, what happened in the chosen range, what is new."""

from aiohttp import web

from replayforge.domain.metrics_history import RANGES, Range
from replayforge.domain.reports import EventFilter
from replayforge.web.api.metrics_history import QUEUED_COUNTED_MAX, history_of
from replayforge.web.api.snapshot import convergence_of
from replayforge.web.http.context import context_of
from replayforge.web.http.reading import bad_query
from replayforge.web.live.live_rates import LIVE_RATES
from replayforge.web.pages import rows, trends, views
from replayforge.web.pages.api_page import example, origin_of
from replayforge.web.pages.rendering import PageTemplate, show
from replayforge.web.pages.tiles import tiles

RECENT_SIZE = 12
ACTIVITY_SIZE = 8


async def overview(request: web.Request) -> web.Response:
    """Show how things stand: figures, throughput, latency, event types, the newest events, what happened lately."""
    context, live_rates, chosen = context_of(request), request.config_dict[LIVE_RATES], read_range(request)
    report = await convergence_of(request)
    found = await context.queries.list_rows(EventFilter(), None, RECENT_SIZE)
    history = await history_of(request, chosen)
    latency = trends.latency(history.metrics_history.latencies)
    view = views.OverviewView(
        tiles=tiles(report, context.status.workers(), live_rates.rates(), latency, chosen),
        range_name=chosen.name,
        range_names=list(RANGES),
        bars=trends.throughput(history.metrics_history),
        latency=latency,
        types=trends.type_rows(history.metrics_history, history.queued, QUEUED_COUNTED_MAX),
        rows=rows.event_rows(found, context),
        activity=rows.activity_rows(list(live_rates.telemetry_events), ACTIVITY_SIZE),
        example=example(origin_of(request)),
        ledger=report.ledger.in_words(),
        issues=report.issues,
    )
    return await show(request, PageTemplate("overview.html", "Overview", "overview"), view)


def read_range(request: web.Request) -> Range:
    """Read how far the charts look back."""
    name = request.query.get("range", "1h")
    if name not in RANGES:
        raise bad_query("range", name, ", ".join(RANGES))
    return RANGES[name]
