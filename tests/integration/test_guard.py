"""Who may speak to the daemon, and what every answer carries."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from replayforge.daemon import web_context
from replayforge.web.http.connection import ConnectionLimits
from replayforge.web.http.context import CONTEXT
from replayforge.web.http.guard import guard
from tests.integration.conftest import echo_handlers, shares_a_house
from tests.support.house import House, PortServer, open_house
from tests.support.raw_http import say

EVENT = b'{"workflow_id":"w","event_type":"t"}'


async def raw(house: House, request: bytes, *, break_off: bool = False, patience_seconds: float = 5) -> bytes:
    """Send bytes on a connection of their own and return what is answered until the daemon closes it.

    With `break_off` the sender goes away instead; otherwise it does after `patience_seconds`.
    """
    assert house.http.server is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", house.http.server.port)
    answer = b""
    try:
        writer.write(request)
        if break_off:
            writer.write_eof()
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(patience_seconds):
                while chunk := await reader.read(65_536):
                    answer += chunk
    finally:
        writer.close()
    return answer


def post(headers: bytes = b"", body: bytes = EVENT) -> bytes:
    """Return a correct POST of an event with further header lines."""
    head = b"POST /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return head + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


GET = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
POST = b"POST /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@shares_a_house
@pytest.mark.parametrize("cut", range(0, len(post()), 7))
async def test_a_request_that_breaks_off_is_not_accepted(shared_house: House, cut: int) -> None:
    """A request cut off anywhere before its end accepts nothing."""
    await raw(shared_house, post()[:cut], break_off=True)
    assert await shared_house.logged() == 0
    assert shared_house.probe.counts["request.failed"] == 0


@shares_a_house
async def test_pipelined_requests_are_answered_in_order(shared_house: House) -> None:
    """Several requests sent at once on one connection are each answered, in their order."""
    one = POST + b"Content-Length: %d\r\n\r\n" % len(EVENT) + EVENT
    answer = await raw(shared_house, one * 3 + GET + b"Connection: close\r\n\r\n")
    assert [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]] == [201, 201, 201, 200]


async def test_an_answer_that_has_begun_is_broken_off(house: House) -> None:
    """An error in the midst of an answer ends the connection; a second answer never stands in the first."""

    async def break_down(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        raise RuntimeError("broken down")

    app = web.Application(middlewares=[guard])
    app[CONTEXT] = web_context(house.daemon)
    app.router.add_get("/", break_down)
    async with PortServer(app, ConnectionLimits()) as server:
        said = await say(int(server.port or 0), b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert said.answer.endswith(b"\r\n\r\n5\r\nbegun\r\n")
    assert house.probe.counts["request.failed"] == 1


# Hosts and sites

HOSTS = {
    "127.0.0.1": 200,
    "localhost": 200,
    "LOCALHOST:99": 200,
    "[::1]:8787": 200,
    "127.0.0.1.evil.example": 421,
    "evil.example": 421,
    "evil.example:8787": 421,
    "localhost@evil.example": 421,
    "localhost.evil.example": 421,
    "[::2]": 421,
    "0.0.0.0": 421,
}


@shares_a_house
@pytest.mark.parametrize(("host", "status"), HOSTS.items())
async def test_only_own_host_names_are_answered(shared_house: House, host: str, status: int) -> None:
    """A daemon on loopback answers to loopback names only, so that no page can rebind its own name to it."""
    async with shared_house.http.get("/api/events", headers={"Host": host}) as response:
        assert response.status == status


@shares_a_house
@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
async def test_probes_are_answered_whatever_they_call_the_daemon(shared_house: House, path: str) -> None:
    """A kubelet asks by the address of the pod."""
    async with shared_house.http.get(path, headers={"Host": "10.1.2.3:8787"}) as response:
        assert response.status == 200


async def test_its_own_machine_may_always_speak_to_it(tmp_path: Path) -> None:
    """With the name that people know allowed, commands beside the daemon reach it by that of loopback as well."""
    settings = {"server.allowed_hosts": ["hooks.example.com"]}
    async with open_house(tmp_path, settings=settings) as house:
        for host, status in {"hooks.example.com": 200, "localhost": 200, "127.0.0.1": 200, "evil.example": 421}.items():
            async with house.http.get("/api/events", headers={"Host": host}) as response:
                assert response.status == status, host


SITES: dict[str, tuple[dict[str, str], int]] = {
    "no browser": ({}, 201),
    "same origin": ({"Sec-Fetch-Site": "same-origin"}, 201),
    "typed by hand": ({"Sec-Fetch-Site": "none"}, 201),
    "other site": ({"Sec-Fetch-Site": "cross-site"}, 403),
    "sister site": ({"Sec-Fetch-Site": "same-site"}, 403),
    "made up": ({"Sec-Fetch-Site": "whatever"}, 403),
    "own origin": ({"Origin": "http://OWN"}, 201),
    "foreign origin": ({"Origin": "http://evil.example"}, 403),
    "origin null": ({"Origin": "null"}, 403),
    "other port": ({"Origin": "http://127.0.0.1:1"}, 403),
    "own name in front": ({"Origin": "http://OWN.evil.example"}, 403),
    "own name as user": ({"Origin": "http://OWN@evil.example"}, 403),
    "contradiction": ({"Sec-Fetch-Site": "cross-site", "Origin": "http://OWN"}, 403),
}


@shares_a_house
@pytest.mark.parametrize(("headers", "status"), SITES.values(), ids=SITES.keys())
async def test_other_sites_change_nothing(shared_house: House, headers: dict[str, str], status: int) -> None:
    """What a page of another site makes a browser send is refused before anything is done."""
    own = f"127.0.0.1:{shared_house.http.port}"
    given = {name: value.replace("OWN", own) for name, value in headers.items()}
    answered, _ = await shared_house.post("/api/events", {"workflow_id": "w", "event_type": "t"}, headers=given)
    assert answered == status
    assert await shared_house.logged() == int(status == 201)


@shares_a_house
@pytest.mark.parametrize(
    "path",
    ["/api/events/bulk", "/api/events/x/replay", "/api/deadletters/x/discard", "/forgelog/append", "/forgelog/commit"],
)
async def test_every_changing_path_is_guarded(shared_house: House, path: str) -> None:
    """The refusal of other sites holds for every path, also without a body."""
    bodies: list[dict[str, Any]] = [{}, {"json": {}}]
    for options in bodies:
        status, problem = await shared_house.post(path, headers={"Origin": "http://evil.example"}, **options)
        assert (status, problem["type"]) == (403, "urn:replayforge:cross-site")


# Keys

KEYS: dict[str, tuple[dict[str, str], int]] = {
    "none": ({}, 401),
    "wrong": ({"X-API-Key": "secret-three"}, 401),
    "empty": ({"X-API-Key": ""}, 401),
    "a beginning": ({"X-API-Key": "secret"}, 401),
    "other case": ({"X-API-Key": "SECRET-ONE"}, 401),
    "first": ({"X-API-Key": "secret-one"}, 200),
    "second": ({"X-API-Key": "secret-two"}, 200),
    "bearer": ({"Authorization": "Bearer secret-one"}, 200),
    "bearer in lower case": ({"Authorization": "bearer secret-two"}, 200),
    "basic": ({"Authorization": "Basic secret-one"}, 401),
    "wrong bearer": ({"Authorization": "Bearer nope"}, 401),
    "wrong key beside a right bearer": ({"X-API-Key": "nope", "Authorization": "Bearer secret-one"}, 401),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def keyed_house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A daemon that wants a key."""
    settings = {"server.api_keys": ["secret-one", "secret-two"]}
    async with open_house(tmp_path_factory.mktemp("keyed"), echo_handlers(), settings) as house:
        yield house


