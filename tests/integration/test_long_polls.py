"""Those who wait for news: they hold nobody up, neither when they have gone themselves nor when the daemon stops."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from replayforge.domain.api_keys import ApiKey, Role, new_key
from replayforge.web.http.context import CONTEXT, Access, WebContext
from replayforge.web.http.long_requests import LONG_REQUESTS
from replayforge.web.live.hints import HUB
from tests.integration.conftest import echo_handlers
from tests.support.daemon_process import DaemonProcess
from tests.support.house import House, open_house
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


# Those who may wait no longer


(ANNS, ANN), (BOBS, BOB) = new_key("ann", Role.ADMIN), new_key("bob", Role.ADMIN)
HEADERS = {"X-API-Key": BOBS}


@pytest.fixture
async def keyed(tmp_path: Path) -> AsyncIterator[House]:
    settings = {"server.api_keys": [ANN.entry(), BOB.entry()]}
    async with open_house(tmp_path / "data", echo_handlers(), settings) as house:
        yield house


def access(house: House) -> Access:
    assert house.http.app is not None
    context: WebContext = house.http.app[CONTEXT]
    return context.access


async def open_requests(house: House, count: int) -> None:
    """Return once so many requests are open."""

    async def look() -> bool:
        assert house.http.app is not None
        return len(house.http.app[LONG_REQUESTS].open) == count

    await persist(look)


async def heard_out(response: aiohttp.ClientResponse) -> bytes:
    """Return what else comes of an answer until it ends or is broken off."""
    heard = b""
    try:
        async for chunk in response.content.iter_any():
            heard += chunk
    except aiohttp.ClientPayloadError:
        pass
    return heard


@pytest.mark.parametrize(
    ("keys", "status"),
    [((ANN,), 401), ((ANN, ApiKey(BOB.name, Role.INGEST, BOB.digest)), 403)],
    ids=["removed", "may no longer look"],
)
async def test_who_may_not_come_in_any_more_waits_no_longer(
    keyed: House, keys: tuple[ApiKey, ...], status: int
) -> None:
    """Streams and long polls of a key that is gone, or that may do less, end with it, and those of its sessions; a
    poll is told why. Those of other keys stay open."""
    _, event = await keyed.post(
        "/api/events", {"workflow_id": "w", "event_type": "postponed", "payload": {"seconds": 3600}}, headers=HEADERS
    )
    form: dict[str, Any] = {"data": {"key": BOBS}, "headers": {"Accept": "text/html"}, "allow_redirects": False}
    async with keyed.http.post("/login", **form) as response:
        session = {"Cookie": f"replayforge_session={response.cookies['replayforge_session'].value}"}
    keyed.http.session.cookie_jar.clear()
    paths = (f"/api/events/{event['id']}?wait=60", "/forgelog/read?offset=1000&wait_seconds=30")
    polls = [asyncio.ensure_future(keyed.http.get(path, headers=who)) for path in paths for who in (HEADERS, session)]
    streams = [await keyed.http.get("/api/stream", headers=who) for who in (HEADERS, session, {"X-API-Key": ANNS})]
    await open_requests(keyed, 7)
    access(keyed).replace_keys(tuple(key.entry() for key in keys))
    async with asyncio.timeout(5):
        assert [(await poll).status for poll in polls] == [status] * 4
        for stream in streams[:2]:
            await heard_out(stream)
    await open_requests(keyed, 1)
    access(keyed).replace_keys((ANN.entry(),))
    await open_requests(keyed, 1)
    assert keyed.probe.counts["request.failed"] == 0
    streams[2].close()
    await open_requests(keyed, 0)


async def test_what_a_session_has_open_ends_when_it_is_signed_out(keyed: House) -> None:
    """Also where somebody else holds the cookie."""
    form: dict[str, Any] = {"data": {"key": BOBS}, "headers": {"Accept": "text/html"}, "allow_redirects": False}
    async with keyed.http.post("/login", **form):
        pass
    stream = await keyed.http.get("/api/stream")
    await open_requests(keyed, 1)
    async with keyed.http.post("/logout", headers={"Accept": "text/html"}, allow_redirects=False) as response:
        assert response.status == 303
    async with asyncio.timeout(5):
        await heard_out(stream)
    await open_requests(keyed, 0)


async def test_a_stream_of_events_ends_with_its_key(keyed: House) -> None:
    """What came before is accepted; the next line is told that the key is none of ours, and nothing more is taken."""
    line = json.dumps({"workflow_id": "w", "event_type": "t"}).encode() + b"\n"
    taken_back = asyncio.Event()

    async def lines() -> AsyncIterator[bytes]:
        yield line
        await taken_back.wait()
        yield line * 3

    headers = HEADERS | {"Content-Type": "application/x-ndjson"}
    async with keyed.http.post("/api/events/bulk", data=lines(), headers=headers) as response:
        assert json.loads(await response.content.readline())["status"] == "received"
        access(keyed).replace_keys((ANN.entry(),))
        taken_back.set()
        refused = json.loads(await response.content.readline())
        assert (refused["index"], refused["problem"]["type"]) == (1, "urn:replayforge:unauthorized")
        assert await heard_out(response) == b""
    assert (await keyed.get("/forgelog/stats", headers={"X-API-Key": ANNS}))["last_offset"] == 1
