"""What an endpoint's answer means when it is broken, late, endless or no HTTP at all, byte by byte on a real socket."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import pytest

from replayforge.config.settings import HttpEndpoint
from replayforge.domain.event import Event
from replayforge.domain.retry import Permanent, Retry
from replayforge.engine.handlers import endpoints
from replayforge.engine.handlers.addresses import look_up
from replayforge.engine.handlers.callbacks import Callbacks
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.endpoint_handlers import handler_for
from replayforge.engine.handlers.endpoints import WebhookClient
from tests.support.clock import FakeClock

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
EVENT = Event("id", "app", "w", "type", "", None, b"{}", b"{}", 0, 1, 1)
LARGE = Event("id", "app", "w", "type", "", None, b'"%s"' % (b"x" * 30_000_000), b"{}", 0, 1, 1)


@dataclass
class Server:
    """Says the same pieces to everybody who connects, `for_ever` the last of them, then ends as `ends` says."""

    pieces: list[bytes]
    ends: str = "close"
    for_ever: bool = False
    reads_first: bool = True
    port: int = 0
    connections: int = 0
    held: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.held.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if self.reads_first:
                await reader.readuntil(b"\r\n\r\n")
            for piece in self.pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            while self.for_ever:
                writer.write(self.pieces[-1] * 1000)
                await writer.drain()
            if self.ends == "reset":
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
            elif self.ends == "close":
                writer.close()
            else:
                await reader.read()


@asynccontextmanager
async def serving(*pieces: bytes, **options: object) -> AsyncIterator[Server]:
    server = Server(list(pieces), **options)  # type: ignore[arg-type]
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for writer in server.held:
            writer.transport.abort()


async def deliver(server: Server, event: Event = EVENT, *, seconds: float = 10, times: int = 1) -> object:
    """Deliver an event and return what became of the last delivery: its result, or what it raised."""
    webhook_client = WebhookClient(FakeClock(), look_up)
    handler = handler_for(
        HttpEndpoint("*", f"http://127.0.0.1:{server.port}/s3cret", allow_private=True), webhook_client, Callbacks()
    )
    found: object = None
    for _ in range(times):
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(deadline):
                value = await handler.function(event, Context(event, 1, deadline, {}))
            found = None if value is None else msgspec.json.decode(value)
        except Exception as error:  # what it was is what the tests look at
            found = error
    await webhook_client.close()
    return found


# An answer of 2xx is success, whatever becomes of its body.

BROKEN = {
    "less than it said": [HEAD + b"Content-Length: 10\r\n\r\n", b'{"a"'],
    "a number cut short": [HEAD + b"Content-Length: 3\r\n\r\n12"],
    "a chunk cut short": [CHUNKED + b"3\r\n12"],
    "nothing of what it said": [HEAD + b"Content-Length: 10\r\n\r\n"],
    "chunks that end too early": [CHUNKED + b"4\r\n"],
    "garbage for a chunk": [CHUNKED, b"ZZZ\r\nfoo"],
    "garbage for a chunk, in one piece": [CHUNKED + b"ZZZ\r\nfoo"],
    "a chunk of a negative size": [CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n"],
    "a chunk longer than it said": [CHUNKED + b"1\r\nhello\r\n0\r\n\r\n"],
    "a head cut into bytes, then garbage": [*(bytes([byte]) for byte in CHUNKED), b"ZZZ\r\n"],
    "204 with a body": [b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"],
    "more than it said": [HEAD + b"Content-Length: 2\r\n\r\n{}garbage"],
    "no UTF-8": [HEAD + b"Content-Length: 3\r\n\r\n\xff\xfe\x00"],
    "packed wrongly": [HEAD + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"],
    "no end of HTTP/1.0": [b"HTTP/1.0 200 OK\r\n\r\n{"],
    "202 and nothing": [b"HTTP/1.1 202 Accepted\r\n\r\n"],
    "299 and nothing": [b"HTTP/1.1 299 \r\nContent-Length: 7\r\n\r\n"],
    "early hints before it": [b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + CHUNKED + b"Z"],
}


@pytest.mark.parametrize("ends", ["close", "reset"])
@pytest.mark.parametrize("answer", BROKEN)
async def test_a_2xx_is_success_however_its_body_ends(answer: str, ends: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint has done its work; another attempt would do it twice."""
    monkeypatch.setattr(endpoints, "BODY_SECONDS_MAX", 0.2)
    async with serving(*BROKEN[answer], ends=ends) as server:
        assert await deliver(server) in (None, {})
        assert server.connections == 1