@shares_a_house
@pytest.mark.parametrize(("headers", "status"), KEYS.values(), ids=KEYS.keys())
async def test_keys(keyed_house: House, headers: dict[str, str], status: int) -> None:
    """With keys configured every path but the health checks needs one of them, whole, and problems never show it."""
    for path in ("/api/events", "/metrics", "/forgelog/read", "/api/convergence"):
        async with keyed_house.http.get(path, headers=headers) as response:
            assert response.status == status
            assert status == 200 or b"secret" not in await response.read()
    posted, _ = await keyed_house.post("/api/events", {"workflow_id": "w", "event_type": "t"}, headers=headers)
    assert posted == (201 if status == 200 else 401)
    async with keyed_house.http.get("/health/ready", headers=headers) as response:
        assert response.status == 200


@shares_a_house
async def test_a_key_that_is_no_text_is_wrong(keyed_house: House) -> None:
    """A key of bytes that are not UTF-8 is 401 like any other wrong key."""
    assert status_of(await raw(keyed_house, post(b"X-API-Key: \xff\xfe\r\n"))) == 401
    assert status_of(await raw(keyed_house, post(b"X-API-Key: secret-one\r\n"))) == 201


@shares_a_house
async def test_idempotency_key_that_is_no_text(shared_house: House) -> None:
    """An idempotency key of bytes that are not UTF-8 is 400."""
    assert status_of(await raw(shared_house, post(b"Idempotency-Key: \xff\xfe\r\n"))) == 400


