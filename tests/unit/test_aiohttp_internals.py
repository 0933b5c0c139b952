"""What the daemon relies on beneath aiohttp's public names: red after an update means that something else is wanted."""

import asyncio
import inspect
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import FunctionType

import pytest
from aiohttp import ClientSession, TCPConnector, web
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawRequestMessage

from replayforge.aiohttp_internals import ParserError, ServerConnection, read_answers_with, set_match_info
from replayforge.engine.handlers.endpoint_connection import AnswerProtocol
from replayforge.web.http.connection import Connection, Port, Runner
from tests.support.memory_transport import MemoryTransport, settle

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
# What is replaced in aiohttp's classes; a method that it renames would silently never be called again.
REPLACED = {
    Connection: {
        "connection_made", "connection_lost", "data_received", "finish_response", "force_close", "handle_error",
        "pause_writing", "resume_writing", "shutdown", "start",
    },
    Port: set(),
    ServerConnection: {"resume_reading"},
    Runner: {"cleanup", "shutdown"},
    AnswerProtocol: {"data_received", "feed_data", "set_response_params"},
}  # fmt: skip


class Answering(ServerConnection):
    """A connection whose requests are answered when the test says so."""

    __slots__ = ("go_on",)

    def __init__(self) -> None:
        super().__init__(web.Server(self.answer), asyncio.get_running_loop(), access_log=None)
        self.go_on = asyncio.Event()

    async def answer(self, request: web.BaseRequest) -> web.Response:
        await self.go_on.wait()
        return web.Response(text=f"answer to {request.path}")

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        response = web.Response(status=422, text=f"error {exc}")
        response.force_close()
        return response


async def connected() -> tuple[Answering, MemoryTransport]:
    connection, line = Answering(), MemoryTransport()
    line.protocol = connection
    connection.connection_made(line)
    await settle()
    return connection, line


def test_the_version_is_the_one_that_was_looked_at() -> None:
    """A later minor version cannot be installed beside the daemon before somebody has run these tests with it."""
    (pinned,) = [
        one for one in tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"] if one.startswith("aiohttp")
    ]
    major, minor, *_ = map(int, version("aiohttp").split("."))
    assert pinned.endswith(f",<{major}.{minor + 1}")


@pytest.mark.parametrize("ours", REPLACED, ids=lambda ours: ours.__name__)
def test_aiohttp_calls_what_we_replace(ours: type) -> None:
    """Each method that we replace exists beneath with the same parameters."""
    methods = {name: one for name, one in vars(ours).items() if isinstance(one, FunctionType) and name[0] != "_"}
    theirs = {name: one for name, one in methods.items() if hasattr(super(ours, ours), name)}
    assert set(theirs) == REPLACED[ours]
    for name, method in theirs.items():
        beneath: Callable[..., object] = getattr(super(ours, ours), name)
        if name != "set_response_params":  # handed on as they come
            assert list(inspect.signature(method).parameters) == list(inspect.signature(beneath).parameters), name


async def test_requests_queue_up_in_order() -> None:
    """What has come in stands in `queued` with its body until its turn; the one being answered does not."""
    connection, line = await connected()
    queued = connection.queued
    assert connection.awaits_request()
    connection.data_received(GET % 1 + GET % 2 + POST % 9 + b"part")
    assert not connection.awaits_request()
    heads = [head for head, _ in queued]
    assert [head.path for head in heads if isinstance(head, RawRequestMessage)] == ["/1", "/2", "/"]
    assert [body.is_eof() for _, body in queued] == [True, True, False]
    assert [body.total_bytes for _, body in queued] == [0, 0, 4]
    await settle()
    assert len(queued) == 2
    assert not connection.awaits_request()
    connection.go_on.set()
    await settle()
    assert connection.queued is queued
    assert not queued
    assert line.said.count(b"answer to /") == 3


async def test_what_is_not_http_stands_in_the_queue() -> None:
    """Where the parser gives up stands the error instead of a head."""
    connection, _ = await connected()
    connection.data_received(GET % 1)
    connection.data_received(b"\0 nonsense\r\n\r\n")
    _, (head, body) = connection.queued
    assert isinstance(head, ParserError)
    assert isinstance(head.exc, Exception)
    assert body.is_eof()


@pytest.mark.parametrize("before", [0, 2])
async def test_an_error_is_answered_in_its_turn(before: int) -> None:
    """`answer_error` comes after everything before it, wakes a connection that rests, and closes it."""
    connection, line = await connected()
    connection.go_on.set()
    if before:
        connection.data_received(b"".join(GET % number for number in range(before)))
    connection.answer_error(ValueError("no more"))
    await settle()
    assert line.said.count(b"HTTP/1.1 200") == before
    assert line.said.endswith(b"error no more")
    assert line.closed


