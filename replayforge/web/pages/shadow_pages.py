"""Shadow on the pages: which file a group of dead letters is compared with, and what came of it."""

from typing import Any

import msgspec
from aiohttp import web

from replayforge.domain.errors import NotFound, Rejected
from replayforge.domain.identity import new_request_id
from replayforge.shadow.report import change_in_words, exit_code, summary_in_words, words_of
from replayforge.shadow.verdicts import ShadowVerdict
from replayforge.web.http.context import context_of
from replayforge.web.http.reading import read_form
from replayforge.web.pages import views
from replayforge.web.pages.documents import MASK, Reading, hidden, is_secret, shown
from replayforge.web.pages.flash import Flash, back_of, see_other
from replayforge.web.pages.rendering import PageTemplate, show
from replayforge.web.pages.selection import read_selection, selected

GROUPS_MAX = 100
LEVELS = ("ok", "warn", "err")  # by the exit code that the command has


async def ask(request: web.Request) -> web.Response:
    """Ask for the file with the handlers that dead letters are to be compared with."""
    context, selection = context_of(request), read_selection(request.query)
    events = await selected(context, selection)
    if not events:
        raise NotFound("None of the selected events exists any more.")
    view = views.NewShadowView(
        count=len(events),
        what=selection.group or "",
        hidden=selection.hidden,
        back=back_of(request.query, f"{context.base_path}/dead-letters"),
    )
    return await show(request, PageTemplate("new_shadow.html", "Shadow", "dead"), view)


async def compare(request: web.Request) -> web.Response:
    """Compare the handlers of a file on this machine with dead letters, and go to the report."""
    form, context = await read_form(request), context_of(request)
    back = back_of(form, f"{context.base_path}/dead-letters")
    events = await selected(context, read_selection(form))
    try:
        kept = await context.shadow.compare(form.get("handlers", ""), await context.queries.runs_of(events))
    except Rejected as error:
        return see_other(request, back, Flash("err", str(error)))
    return see_other(request, f"{context.base_path}/shadow/{kept.id}")


async def report(request: web.Request) -> web.Response:
    """Show what came of a comparison, and what can be done with the dead letters that are cured."""
    context = context_of(request)
    kept = context.shadow.find(request.match_info["id"])
    reading = Reading(context.masked_names)
    differing = [group for group in kept.report["groups"] if group["verdict"] != ShadowVerdict.SAME]
    staying = [group for group in kept.report["groups"] if group["verdict"] == ShadowVerdict.SAME]
    view = views.ShadowView(
        handlers=kept.handlers,
        level=LEVELS[exit_code(kept.report)],
        summary=summary_in_words(kept.report),
        tables=[
            shadow_table("What differs, the gravest first", differing, reading),
            shadow_table("Not cured, and why", staying, reading),
        ],
        cured=len(kept.cured),
        hidden=[
            ("ids", " ".join(kept.cured)),
            ("expected_count", str(len(kept.cured))),
            ("key", new_request_id()),
        ],
    )
    return await show(request, PageTemplate("shadow.html", "Shadow", "dead"), view)


def shadow_table(caption: str, groups: list[dict[str, Any]], reading: Reading) -> views.ShadowTable:
    """Return groups as a table, as many as a page holds."""
    rows = [shadow_row(group, reading) for group in groups[:GROUPS_MAX]]
    return views.ShadowTable(caption, rows, len(groups) - len(rows))


def shadow_row(group: dict[str, Any], reading: Reading) -> views.ShadowRow:
    """Return a group as a row of the table, with secrets hidden."""
    return views.ShadowRow(
        count=group["count"],
        verdict=words_of(ShadowVerdict(group["verdict"])),
        change=change_in_words(without_secrets(group, reading)),
        first_id=group["first"]["id"],
        first_workflow=group["first"]["workflow_id"],
    )


def without_secrets(group: dict[str, Any], reading: Reading) -> dict[str, Any]:
    """Return a group in which values are hidden that stand below secret names."""
    is_hidden = any(is_secret(name, reading) for name in group["pointer"].split("/"))

    def masked(value: msgspec.Raw | None) -> msgspec.Raw | None:
        if value is None:
            return None
        if is_hidden:
            return msgspec.Raw(MASK.encode())
        if bytes(value).startswith(b'"'):  # a text, which is one afterwards as well
            return msgspec.Raw(msgspec.json.encode(hidden(msgspec.json.decode(value, type=str), reading)))
        return msgspec.Raw(hidden(shown(bytes(value), reading).text, reading).encode())

    return group | {"before": masked(group["before"]), "after": masked(group["after"])}
