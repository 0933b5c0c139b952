"""The connections at the port: how many, how slow and how long-winded they may be; aiohttp reads what they bring.

A connection costs one timer, and that only while something on it is unfinished; a request costs a few comparisons.
"""

import asyncio
import contextlib
import resource
from asyncio import current_task, get_running_loop
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from replayforge.aiohttp_internals import ParserError, ServerConnection
from replayforge.domain.errors import Unavailable
from replayforge.domain.identity import new_request_id
from replayforge.telemetry import Telemetry
from replayforge.web.http import malformed, problems
from replayforge.web.http.answers import HEADERS, REQUEST_ID_HEADER, WholeAnswer
from replayforge.web.http.context import CONTEXT, REQUEST_ID
from replayforge.web.http.idle_connections import AddressConnections, IdleConnections, address_of
from replayforge.web.http.problems import FinalProblem
from replayforge.web.http.shortcut import Shortcut

CONNECTIONS_MAX = 10_000
CONNECTIONS_PER_ADDRESS_MAX = 1_000
# Files of log and store, connections to Redis and PostgreSQL, and what handlers open.
HANDLES_KEPT = 128
# What all answers together may hold in memory that their clients have not taken yet.
UNTAKEN_BYTES_MAX = 128 << 20
# What a new connection may take to say its first word before it counts as idle: its request may be on the way.
FIRST_WORD_SECONDS = 1.0

OPTIONS: dict[str, Any] = {
    "max_line_size": malformed.ADDRESS_BYTES_MAX,
    "max_field_size": malformed.HEADER_BYTES_MAX,
    "max_headers": malformed.HEADERS_MAX,
    "auto_decompress": False,  # encoded bodies are refused, so nobody can make us unpack one
    "access_log": None,
}