async def test_nothing_is_taken_in_after_the_last_request() -> None:
    """`close()` has a connection close after its answer, and take no further bytes."""
    connection, line = await connected()
    connection.data_received(GET % 1)
    await settle()
    assert not connection.is_closing()
    connection.close()
    assert connection.is_closing()
    connection.data_received(GET % 2)
    assert not connection.queued
    connection.go_on.set()
    await settle()
    assert line.said.count(b"HTTP/1.1 200") == 1
    assert line.closed


async def test_another_protocol_is_told() -> None:
    """Bytes behind a request for another protocol are not counted as a head."""
    connection, _ = await connected()
    assert not connection.is_upgraded()
    connection.data_received(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert connection.is_upgraded()


@pytest.mark.parametrize("lingers", [True, False])
async def test_the_rest_of_a_body_is_waited_for_unless_told_otherwise(lingers: bool) -> None:
    """After `linger_no_more` an answer before the end of the body closes the connection at once."""
    connection, line = await connected()
    connection.go_on.set()
    if not lingers:
        connection.linger_no_more()
    connection.data_received(POST % 9 + b"part")
    await settle()
    assert line.said.endswith(b"answer to /")
    assert line.closed is not lingers
    connection.force_close()
    await settle()


async def test_reading_is_held_for_a_body_that_nobody_reads() -> None:
    """While more of a body has come than is kept for a handler that does not read it, it is we who wait."""
    connection, line = await connected()
    connection.data_received(POST % (2 << 20) + bytes(1 << 20))
    assert connection.holds_reading()
    assert line.paused
    (_, body), *_ = connection.queued
    await body.readany()
    assert not connection.holds_reading()
    assert not line.paused
    connection.force_close()
    await settle()


async def test_reading_goes_on_only_where_it_was_held_for_a_body() -> None:
    """Whoever reads a body has nothing more read from a line that was paused for another reason."""
    connection, line = await connected()
    line.pause_reading()
    connection.data_received(POST % 9 + b"the whole")
    (_, body), *_ = connection.queued
    assert await body.readany() == b"the whole"
    assert line.paused
    connection.force_close()
    await settle()


async def test_reading_is_held_for_requests_whose_turn_has_not_come() -> None:
    """A client that sends request after request without waiting is read no further either."""
    connection, line = await connected()
    connection.data_received(b"".join(GET % number for number in range(100)))
    assert connection.holds_reading()
    assert line.paused
    connection.go_on.set()
    for _ in range(40):
        await settle()
    assert not connection.holds_reading()
    assert line.said.count(b"answer to /") == 100
    connection.force_close()
    await settle()


async def test_a_request_is_told_its_route() -> None:
    """Functions that ask a request for its application find it without the application's own search."""
    found: list[tuple[bool, bool]] = []
    app = web.Application()

    async def route(_: web.Request) -> web.Response:
        raise AssertionError

    app.router.add_get("/{number}", route)
    starter = web.AppRunner(app)
    await starter.setup()
    assert starter.server is not None

    async def answer(request: web.Request) -> web.Response:
        match = await app.router.resolve(request)
        match.add_app(app)
        set_match_info(request, match)
        found.append((request.app is app, request.match_info is match))
        return web.Response()

    server = web.Server(answer, request_factory=starter.server.request_factory)  # type: ignore[arg-type]
    connection, line = ServerConnection(server, asyncio.get_running_loop()), MemoryTransport()
    line.protocol = connection
    connection.connection_made(line)
    connection.data_received(GET % 1)
    await settle()
    assert found == [(True, True)]
    connection.force_close()
    await starter.cleanup()


async def test_answers_are_read_by_our_protocol() -> None:
    """Every connection of a connector is made with the protocol that it was given."""
    made: list[ResponseHandler] = []

    def protocol(loop: asyncio.AbstractEventLoop) -> ResponseHandler:
        made.append(ResponseHandler(loop))
        return made[-1]

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(text="answered")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    connector = TCPConnector()
    read_answers_with(connector, protocol, asyncio.get_running_loop())
    async with ClientSession(connector=connector) as session:
        for _ in range(2):
            async with session.get(f"http://127.0.0.1:{runner.addresses[0][1]}/") as response:
                assert await response.text() == "answered"
                (one,) = made
                assert one.transport is not None
    await runner.cleanup()
