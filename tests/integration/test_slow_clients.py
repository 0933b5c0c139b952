"""Clients that take their time: they are let go, and whoever has a reason to wait is not taken for one of them."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from replayforge.daemon import web_context
from replayforge.web.http.connection import ConnectionLimits
from replayforge.web.http.context import CONTEXT
from tests.integration.conftest import echo_handlers
from tests.support.daemon_process import DaemonProcess
from tests.support.house import House, PortServer, open_house
from tests.support.polling import back_off
from tests.support.raw_http import Said, connect, hear, say

WINDOW_SECONDS = 0.5
LIMITS = ConnectionLimits(head_seconds=WINDOW_SECONDS, body_seconds=WINDOW_SECONDS)
EVENT = b'{"workflow_id":"w","event_type":"t"}'
GET = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
POST = b"POST /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
async def hasty_house(tmp_path: Path) -> AsyncIterator[House]:
    """A house whose patience ends soon."""
    async with open_house(tmp_path, echo_handlers(), limits=LIMITS) as house:
        yield house


def port_of(house: House) -> int:
    return int(house.http.port or 0)


async def drip(connection: socket.socket, trickle: bytes, pause_seconds: float) -> None:
    """Send a byte at a time, for ever, until the other side has had enough."""
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while True:
            for position in range(len(trickle)):
                await loop.sock_sendall(connection, trickle[position : position + 1])
                await back_off(pause_seconds)


async def dripped(
    connection: socket.socket, begin: bytes, trickle: bytes, pause_seconds: float = WINDOW_SECONDS / 8
) -> Said:
    """Begin a request, go on with it in drips, and return what the daemon says until it closes."""
    await asyncio.get_running_loop().sock_sendall(connection, begin)
    dripping = asyncio.create_task(drip(connection, trickle, pause_seconds))
    try:
        return await hear(connection)
    finally:
        dripping.cancel()
        with suppress(asyncio.CancelledError):
            await dripping
        connection.close()


SLOW: dict[str, tuple[bytes, bytes]] = {
    "first line": (b"G", b"ET /" + b"a" * 8_000),
    "headers": (GET, b"X: a\r\n"),
    "one header": (GET + b"X: ", b"a"),
    "empty lines": (b"\r\n", b"\r\n"),
    "second request": (GET + b"\r\n", b"GET /" + b"a" * 8_000),
    "body": (POST + b"Content-Length: 100000\r\n\r\n", b" "),
    "body that began well": (POST + b"Content-Length: 100000\r\n\r\n" + b" " * 50_000, b" "),
    "chunks": (CHUNKED, b"1\r\n \r\n"),
    "chunk extension": (CHUNKED + b"5;", b"a"),
    "flood of chunk extension": (CHUNKED + b"5;" + b"a" * 500_000, b"a"),
    "trailers": (CHUNKED + b"1\r\n \r\n0\r\n", b"X: a\r\n"),
}


async def test_what_comes_too_slowly_is_closed_on(hasty_house: House, caplog: pytest.LogCaptureFixture) -> None:
    """A head or a body in drips ends with 408 and a closed connection; it leaves nothing in ForgeLog or the logs."""

    async def last_said(begin: bytes, trickle: bytes) -> Said:
        said = await dripped(await connect(port_of(hasty_house)), begin, trickle)
        return Said(b"HTTP/1." + said.answer.rpartition(b"HTTP/1.")[2])

    answers = await asyncio.gather(*(last_said(*drips) for drips in SLOW.values()))
    assert {name: said.status for name, said in zip(SLOW, answers, strict=True)} == dict.fromkeys(SLOW, 408)
    for said in answers:
        assert said.problem["type"] == "urn:replayforge:request-too-slow"
        assert said.headers["x-request-id"] == said.problem["request_id"] != ""
    assert (await hasty_house.get("/forgelog/stats"))["last_offset"] == 0
    assert hasty_house.probe.counts["request.failed"] == 0
    assert hasty_house.probe.counts["connection.refused"] == len(SLOW)
    assert caplog.records == []


async def test_a_body_that_nobody_reads_ends_the_connection(hasty_house: House) -> None:
    """A request that needs no body is answered at once, and its connection is closed when the body is too slow."""
    begin = GET + b"Content-Length: 100000\r\n\r\n"
    said = await dripped(await connect(port_of(hasty_house)), begin, b" ")
    assert said.status == 200
    assert said.answer.count(b"HTTP/1.") == 1


async def test_silence_is_closed_on_in_silence(hasty_house: House) -> None:
    """A connection on which nothing was ever said is closed without an answer that nobody asked for."""
    assert (await say(port_of(hasty_house))).answer == b""


async def test_a_request_may_take_its_time_within_reason(hasty_house: House) -> None:
    """A body that keeps coming is read to its end, though that takes much longer than the time for a part of it."""

    async def steadily() -> AsyncIterator[bytes]:
        yield b'{"workflow_id":"w","event_type":"t","payload":{}'
        ends = time.monotonic() + 3 * WINDOW_SECONDS
        while time.monotonic() < ends:
            await back_off(WINDOW_SECONDS / 20)
            yield b" " * 1_000
        yield b"}"

    headers = {"Content-Type": "application/json"}
    async with hasty_house.http.post("/api/events", data=steadily(), headers=headers) as response:
        assert response.status == 201


async def test_idle_connections_stay(hasty_house: House) -> None:
    """Between two requests a connection may be idle for longer than a head or a body may take."""
    loop, connection = asyncio.get_running_loop(), await connect(port_of(hasty_house))
    for request in (GET + b"\r\n", POST + b"Content-Length: 36\r\n\r\n" + EVENT):
        await loop.sock_sendall(connection, request)
        assert (await loop.sock_recv(connection, 65_536)).startswith(b"HTTP/1.1 20")
        await back_off(2 * WINDOW_SECONDS)
    connection.close()
    assert hasty_house.probe.counts["connection.refused"] == 0


async def test_those_who_wait_for_news_are_left_alone(hasty_house: House) -> None:
    """A long poll and a stream of hints last as long as they should."""
    async with hasty_house.http.get("/api/stream") as stream:
        assert stream.status == 200
        read = await hasty_house.get("/forgelog/read", params={"wait_seconds": str(3 * WINDOW_SECONDS)})
        assert read["events"] == []
        await hasty_house.send()
        async for line in stream.content:
            if line.startswith(b"event: changed"):
                break
        else:
            pytest.fail("the stream has ended")
    assert hasty_house.probe.counts["connection.refused"] == 0


async def test_a_client_is_not_charged_for_our_slowness(hasty_house: House) -> None:
    """While a handler does not read on, its client cannot be too slow."""
    went_on = asyncio.Event()

    async def read_later(request: web.Request) -> web.Response:
        await went_on.wait()
        return web.json_response({"bytes": len(await request.read())})

    app = web.Application(client_max_size=1 << 30)
    app[CONTEXT] = web_context(hasty_house.daemon)
    app.router.add_post("/", read_later)
    body = b"a" * (8 << 20)
    async with PortServer(app, LIMITS) as server:
        head = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        saying = asyncio.create_task(say(int(server.port or 0), head, body))
        await back_off(3 * WINDOW_SECONDS)
        assert not saying.done()
        went_on.set()
        assert (await saying).problem == {"bytes": len(body)}


@dataclass
class Crowd:
    """Many clients that each send a byte now and then, and never come to an end."""

    port: int
    count: int
    said: list[Said] = field(default_factory=list)

    async def one(self, connection: socket.socket, number: int) -> None:
        begin, trickle = (GET, b"X: a\r\n") if number % 2 else (POST + b"Content-Length: 100000\r\n\r\n", b" ")
        self.said.append(await dripped(connection, begin, trickle, 0.5))

    @asynccontextmanager
    async def gathered(self) -> AsyncIterator[None]:
        """Have them all connected on entering, and all closed on at the end."""
        async with asyncio.TaskGroup() as group:
            for number in range(self.count):
                group.create_task(self.one(await connect(self.port), number))
            yield


async def probed(house: House, count: int) -> list[float]:
    """Return the seconds that each of many requests of an honest client took."""
    taken = []
    for number in range(count):
        begun = time.perf_counter()
        await house.send("probe", {"number": number})
        taken.append(time.perf_counter() - begun)
    return sorted(taken)


@pytest.mark.slow
async def test_five_hundred_slow_clients_disturb_nobody(tmp_path: Path) -> None:
    """While 500 clients send their heads and bodies in drips, others are served; all of the 500 are closed on."""
    limits = ConnectionLimits(head_seconds=2, body_seconds=1)
    async with open_house(tmp_path, echo_handlers(), limits=limits) as house:
        alone = await probed(house, 200)
        crowd = Crowd(port_of(house), 500)
        async with crowd.gathered():
            await house.probe.saw("event.accepted", 200)
            beside = await probed(house, 200)
        print(f"p99 alone {alone[-2] * 1000:.1f} ms, beside 500 slow clients {beside[-2] * 1000:.1f} ms")  # noqa: T201
        assert [said.status for said in crowd.said] == [408] * 500
        assert (await house.get("/forgelog/stats"))["last_offset"] == 400


def probed_from_outside(daemon: DaemonProcess, count: int) -> list[float]:
    """Return the seconds that each of many requests to a daemon of its own took."""
    taken, client = [], daemon.client()
    for number in range(count):
        begun = time.perf_counter()
        answer = client.post("/api/events", {"workflow_id": "w", "event_type": "probe", "payload": {"number": number}})
        taken.append(time.perf_counter() - begun)
        assert answer.status == 201
    client.close()
    return sorted(taken)


@pytest.mark.soak
async def test_five_hundred_slow_clients_of_a_real_daemon(tmp_path: Path) -> None:
    """A daemon as it is started by everybody lets go of 500 slow clients, and serves others meanwhile."""
    with DaemonProcess(tmp_path).start() as daemon:
        alone = await asyncio.to_thread(probed_from_outside, daemon, 1_000)
        crowd = Crowd(int(daemon.http.address.port or 0), 500)
        async with crowd.gathered():
            beside = await asyncio.to_thread(probed_from_outside, daemon, 1_000)
        print(f"p99 alone {alone[-10] * 1000:.1f} ms, beside 500 slow clients {beside[-10] * 1000:.1f} ms")  # noqa: T201
        assert [said.status for said in crowd.said] == [408] * 500


# How many


@contextmanager
def closing() -> Iterator[list[socket.socket]]:
    """Hand out a list of connections that are closed at the end."""
    connections: list[socket.socket] = []
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()


async def test_the_longest_idle_connection_makes_room(tmp_path: Path) -> None:
    """At the limit a new connection is served, and the one that has been idle the longest is closed for it."""
    async with open_house(tmp_path, echo_handlers(), limits=ConnectionLimits(connections_max=3)) as house:
        loop = asyncio.get_running_loop()
        with closing() as connections:
            for _ in range(3):
                connections.append(await connect(port_of(house)))
            for turn in (1, 0, 2):
                await loop.sock_sendall(connections[turn], GET + b"\r\n")
                assert (await loop.sock_recv(connections[turn], 65_536)).startswith(b"HTTP/1.1 200")
            assert (await say(port_of(house), GET + b"Connection: close\r\n\r\n")).status == 200
            assert (await hear(connections[1])).answer == b""
            for turn in (0, 2):
                await loop.sock_sendall(connections[turn], GET + b"\r\n")
                assert (await loop.sock_recv(connections[turn], 65_536)).startswith(b"HTTP/1.1 200")


async def test_a_request_on_its_way_is_not_cut_off(tmp_path: Path) -> None:
    """A connection that has just been made keeps its place; one that stays silent gives it up."""
    async with open_house(tmp_path, echo_handlers(), limits=ConnectionLimits(connections_max=2)) as house:
        loop = asyncio.get_running_loop()
        poll = b"GET /forgelog/read?wait_seconds=3 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        with closing() as connections:
            for _ in range(2):
                connections.append(await connect(port_of(house)))
            await loop.sock_sendall(connections[0], poll)
            assert (await say(port_of(house), GET + b"Connection: close\r\n\r\n")).status == 503
            await loop.sock_sendall(connections[1], GET + b"\r\n")
            assert (await loop.sock_recv(connections[1], 65_536)).startswith(b"HTTP/1.1 200")
            connections.pop().close()
            connections.append(await connect(port_of(house)))
            async with asyncio.timeout(10):
                while (await say(port_of(house), GET + b"Connection: close\r\n\r\n")).status != 200:
                    await back_off()
            assert (await hear(connections[1])).answer == b""


async def test_one_connection_too_many_hears_so(tmp_path: Path) -> None:
    """When every connection is at work the next one is 503 with a time, and room is there again once one has ended."""
    async with open_house(tmp_path, echo_handlers(), limits=ConnectionLimits(connections_max=3)) as house:
        loop = asyncio.get_running_loop()
        poll = b"GET /forgelog/read?wait_seconds=2 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        with closing() as connections:
            for _ in range(3):
                connections.append(await connect(port_of(house)))
                await loop.sock_sendall(connections[-1], poll)
            refused = await say(port_of(house), GET + b"\r\n")
            assert refused.status == 503
            assert refused.problem["type"] == "urn:replayforge:unavailable"
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.headers["x-request-id"] == refused.problem["request_id"]
        async with asyncio.timeout(10):
            while (await say(port_of(house), GET + b"Connection: close\r\n\r\n")).status != 200:
                await back_off()