def connections_max() -> int:
    """Return how many connections leave the rest of the process enough file handles."""
    handles, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if handles == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return min(CONNECTIONS_MAX, max(handles - HANDLES_KEPT, handles // 2))


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How slow a client may be, how much all of them may leave untaken, and how many connections there may be.

    A head is whole in its time. A body brings at least `bytes_min` in each `body_seconds`, and of an answer as much is
    taken in each `answer_seconds`.
    """

    head_seconds: float = 10.0
    body_seconds: float = 10.0
    answer_seconds: float = 30.0
    bytes_min: int = 1_000
    untaken_bytes_max: int = UNTAKEN_BYTES_MAX
    connections_max: int = field(default_factory=connections_max)
    connections_per_address_max: int = CONNECTIONS_PER_ADDRESS_MAX


class Runner(web.ServerRunner):
    """Serves an application that has been started as aiohttp's own runner does, through a server of ours."""

    def __init__(self, app: web.Application, server: "Port", shutdown_timeout: float) -> None:
        super().__init__(server, shutdown_timeout=shutdown_timeout)
        self.app = app

    async def shutdown(self) -> None:
        """End what would keep connections busy for ever, before they are given their time to end."""
        await self.app.shutdown()

    async def cleanup(self) -> None:
        """Stop serving, and then what the application runs beside its requests."""
        await super().cleanup()
        await self.app.cleanup()


async def runner_of(
    app: web.Application, *, limits: ConnectionLimits | None = None, shutdown_timeout: float = 60.0
) -> Runner:
    """Start an application, and return what serves it."""
    starter = web.AppRunner(app)
    await starter.setup()
    assert starter.server is not None
    shortcut = Shortcut(app, starter.server.request_handler)
    telemetry = app[CONTEXT].telemetry
    port = Port(shortcut, starter.server.request_factory, limits or ConnectionLimits(), telemetry)
    return Runner(app, port, shutdown_timeout)


class Port(web.Server):
    """Makes the connections and sees that there are not too many."""

    def __init__(self, handle: Any, request_factory: Any, limits: ConnectionLimits, telemetry: Telemetry) -> None:
        super().__init__(handle, request_factory=request_factory)
        self.limits = limits
        self.telemetry = telemetry
        self.open = 0  # aiohttp's own list has those as well whose handlers outlive them
        self.idle = IdleConnections()
        self.addresses: dict[str, AddressConnections] = {}
        self.clogged: dict[Connection, None] = {}  # those with more to send than their clients take, in that order

    def __call__(self) -> "Connection":
        """Return what handles the next connection."""
        return Connection(self, get_running_loop())

    def enter(self, connection: "Connection", address: str | None) -> None:
        """Count a connection, and where it comes from."""
        self.open += 1
        self.idle.came(connection)
        if address is not None:
            connection.address = self.addresses.setdefault(address, AddressConnections())
            connection.address.enter(connection)

    def leave(self, connection: "Connection", address: str | None) -> None:
        """Count a connection no more."""
        self.open -= 1
        connection.begins()
        if address is not None and connection.address is not None and connection.address.leave():
            del self.addresses[address]

    def make_room(self, newest: "Connection") -> None:
        """See that there are not too many connections, of one address or of all: the longest idle one goes for another.

        Raises Unavailable when the newest one may not stay, because all the others are at work.
        """
        limits, address = self.limits, newest.address
        if address is not None and address.open > limits.connections_per_address_max:
            self.close_one(address.idle, "All connections that one address may have are in use")
        elif self.open > limits.connections_max:
            self.close_one(self.idle, "All connections are in use")

    def close_one(self, idle: IdleConnections, otherwise: str) -> None:
        """Close the longest idle connection; raises Unavailable when there is none."""
        connection = idle.longest()
        if connection is None:
            raise Unavailable(f"{otherwise}; close some, or come back later.")
        assert isinstance(connection, Connection)
        connection.begins()  # it is not gone before the next turn of the loop, and must not be chosen again
        connection.force_close()

    def bound_untaken(self) -> None:
        """Break off the answers that have been left untaken the longest, if all together are too much."""
        total = sum(one.untaken_bytes() for one in self.clogged)
        for one in list(self.clogged):
            if total <= self.limits.untaken_bytes_max:
                break
            total -= one.untaken_bytes()
            one.break_off("Too many answers wait to be taken.")


class Connection(ServerConnection):
    """One connection: lets whole requests pass, and ends with whoever is too slow, too long, or speaks no HTTP.

    `body` is that of the last request that came in. While it is whole, further bytes are those of another head; a head
    that has begun, and the first one of all, is due at `head_due`. aiohttp forgets its transport when it closes it;
    `line` is kept until everything has been sent.
    """

    __slots__ = (
        "address",
        "answer_bytes",
        "body",
        "body_bytes",
        "came_from",
        "has_asked",
        "head_bytes",
        "head_due",
        "line",
        "long_poll",
        "loop",
        "made_at",
        "port",
        "timer",
    )

    def __init__(self, port: Port, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(port, loop, **OPTIONS)
        self.port = port
        self.loop = loop
        self.has_asked = False
        self.came_from: str | None = None
        self.address: AddressConnections | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.made_at = loop.time()
        self.head_due: float | None = None
        self.head_bytes = 0
        self.line: asyncio.Transport | None = None
        self.body: StreamReader = EMPTY_PAYLOAD
        # How far the body had come, and how much was left of the answer, at the last look if there was one.
        self.body_bytes: int | None = None
        self.answer_bytes: int | None = None
        self.long_poll: asyncio.Task[None] | None = None  # what is for this client only, and ends with it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request, or say that there is no room."""
        super().connection_made(transport)
        self.line = self.transport
        self.came_from = address_of(transport)
        self.port.enter(self, self.came_from)
        try:
            self.port.make_room(self)
        except Unavailable as full:
            self.refuse(full)
        else:
            self.expect_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        self.line = None
        self.port.leave(self, self.came_from)
        self.port.clogged.pop(self, None)
        if self.timer is not None:
            self.timer.cancel()
        if self.long_poll is not None:
            self.long_poll.cancel()
        super().connection_lost(exc)

    def has_had_time(self) -> bool:
        """Tell whether the first request could be here by now."""
        return self.has_asked or self.loop.time() - self.made_at > FIRST_WORD_SECONDS

    def begins(self) -> None:
        """Note that the connection is not idle any more."""
        self.port.idle.asks(self)
        if self.address is not None:
            self.address.idle.asks(self)

    def rests(self) -> None:
        """Note that what was asked is answered."""
        self.port.idle.was_answered(self)
        if self.address is not None:
            self.address.idle.was_answered(self)

    # What comes in

    def data_received(self, data: bytes) -> None:
        """Take bytes in, and see to what they leave unfinished."""
        known, between = len(self.queued), self.body.is_eof()
        super().data_received(data)
        if len(self.queued) != known:
            self.enter(known, self.head_bytes + len(data))
        elif between and data and not self.is_closing() and not self.is_upgraded():
            self.extend_head(len(data))

    def enter(self, first: int, head_bytes_most: int) -> None:
        """Look at the requests that have just become known, those in the queue from the `first` one on."""
        self.begins()
        self.has_asked = True
        self.head_due, self.head_bytes = None, 0
        unfinished, messages = self.body, self.queued
        for position in range(first, len(messages)):
            message, self.body = messages[position]
            if isinstance(message, ParserError):
                self.read_no_more()  # what follows can only be wrong as well
                if not unfinished.is_eof():  # aiohttp would leave whoever reads it waiting
                    self.give_up(unfinished, malformed.problem_of(message.exc))
            elif flaw := malformed.flaw_of(message, head_bytes_most):
                while len(messages) > position:
                    messages.pop()
                self.refuse(flaw)
                return
        if not self.body.is_eof():
            self.body_bytes = None
            self.look_after(self.port.limits.body_seconds)

    def extend_head(self, size: int) -> None:
        """Note bytes of a head that is not whole yet."""
        if self.head_due is None:
            self.expect_head()
        self.head_bytes += size
        if self.head_bytes > malformed.ADDRESS_BYTES_MAX + malformed.HEADER_BYTES_MAX:
            self.refuse(malformed.headers_too_large())

    # How long it takes

    def expect_head(self) -> None:
        """Give the next head its time."""
        seconds = self.port.limits.head_seconds
        self.head_due = self.loop.time() + seconds
        self.look_after(seconds)

    def look_after(self, seconds: float) -> None:
        """Look after some time; a look that is due before does as well, since it sees to the next one."""
        if self.timer is None:
            self.timer = self.loop.call_later(seconds, self.look)

    def look(self) -> None:
        """See what has become of what was unfinished."""
        self.timer = None
        if self.writing_paused or self.line is None or self.line.is_closing():
            self.look_at_answer()
        elif self.is_closing():
            return
        elif self.holds_reading():
            self.body_bytes = None
            self.look_after(self.port.limits.body_seconds)
        elif self.head_due is not None:
            self.look_at_head(self.head_due - self.loop.time())
        elif not self.body.is_eof():
            self.look_at_body()

    def look_at_head(self, left_seconds: float) -> None:
        """End with a head that is not whole in its time; without a word to whoever has not said one either."""
        if left_seconds > 0:
            self.look_after(left_seconds)
        elif self.head_bytes:
            self.refuse(malformed.too_slow("head"))
        else:
            self.force_close()

    def look_at_body(self) -> None:
        """Give up a body that has hardly grown since the last look."""
        limits, came, before = self.port.limits, self.body.total_bytes, self.body_bytes
        if before is not None and came - before < limits.bytes_min:
            self.give_up(self.body, malformed.too_slow("body"))
        else:
            self.body_bytes = came
            self.look_after(limits.body_seconds)

    # What is taken of the answers

    def pause_writing(self) -> None:
        """See that the client takes what is more than the system holds for it."""
        super().pause_writing()
        self.answer_bytes = None
        self.look_after(self.port.limits.answer_seconds)
        self.port.clogged[self] = None
        self.port.bound_untaken()

    def resume_writing(self) -> None:
        """Note that the client has taken it."""
        super().resume_writing()
        self.port.clogged.pop(self, None)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer and let go of it; aiohttp would keep it until the next one, which may never come."""
        finished = await super().finish_response(request, resp, start_time)
        if not isinstance(resp, WholeAnswer) and isinstance(resp, web.Response):
            resp.body = None
        if not self.queued and self.line is not None:
            self.rests()
        return finished

    async def start(self) -> None:
        """Answer requests for as long as there are any, and see that the last answers are taken as well."""
        await super().start()
        self.see_out()

    def force_close(self) -> None:
        """Close the connection once everything has been sent, and see that it is taken."""
        super().force_close()
        self.see_out()

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """Give the last answer its time to be taken, but once; aiohttp alone would wait for the client twice."""
        due = self.loop.call_later(timeout or 0.0, self.break_off, "The daemon stops.")
        await super().shutdown(timeout)
        due.cancel()

    def see_out(self) -> None:
        """Give the client its time for what is left of the answers; a connection may only close after them."""
        if self.untaken_bytes():
            self.answer_bytes = None
            self.look_after(self.port.limits.answer_seconds)

    def untaken_bytes(self) -> int:
        """Return how much there is still to be sent."""
        return 0 if self.line is None else self.line.get_write_buffer_size()

    def look_at_answer(self) -> None:
        """Break off an answer of which hardly anything was taken since the last look."""
        limits, left, before = self.port.limits, self.untaken_bytes(), self.answer_bytes
        if before is not None and before - left < limits.bytes_min:
            self.break_off("Its answer was not taken in time.")
        elif left:
            self.answer_bytes = left
            self.look_after(limits.answer_seconds)

    def break_off(self, reason: str) -> None:
        """Close the connection at once, whatever is still to be sent."""
        self.note(reason)
        if self.line is not None:
            self.line.abort()

    # What those hear who may not go on

    def give_up(self, body: StreamReader, problem: FinalProblem) -> None:
        """Let whoever reads a body answer with a problem, and read no more."""
        self.note(problem)
        self.close()
        self.linger_no_more()
        body.set_exception(problem)

    def refuse(self, error: Exception) -> None:
        """Read no more, answer with an error once everything before it is answered, and close."""
        self.read_no_more()
        self.begins()
        self.head_due = None
        self.answer_error(error)

    def read_no_more(self) -> None:
        """Leave with the system whatever else the client sends."""
        if self.transport is not None:
            self.transport.pause_reading()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never became a request; what came is not repeated."""
        if isinstance(exc, HttpProcessingError):
            exc = malformed.problem_of(exc)
        if not isinstance(exc, FinalProblem | Unavailable):
            return super().handle_error(request, status, exc, message)
        self.note(exc)
        request[REQUEST_ID] = new_request_id()
        response = problems.respond(request, exc)
        response.headers.update(HEADERS | {REQUEST_ID_HEADER: request[REQUEST_ID]})
        return response

    def note(self, reason: Exception | str) -> None:
        """Count a connection that is closed on."""
        self.port.telemetry.emit("connection.refused", reason=str(reason))


@contextlib.contextmanager
def given_up_with_client(request: web.Request) -> Iterator[None]:
    """Cancel what is awaited inside when the client goes away; only for what nobody but the client waits for."""
    connection = request.protocol
    assert isinstance(connection, Connection)
    connection.long_poll = current_task()
    try:
        yield
    finally:
        connection.long_poll = None
