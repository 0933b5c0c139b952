"""No request holds the event loop: whatever it brings or asks for, the turns of the loop stay short.

Turns are measured in processor time of the loop's own thread, so that no load of the machine makes them longer.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from replayforge.web import rendering
from tests.integration.conftest import echo_handlers
from tests.integration.test_door import JSON, NDJSON
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
    "4,300 digits": lambda: fill("7" * 4300),
    "small numbers": lambda: fill("1"),
    "exponents": lambda: fill("1e300"),
    "strings of escapes": lambda: fill(r'"\u0041"'),
    "half a pair at the end": lambda: fill(r'"\ud83d\ude00"', FULL - 20)[:-1] + r',"\ud83d"]',
    "many keys": lambda: "{" + ",".join(f'"k{number}":1' for number in range(70_000)) + "}",
    "objects": lambda: fill('{"a":1}'),
    "as deep as it may be": lambda: fill("[" * 60 + "1" + "]" * 60),
    "deep, with escapes": lambda: fill("[" * 60 + r'"\u0041"' + "]" * 60),
    "too deep at the end": lambda: fill("[]", FULL - 400)[:-1] + "," + "[" * 80 + "]" * 80 + "]",
    "brackets in a string": lambda: '"' + "[" * FULL + '"',
    "a long fraction": lambda: "1." + "0" * FULL,
    "a long exponent": lambda: "1e-" + "9" * FULL,
    "an end that is missing": lambda: fill("1")[:-1],
    "rubbish at the end": lambda: fill("[1]")[:-1] + "x]",
    "secrets": lambda: '{"password":' + fill("[]", FULL - 20) + "}",
    "many secrets": lambda: fill('{"password":"x"}'),
    "underscores as a name": lambda: '{"' + "_" * (FULL - 8) + '":1}',
    "names of fields": lambda: fill('{"payload":1}'),
}


@asynccontextmanager
async def calm(directory: Path) -> AsyncIterator[House]:
    """A daemon that has nothing else to do: its handlers take no part."""
    async with open_house(directory, echo_handlers()) as house:
        await house.daemon.doorkeeper.pause("*", "the loop is measured", "test")
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


@pytest.mark.parametrize("part", range(3))
async def test_payloads_of_a_mebibyte(tmp_path: Path, part: int) -> None:
    """A large payload of any kind comes in, is compared with itself in another form, and is shown, in short turns."""
    async with calm(tmp_path) as house:
        for name in list(PAYLOADS)[part::3]:
            payload = PAYLOADS[name]()
            async with turns_measured() as turns:
                await come_in(house, payload, name)
            assert turns.longest_seconds < TURN_SECONDS_MAX, (name, turns.longest_seconds, turns.stack[-3000:])


def many(unit: bytes, count: int, separator: bytes) -> bytes:
    return separator.join([unit] * count)


REQUESTS: dict[str, tuple[str, Callable[[], bytes], dict[str, str]]] = {
    "20,000 tiny lines": ("/api/events/bulk", lambda: many(b"{}", 20_000, b"\n"), NDJSON),
    "3,000 events as lines": ("/api/events/bulk", lambda: many(event("1"), 3_000, b"\n"), NDJSON),
    "empty lines": ("/api/events/bulk", lambda: b"\n" * 4 * MEBIBYTE, NDJSON),
    "lines of 16 KiB that look suspicious": (
        "/api/events/bulk", lambda: many(event(fill("[1e300]", 16_000)), 100, b"\n"), NDJSON,
    ),
    "150 events of 16 KiB": (
        "/api/events/bulk", lambda: b"[" + many(event(fill("1e300", 15_000)), 150, b",") + b"]", JSON,
    ),
    "a thousand nearly equal ones": (
        "/api/events/bulk",
        lambda: b"[" + b",".join(event(" " * n + fill("1.0", 5_000), idempotency_key="k") for n in range(1000)) + b"]",
        JSON,
    ),
    "3 nearly equal ones of a mebibyte": (
        "/api/events/bulk",
        lambda: b"[" + b",".join(event(" " * n + fill("1", FULL - 99), idempotency_key="l") for n in range(3)) + b"]",
        JSON,
    ),
    "16 of 199-digit numbers": (
        "/api/events/bulk", lambda: b"[" + many(event(fill("9" * 199)), 16, b",") + b"]", JSON,
    ),
    "a million items": ("/api/events/bulk", lambda: b"[" + many(b"1", 4_000_000, b",") + b"]", JSON),
    "an array that is broken at its end": ("/api/events/bulk", lambda: b"[" + many(b"{}", 300_000, b",") + b"}", JSON),
    "a record": ("/forgelog/append", lambda: fill("1e300").encode(), JSON),
    "a reason": ("/api/replays", lambda: b'{"filter":{},"reason":' + fill("1e300").encode() + b"}", JSON),
    "ids of a replay": ("/api/replays", lambda: json.dumps({"ids": ["x" * 50] * 10_000}).encode(), JSON),
    "a form of escapes": ("/send", lambda: b"workflow_id=w&event_type=t&payload=" + b"%5B" * MEBIBYTE, FORM),
    "a form of fields": ("/actions/replay", lambda: b"id=a&" * 9_000, FORM),
}  # fmt: skip


@pytest.mark.parametrize(("path", "make", "headers"), REQUESTS.values(), ids=REQUESTS.keys())
async def test_requests_of_many_parts(
    tmp_path: Path, path: str, make: Callable[[], bytes], headers: dict[str, str]
) -> None:
    """A request of many small parts, or of some large ones, lets the loop turn in between."""
    body = make()
    async with calm(tmp_path) as house:
        body_of = chunks(body)
        async with turns_measured() as turns, house.http.post(path, data=body_of, headers=headers) as response:
            assert response.status < 500
            async for _ in response.content.iter_any():
                pass
    turns.assert_shorter_than(TURN_SECONDS_MAX)


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    """Hand out a body in pieces, so that the client of the test does not hold the loop either."""
    for start in range(0, len(body), 65_536):
        yield body[start : start + 65_536]


READS = [
    "/forgelog/read?limit=1000",
    "/api/events?limit=200",
    "/api/events/recent?limit=200",
    "/api/events/export",
    "/api/events?q=" + "%25_" * 80,
    "/api/events?event_type=" + "a*" * 100,
    "/api/deadletters?group_by=error",
    "/api/insights/errors",
    "/api/workflows",
    "/api/workflows/w/timeline",
    "/api/convergence",
    "/api/metrics",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/",
    "/events?q=w",
    "/search?q=" + "%27" * 80,
    "/lookup?q=" + "%25" * 80,
    "/dead-letters",
    "/workflows/w",
    "/handlers",
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
