"""No request holds the event loop: whatever it brings or asks for, the turns of the loop stay short.

Turns are measured in processor time of the loop's own thread, so that no load of the machine makes them longer.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from replayforge.web.http.bodies import read_lines
from replayforge.web.http.body_budget import BodyBudget, Share
from replayforge.web.pages import rendering
from tests.integration.conftest import echo_handlers
from tests.integration.test_http_ingest import JSON, NDJSON
from tests.support.house import House, open_house
from tests.support.turns import turns_measured

# What the test itself does on the same loop, which carries a mebibyte to and fro, is measured as well.
TURN_SECONDS_MAX = 0.05
MEBIBYTE = 1 << 20
FULL = MEBIBYTE - 300
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def fill(unit: str, size: int = FULL) -> str:
    """Return an array of as many units as fit."""
    return "[" + ",".join([unit] * (size // (len(unit) + 1) - 1)) + "]"


PAYLOADS: dict[str, Callable[[], str]] = {
    "199 digits": lambda: fill("9" * 199),
    "half a pair at the end": lambda: fill(r'"\ud83d\ude00"', FULL - 20)[:-1] + r',"\ud83d"]',
    "many keys": lambda: "{" + ",".join(f'"k{number}":1' for number in range(70_000)) + "}",
    "as deep as it may be": lambda: fill("[" * 60 + "1" + "]" * 60),
    "brackets in a string": lambda: '"' + "[" * FULL + '"',
    "a long fraction": lambda: "1." + "0" * FULL,
    "secrets": lambda: '{"password":' + fill("[]", FULL - 20) + "}",
}


@asynccontextmanager
async def calm(directory: Path) -> AsyncIterator[House]:
    """A daemon that has nothing else to do: its handlers take no part."""
    async with open_house(directory, echo_handlers()) as house:
        await house.daemon.pause_controller.pause("*", "the loop is measured", "test")
        await house.send()
        async with house.http.get("/events") as response:
            assert response.status == 200
        rendering.compile_templates(rendering.build_environment())
        yield house


def event(payload: str, **fields: Any) -> bytes:
    head = json.dumps({"workflow_id": "w", "event_type": "t", **fields})[:-1]
    return f'{head},"payload":{payload}}}'.encode()


async def post(house: House, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    async with house.http.post(path, data=body, headers=headers) as response:
        return response.status, await response.read()


async def come_in(house: House, payload: str, key: str) -> None:
    """Send a payload, again in another form, in an array, and look at its page."""
    status, content = await post(house, "/api/events", event(payload, idempotency_key=key), JSON)
    assert status in (201, 400, 422)
    if status == 201:
        status, content = await post(house, "/api/events", event(f" {payload}", idempotency_key=key), JSON)
        assert status == 200
        event_id = content.partition(b'"id":"')[2][:36].decode()
        async with house.http.get(f"/events/{event_id}?layout=indented") as response:
            assert response.status == 200
    await post(house, "/api/events/bulk", b"[" + event(payload) + b"," + event("1") + b"]", JSON)


async def test_payloads_of_a_mebibyte(tmp_path: Path) -> None:
    """A large payload of any kind comes in, is compared with itself in another form, and is shown, in short turns."""
    async with calm(tmp_path) as house:
        for name, make in PAYLOADS.items():
            payload = make()
            async with turns_measured() as turns:
                await come_in(house, payload, name)
            assert turns.longest_seconds < TURN_SECONDS_MAX, (name, turns.longest_seconds, turns.stack[-3000:])


def many(unit: bytes, count: int, separator: bytes) -> bytes:
    return separator.join([unit] * count)


REQUESTS: dict[str, tuple[str, Callable[[], bytes], dict[str, str]]] = {
    "tiny lines": ("/api/events/bulk", lambda: many(b"{}", 3_000, b"\n"), NDJSON),
    "events as lines": ("/api/events/bulk", lambda: many(event("1"), 1_200, b"\n"), NDJSON),
    "lines of blanks": ("/api/events/bulk", lambda: b" \r\n" * MEBIBYTE, NDJSON),
    "lines of 16 KiB that look suspicious": (
        "/api/events/bulk", lambda: many(event(fill("[1e300]", 16_000)), 50, b"\n"), NDJSON,
    ),
    "50 events of 16 KiB": (
        "/api/events/bulk", lambda: b"[" + many(event(fill("1e300", 15_000)), 50, b",") + b"]", JSON,
    ),
    "300 nearly equal ones": (
        "/api/events/bulk",
        lambda: b"[" + b",".join(event(" " * n + fill("1.0", 5_000), idempotency_key="k") for n in range(300)) + b"]",
        JSON,
    ),
    "3 nearly equal ones of a mebibyte": (
        "/api/events/bulk",
        lambda: b"[" + b",".join(event(" " * n + fill("1", FULL - 99), idempotency_key="l") for n in range(3)) + b"]",
        JSON,
    ),
    "8 of 199-digit numbers": (
        "/api/events/bulk", lambda: b"[" + many(event(fill("9" * 199)), 8, b",") + b"]", JSON,
    ),
    "a million items": ("/api/events/bulk", lambda: b"[" + many(b"1", 2_000_000, b",") + b"]", JSON),
    "an array that is broken at its end": ("/api/events/bulk", lambda: b"[" + many(b"{}", 300_000, b",") + b"}", JSON),
    "a record": ("/forgelog/append", lambda: fill("1e300").encode(), JSON),
    "a reason": ("/api/replays", lambda: b'{"filter":{},"reason":' + fill("1e300").encode() + b"}", JSON),
    "ids of a replay": ("/api/replays", lambda: json.dumps({"ids": ["x" * 50] * 10_000}).encode(), JSON),
    "a form of escapes": ("/send", lambda: b"workflow_id=w&event_type=t&payload=" + b"%5B" * (MEBIBYTE // 2), FORM),
    "a form of fields": ("/actions/replay", lambda: b"id=a&" * 9_000, FORM),
}  # fmt: skip


@pytest.mark.slow
async def test_requests_of_many_parts(tmp_path: Path) -> None:
    """A request of many small parts, or of some large ones, lets the loop turn in between."""
    async with calm(tmp_path) as house:
        for name, (path, make, headers) in REQUESTS.items():
            body = chunks(make())
            async with turns_measured() as turns, house.http.post(path, data=body, headers=headers) as response:
                assert response.status < 500, name
                async for _ in response.content.iter_any():
                    pass
            assert turns.longest_seconds < TURN_SECONDS_MAX, (name, turns.longest_seconds, turns.stack[-3000:])


class Body:
    """What is read of a request whose body comes in one piece."""

    def __init__(self, piece: bytes) -> None:
        self.piece = piece
        self.content = self

    def __getitem__(self, _: object) -> Share:
        return Share(BodyBudget())

    async def iter_any(self) -> AsyncIterator[bytes]:
        yield self.piece


@pytest.mark.parametrize("unit", [b"\n", b" \r\n"])
async def test_lines_are_cut_beside_the_loop(unit: bytes) -> None:
    """However many lines a piece of a body has, the loop turns while they are cut off; empty ones are left out."""
    request: Any = Body(unit * MEBIBYTE + b"{}\n")
    async with turns_measured() as turns:
        assert [lines async for lines in read_lines(request, MEBIBYTE)] == [[b"{}"]]
    turns.assert_shorter_than(TURN_SECONDS_MAX)


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    """Hand out a body in pieces, so that the client of the test does not hold the loop either."""
    for start in range(0, len(body), 65_536):
        yield body[start : start + 65_536]


READS = [
    "/forgelog/read?limit=1000",
    "/api/events?limit=200",
    "/api/events/export",
    "/api/events?q=" + "%25_" * 80,
    "/api/insights/errors",
    "/api/workflows",
    "/api/workflows/w/timeline",
    "/api/convergence",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/guide",
    "/guide?q=events",
    "/guide/workflows",
    "/guide/grafana.json",
    "/",
    "/search?q=" + "%27" * 80,
    "/dead-letters",
    "/workflows/w",
    "/runtime",
]


async def test_what_is_asked_for(tmp_path: Path) -> None:
    """Lists, pages, the export and the log are read in short turns, however large the events are."""
    async with calm(tmp_path) as house:
        for number in range(2):
            assert (await post(house, "/api/events", event(fill("[1]"), idempotency_key=str(number)), JSON))[0] == 201
            await post(house, "/forgelog/append", fill('"' + "x" * 90 + '"').encode(), JSON)
        await house.daemon.dispatcher.wait_projected(house.daemon.log.durable_offset)
        for path in READS:
            async with turns_measured() as turns, house.http.get(path) as response:
                assert response.status == 200, path
                async for _ in response.content.iter_any():
                    pass
            assert turns.longest_seconds < TURN_SECONDS_MAX, (path, turns.longest_seconds, turns.stack[-3000:])
