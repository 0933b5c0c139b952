"""The pages that show something: each handler asks the engine, makes a view, and has it rendered."""

from aiohttp import web

from replayforge.domain.clock import MICROSECONDS_PER_SECOND, format_time
from replayforge.domain.errors import NotFound
from replayforge.domain.lifecycle import FAILED, TERMINAL, State
from replayforge.domain.reports import EventFilter
from replayforge.domain.signs import STATES
from replayforge.engine.report.overview import Convergence, Overview
from replayforge.web.api.dead_letters import GROUPINGS
from replayforge.web.http.context import context_of
from replayforge.web.http.reading import bad_query, query_cursor
from replayforge.web.live.live_rates import LIVE_RATES
from replayforge.web.pages import charts, flash, rows, views, words
from replayforge.web.pages.rendering import Page, show
from replayforge.web.pages.runtime_facts import runtime_view
from replayforge.web.pages.selection import group_letters

PAGE_SIZE = 50
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
    wanted = event_filter(filters, context.overview.clock.now_us())
    cursor = query_cursor(request)
    found = await context.overview.list_rows(wanted, cursor, PAGE_SIZE + 1)
    report = await context.overview.convergence()
    view = views.EventsView(
        filters=filters,
        filtered=filters != views.Filters(),
        matching=await matching(context.overview, filters, wanted, report),
        query=api_query(filters, context.overview.clock.now_us()),
        replayable=replayable(filters.status),
        states=views.state_counts(report),
        since_choices=SINCE_CHOICES,
        rows=rows.event_rows(found[:PAGE_SIZE], context.overview),
        first_page=cursor is None,
        older=older(request, [event.seq for event in found]),
    )
    return await show(request, Page("events.html", "Events", "events"), view)


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
    )


async def matching(overview: Overview, filters: views.Filters, wanted: EventFilter, report: Convergence) -> str:
    """Say how many events pass the filters: exactly where the ledger knows it, else among the newest ones."""
    states = report.ledger.states
    if filters == views.Filters(status=filters.status):
        number = states[State(filters.status)] if filters.status else sum(states.values())
        return words.plural(number, "event")
    number = await overview.count_newest(wanted, COUNTED_MAX)
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


def older(request: web.Request, cursors: list[int]) -> str:
    """Return the link to the next page of a list that was fetched with one item more than it shows, or nothing."""
    if len(cursors) <= PAGE_SIZE:
        return ""
    return goes_on_at(request, cursors[PAGE_SIZE - 1])


def goes_on_at(request: web.Request, cursor: int) -> str:
    """Return the link to the page of the same list that begins at a cursor."""
    kept = {name: value for name, value in request.query.items() if name != "cursor"}
    return words.link(request.path, kept | {"cursor": cursor})


async def workflows(request: web.Request) -> web.Response:
    """Show workflows, the one with the newest event first."""
    cursor = query_cursor(request)
    found = await context_of(request).overview.list_workflows(cursor, PAGE_SIZE)
    view = views.WorkflowsView(
        rows=[rows.workflow_row(summary) for summary in found.workflows],
        first_page=cursor is None,
        older="" if found.next_seq is None else goes_on_at(request, found.next_seq),
    )
    return await show(request, Page("workflows.html", "Workflows", "workflows"), view)


async def workflow(request: web.Request) -> web.Response:
    """Show one workflow as a picture and as a table."""
    context, workflow_id = context_of(request), request.match_info["id"]
    summary = await context.overview.workflow(workflow_id)
    events, attempts = await context.overview.timeline(workflow_id)
    only_failed, idle_shown = request.query.get("only") == "failed", request.query.get("idle") == "shown"
    failed = [event for event in events if event.state in charts.TROUBLED]
    found = failed if only_failed else events
    of_event: dict[str, list[rows.AttemptRow]] = {event.id: [] for event in found}
    for attempt in attempts:
        if attempt.event_id in of_event:
            of_event[attempt.event_id].append(rows.attempt_row(attempt))
    shown, now_us = charts.shown_events(found), context.overview.clock.now_us()
    view = views.WorkflowView(
        workflow_id=workflow_id,
        totals=rows.workflow_row(summary),
        only_failed=only_failed,
        failed=len(failed),
        idle_shown=idle_shown,
        timeline=charts.timeline(found, attempts, now_us, idle_shown=idle_shown) if found else None,
        rows=rows.event_rows(shown, context.overview),
        attempts=of_event,
        replayable=sum(event.state in FAILED for event in events),
    )
    return await show(request, Page("workflow.html", workflow_id, "workflows"), view)


async def dead_letters(request: web.Request) -> web.Response:
    """Show dead letters in groups, and one by one."""
    context = context_of(request)
    group_by = request.query.get("group_by") or "error"
    if group_by not in GROUPINGS:
        raise bad_query("group_by", group_by, ", ".join(GROUPINGS))
    chosen, cursor = request.query.get("group"), query_cursor(request)
    found = await group_letters(context.overview, group_by, chosen, cursor, PAGE_SIZE + 1)
    report = await context.overview.convergence()
    groups = await context.overview.dead_letter_groups(group_by)
    view = views.DeadLettersView(
        group_by=group_by,
        groupings=GROUPINGS,
        groups=rows.group_rows(groups),
        grouped=sum(group.count for group in groups),
        total=report.ledger.states[State.DEAD_LETTERED],
        chosen=chosen,
        rows=rows.event_rows(found[:PAGE_SIZE], context.overview),
        first_page=cursor is None,
        older=older(request, [event.seq for event in found]),
    )
    return await show(request, Page("dead_letters.html", "Dead letters", "dead"), view)


async def runtime(request: web.Request) -> web.Response:
    """Show the daemon itself, part by part."""
    view = await runtime_view(context_of(request), request.config_dict[LIVE_RATES])
    return await show(request, Page("runtime.html", "Runtime", "runtime"), view)


async def search(request: web.Request) -> web.Response:
    """Go to what a search means: an event or a workflow of exactly this name, else the list narrowed to it."""
    context, text = context_of(request), request.query.get("q", "").strip()
    base = context.base_path
    if not text:
        return flash.see_other(request, f"{base}/events")
    for find, path in (
        (context.overview.find, f"/events/{words.segment(text)}"),
        (context.overview.workflow, words.workflow_path(text)),
    ):
        try:
            await find(text)
        except NotFound:
            continue
        return flash.see_other(request, base + path)
    return flash.see_other(request, base + words.link("/events", {"q": text}))
