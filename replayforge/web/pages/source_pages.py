"""The page of the sources: what came, what was refused and why, how to try it; verifying again, pausing, resuming."""

from dataclasses import dataclass

from aiohttp import web

from replayforge.domain.acting import signed
from replayforge.domain.errors import Rejected
from replayforge.domain.webhook_trial import curl_of
from replayforge.web.api.sources import RefusalShape, SourceShape, base_url, refusal_shapes, source_shape
from replayforge.web.http.context import context_of
from replayforge.web.http.reading import read_form, reason_in
from replayforge.web.pages.flash import Flash, see_other
from replayforge.web.pages.handler_pages import BY_THE_PAGE
from replayforge.web.pages.rendering import PageTemplate, show
from replayforge.web.pages.views import PauseView
from replayforge.web.pages.words import count, link, plural

SECTION = "sources"
PAUSE_CONSEQUENCE = (
    "On every daemon it is answered 503 until somebody resumes it, also across restarts. Nothing of it is accepted"
    " meanwhile; its provider sends again later, as long as it is willing to."
)
REASONS = {
    "wrong_signature": "wrong signature",
    "no_signature": "not signed",
    "stale": "signed too long ago",
    "differs": "other content under a known id",
    "overloaded": "too fast, or too much waiting",
    "unavailable": "paused, or the daemon stopping",
    "too-large": "too large",
    "unsupported-encoding": "packed",
    "disk-full": "disk full",
}


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One source. `refused` says how many were refused for which reason, `verb` what may be done to it."""

    name: str
    preset: str
    address: str
    state: str
    why: str
    paused_at: str
    accepted: str
    events_link: str
    known: str
    refused: list[str]
    kept: int
    last_at: str
    last_event_id: str
    names: str
    curl: str
    verb: str


@dataclass(frozen=True, slots=True)
class SourcesView:
    """Every source."""

    rows: list[SourceRow]


@dataclass(frozen=True, slots=True)
class RefusalsView:
    """What was refused of one source; `verifiable` tells whether anything of it could be right today."""

    name: str
    rows: list[tuple[RefusalShape, str]]
    verifiable: bool


async def sources(request: web.Request) -> web.Response:
    """Show how every source stands."""
    base, report = base_url(request), await context_of(request).sources.report()
    rows = [
        source_row(source_shape(status, base), curl_of(status.source, source_shape(status, base).url))
        for status in report
    ]
    return await show(request, PageTemplate("sources.html", "Sources", SECTION), SourcesView(rows))


def source_row(shape: SourceShape, curl: str) -> SourceRow:
    """Return a row for a source."""
    pause = shape.paused
    return SourceRow(
        name=shape.name,
        preset=shape.preset,
        address=shape.url,
        state=shape.status,
        why=f"by {pause.by}: {pause.reason}" if pause else "",
        paused_at=pause.since if pause else "",
        accepted=count(shape.accepted),
        events_link=link("/events", {"service": shape.name}),
        known=known_in_words(shape),
        refused=[f"{count(number)} {in_words(reason)}" for reason, number in sorted(shape.refused.items())],
        kept=shape.refusals_kept,
        last_at=shape.last_delivery_at or "",
        last_event_id=shape.last_event_id or "",
        names=shape.event_type,
        curl=curl,
        verb="resume" if pause else "pause",
    )


def known_in_words(shape: SourceShape) -> str:
    """Say what of the deliveries was known already, and whether that can be told."""
    parts = [f"known by {shape.key}" if shape.key else "without ids, so each delivery is an event of its own"]
    if shape.duplicates:
        parts.append(plural(shape.duplicates, "duplicate"))
    if shape.differing:
        parts.append(f"{count(shape.differing)} with other content under a known id")
    if shape.key and shape.unkeyed:
        parts.append(f"{count(shape.unkeyed)} without their id")
    return ", ".join(parts)


def in_words(reason: str) -> str:
    """Say why a delivery was not accepted."""
    return REASONS.get(reason, reason.replace("-", " ").replace("_", " "))


async def refusals(request: web.Request) -> web.Response:
    """Show what was refused of one source."""
    name = request.match_info["name"]
    shapes = await refusal_shapes(request, name)
    view = RefusalsView(
        name=name,
        rows=[(shape, in_words(shape.reason)) for shape in shapes],
        verifiable=any(shape.whole and shape.reason != "differs" for shape in shapes),
    )
    return await show(request, PageTemplate("refusals.html", f"Refused: {name}", SECTION), view)


async def verify(request: web.Request) -> web.Response:
    """Verify again what was refused of a source, and say what came of it."""
    context, name = context_of(request), request.match_info["name"]
    await read_form(request)
    verified = await context.sources.verify_again(name)
    said = [f"{plural(len(verified.accepted), 'delivery', 'deliveries')} accepted"]
    said += [f"{plural(verified.duplicates, 'was', 'were')} known already"] if verified.duplicates else []
    said += [f"{count(verified.still_refused)} refused as before"] if verified.still_refused else []
    said += [f"{count(verified.cut)} too large to be kept whole"] if verified.cut else []
    level = "ok" if verified.accepted or verified.duplicates else "err"
    return see_other(
        request, f"{context.base_path}/sources/{name}/refusals", Flash(level, f"Verified again: {', '.join(said)}.")
    )


async def ask(request: web.Request) -> web.Response:
    """Ask why a source is to be paused."""
    name = context_of(request).sources.source(request.query.get("name", "")).name
    view = PauseView("source", name, PAUSE_CONSEQUENCE, "name", f"{context_of(request).base_path}/sources")
    return await show(request, PageTemplate("pause.html", "Pause", SECTION), view)


async def pause(request: web.Request) -> web.Response:
    """Pause a source and go back to the list."""
    form, context = await read_form(request), context_of(request)
    name = form.get("name", "")
    try:
        await context.sources.pause(name, reason_in(form), signed(BY_THE_PAGE))
    except Rejected as error:
        return see_other(request, f"{context.base_path}/sources", Flash("err", str(error)))
    said = f"Paused: the source {name}. It is answered 503, and its provider sends again later."
    return see_other(request, f"{context.base_path}/sources", Flash("ok", said))


async def resume(request: web.Request) -> web.Response:
    """Resume a source and go back to the list."""
    form, context = await read_form(request), context_of(request)
    name = form.get("name", "")
    try:
        await context.sources.resume(name)
    except Rejected as error:
        return see_other(request, f"{context.base_path}/sources", Flash("err", str(error)))
    return see_other(request, f"{context.base_path}/sources", Flash("ok", f"Resumed: the source {name}."))
