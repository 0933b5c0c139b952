"""Tells open pages what has changed: hints over server-sent events, few, small, and never in anybody's way."""

import asyncio
import contextlib
from asyncio import get_running_loop, timeout
from collections.abc import Iterator
from typing import Any

import msgspec
from aiohttp import web

from replayforge.domain.errors import Unavailable
from replayforge.telemetry import Telemetry
from replayforge.web.http.answers import HEADERS
from replayforge.web.http.context import REQUEST_ID, context_of
from replayforge.web.http.long_requests import long_request

CLIENTS_MAX = 64
WAITERS_MAX = 256
HINTS_MAX = 8
HINT_SECONDS = 0.5
HEARTBEAT_SECONDS = 15.0
WRITE_SECONDS = 5.0
RETRY_MS = 1000

# Which telemetry events change what on the pages; what is not named here changes nothing that people see.
TOPICS: dict[str, frozenset[str]] = {
    "event.accepted": frozenset({"events"}),
    "delivery.refused": frozenset({"sources"}),
    "delivery.kept": frozenset({"sources", "activity"}),
    "delivery.differed": frozenset({"sources"}),
    "delivery.verified": frozenset({"sources", "activity"}),
    "source.paused": frozenset({"sources", "activity"}),
    "source.resumed": frozenset({"sources", "activity"}),
    "schedule.fired": frozenset({"schedules"}),
    "schedule.missed": frozenset({"schedules", "activity"}),
    "schedule.moved_back": frozenset({"schedules", "activity"}),
    "schedule.paused": frozenset({"schedules", "activity"}),
    "schedule.resumed": frozenset({"schedules", "activity"}),
    "event.dispatched": frozenset({"events"}),
    "event.claimed": frozenset({"events", "workers"}),
    "attempt.settled": frozenset({"events", "workers"}),
    "event.parked": frozenset({"events", "workers"}),
    "step.recorded": frozenset({"events"}),
    "attempt.reclaimed": frozenset({"events", "workers", "activity"}),
    "attempt.fenced": frozenset({"activity"}),
    "event.dead_lettered": frozenset({"events", "dead", "activity"}),
    "event.recalled": frozenset({"handlers"}),
    "handler.paused": frozenset({"handlers", "events", "activity"}),
    "handler.resumed": frozenset({"handlers", "events", "activity"}),
    "breaker.opened": frozenset({"handlers", "activity"}),
    "breaker.closed": frozenset({"handlers", "activity"}),
    "event.released": frozenset({"events"}),
    "event.promoted": frozenset({"events"}),
    "event.replayed": frozenset({"events", "dead", "activity"}),
    "replay.created": frozenset({"replays", "activity"}),
    "replay.advanced": frozenset({"replays", "events", "dead"}),
    "replay.followed": frozenset({"replays"}),
    "replay.moved": frozenset({"replays", "activity"}),
    "event.discarded": frozenset({"events", "dead", "activity"}),
    "event.cancelled": frozenset({"events", "activity"}),
    "event.retired": frozenset({"events", "dead"}),
    "service.started": frozenset({"workers"}),
    "service.crashed": frozenset({"workers", "activity"}),
    "service.restarted": frozenset({"workers", "activity"}),
    "service.gave_up": frozenset({"workers", "activity"}),
    "worker.crashed": frozenset({"workers", "activity"}),
    "loop.turned": frozenset({"parts", "activity"}),
    "crash.simulated": frozenset({"activity"}),
    "store.failed": frozenset({"parts", "activity"}),
    "store.recovered": frozenset({"parts", "activity"}),
    "stream.failed": frozenset({"parts", "activity"}),
    "stream.recovered": frozenset({"parts", "activity"}),
    "stream.key_moved_aside": frozenset({"parts", "activity"}),
    "stream.wiped": frozenset({"parts", "activity"}),
    "log.filled": frozenset({"parts", "activity"}),
    "log.poisoned": frozenset({"parts", "activity"}),
    "log.rolled": frozenset({"parts"}),
    "metrics.written": frozenset({"metrics_history"}),
}

ALL_TOPICS = frozenset[str]().union(*TOPICS.values(), {"rates", "time"})

Hint = frozenset[str] | None
RESYNC: frozenset[str] = frozenset({"resync"})


