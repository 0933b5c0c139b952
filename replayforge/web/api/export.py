"""Events to take away: all that pass a filter as lines of JSON, newest first, however many, in bounded memory."""

import asyncio
import contextlib
from asyncio import current_task
from collections.abc import Iterator, Sequence
from typing import Any

from aiohttp import web

from replayforge.domain.errors import Unavailable
from replayforge.domain.event import Content, StoredEvent
from replayforge.engine.report.event_queries import EventQueries
from replayforge.web.api import shapes
from replayforge.web.api.events import event_filter
from replayforge.web.http.answers import HEADERS
from replayforge.web.http.context import REQUEST_ID, context_of
from replayforge.web.http.long_requests import long_request
from replayforge.web.http.reading import NDJSON

# Events may be as large as a mebibyte: each export holds one step of them at a time.
STEP = 16
EXPORTS_MAX = 4
# A line break can stand between the tokens of a payload only, where a space means the same.
LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")


class Exports:
    """The exports that are under way: few at a time, and none that holds up the end."""

    def __init__(self) -> None:
        self.running: set[asyncio.Task[Any]] = set()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Be one of them; raises Unavailable when there are too many."""
        if len(self.running) >= EXPORTS_MAX:
            raise Unavailable(f"{len(self.running)} exports are under way already; come back when one has ended.")
        task = current_task()
        assert task is not None
        self.running.add(task)
        try:
            yield
        finally:
            self.running.discard(task)

    async def close(self, _: web.Application) -> None:
        """Break off those under way."""
        for task in self.running:
            task.cancel()


EXPORTS: web.AppKey[Exports] = web.AppKey("exports", Exports)


def install(app: web.Application) -> None:
    """Prepare an application for exports."""
    app[EXPORTS] = Exports()
    app.on_shutdown.append(app[EXPORTS].close)


async def export_events(request: web.Request) -> web.StreamResponse:
    """Answer with all events that pass the filters, one to a line, newest first.

    An answer that is broken off, because the store, the daemon or the key went away, ends without its last chunk.
    """
    queries, wanted = context_of(request).queries, event_filter(request)
    with request.config_dict[EXPORTS].one(), long_request(request):
        # The first events are fetched before the answer begins, while a refusal can still be said.
        found = await queries.list_events(wanted, None, STEP)
        response = web.StreamResponse(headers=headers_of(request))
        with contextlib.suppress(ConnectionResetError):
            await response.prepare(request)
            while True:
                await response.write(lines(found.events, queries))
                if found.next_seq is None:
                    break
                found = await queries.list_events(wanted, found.next_seq, STEP)
            await response.write_eof()
    return response


def headers_of(request: web.Request) -> dict[str, str]:
    """Return the headers of an answer that leaves before the guard can add its own."""
    named = {"Content-Type": NDJSON, "Content-Disposition": 'attachment; filename="events.ndjson"'}
    return HEADERS | named | {"Cache-Control": "no-store", "X-Request-ID": request.get(REQUEST_ID, "")}


def lines(found: Sequence[tuple[StoredEvent, Content]], queries: EventQueries) -> bytes:
    """Return events as lines of JSON, payloads token by token as they were sent."""
    return b"".join(line(event, content, queries.attempts_max(event)) for event, content in found)


def line(event: StoredEvent, content: Content, attempts_max: int) -> bytes:
    """Return an event as a line of JSON."""
    shape = shapes.stored_shape(event, content, attempts_max, duplicate=False)
    return shapes.encode(shape).translate(LINE_BREAKS) + b"\n"