# What every answer carries

PATHS: dict[str, tuple[str, str, int]] = {
    "unknown path": ("GET", "/nope", 404),
    "unknown API path": ("GET", "/api/nope", 404),
    "unknown event": ("GET", "/api/events/nope", 404),
    "event that is not text": ("GET", "/api/events/%FF", 404),
    "event with NUL": ("GET", "/api/events/%00", 404),
    "unknown workflow": ("GET", "/api/workflows/nope", 404),
    "unknown timeline": ("GET", "/api/workflows/nope/timeline", 404),
    "replay of nothing": ("POST", "/api/events/nope/replay", 404),
    "cancel of nothing": ("POST", "/api/events/nope/cancel", 404),
    "retry of nothing": ("POST", "/api/events/nope/retry", 404),
    "dead letter of nothing": ("POST", "/api/deadletters/nope/replay", 404),
    "workflow replay of nothing": ("POST", "/api/workflows/nope/replay", 404),
    "wrong method": ("DELETE", "/api/events", 405),
    "wrong method on one event": ("PUT", "/api/events/x", 405),
    "GET where POST is meant": ("GET", "/forgelog/append", 405),
    "limit 0": ("GET", "/api/events?limit=0", 422),
    "limit 201": ("GET", "/api/events?limit=201", 422),
    "limit of letters": ("GET", "/api/events?limit=ten", 422),
    "limit with a line in it": ("GET", "/api/events?limit=1_0", 422),
    "limit in other digits": ("GET", "/api/events?limit=%D9%A3", 422),
    "limit with a blank": ("GET", "/api/events?limit=+5", 422),
    "wait with a line in it": ("GET", "/forgelog/read?wait_seconds=1_0", 422),
    "negative cursor": ("GET", "/api/events?cursor=-1", 422),
    "cursor of letters": ("GET", "/api/events?cursor=x", 422),
    "cursor beyond everything": ("GET", "/api/events?cursor=" + "9" * 30, 422),
    "unknown state": ("GET", "/api/events?status=lost", 422),
    "since no time": ("GET", "/api/events?since=yesterday", 422),
    "since before the year 1": ("GET", "/api/events?since=0001-01-01T00:00:00%2B23:00", 422),
    "unknown grouping": ("GET", "/api/deadletters?group_by=color", 422),
    "wait too long": ("GET", "/forgelog/read?wait_seconds=1000", 422),
    "wait nan": ("GET", "/forgelog/read?wait_seconds=nan", 422),
    "chaos that is off": ("POST", "/api/chaos/workers/worker-1/crash", 403),
    "crash point that is off": ("POST", "/api/chaos/crash", 403),
}


@shares_a_house
@pytest.mark.parametrize(("method", "path", "status"), PATHS.values(), ids=PATHS.keys())
async def test_every_error_is_a_problem(shared_house: House, method: str, path: str, status: int) -> None:
    """Every error is problem+json with type, title, status, detail, instance and the request's id."""
    async with shared_house.http.request(method, path, headers={"X-Request-ID": "my-id.1"}) as response:
        problem: dict[str, Any] = json.loads(await response.read())
        assert response.status == problem["status"] == status
        assert response.content_type == "application/problem+json"
        assert response.headers["X-Request-ID"] == problem["request_id"] == "my-id.1"
        assert problem["type"].startswith("urn:replayforge:")
        assert problem["title"]
        assert problem["detail"]
        assert problem["instance"] == response.url.path
        assert status != 405 or response.headers["Allow"]
    assert shared_house.probe.counts["request.failed"] == 0


@shares_a_house
@pytest.mark.parametrize("given", ["", "with space", "x" * 129, "a\tb", "ümlaut", "<script>"])
async def test_ill_formed_request_ids_are_replaced(shared_house: House, given: str) -> None:
    """A request id that is not well formed is replaced by a new one."""
    async with shared_house.http.get("/health", headers={"X-Request-ID": given}) as response:
        assert response.headers["X-Request-ID"] != given
        assert len(response.headers["X-Request-ID"]) >= 8


@shares_a_house
async def test_every_answer_forbids_what_pages_need_not(shared_house: House) -> None:
    """Every answer, errors too, carries the headers that keep a browser from running what it shows."""
    for path in ("/api/events", "/nope", "/health"):
        async with shared_house.http.get(path) as response:
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            policy = response.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy or "default-src 'self'" in policy
            assert "unsafe" not in policy
