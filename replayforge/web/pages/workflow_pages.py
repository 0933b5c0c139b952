"""The list of workflows, and one workflow as a picture and as a table."""

from collections.abc import Sequence

from aiohttp import web

from replayforge.domain.event import StoredEvent
from replayforge.domain.lifecycle import FAILED
from replayforge.web.api.events import application_in
from replayforge.web.http.context import context_of
from replayforge.web.http.reading import query_cursor
from replayforge.web.pages import charts, rows, views
from replayforge.web.pages.awaited import RelativeRow
from replayforge.web.pages.documents import Reading
from replayforge.web.pages.paging import PAGE_SIZE, goes_on_at
from replayforge.web.pages.rendering import PageTemplate, show
from replayforge.web.pages.step_rows import brief_rows


async def workflows(request: web.Request) -> web.Response:
    """Show workflows, the one with the newest event first."""
    cursor, application = query_cursor(request), application_in(request)
    found = await context_of(request).queries.list_workflows(cursor, PAGE_SIZE, application)
    view = views.WorkflowsView(
        rows=[rows.workflow_row(summary) for summary in found.workflows],
        first_page=cursor is None,
        older="" if found.next_seq is None else goes_on_at(request, found.next_seq),
    )
    return await show(request, PageTemplate("workflows.html", "Workflows", "workflows"), view)


async def workflow(request: web.Request) -> web.Response:
    """Show one workflow as a picture and as a table."""
    context, workflow_id = context_of(request), request.match_info["id"]
    application = application_in(request)
    summary = await context.queries.workflow(workflow_id, application)
    events, attempts = await context.queries.timeline(workflow_id, application)
    steps = await context.queries.workflow_steps(workflow_id, application)
    only_failed, idle_shown = request.query.get("only") == "failed", request.query.get("idle") == "shown"
    failed = [event for event in events if event.state in charts.TROUBLED]
    found = failed if only_failed else events
    shown, now_us = charts.shown_events(found), context.clock.now_us()
    of_event: dict[str, list[rows.AttemptRow]] = {event.id: [] for event in shown}
    reading = Reading(context.masked_names)
    listed = [one for one in attempts if one.event_id in of_event]
    for one, row in zip(listed, await rows.attempt_rows(listed, reading), strict=True):
        of_event[one.event_id].append(row)
    view = views.WorkflowView(
        workflow_id=workflow_id,
        application=application or "",
        applications=sorted({event.application_name for event in events}),
        totals=rows.workflow_row(summary),
        only_failed=only_failed,
        failed=len(failed),
        idle_shown=idle_shown,
        timeline=charts.timeline(found, attempts, now_us, steps=steps, idle_shown=idle_shown) if found else None,
        rows=rows.event_rows(shown, context),
        attempts=of_event,
        steps={event.id: brief_rows(event, steps[event.seq]) for event in shown if event.seq in steps},
        parents={event.id: parent_of(event, events) for event in shown if event.parent_id is not None},
        replayable=sum(event.state in FAILED for event in events),
    )
    return await show(request, PageTemplate("workflow.html", workflow_id, "workflows"), view)


def parent_of(event: StoredEvent, events: Sequence[StoredEvent]) -> RelativeRow:
    """Return the row of an event's parent, which may belong to another workflow."""
    parent = next((one for one in events if one.id == event.parent_id), None)
    known = ("", "") if parent is None else (parent.event_type, parent.state.value)
    return RelativeRow(event.parent_id or "", *known)
