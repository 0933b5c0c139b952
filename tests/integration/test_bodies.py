"""All request bodies together have one budget of memory: every way in takes from it, and gives back what it took."""

import ast
import asyncio
import json
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

import replayforge.web
from replayforge.web.http.body_budget import LAST_PART, SMALL_BYTES_MAX, BodyBudget, Share
from replayforge.web.http.context import CONTEXT, WebContext
from tests.integration.test_heavy_clients import EVENT, GROWTH_BYTES_MAX, MEBIBYTE, POST, Growth, connect
from tests.integration.test_http_ingest import envelope
from tests.support.daemon_process import DaemonProcess, until
from tests.support.house import House
from tests.support.polling import persist

FORM = "application/x-www-form-urlencoded"
NDJSON = "application/x-ndjson"
JSON = "application/json"

WAYS_IN: dict[str, tuple[str, str, bytes, int]] = {
    "an event": ("/api/events", JSON, envelope(), 201),
    "an array": ("/api/events/bulk", JSON, b"[" + envelope() + b"]", 200),
    "lines": ("/api/events/bulk", NDJSON, envelope(), 200),
    "a record": ("/forgelog/append", JSON, b"{}", 201),
    "a commit": ("/forgelog/commit", JSON, b'{"consumer":"c","offset":0}', 200),
    "a bulk replay": ("/api/replays", JSON, b'{"filter":{},"dry_run":true}', 200),
    "an edited replay": ("/api/events/ID/replay", JSON, b'{"payload":{"a":1}}', 202),
    "a pause": ("/api/handlers/waits/pause", JSON, b'{"reason":"r"}', 200),
    "a discard": ("/api/deadletters/ID/discard", JSON, b'{"reason":"r"}', 200),
    "a form": ("/send", FORM, b"workflow_id=w&event_type=t&payload={}", 303),
    "a theme": ("/theme", FORM, b"theme=dark", 303),
    "an action": ("/actions/replay", FORM, b"id=ID&reason=r", 303),
    "a login": ("/login", FORM, b"key=k", 401),
}


def budget_of(house: House) -> BodyBudget:
    assert house.http.app is not None
    context: WebContext = house.http.app[CONTEXT]
    return context.bodies


@pytest.mark.parametrize(("path", "kind", "body", "status"), WAYS_IN.values(), ids=WAYS_IN.keys())
async def test_every_way_in_shares_the_budget(house: House, path: str, kind: str, body: bytes, status: int) -> None:
    """Where the budget is used up every path that reads a body is 429 with a time; else it holds what it reads."""
    event_id, budget = await house.send("fails"), budget_of(house)
    held: list[int] = []
    take = Share.take

    def watched(self: Share, size: int) -> None:
        take(self, size)
        held.append(budget.taken)

    options: dict[str, Any] = {"headers": {"Content-Type": kind}, "allow_redirects": False}
    path, body = path.replace("ID", event_id), body.replace(b"ID", event_id.encode())
    await house.reaches(event_id, "dead_lettered")
    budget.taken += budget.bytes_max
    async with house.http.post(path, data=body, **options) as response:
        problem = json.loads(await response.read())
        assert (response.status, problem["type"]) == (429, "urn:replayforge:overloaded")
        assert int(response.headers["Retry-After"]) >= 1
    budget.taken -= budget.bytes_max
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Share, "take", watched)
        async with house.http.post(path, data=body, **options) as response:
            assert response.status == status
    assert held == [len(body)]
    assert budget.taken == 0


def test_nothing_else_reads_bodies() -> None:
    """Bodies are read in one module: nobody else in the web package asks a request for what it brings."""
    for path in Path(replayforge.web.__file__).parent.rglob("*.py"):
        if path.name == "bodies.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "request":
                assert node.attr not in {"read", "post", "json", "text", "content", "multipart"}, path


UNFINISHED = {
    "cut off": (b"Content-Length: 100000\r\n\r\n" + b" " * 70_000, JSON),
    "cut off in chunks": (b"Transfer-Encoding: chunked\r\n\r\n20000\r\n" + b" " * 70_000, JSON),
    "a chunk that is none": (b"Transfer-Encoding: chunked\r\n\r\n10\r\n" + b" " * 16 + b"\r\nzz\r\n", JSON),
    "a line without an end": (b"Content-Length: 100000\r\n\r\n" + b" " * 70_000, NDJSON),
}


@pytest.mark.parametrize(("rest", "kind"), UNFINISHED.values(), ids=UNFINISHED.keys())
async def test_what_breaks_off_is_given_back(house: House, rest: bytes, kind: str) -> None:
    """A client that goes away, or speaks no HTTP any more, leaves nothing behind in the budget."""
    budget = budget_of(house)
    _, writer = await asyncio.open_connection("127.0.0.1", house.http.port)
    writer.write(b"POST /api/events/bulk HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\n" % kind.encode() + rest)
    await writer.drain()
    if "zz" not in rest.decode():

        async def came() -> bool:
            return budget.taken >= 70_000

        assert await persist(came, 10)
    writer.close()

    async def gone() -> bool:
        return budget.taken == 0

    assert await persist(gone, 10)


def test_the_last_part_is_for_small_bodies() -> None:
    """Large bodies stop before the end of the budget, small ones may use it up; one alone may have it all."""
    budget = BodyBudget(LAST_PART * SMALL_BYTES_MAX)
    alone = Share(budget)
    alone.take(budget.bytes_max)
    assert not budget.has_room(0, 1)
    alone.give_back(SMALL_BYTES_MAX)
    assert budget.has_room(0, SMALL_BYTES_MAX)
    assert not budget.has_room(SMALL_BYTES_MAX, 1)
    assert not budget.has_room(0, SMALL_BYTES_MAX + 1)


BUDGET = 16 * MEBIBYTE
BULK = POST.replace(b"/api/events ", b"/api/events/bulk ") + b"Content-Length: %d\r\n\r\n" % (8 * MEBIBYTE)


def test_unfinished_bodies_do_not_fill_the_memory(tmp_path: Path) -> None:
    """However many bodies are left unfinished, the daemon grows by the budget at most; events come in meanwhile."""
    sizes = {"server.bulk_bytes_max": 8 * MEBIBYTE, "server.bodies_bytes_max": BUDGET}
    with DaemonProcess(tmp_path, settings=sizes).start() as daemon, ExitStack() as stack:
        whole = b"[" + b" " * (8 * MEBIBYTE - 2) + b"]"
        assert daemon.http.request("POST", "/api/events/bulk", whole).status == 200
        growth = Growth(daemon)
        for _ in range(100):
            connection = stack.enter_context(connect(daemon))
            with suppress(ConnectionError):
                connection.sendall(BULK + b"[" + b" " * MEBIBYTE)
            assert daemon.http.request("POST", "/api/events", EVENT).status == 201
        assert growth.bytes() < BUDGET + GROWTH_BYTES_MAX
        assert daemon.http.request("POST", "/api/events/bulk", whole).status == 429
        stack.close()
        until(
            lambda: daemon.http.request("POST", "/api/events/bulk", whole).status == 200, what="room for a bulk request"
        )
        growth = Growth(daemon)
        for _ in range(10):  # what is broken off is gone at once, and waits for no collector
            with connect(daemon) as broken_off:
                broken_off.sendall(BULK + b"[" + b" " * 7 * MEBIBYTE)
            assert daemon.http.request("POST", "/api/events", EVENT).status == 201
        assert growth.bytes() < BUDGET + GROWTH_BYTES_MAX
