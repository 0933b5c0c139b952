"""The page of the handlers, the question before one is paused, and the forms that pause and resume."""

from aiohttp import web

from replayforge.domain.acting import signed
from replayforge.domain.admission import EVERYTHING
from replayforge.domain.errors import NotFound, Rejected
from replayforge.web.api.handlers import handler_shape
from replayforge.web.api.shapes import pause_shape
from replayforge.web.http.context import context_of
from replayforge.web.http.reading import read_form, reason_in
from replayforge.web.pages import views
from replayforge.web.pages.flash import Flash, see_other
from replayforge.web.pages.handler_rows import handler_row, orphan_row
from replayforge.web.pages.rendering import PageTemplate, show

ONE_HANDLER = "On every daemon it is given no events until somebody resumes it"
EVERY_HANDLER = "No handler of any daemon is given any events until somebody resumes them"
EVENTS_WAIT = "Events are accepted as ever and wait; what runs already may finish. No attempt is spent."
BY_THE_PAGE = "the status page"


async def handlers(request: web.Request) -> web.Response:
    """Show how every handler stands."""
    context = context_of(request)
    report = await context.handler_reporter.report()
    view = views.HandlersView(
        rows=[handler_row(handler_shape(status)) for status in report.handlers],
        everything=pause_shape(report.everything) if report.everything else None,
        strange=[pause_shape(pause) for pause in report.strange],
        orphans=[orphan_row(group, has_handler=has_one) for group, has_one in report.orphans],
    )
    return await show(request, PageTemplate("handlers.html", "Handlers", "handlers"), view)


async def ask(request: web.Request) -> web.Response:
    """Ask why a handler, or all of them, are to be paused."""
    pattern, reporter = request.query.get("pattern", ""), context_of(request).handler_reporter
    if pattern != EVERYTHING and not reporter.knows(pattern):
        raise NotFound(f"There is no handler for the pattern {pattern!r}.")
    everything = pattern == EVERYTHING
    view = views.PauseView(
        kind="" if everything else "handler",
        name=pattern,
        consequence=f"{EVERY_HANDLER if everything else ONE_HANDLER}, also across restarts. {EVENTS_WAIT}",
        field="pattern",
        back=f"{context_of(request).base_path}/handlers",
    )
    return await show(request, PageTemplate("pause.html", "Pause", "handlers"), view)


async def pause(request: web.Request) -> web.Response:
    """Pause a handler and go back to the list."""
    form, context = await read_form(request), context_of(request)
    try:
        await context.pause_controller.pause(form.get("pattern", ""), reason_in(form), signed(BY_THE_PAGE))
    except (NotFound, Rejected) as error:
        return see_other(request, f"{context.base_path}/handlers", Flash("err", str(error)))
    said = f"Paused: {in_words(form.get('pattern', ''))}. What runs already may finish; the rest waits."
    return see_other(request, f"{context.base_path}/handlers", Flash("ok", said))


async def resume(request: web.Request) -> web.Response:
    """Resume a handler and go back to the list."""
    form, context = await read_form(request), context_of(request)
    try:
        await context.pause_controller.resume(form.get("pattern", ""))
    except NotFound as error:
        return see_other(request, f"{context.base_path}/handlers", Flash("err", str(error)))
    said = f"Resumed: {in_words(form.get('pattern', ''))}. What has waited comes first."
    return see_other(request, f"{context.base_path}/handlers", Flash("ok", said))


def in_words(pattern: str) -> str:
    """Name what a pause is about."""
    return "everything" if pattern == EVERYTHING else f"the handler {pattern}"
