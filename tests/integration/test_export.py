"""Events taken away as lines: all of them, exactly, in bounded memory, for as long as somebody takes them."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from replayforge.domain.reports import EventFilter
from replayforge.stores.lookups import EventPage
from replayforge.web.api import export
from replayforge.web.api.export import EXPORTS, STEP
from replayforge.web.http.connection import Connection
from tests.integration.conftest import echo_handlers
from tests.support.house import House, open_house
from tests.support.polling import persist

COUNT = 120


async def exported(house: House, query: str = "") -> list[dict[str, Any]]:
    """Return the exported events."""
    async with house.http.get(f"/api/events/export{query}") as response:
        assert (response.status, response.content_type) == (200, "application/x-ndjson")
        assert "attachment" in response.headers["Content-Disposition"]
        return [json.loads(line) for line in (await response.read()).splitlines()]


async def test_every_event_comes_once_newest_first(house: House) -> None:
    """More events than a step come in order, none twice; a filter chooses; each looks as the API shows it."""
    ids = await house.send_many(3 * STEP + 5)
    await house.send("other", {"n": 1})
    await house.converges()
    assert [event["id"] for event in await exported(house, "?event_type=test")] == ids[::-1]
    (other,) = await exported(house, "?event_type=other")
    shown = await house.event(other["id"])
    assert {name: shown[name] for name in other} == other
    assert await exported(house, "?event_type=nothing") == []


async def test_payloads_keep_every_token_and_stay_on_one_line(house: House) -> None:
    """Digits and spaces stay; a line break between tokens becomes a space, one inside a text stays escaped."""
    payload = '{"n": 9007199254740993,\r\n "x" : 1.10, "t": "a\\nb", "é": "\\u00e9\u2028"}'
    body = f'{{"workflow_id": "w", "event_type": "test", "payload": {payload}}}'.encode()
    headers = {"Content-Type": "application/json"}
    async with house.http.post("/api/events", data=body, headers=headers) as response:
        assert response.status == 201
    await house.converges()
    async with house.http.get("/api/events/export") as response:
        text = (await response.read()).decode()
    assert text.count("\n") == 1
    assert payload.replace("\r\n", "  ") in text


async def test_what_is_wrong_is_said_before_the_answer_begins(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that means nothing is a problem; one export too many is told when to come again."""
    assert (await house.http.get("/api/events/export?status=nonsense")).status == 422
    monkeypatch.setattr(export, "EXPORTS_MAX", 0)
    async with house.http.get("/api/events/export") as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "1")


# A client that takes nothing


def connections_of(house: House) -> list[Connection]:
    """Return the open connections."""
    assert house.http.server is not None
    runner = house.http.server.runner
    assert runner is not None
    assert runner.server is not None
    return [one for one in runner.server.connections if isinstance(one, Connection)]


@asynccontextmanager
async def reluctant(house: House) -> AsyncIterator[tuple[socket.socket, list[int]]]:
    """Ask for everything and take nothing; yields, once the daemon waits, the client and how much was fetched."""
    queries, fetched = house.daemon.queries, [0]
    list_events = queries.list_events

    async def counted(wanted: EventFilter, before_seq: int | None, limit: int) -> EventPage:
        found = await list_events(wanted, before_seq, limit)
        fetched[0] += len(found.events)
        return found

    async def waits() -> bool:
        return any(one.writing_paused for one in connections_of(house))

    for _ in range(COUNT // 10):
        await house.send_many(10, payload={"x": "x" * 100_000})
    await house.converges()
    queries.list_events = counted  # type: ignore[method-assign]
    with socket.socket() as client:
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        assert house.http.server is not None
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", house.http.server.port))
        await loop.sock_sendall(client, b"GET /api/events/export HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert await persist(waits)
        yield client, fetched


async def test_no_more_is_fetched_than_is_taken(house: House) -> None:
    """While nobody takes what there is, nothing more is fetched."""
    async with reluctant(house) as (_, fetched):
        before = fetched[0]
        await exported(house, "?event_type=nothing")
        assert fetched[0] == before < COUNT


async def test_an_export_ends_with_its_client(house: House) -> None:
    """A client that goes away takes its export with it."""
    async with reluctant(house) as (client, fetched):
        assert len(house.http.app[EXPORTS].running) == 1
        client.close()
        assert await persist(lambda: none_runs(house))
        assert fetched[0] < COUNT


async def none_runs(house: House) -> bool:
    return not house.http.app[EXPORTS].running


async def test_an_export_holds_up_no_end(tmp_path: Path) -> None:
    """A daemon that stops breaks off the exports under way."""
    async with asyncio.timeout(50):  # the server would wait a minute for it
        async with open_house(tmp_path / "data", echo_handlers()) as house, reluctant(house):
            await house.http.app.shutdown()
            assert await persist(lambda: none_runs(house))
