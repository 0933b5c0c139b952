"""What the palette finds while somebody types: events and workflows whose names begin with a text, a few of each."""

from collections.abc import Sequence

import msgspec
from aiohttp import web

from replayforge.domain.event import StoredEvent
from replayforge.domain.signs import STATES
from replayforge.web.api.shapes import json_response
from replayforge.web.http.context import context_of
from replayforge.web.pages.words import segment, workflow_path

TEXT_CHARACTERS_MIN = 2
TEXT_CHARACTERS_MAX = 255
EVENTS_MAX = 6
WORKFLOWS_MAX = 4


class Place(msgspec.Struct, frozen=True):
    """Something to go to: its address, its name, and what it is."""

    path: str
    label: str
    detail: str


async def look_up(request: web.Request) -> web.Response:
    """Answer with the places that a text may mean; one of a single letter means nothing yet."""
    context, text = context_of(request), request.query.get("q", "").strip()
    places: list[Place] = []
    if TEXT_CHARACTERS_MIN <= len(text) <= TEXT_CHARACTERS_MAX:
        found = await context.overview.look_up(text, EVENTS_MAX)
        places = [*workflow_places(found, text, context.base_path), *event_places(found, context.base_path)]
    return json_response({"places": places}, headers={"Cache-Control": "no-store"})


def workflow_places(found: Sequence[StoredEvent], text: str, base: str) -> list[Place]:
    """Return the workflows among the events whose own names begin with the text."""
    names = dict.fromkeys(event.workflow_id for event in found if event.workflow_id.startswith(text))
    return [Place(base + workflow_path(name), name, "workflow") for name in list(names)[:WORKFLOWS_MAX]]


def event_places(found: Sequence[StoredEvent], base: str) -> list[Place]:
    """Return the newest of the events."""
    return [
        Place(
            f"{base}/events/{segment(event.id)}",
            event.event_type,
            f"{STATES[event.state].words}, {event.workflow_id}, {event.id[:8]}",
        )
        for event in found[:EVENTS_MAX]
    ]
