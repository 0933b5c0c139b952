"""Those who wait for news: they hold nobody up, neither when they have gone themselves nor when the daemon stops."""

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path

from replayforge.web.http.context import CONTEXT
from replayforge.web.live.hints import HUB
from tests.support.daemon_process import DaemonProcess
from tests.support.house import House
from tests.support.polling import persist
from tests.support.raw_http import connect

POLL = b"GET /forgelog/read?wait_seconds=30 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
STREAM = b"GET /api/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def waiting(house: House) -> tuple[int, int]:
    """Return how many wait for records, and how many for hints."""
    assert house.http.app is not None
    return len(house.http.app[CONTEXT].forgelog_service.waits), len(house.http.app[HUB].clients)


async def settles(house: House, polls: int, streams: int) -> None:
    async def look() -> bool:
        return waiting(house) == (polls, streams)

    await persist(look)


async def test_nothing_waits_for_a_client_that_has_gone(house: House) -> None:
    """A long poll and a stream of hints end with the connection they were asked on, long before their time."""
    loop, connections = asyncio.get_running_loop(), []
    for request in (POLL, STREAM):
        connections.append(await connect(int(house.http.port or 0)))
        await loop.sock_sendall(connections[-1], request)
    await settles(house, 1, 1)
    for connection in connections:
        connection.close()
    await settles(house, 0, 0)
    assert house.probe.counts["request.failed"] == 0


async def test_a_connection_waits_as_often_as_it_is_asked_to(house: House) -> None:
    """Requests after a long poll on the same connection are answered, whatever becomes of it."""
    await house.send()
    for _ in range(3):
        assert len((await house.get("/forgelog/read?offset=0&wait_seconds=30"))["events"]) == 1
        assert (await house.get("/forgelog/read?offset=1&wait_seconds=0.01"))["events"] == []
    await settles(house, 0, 0)


async def test_a_log_that_is_about_to_close_lets_nobody_wait(house: House) -> None:
    """Who waits for records gets none at once, and so does whoever comes later; closing twice does no harm."""
    assert house.http.app is not None
    forgelog_service = house.http.app[CONTEXT].forgelog_service
    polls = [asyncio.create_task(forgelog_service.read(0, 10, 30)) for _ in range(3)]
    await settles(house, 3, 0)
    for _ in range(2):
        forgelog_service.close()
    pages = [*await asyncio.gather(*polls), await forgelog_service.read(0, 10, 30)]
    assert [(page.records, page.next_offset) for page in pages] == [([], 0)] * 4


def test_a_stopping_daemon_answers_long_polls(tmp_path: Path) -> None:
    """SIGTERM ends the wait of open long polls with an answer, instead of waiting for them and cutting them off."""
    with DaemonProcess(tmp_path).start() as daemon, ExitStack() as stack:
        address = (daemon.http.address.hostname, daemon.http.address.port)
        polls = [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(3)]
        for poll in polls:
            poll.sendall(POLL)
        assert daemon.terminate() == 0
        for poll in polls:
            assert poll.recv(65_536).endswith(b'{"events":[],"next_offset":0}')