class Hub:
    """Gathers what changed and gives each client at most two hints a second.

    A client that is too slow loses hints and gets `resync` instead, which means: everything may have changed.
    """

    def __init__(self) -> None:
        self.clients: set[asyncio.Queue[Hint]] = set()
        self.waiters: set[asyncio.Queue[Hint]] = set()
        self.dirty: set[str] = set()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.next_at = 0.0
        self.scheduled = False
        self.closed = False

    def open(self) -> None:
        """Begin to take clients in."""
        self.loop = get_running_loop()

    def listen(self, name: str, count: int, fields: dict[str, Any]) -> None:
        """Note what a telemetry event changed; called in any thread, and nearly free while nobody looks."""
        if (self.clients or self.waiters) and not (topics := TOPICS[name]) <= self.dirty:
            self.mark(topics)

    def mark(self, topics: frozenset[str]) -> None:
        """Say that these topics have changed; safe in any thread."""
        self.dirty |= topics
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop may be closing already
                self.loop.call_soon_threadsafe(self.schedule, self.loop)

    def schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        """See that a hint goes out, half a second after the last one at the earliest."""
        if not self.scheduled and not self.closed:
            self.scheduled = True
            loop.call_at(max(loop.time(), self.next_at), self.flush, loop)

    def flush(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hand what is dirty to every client."""
        self.scheduled = False
        self.next_at = loop.time() + HINT_SECONDS
        topics, self.dirty = frozenset(self.dirty), set()
        for queue in self.clients | self.waiters:
            offer(queue, topics)

    @contextlib.contextmanager
    def client(self) -> Iterator[asyncio.Queue[Hint]]:
        """Be one of the clients; raises Unavailable when there are too many, or when the daemon stops."""
        if self.closed or len(self.clients) >= CLIENTS_MAX:
            raise Unavailable(f"{len(self.clients)} pages are open already, or the daemon is stopping.")
        with member(self.clients) as queue:
            yield queue

    @contextlib.contextmanager
    def waiter(self) -> Iterator[asyncio.Queue[Hint]]:
        """Be one of those that wait for the end of an event; raises Unavailable as `client` does."""
        if self.closed or len(self.waiters) >= WAITERS_MAX:
            raise Unavailable(f"{len(self.waiters)} requests wait already, or the daemon is stopping.")
        with member(self.waiters) as queue:
            yield queue

    def close(self) -> None:
        """End every stream; safe twice."""
        self.closed = True
        for queue in self.clients | self.waiters:
            empty(queue)
            queue.put_nowait(None)


@contextlib.contextmanager
def member(queues: set[asyncio.Queue[Hint]]) -> Iterator[asyncio.Queue[Hint]]:
    """Give a queue that is one of these meanwhile."""
    queue: asyncio.Queue[Hint] = asyncio.Queue(HINTS_MAX)
    queues.add(queue)
    try:
        yield queue
    finally:
        queues.discard(queue)


async def changed(queue: asyncio.Queue[Hint], topics: frozenset[str], seconds: float) -> bool:
    """Return True after a hint that concerns these topics, or after so many seconds; False when the daemon stops."""
    with contextlib.suppress(TimeoutError):
        async with timeout(seconds):
            while (hint := await queue.get()) is not None:
                if hint == RESYNC or hint & topics:
                    return True
            return False
    return True


def offer(queue: asyncio.Queue[Hint], topics: frozenset[str]) -> None:
    """Give a client a hint; one whose queue is full is told to look at everything anew."""
    if queue.full():
        empty(queue)
        topics = RESYNC
    queue.put_nowait(topics)


def empty(queue: asyncio.Queue[Hint]) -> None:
    """Take everything out of a queue."""
    while not queue.empty():
        queue.get_nowait()


HUB: web.AppKey[Hub] = web.AppKey("hub", Hub)


async def stream(request: web.Request) -> web.StreamResponse:
    """Answer with hints for as long as the page is open, and whoever opened it may look."""
    hub = request.config_dict[HUB]
    wanted = topics_of(request)
    with long_request(request), hub.client() as queue:
        response = web.StreamResponse(headers=stream_headers(request))
        with contextlib.suppress(ConnectionResetError, TimeoutError):
            await response.prepare(request)
            await greet(request, response)
            while (hint := await next_hint(queue)) is not None:
                if not hint or hint == RESYNC or hint & wanted:
                    await send(response, hint if hint == RESYNC else hint & wanted)
            await response.write_eof()
    return response


def happened(telemetry: Telemetry) -> int:
    """Return how much has happened so far that pages show; a page that has seen less is out of date."""
    return sum(telemetry.counts[name] for name in TOPICS)


def topics_of(request: web.Request) -> frozenset[str]:
    """Return the topics a client asks for; none named means all."""
    return frozenset(filter(None, request.query.get("topics", "").split(","))) or ALL_TOPICS


def stream_headers(request: web.Request) -> dict[str, str]:
    """Return the headers of a stream, which leaves before the guard can add its own."""
    own = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return HEADERS | own | {"X-Request-ID": request.get(REQUEST_ID, "")}


async def greet(request: web.Request, response: web.StreamResponse) -> None:
    """Say how long to wait before coming back, and to a page that is out of date that it has missed something."""
    await response.write(b"retry: %d\n: connected\n\n" % RETRY_MS)
    now = str(happened(context_of(request).telemetry))
    if "Last-Event-ID" in request.headers or request.query.get("seen", now) != now:
        await send(response, RESYNC)


async def next_hint(queue: asyncio.Queue[Hint]) -> Hint:
    """Return the next hint; an empty one when it is time for a heartbeat, None at the end."""
    try:
        async with timeout(HEARTBEAT_SECONDS):
            return await queue.get()
    except TimeoutError:
        return frozenset()


async def send(response: web.StreamResponse, topics: frozenset[str]) -> None:
    """Write one hint, or a heartbeat when nothing changed."""
    async with timeout(WRITE_SECONDS):
        await response.write(encode(topics) if topics else b": hb\n\n")


def encode(topics: frozenset[str]) -> bytes:
    """Return a hint as a server-sent event."""
    if topics == RESYNC:
        return b"id: 1\nevent: resync\ndata: {}\n\n"
    return b"id: 1\nevent: changed\ndata: %s\n\n" % msgspec.json.encode({"topics": sorted(topics)})
