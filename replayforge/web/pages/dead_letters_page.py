"""Dead letters in groups, and one by one."""

from aiohttp import web

from replayforge.domain.lifecycle import State
from replayforge.web.api.dead_letters import GROUPINGS
from replayforge.web.api.snapshot import convergence_of
from replayforge.web.http.context import context_of
from replayforge.web.http.reading import bad_query, query_cursor
from replayforge.web.pages import rows, views
from replayforge.web.pages.paging import PAGE_SIZE, older
from replayforge.web.pages.rendering import PageTemplate, letter_groups, show
from replayforge.web.pages.selection import group_letters


async def dead_letters(request: web.Request) -> web.Response:
    """Show dead letters in groups, and one by one."""
    context = context_of(request)
    group_by = request.query.get("group_by") or "error"
    if group_by not in GROUPINGS:
        raise bad_query("group_by", group_by, ", ".join(GROUPINGS))
    chosen, cursor = request.query.get("group"), query_cursor(request)
    found = await group_letters(context, group_by, chosen, cursor, PAGE_SIZE + 1)
    report = await convergence_of(request)
    by_error = group_by == "error"
    groups = await (letter_groups(context) if by_error else context.queries.dead_letter_groups(group_by))
    view = views.DeadLettersView(
        group_by=group_by,
        groupings=GROUPINGS,
        groups=rows.group_rows(groups),
        grouped=sum(group.count for group in groups),
        total=report.ledger.states[State.DEAD_LETTERED],
        chosen=chosen,
        rows=rows.event_rows(found[:PAGE_SIZE], context),
        first_page=cursor is None,
        older=older(request, [event.seq for event in found]),
    )
    return await show(request, PageTemplate("dead_letters.html", "Dead letters", "dead"), view)
