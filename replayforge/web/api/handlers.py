"""Handlers over HTTP: how each of them stands, and pausing and resuming one or all of them."""

from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web

from replayforge.domain.acting import signed
from replayforge.domain.admission import Pause
from replayforge.domain.reports import Group
from replayforge.engine.report.handler_report import HandlersReport, HandlerStatus, Kind
from replayforge.web.api.shapes import NeededWords, PauseShape, json_response, pause_shape
from replayforge.web.http.context import context_of
from replayforge.web.http.reading import read_object

BY_THE_API = "the API"


class PauseRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Why a handler is paused, and by whom."""

    reason: NeededWords
    by: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] = BY_THE_API


class HandlerShape(msgspec.Struct):
    """A handler as the API shows it. The pattern of one that subscribes is that of its event types and `@` its name.

    `waiting` events wait for it in the store, for all daemons together; `running`, `successes`, `failures` and the
    breaker are those of this daemon since it started. The address of an endpoint is shown without its path.
    """

    pattern: str
    event_types: str
    kind: Kind
    name: str
    status: Literal["ready", "paused", "failing"]
    rules: dict[str, Any]
    concurrency_max: int | None
    running: int
    waiting: int
    paused: PauseShape | None
    breaker: str | None
    breaker_seconds: float
    successes: int
    failures: int


async def list_handlers(request: web.Request) -> web.Response:
    """Answer with every handler, what is paused, and the event types that died for want of a handler."""
    context = context_of(request)
    report = await context.handler_reporter.report()
    return json_response(
        {
            "items": [handler_shape(status) for status in report.handlers],
            "pauses": [pause_shape(pause) for pause in pauses_of(report)],
            "without_handler": [without_handler(group, has_one=has_one) for group, has_one in report.orphans],
        }
    )


def pauses_of(report: HandlersReport) -> list[Pause]:
    """Return every pause that stands in the store."""
    own = [status.pause for status in report.handlers if status.pause and status.pause.pattern == status.pattern]
    everything = [report.everything] if report.everything else []
    return [*everything, *(pause for pause in own if pause not in everything), *report.strange]


def handler_shape(status: HandlerStatus) -> HandlerShape:
    """Show one handler."""
    return HandlerShape(
        pattern=status.pattern,
        event_types=status.event_types,
        kind=status.kind,
        name=status.name,
        status=word(status),
        rules={
            "max_attempts": status.max_attempts,
            "timeout_seconds": status.timeout_seconds,
            "on_crash": status.on_crash,
        },
        concurrency_max=status.concurrency_max,
        running=status.running,
        waiting=status.deferred,
        paused=pause_shape(status.pause) if status.pause else None,
        breaker=status.breaker.value if status.breaker else None,
        breaker_seconds=round(status.breaker_seconds, 3),
        successes=status.successes,
        failures=status.failures,
    )


def word(status: HandlerStatus) -> Literal["ready", "paused", "failing"]:
    """Return the one word for a handler."""
    if status.pause is not None:
        return "paused"
    return "failing" if status.breaker not in (None, "closed") else "ready"


def without_handler(group: Group, *, has_one: bool) -> dict[str, Any]:
    """Show the dead letters of a type that found no handler."""
    return {
        "event_type": group.name,
        "dead_letters": group.count,
        "count_capped": group.capped,
        "has_handler_now": has_one,
        "sample": group.sample,
    }


async def pause_handler(request: web.Request) -> web.Response:
    """Give a handler, or with `*` all of them, no more events until it is resumed."""
    asked = await read_object(request, PauseRequest)
    pattern = request.match_info["pattern"]
    pause = await context_of(request).pause_controller.pause(pattern, asked.reason, signed(asked.by))
    return json_response(pause_shape(pause))


async def resume_handler(request: web.Request) -> web.Response:
    """Give a handler events again, those first that have waited."""
    pattern = request.match_info["pattern"]
    await context_of(request).pause_controller.resume(pattern)
    return json_response({"pattern": pattern, "status": "resumed"})
