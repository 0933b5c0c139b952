"""The first page: how things stand, what happened in the chosen range, what is new."""

from aiohttp import web

from replayforge.domain.chronicle import RANGES, Range
from replayforge.domain.reports import EventFilter
from replayforge.web import rows, trends, views
from replayforge.web.api_page import example, origin_of
from replayforge.web.context import context_of
from replayforge.web.past import QUEUED_COUNTED_MAX, past_of
from replayforge.web.pulse import PULSE
from replayforge.web.reading import bad_query
from replayforge.web.rendering import Page, show
from replayforge.web.tiles import tiles

RECENT_SIZE = 12
ACTIVITY_SIZE = 8


async def overview(request: web.Request) -> web.Response:
    """Show how things stand: figures, throughput, latency, event types, the newest events, what happened lately."""
    context, pulse, chosen = context_of(request), request.config_dict[PULSE], read_range(request)
    report = await context.overview.convergence()
    found = await context.overview.list_rows(EventFilter(), None, RECENT_SIZE)
    past = await past_of(request, chosen)
    latency = trends.latency(past.chronicle.latencies)
    view = views.OverviewView(
        tiles=tiles(report, context.overview.worker_statuses(), pulse.rates(), latency, chosen),
        range_name=chosen.name,
        range_names=list(RANGES),
        bars=trends.throughput(past.chronicle),
        latency=latency,
        types=trends.type_rows(past.chronicle, past.queued, QUEUED_COUNTED_MAX),
        rows=rows.event_rows(found, context.overview),
        activity=rows.activity_rows(list(pulse.happenings), ACTIVITY_SIZE),
        example=example(origin_of(request)),
        ledger=report.ledger.in_words(),
        issues=report.issues,
    )
    return await show(request, Page("overview.html", "Overview", "overview"), view)


def read_range(request: web.Request) -> Range:
    """Read how far the charts look back."""
    name = request.query.get("range", "1h")
    if name not in RANGES:
        raise bad_query("range", name, ", ".join(RANGES))
    return RANGES[name]
