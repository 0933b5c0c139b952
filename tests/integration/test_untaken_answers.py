"""Clients that do not take their answers: they are let go, all together cost little, and slow readers get it all."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp.web_protocol import RequestHandler

from replayforge.web.http.connection import Connection, ConnectionLimits, Port
from replayforge.web.live.hints import ALL_TOPICS, HUB, offer
from tests.integration.conftest import echo_handlers
from tests.integration.test_heavy_clients import status_of
from tests.support.daemon_process import DaemonProcess
from tests.support.house import House, open_house
from tests.support.polling import back_off, persist
from tests.support.raw_http import hear

MEBIBYTE = 1 << 20
ANSWER_SECONDS = 0.3
LIMITS = ConnectionLimits(head_seconds=ANSWER_SECONDS, body_seconds=ANSWER_SECONDS, answer_seconds=ANSWER_SECONDS)
HOST = b"Host: 127.0.0.1\r\n"
READ = b"GET /forgelog/read HTTP/1.1\r\n" + HOST
BULK = b"POST /api/events/bulk HTTP/1.1\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n" + HOST
RECORD = b'"%s"' % (b"a" * (MEBIBYTE - 2))


@asynccontextmanager
async def open_large_house(directory: Path, limits: ConnectionLimits) -> AsyncIterator[House]:
    """Open a house whose log has 3 MiB to be read."""
    async with open_house(directory, echo_handlers(), limits=limits) as house:
        for _ in range(3):
            async with house.http.post(
                "/forgelog/append", data=RECORD, headers={"Content-Type": "application/json"}
            ) as response:
                assert response.status == 201
        yield house


@pytest.fixture
async def large_house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_large_house(tmp_path, LIMITS) as house:
        yield house


def port_of(house: House) -> Port:
    runner = house.http.server.runner
    assert runner is not None
    assert isinstance(runner.server, Port)
    return runner.server


async def greedy(house: House, request: bytes) -> tuple[socket.socket, Connection]:
    """Ask and take nothing, on a connection for which the system holds next to nothing either."""
    loop, known = asyncio.get_running_loop(), set(port_of(house).connections)
    connection = socket.socket()
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await loop.sock_connect(connection, ("127.0.0.1", int(house.http.port or 0)))

    async def made() -> list[RequestHandler]:
        return [one for one in port_of(house).connections if one not in known]

    (ours,) = await persist(made)
    assert isinstance(ours, Connection)
    assert ours.line is not None
    ours.line.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    await loop.sock_sendall(connection, request)
    return connection, ours


async def is_gone(connection: Connection) -> None:
    """Return once the daemon has forgotten a connection and what it held for it."""

    async def look() -> bool:
        return connection.line is None

    await persist(look)


GREEDY = {
    "one answer": READ + b"\r\n",
    "the last answer": READ + b"Connection: close\r\n\r\n",
    "many answers": (READ + b"\r\n") * 10,
    "answers to a bulk request": BULK + b"\r\n" + b"10000\r\n%s\r\n" % (b"{}\n" * (0x10000 // 3) + b"\n") * 20,
}


@pytest.mark.parametrize("request_bytes", GREEDY.values(), ids=GREEDY.keys())
async def test_who_takes_nothing_is_let_go(large_house: House, request_bytes: bytes) -> None:
    """An answer that nobody takes is broken off, and nothing is left of it or its connection; others are served."""
    with suppress(ConnectionError):
        client, ours = await greedy(large_house, request_bytes)
    await is_gone(ours)
    assert large_house.probe.fields("connection.refused") == [{"reason": "Its answer was not taken in time."}]
    assert not port_of(large_house).clogged
    assert large_house.probe.counts["request.failed"] == 0
    assert len((await large_house.get("/forgelog/read?limit=1"))["events"]) == 1
    client.close()


async def test_what_is_left_of_the_last_answer_is_seen_out(large_house: House) -> None:
    """A connection that is to be closed once everything has been sent does not wait for that for ever."""
    client, ours = await greedy(large_house, b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n")
    await back_off(2 * ANSWER_SECONDS)  # no look at this connection is due any more
    last = b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    await asyncio.get_running_loop().sock_sendall(client, last)
    await is_gone(ours)
    assert large_house.probe.counts["connection.refused"] == 1
    client.close()


async def test_who_takes_nothing_holds_up_the_exit_but_once(tmp_path: Path) -> None:
    """A connection that is shut down gives its answer a time to be taken, and is broken off then."""
    async with open_large_house(tmp_path, ConnectionLimits()) as house:
        client, ours = await greedy(house, READ + b"\r\n")
        await until_clogged(house, 1)
        await ours.shutdown(0.2)
        assert house.probe.fields("connection.refused") == [{"reason": "The daemon stops."}]
        client.close()


async def test_who_takes_no_hints_is_let_go(large_house: House) -> None:
    """A page that opened the stream of hints and went to sleep with its connection open does not stay for ever."""
    client, ours = await greedy(large_house, b"GET /api/stream HTTP/1.1\r\n" + HOST + b"\r\n")
    assert large_house.http.app is not None
    hub = large_house.http.app[HUB]
    while ours.line is not None:
        for queue in hub.clients:
            offer(queue, ALL_TOPICS)
        await asyncio.sleep(0)
    assert large_house.probe.counts["connection.refused"] == 1

    async def nobody_listens() -> bool:
        return not hub.clients

    await persist(nobody_listens)
    client.close()


async def test_who_takes_it_slowly_gets_it_all(tmp_path: Path) -> None:
    """An answer that is taken bit by bit, in longer than the time for a part of it, comes to its end."""
    limits = ConnectionLimits(head_seconds=1, answer_seconds=1)
    async with open_large_house(tmp_path, limits) as house:
        loop, answer = asyncio.get_running_loop(), b""
        client, _ = await greedy(house, READ + b"Connection: close\r\n\r\n")
        ends = loop.time() + 2.5
        while piece := await loop.sock_recv(client, 65_536):
            answer += piece
            if loop.time() < ends:
                await back_off(0.02)
        assert answer.count(RECORD) == 3
        assert house.probe.counts["connection.refused"] == 0
        client.close()


async def test_all_together_leave_only_so_much_untaken(tmp_path: Path) -> None:
    """When answers that nobody takes hold too much memory the oldest of them goes; the others can still be taken."""
    limits = ConnectionLimits(untaken_bytes_max=7 * MEBIBYTE)
    async with open_large_house(tmp_path, limits) as house:
        clients = []
        for number in range(3):
            clients.append(await greedy(house, READ + b"Connection: close\r\n\r\n"))
            await until_clogged(house, min(number + 1, 2))
        await is_gone(clients[0][1])
        assert house.probe.fields("connection.refused") == [{"reason": "Too many answers wait to be taken."}]
        for client, _ in clients[1:]:
            assert (await hear(client)).answer.count(RECORD) == 3
        for client, _ in clients:
            client.close()


async def until_clogged(house: House, count: int) -> None:
    async def look() -> bool:
        return len(port_of(house).clogged) == count

    await persist(look)


def test_idle_connections_keep_nothing_of_what_they_answered(tmp_path: Path) -> None:
    """A large answer that has been taken costs no memory any more, though its connection stays open."""
    with DaemonProcess(tmp_path).start() as daemon, ExitStack() as stack:
        assert daemon.http.request("POST", "/forgelog/append", RECORD).status == 201
        assert daemon.http.request("GET", "/forgelog/read").status == 200
        before = status_of(daemon, "VmRSS")
        for _ in range(40):
            client = daemon.client()
            stack.callback(client.close)
            assert client.request("GET", "/forgelog/read").status == 200
        assert status_of(daemon, "VmRSS") - before < 20 * MEBIBYTE
