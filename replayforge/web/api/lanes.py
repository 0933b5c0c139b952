"""Lanes: the keys in which most events wait for their turn, who stands at the head, and when the next may start."""

from typing import Any

import msgspec
from aiohttp import web

from replayforge.domain.clock import format_time
from replayforge.domain.lane import BACKLOG_COUNTED_MAX, LaneReport, Turn, parsed_name
from replayforge.web.api.shapes import Time, json_response
from replayforge.web.http.context import context_of
from replayforge.web.http.reading import query_limit


class LaneShape(msgspec.Struct):
    """A lane as the API shows it: that of `key`, in which `blocked` events wait for their turn behind `head_event`."""

    lane: str
    match: str
    subscriber: str | None
    key: Any
    order: str
    blocked: int
    count_capped: bool
    released: int
    running: int
    concurrency: int | None
    starts_per_second: float | None
    next_start_at: Time | None
    head_event: str | None
    head_status: str | None


async def list_lanes(request: web.Request) -> web.Response:
    """Answer with the lanes in which most events wait for their turn; a lane that nobody is in is not known."""
    found = await context_of(request).queries.list_lanes(query_limit(request))
    return json_response({"items": [lane_shape(one) for one in found], "next_cursor": None, "has_more": False})


def lane_shape(report: LaneReport) -> LaneShape:
    """Show a lane."""
    name = parsed_name(report.lane)
    return LaneShape(
        lane=report.lane,
        match=name.match,
        subscriber=name.subscriber,
        key=name.key if name.digest is None else f"sha256:{name.digest}",
        order="strict" if report.strict else "none",
        blocked=report.blocked,
        count_capped=report.blocked >= BACKLOG_COUNTED_MAX,
        released=report.released,
        running=report.running,
        concurrency=1 if report.strict else report.width if report.counts_running else None,
        starts_per_second=1_000_000 / report.interval_us if report.interval_us else None,
        next_start_at=None if report.next_start_us is None else format_time(report.next_start_us),
        head_event=report.head_id,
        head_status=report.head_state,
    )


def turn_shape(turn: Turn | None) -> dict[str, str | None]:
    """Show what an event waits for in its lane."""
    until = None if turn is None or turn.until_us is None else format_time(turn.until_us)
    words, event_id = (None, None) if turn is None else (turn.words, turn.event_id)
    return {"waits_for_turn": words, "waits_for_event": event_id, "waits_until": until}
