"""Sources over HTTP: how each of them stands, what was refused, verifying that again, pausing and resuming."""

from urllib.parse import quote

import msgspec
from aiohttp import web

from replayforge.domain.acting import signed
from replayforge.domain.clock import format_time
from replayforge.domain.webhook_source import kept_headers
from replayforge.engine.accept.sources import SourceStatus
from replayforge.web.api.handlers import PauseRequest
from replayforge.web.api.shapes import PauseShape, Time, json_response, pause_shape
from replayforge.web.http.context import context_of
from replayforge.web.http.guard import SOURCES_PATH
from replayforge.web.http.reading import read_object


class SourceShape(msgspec.Struct):
    """A source as the API shows it, without its secrets.

    What was accepted, found to be a duplicate or refused, by reason, is of this daemon since it started; a `differing`
    delivery had the id of an earlier one and other content, and an `unkeyed` one no id by which it could be known.
    `refusals_kept` are those that can be looked at, of all daemons together.
    """

    name: str
    preset: str
    url: str
    status: str
    event_type: str
    key: str | None
    rate_per_second: float | None
    accepted: int
    duplicates: int
    differing: int
    unkeyed: int
    refused: dict[str, int]
    refusals_kept: int
    last_delivery_at: Time | None
    last_event_id: str | None
    last_refused_at: Time | None
    last_refused_reason: str | None
    paused: PauseShape | None


class RefusalShape(msgspec.Struct):
    """A delivery that was refused, or that differs from the first of its id; no signature is shown.

    One that is not `whole` was too large to be kept, and cannot be verified again.
    """

    at: Time
    reason: str
    headers: dict[str, str]
    size_bytes: int
    whole: bool


async def list_sources(request: web.Request) -> web.Response:
    """Answer with every source of webhooks."""
    shapes = await source_shapes(request)
    return json_response({"items": shapes})


async def source_shapes(request: web.Request) -> list[SourceShape]:
    """Return every source as it is shown."""
    return [source_shape(status, base_url(request)) for status in await context_of(request).sources.report()]


def base_url(request: web.Request) -> str:
    """Return the address below which the sources lie, as providers reach it."""
    context = context_of(request)
    return (context.public_url or f"{request.scheme}://{request.host}") + context.base_path


def source_shape(status: SourceStatus, base: str) -> SourceShape:
    """Show one source."""
    source, figures = status.source, status.figures
    return SourceShape(
        name=source.name,
        preset=source.preset_name,
        url=f"{base}{SOURCES_PATH}{quote(source.name)}",
        status="paused" if status.pause else "ready",
        event_type=source.event_type[0].text,
        key=source.key.text if source.key else None,
        rate_per_second=source.rate,
        accepted=figures.accepted,
        duplicates=figures.duplicates,
        differing=figures.differing,
        unkeyed=figures.unkeyed,
        refused=dict(figures.refused),
        refusals_kept=status.refusals_kept,
        last_delivery_at=format_time(figures.last_at_us) if figures.last_at_us else None,
        last_event_id=figures.last_event_id,
        last_refused_at=format_time(figures.last_refused_at_us) if figures.last_refused_at_us else None,
        last_refused_reason=figures.last_reason,
        paused=pause_shape(status.pause) if status.pause else None,
    )


async def list_refusals(request: web.Request) -> web.Response:
    """Answer with the deliveries of a source that were refused lately and are kept, newest first."""
    return json_response({"items": await refusal_shapes(request, request.match_info["name"])})


async def refusal_shapes(request: web.Request, name: str) -> list[RefusalShape]:
    """Return what is kept of a source, newest first; raises NotFound."""
    sources = context_of(request).sources
    source, kept = sources.source(name), await sources.refusals(name)
    return [
        RefusalShape(
            at=format_time(one.at_us),
            reason=one.reason,
            headers=kept_headers(source, msgspec.json.decode(one.headers)),
            size_bytes=one.size_bytes,
            whole=one.is_whole,
        )
        for one in reversed(kept)
    ]


async def verify_refusals(request: web.Request) -> web.Response:
    """Verify again what was refused of a source, by its secrets of now and the time of then; what is right is accepted.

    `accepted` are the ids of its events; `cut` counts those that were too large to be kept whole.
    """
    verified = await context_of(request).sources.verify_again(request.match_info["name"])
    return json_response(verified)


async def pause_source(request: web.Request) -> web.Response:
    """Answer what a source sends with 503 until it is resumed; its provider sends it again."""
    asked = await read_object(request, PauseRequest)
    pause = await context_of(request).sources.pause(request.match_info["name"], asked.reason, signed(asked.by))
    return json_response(pause_shape(pause))


async def resume_source(request: web.Request) -> web.Response:
    """Take in again what a source sends."""
    name = request.match_info["name"]
    await context_of(request).sources.resume(name)
    return json_response({"name": name, "status": "resumed"})
