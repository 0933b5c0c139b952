"""The list of events: its filters, and how many events pass them."""

from aiohttp import web

from replayforge.domain.clock import MICROSECONDS_PER_SECOND, format_time
from replayforge.domain.lifecycle import TERMINAL, State
from replayforge.domain.reports import EventFilter
from replayforge.domain.signs import STATES
from replayforge.engine.report.convergence import Convergence
from replayforge.engine.report.event_queries import EventQueries
from replayforge.stores.content_search import SearchPage
from replayforge.web.api.events import SOUGHT_CHARACTERS_MAX
from replayforge.web.api.snapshot import convergence_of
from replayforge.web.http.context import context_of
from replayforge.web.http.reading import bad_query, query_cursor
from replayforge.web.pages import rows, views, words
from replayforge.web.pages.paging import PAGE_SIZE, goes_on_at
from replayforge.web.pages.rendering import PageTemplate, show

COUNTED_MAX = 10_000
SINCE = {"15m": 900, "1h": 3600, "6h": 21_600, "24h": 86_400, "7d": 604_800}
SINCE_CHOICES = [
    ("", "any time"),
    ("15m", "15 minutes"),
    ("1h", "1 hour"),
    ("6h", "6 hours"),
    ("24h", "24 hours"),
    ("7d", "7 days"),
]


async def events(request: web.Request) -> web.Response:
    """Show events that pass the filters, newest first."""
    context = context_of(request)
    filters = read_filters(request)
    wanted = event_filter(filters, context.clock.now_us())
    cursor = query_cursor(request)
    report = await convergence_of(request)
    if filters.text:
        found = await context.queries.search(wanted, filters.text, cursor, PAGE_SIZE)
        listed, number = [event for event, _ in found.events], searched_in_words(found)
        goes_on = goes_on_at(request, found.next_seq) if found.next_seq is not None else ""
    else:
        page = await context.queries.page_of_rows(wanted, cursor, PAGE_SIZE)
        listed, number = page.events, await matching(context.queries, filters, wanted, report)
        goes_on = goes_on_at(request, page.next_seq) if page.next_seq is not None else ""
    view = views.EventsView(
        filters=filters,
        filtered=filters != views.Filters(),
        matching=number,
        query=api_query(filters, context.clock.now_us()),
        replayable="" if filters.text else replayable(filters.status),
        states=views.state_counts(report),
        since_choices=SINCE_CHOICES,
        rows=rows.event_rows(listed, context),
        first_page=cursor is None,
        older=goes_on,
    )
    return await show(request, PageTemplate("events.html", "Events", "events"), view)


def read_filters(request: web.Request) -> views.Filters:
    """Read the form of the events list from the query; API names work as well."""
    query = request.query
    status = query.get("status", "")
    if status and status not in set(State):
        raise bad_query("status", status, ", ".join(State))
    since = query.get("since", "")
    if since and since not in SINCE:
        raise bad_query("since", since, ", ".join(SINCE))
    return views.Filters(
        status=status,
        type=query.get("type") or query.get("event_type", ""),
        service=query.get("service") or query.get("service_name", ""),
        workflow=query.get("workflow") or query.get("workflow_id", ""),
        error=query.get("error", ""),
        since=since,
        q=query.get("q", "").strip(),
        awaits=query.get("awaits", "").strip(),
        # A field of this name would hide what every form can be asked: form.contains.
        text=(query.get("text") or query.get("contains", ""))[:SOUGHT_CHARACTERS_MAX],
    )


def searched_in_words(found: SearchPage) -> str:
    """Say how many events were looked at for a text, and whether that was all."""
    among = f"{words.plural(len(found.events), 'event')} among {words.plural(found.searched, 'event')}"
    return f"{among} looked at" if found.complete else f"{among} looked at; older ones are behind the link below"


async def matching(queries: EventQueries, filters: views.Filters, wanted: EventFilter, report: Convergence) -> str:
    """Say how many events pass the filters: exactly where the ledger knows it, else among the newest ones."""
    states = report.ledger.states
    if filters == views.Filters(status=filters.status):
        number = states[State(filters.status)] if filters.status else sum(states.values())
        return words.plural(number, "event")
    number = await queries.count_newest(wanted, COUNTED_MAX)
    among = f" of the newest {COUNTED_MAX:,}" if sum(states.values()) > COUNTED_MAX else ""
    return f"{words.plural(number, 'event')}{among} {'matches' if number == 1 else 'match'}"


def api_query(filters: views.Filters, now_us: int) -> dict[str, str]:
    """Return the filters with the names of the API; a distance of time becomes a time."""
    begin_us = since_us(filters, now_us)
    given = {
        "status": filters.status,
        "event_type": filters.type,
        "service_name": filters.service,
        "workflow_id": filters.workflow,
        "error": filters.error,
        "since": "" if begin_us is None else format_time(begin_us),
        "q": filters.q,
        "awaits": filters.awaits,
        "contains": filters.text,
    }
    return {name: value for name, value in given.items() if value}


def replayable(status: str) -> str:
    """Return the words for those of the listed events that a bulk replay would take, or nothing."""
    chosen = status or State.DEAD_LETTERED
    return STATES[chosen].words if chosen in TERMINAL else ""


def event_filter(filters: views.Filters, now_us: int) -> EventFilter:
    """Return what the store is asked for."""
    return EventFilter.of(api_query(filters, now_us), since_us(filters, now_us))


def since_us(filters: views.Filters, now_us: int) -> int | None:
    """Return the time from which on events are shown, if there is one."""
    return now_us - SINCE[filters.since] * MICROSECONDS_PER_SECOND if filters.since else None
