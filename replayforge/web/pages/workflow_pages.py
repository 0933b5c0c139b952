"""The list of workflows, and one workflow as a picture and as a table."""

from aiohttp import web

from replayforge.domain.lifecycle import FAILED
from replayforge.web.http.context import context_of
from replayforge.web.http.reading import query_cursor
from replayforge.web.pages import charts, rows, views
from replayforge.web.pages.paging import PAGE_SIZE, goes_on_at
from replayforge.web.pages.rendering import PageTemplate, show


async def workflows(request: web.Request) -> web.Response:
    """Show workflows, the one with the newest event first."""
    cursor = query_cursor(request)
    found = await context_of(request).queries.list_workflows(cursor, PAGE_SIZE)
    view = views.WorkflowsView(
        rows=[rows.workflow_row(summary) for summary in found.workflows],
        first_page=cursor is None,
        older="" if found.next_seq is None else goes_on_at(request, found.next_seq),
    )
    return await show(request, PageTemplate("workflows.html", "Workflows", "workflows"), view)


async def workflow(request: web.Request) -> web.Response:
    """Show one workflow as a picture and as a table."""
    context, workflow_id = context_of(request), request.match_info["id"]
    summary = await context.queries.workflow(workflow_id)
    events, attempts = await context.queries.timeline(workflow_id)
    only_failed, idle_shown = request.query.get("only") == "failed", request.query.get("idle") == "shown"
    failed = [event for event in events if event.state in charts.TROUBLED]
    found = failed if only_failed else events
    of_event: dict[str, list[rows.AttemptRow]] = {event.id: [] for event in found}
    for attempt in attempts:
        if attempt.event_id in of_event:
            of_event[attempt.event_id].append(rows.attempt_row(attempt))
    shown, now_us = charts.shown_events(found), context.clock.now_us()
    view = views.WorkflowView(
        workflow_id=workflow_id,
        totals=rows.workflow_row(summary),
        only_failed=only_failed,
        failed=len(failed),
        idle_shown=idle_shown,
        timeline=charts.timeline(found, attempts, now_us, idle_shown=idle_shown) if found else None,
        rows=rows.event_rows(shown, context.queries),
        attempts=of_event,
        replayable=sum(event.state in FAILED for event in events),
    )
    return await show(request, PageTemplate("workflow.html", workflow_id, "workflows"), view)
