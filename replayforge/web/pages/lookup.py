"""Finding things by name: what the palette offers while somebody types, and where a search leads."""

from collections.abc import Sequence

import msgspec
from aiohttp import web

from replayforge.domain.errors import NotFound
from replayforge.domain.event import StoredEvent
from replayforge.domain.signs import STATES
from replayforge.web.api.shapes import json_response
from replayforge.web.http.context import context_of
from replayforge.web.pages.flash import see_other
from replayforge.web.pages.words import link, segment, workflow_path

TEXT_CHARACTERS_MIN = 2
TEXT_CHARACTERS_MAX = 255
EVENTS_MAX = 6
WORKFLOWS_MAX = 4


class LookupHit(msgspec.Struct, frozen=True):
    """Something to go to: its address, its name, and what it is."""

    path: str
    label: str
    detail: str


async def look_up(request: web.Request) -> web.Response:
    """Answer with the places that a text may mean; one of a single letter means nothing yet."""
    context, text = context_of(request), request.query.get("q", "").strip()
    places: list[LookupHit] = []
    if TEXT_CHARACTERS_MIN <= len(text) <= TEXT_CHARACTERS_MAX:
        found = await context.queries.look_up(text, EVENTS_MAX)
        places = [*workflow_places(found, text, context.base_path), *event_places(found, context.base_path)]
    return json_response({"places": places}, headers={"Cache-Control": "no-store"})


def workflow_places(found: Sequence[StoredEvent], text: str, base: str) -> list[LookupHit]:
    """Return the workflows among the events whose own names begin with the text."""
    names = dict.fromkeys(event.workflow_id for event in found if event.workflow_id.startswith(text))
    return [LookupHit(base + workflow_path(name), name, "workflow") for name in list(names)[:WORKFLOWS_MAX]]


def event_places(found: Sequence[StoredEvent], base: str) -> list[LookupHit]:
    """Return the newest of the events."""
    return [
        LookupHit(
            f"{base}/events/{segment(event.id)}",
            event.event_type,
            f"{STATES[event.state].words}, {event.workflow_id}, {event.id[:8]}",
        )
        for event in found[:EVENTS_MAX]
    ]


async def search(request: web.Request) -> web.Response:
    """Go to what a search means: an event or a workflow of exactly this name, else the list narrowed to it."""
    context, text = context_of(request), request.query.get("q", "").strip()
    base = context.base_path
    if not text:
        return see_other(request, f"{base}/events")
    for find, path in (
        (context.queries.find, f"/events/{segment(text)}"),
        (context.queries.workflow, workflow_path(text)),
    ):
        try:
            await find(text)
        except NotFound:
            continue
        return see_other(request, base + path)
    return see_other(request, base + link("/events", {"q": text}))