@pytest.mark.parametrize("ends", ["close", "stay"])
async def test_a_whole_answer_is_the_result(ends: str) -> None:
    """HTTP/1.0 and chunks are understood, and what was read is the result."""
    for answer in (b"HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\n", CHUNKED + b"7\r\n"):
        async with serving(answer, b'{"a":1}', b"\r\n0\r\n\r\n" if b"chunked" in answer else b"", ends=ends) as server:
            assert await deliver(server) == {"a": 1}


@pytest.mark.parametrize("piece", [b"", b"1\r\n \r\n"])
async def test_a_body_that_does_not_end_is_left(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that trickles, or never begins, is waited for only so long, and not beyond the attempt's time."""
    monkeypatch.setattr(endpoints, "BODY_SECONDS_MAX", 0.2)
    async with serving(CHUNKED, piece, ends="stay") as server:
        assert await deliver(server) is None
    monkeypatch.setattr(endpoints, "BODY_SECONDS_MAX", 60.0)
    async with serving(CHUNKED, piece, ends="stay") as server:
        assert await deliver(server, seconds=1) is None


async def test_a_2xx_before_the_body_was_read_is_success() -> None:
    """An endpoint may answer before it has read what is sent, and never read it; the connection is not used again."""
    for ends in ("stay", "reset"):
        async with serving(HEAD + b"Content-Length: 2\r\n\r\n{}", ends=ends, reads_first=ends == "reset") as server:
            assert await deliver(server, LARGE, times=2) == {}
            assert server.connections == 2


@pytest.mark.parametrize("rest", [b"HTTP/1.1 500 No\r\n\r\n", b"garbage", HEAD + b"\r\n"])
async def test_what_follows_an_answer_belongs_to_no_other(rest: bytes) -> None:
    """Bytes behind an answer never become the answer to the next event."""
    async with serving(HEAD + b"Content-Length: 2\r\n\r\n{}" + rest, ends="stay") as server:
        assert await deliver(server, times=3) == {}
        assert server.connections == 3


# Everything else has the status decide too, or is the network's fault.


@pytest.mark.parametrize("ends", ["close", "reset"])
@pytest.mark.parametrize(
    ("status", "kind"), [(503, Retry), (401, Retry), (404, Retry), (400, Permanent), (302, Permanent)]
)
async def test_the_status_decides_when_the_body_breaks_off(status: int, kind: type, ends: str) -> None:
    """What is refused stays refused, and what is tried again honours Retry-After, though the words are lost."""
    head = f"HTTP/1.1 {status} No\r\nRetry-After: 17\r\nContent-Length: 99\r\n\r\n".encode()
    async with serving(head, b"half of", ends=ends) as server:
        found = await deliver(server)
    assert type(found) is kind
    assert getattr(found, "after", 17) == 17


NO_ANSWERS = {
    "nothing": b"",
    "half a status line": b"HTTP/1.1 2",
    "a status line": HEAD,
    "half a head": HEAD + b"Content-Le",
    "another protocol": b"SSH-2.0-server\r\n\r\n",
    "a status that is none": b"HTTP/1.1 2000 OK\r\n\r\n",
    "a line too long": HEAD + b"X: " + b"x" * 100_000,
    "hints and no answer": b"HTTP/1.1 103 Early Hints\r\n\r\n",
}


@pytest.mark.parametrize("ends", ["close", "reset"])
@pytest.mark.parametrize("answer", NO_ANSWERS)
async def test_no_whole_head_is_no_answer(answer: str, ends: str) -> None:
    """A head that does not come to its end says nothing for sure, so the event is tried again."""
    async with serving(NO_ANSWERS[answer], ends=ends) as server:
        found = await deliver(server)
    assert isinstance(found, Retry)
    assert "did not answer" in str(found)
    assert "s3cret" not in str(found)


@pytest.mark.parametrize("piece", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"])
async def test_interim_answers_without_end(piece: bytes) -> None:
    """A flood of answers that promise another is cut after a few, so it cannot keep the loop busy."""
    async with serving(piece, for_ever=True) as server:
        found = await deliver(server, seconds=60)
    assert isinstance(found, Retry)
    assert "interim" in str(found)


async def test_headers_without_end() -> None:
    """A head that never ends is cut at its limit."""
    async with serving(HEAD, b"X-Header: value\r\n", for_ever=True) as server:
        found = await deliver(server, seconds=60)
    assert isinstance(found, Retry)


async def test_a_body_without_end_is_read_to_the_limit() -> None:
    """A 2xx that pours out bytes is success as soon as it is too long to be kept."""
    async with serving(HEAD + b"\r\n", b"x" * 100, for_ever=True) as server:
        assert await deliver(server) is None
