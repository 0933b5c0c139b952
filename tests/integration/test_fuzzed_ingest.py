"""Thousands of odd requests to every path: each gets what it asks for or a problem, and the next one works."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from yarl import URL

from replayforge.web.api.described_operations import PARAMETERS
from replayforge.web.app import routes
from replayforge.web.http.problems import CONTENT_TYPE
from replayforge.web.pages.rendering import build_environment, compile_templates
from replayforge.web.status_page import routes as page_routes
from tests.integration.test_http_ingest import envelope
from tests.integration.test_short_turns import TURN_SECONDS_MAX
from tests.support.house import House
from tests.support.turns import turns_measured

SEEDS = range(2)
REQUESTS = 480
AT_ONCE = 8
# These wait for what is to come, and are not what this is about.
ENDLESS = frozenset({"/api/stream", "/static/{digest}/{path}"})

VALUES = [
    "", "0", "1", "-1", "200", "201", "1e3", "nan", "inf", "9" * 40, "٣", "x", "*", "a*b*", "%", "_", "'", '"',
    "\\", "\0",
    "null", "true", "queued", "succeeded", "lost", "error", "type", "failed", "2026-11-22T10:00:00Z",
    "2026-W47-7", "24:00",
    "2016-12-31T23:59:60z", "0001-01-01T00:00:00+23:59", "é", "\U0001f600", "\u2028", "\x85", "a" * 300,
    "../..", "//evil", "<b>",
    "' OR 1=1 --", "shown", "indented", "1h", "id", "\ud800", "a\r\nb",
]  # fmt: skip
KINDS = [
    "application/json", "application/json", "application/json", "application/x-ndjson",
    "application/x-www-form-urlencoded",
    "application/x-www-form-urlencoded", "application/x+json", "application/json; charset=utf-7", "text/plain", "",
    "multipart/form-data; boundary=x", "application/json;;;", "\u00e4", "a/b/c",
]  # fmt: skip
HEADERS: list[dict[str, str]] = [
    {}, {}, {}, {"Idempotency-Key": "k"}, {"Idempotency-Key": '"'}, {"Idempotency-Key": '"a"b"'},
    {"Idempotency-Key": ""},
    {"Content-Encoding": "gzip"}, {"Accept": "text/html"}, {"X-Live-Regions": "a,b,,"}, {"X-Live-Regions": "rows"},
    {"Last-Event-ID": "x"}, {"X-Request-ID": "a b"}, {"Origin": "null"},
    {"Cookie": "replayforge_session=x; replayforge_flash=%7B"},
    {"Cookie": "replayforge_theme=x;;=;"}, {"If-None-Match": "*"}, {"Range": "bytes=0-1"},
    {"Authorization": "Bearer"},
]  # fmt: skip
BODIES = [
    envelope(), envelope("[1e300]"), b"[" + envelope() + b"," + envelope() + b"]", envelope() + b"\n" + envelope(),
    b"{}", b"[]", b"", b"null", b'{"reason":"r"}', b'{"payload":{"a":1},"reason":"r"}',
    b'{"ids":["x"],"dry_run":true}',
    b'{"filter":{"q":"%","since":"x"},"dry_run":true}', b'{"filter":{},"max":1,"canary":1,"dry_run":true}',
    b'{"consumer":"c","offset":0}', b'{"consumer":"../x","offset":-1}', b'{"only":"all"}', b'{"status":"queued"}',
    b"workflow_id=w&event_type=t&payload=%7B%7D", b"id=x&id=y&reason=r&back=//evil",
    b"verb=replay&pattern=*&reason=",
    b"pattern=waits&reason=x", b"key=k&next=/", b"theme=dark&back=/", b"what=dead&rate=x&canary=-1&max=1e9",
]  # fmt: skip
PIECES = [
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b'"', b"\\", b"\\ud800", b"[" * 70, b"{", b"}", b"]", b",",
    b":", b"1e999",
    b"NaN", b"9" * 4400, b"-", b"\n", b"\r\n", b"%00", b"%", b"&", b"=", b"+", b"\xc3", b"null", b'"a":1,',
    b"\x1b[31m",
]  # fmt: skip


def all_paths() -> list[tuple[str, str]]:
    """Return method and path of everything that is served."""
    known = [(route.definition.method, route.definition.path) for route in (*routes(), *page_routes())]
    return [(method, path) for method, path in known if not ENDLESS & {path.replace(":.+", "")}]


def mutated(rng: random.Random, body: bytes) -> bytes:
    """Return a body with some of its bytes taken out, doubled, or others put in."""
    for _ in range(rng.choice([0, 0, 1, 1, 2, 5])):
        place = rng.randrange(len(body) + 1)
        end = rng.randrange(place, len(body) + 1)
        body = body[:place] + rng.choice([b"", body[place:end] * 2, *rng.sample(PIECES, 6)]) + body[end:]
    return body


def address(rng: random.Random, path: str, ids: list[str]) -> URL:
    """Return a path with its names filled in, and some parameters behind it."""
    parts = []
    for part in path.split("/"):
        filling = quote(rng.choice([*ids, *VALUES]).encode(errors="surrogatepass"), safe="")
        parts.append((filling or "x") if part.startswith("{") else part)
    names = [*PARAMETERS, "type", "from", "group", "pattern", "range", "next", "id", "download", "layout", "x"]
    chosen = rng.choices(names, k=rng.choice([0, 0, 1, 1, 2, 3]))
    values = (quote(rng.choice([*ids, *VALUES]).encode(errors="surrogatepass"), safe="") for _ in chosen)
    pairs = [(name, value) for name, value in zip(chosen, values, strict=True) if name != "wait_seconds"]
    query = "&".join(f"{name}={value}" for name, value in pairs)
    return URL("/".join(parts) + (f"?{query}" if query else ""), encoded=True)


def requests(rng: random.Random, ids: list[str]) -> Iterator[tuple[str, URL, dict[str, Any]]]:
    """Yield odd requests without end."""
    paths = all_paths()
    while True:
        method, path = rng.choice(paths)
        options: dict[str, Any] = {"headers": dict(rng.choice(HEADERS)), "allow_redirects": False}
        if method == "POST" or rng.random() < 0.05:
            options["data"] = mutated(rng, rng.choice(BODIES))
            options["headers"]["Content-Type"] = rng.choice(KINDS)
        if rng.random() < 0.03:
            method = rng.choice(["PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
        yield method, address(rng, path, ids), options


async def check(house: House, method: str, url: URL, options: dict[str, Any], statuses: Counter[int]) -> None:
    """Send one request, and look at the form of its answer."""
    async with house.http.request(method, url, **options) as response:
        content = await response.read()
    statuses[response.status] += 1
    said = (method, str(url), options, response.status, content[:500])
    assert response.status not in (500, 501, 502, 504), said
    assert response.headers["X-Request-ID"], said
    if response.status >= 400 and method != "HEAD" and "text/html" not in response.content_type:
        assert response.content_type == CONTENT_TYPE or url.path.startswith(("/health", "/forgelog/health")), said
        problem = json.loads(content)
        assert problem["status"] == response.status, said
        assert problem["detail"], said


@pytest.mark.parametrize("seed", SEEDS)
async def test_odd_requests(house: House, seed: int) -> None:
    """Whatever is asked, the answer is no 500, it has its form,
    and the daemon accepts the next event and ends it."""
    rng = random.Random(seed)
    ids = [await house.send(kind) for kind in ("test", "fails", "fails.later", "waits")]
    odd, statuses = requests(rng, ids), Counter[int]()
    compile_templates(build_environment())
    async with turns_measured() as turns:
        for _ in range(REQUESTS // AT_ONCE):
            await asyncio.gather(*(check(house, *next(odd), statuses) for _ in range(AT_ONCE)))
    turns.assert_shorter_than(TURN_SECONDS_MAX)
    assert house.probe.counts["request.failed"] == 0
    assert statuses[200] > 30, statuses
    assert statuses[400], statuses
    assert statuses[422] > 30, statuses
    await house.reaches(await house.send("after"), "succeeded")
