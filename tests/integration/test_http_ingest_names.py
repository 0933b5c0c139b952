"""What ingest refuses by its name: bytes that are not UTF-8 text, bodies of other kinds, whatever is said twice."""

import json
from typing import Any

import pytest

from replayforge.domain.clock import format_time, parse_time
from tests.integration.conftest import shares_a_house
from tests.integration.test_guard import post, raw, status_of
from tests.integration.test_http_ingest import NDJSON, envelope
from tests.support.house import House

FULL_TIMES = {
    "2026-11-22t10:00:00z": "2026-11-22T10:00:00.000000Z",
    "2016-12-31T23:59:60Z": "2017-01-01T00:00:00.000000Z",
    "2016-12-31T18:59:60.25-05:00": "2017-01-01T00:00:00.250000Z",
    "2026-11-22T10:00:00.123456789123Z": "2026-11-22T10:00:00.123456Z",
    "2026-11-22T10:00:00-00:00": "2026-11-22T10:00:00.000000Z",
    "2026-11-22 10:00:00+02:00": "2026-11-22T08:00:00.000000Z",
}


@pytest.mark.parametrize(("text", "meant"), FULL_TIMES.items())
def test_times_of_rfc_3339(text: str, meant: str) -> None:
    """Lower case, leap seconds, any number of digits and a space in the middle are times of RFC 3339."""
    assert format_time(parse_time(text)) == meant


BROKEN = {"NULs": b'{\x00"\x00x', "UTF-32": b'{\x00\x00\x00"\x00\x00\x00', "no UTF-8": b'{"a":"\xff"}', "NUL": b"\x00"}


@shares_a_house
@pytest.mark.parametrize("line", BROKEN.values(), ids=BROKEN.keys())
async def test_bytes_that_are_no_text_leave_their_neighbours_alone(shared_house: House, line: bytes) -> None:
    """A line that no JSON parser understands is refused for itself; the lines around it are accepted."""
    body = envelope() + b"\n" + line + b"\n" + envelope()
    async with shared_house.http.post("/api/events/bulk", data=body, headers=NDJSON) as response:
        answers = [json.loads(answer) async for answer in response.content]
    assert [answer.get("problem", {}).get("status", 201) for answer in answers] == [201, 400, 201]
    assert shared_house.probe.counts["request.failed"] == 0


@shares_a_house
async def test_a_byte_order_mark_is_named(shared_house: House) -> None:
    """A body that begins with a byte order mark hears so, in an array, in lines, and alone."""
    mark = b"\xef\xbb\xbf"
    for path, kind, body in (
        ("/api/events", "application/json", envelope()),
        ("/api/events/bulk", "application/json", b"[" + envelope() + b"]"),
        ("/api/events/bulk", "application/x-ndjson", envelope() + b"\n" + envelope()),
        ("/forgelog/append", "application/json", b"{}"),
        ("/api/replays", "application/json", b"{}"),
    ):
        async with shared_house.http.post(path, data=mark + body, headers={"Content-Type": kind}) as response:
            assert b"BOM" in await response.read()
            assert response.status == (200 if "ndjson" in kind else 400)
    assert await shared_house.logged() == 1


KINDS = {
    "application/json": 201,
    "application/json; charset=UTF-8": 201,
    'application/json;charset="utf-8"': 201,
    "application/vnd.shop.v2+json": 201,
    "application/vnd.shop+json; charset=utf-8": 201,
    "application/cloudevents+json; charset=utf-8": 422,
    "application/json; charset=utf-16": 415,
    "application/json; charset=latin-1": 415,
    "application/vnd.shop+xml": 415,
    "application/+json": 415,
    "text/json": 415,
    "text/plain": 415,
    "application/x-ndjson": 415,
    "": 415,
}


@shares_a_house
@pytest.mark.parametrize(("kind", "status"), KINDS.items())
async def test_media_types(shared_house: House, kind: str, status: int) -> None:
    """JSON is what says so, by its own type or by its suffix, in UTF-8."""
    async with shared_house.http.post("/api/events", data=envelope(), headers={"Content-Type": kind}) as response:
        assert response.status == status


DOUBLED = {
    "two keys": (b"Idempotency-Key: a\r\nIdempotency-Key: b\r\n", b"Idempotency-Key"),
    "a quoted and a bare one": (b'Idempotency-Key: "a"\r\nidempotency-key: b\r\n', b"Idempotency-Key"),
    "two API keys": (b"X-API-Key: a\r\nX-API-Key: b\r\n", b"X-API-Key"),
    "two authorizations": (b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n", b"Authorization"),
    "two encodings": (b"Content-Encoding: identity\r\nContent-Encoding: gzip\r\n", b"Content-Encoding"),
    "two origins": (b"Origin: null\r\nOrigin: http://127.0.0.1\r\n", b"Origin"),
    "two types": (b"Content-Type: text/plain\r\n", b""),
    "two lengths": (b"Content-Length: 1\r\n", b""),
}


@shares_a_house
@pytest.mark.parametrize(("headers", "name"), DOUBLED.values(), ids=DOUBLED.keys())
async def test_headers_that_contradict_each_other(shared_house: House, headers: bytes, name: bytes) -> None:
    """A header that decides something and is given twice, differently, is refused by its name."""
    answer = await raw(shared_house, post(headers))
    assert status_of(answer) == 400
    assert name in answer
    assert await shared_house.logged() == 0


@shares_a_house
async def test_a_header_that_says_the_same_twice(shared_house: House) -> None:
    """The same key twice is one key."""
    assert status_of(await raw(shared_house, post(b"Idempotency-Key: a\r\nIdempotency-Key: a\r\n"))) == 201


DOUBLED_PARAMETERS = {
    "/api/events?limit=1&limit=2": "limit",
    "/api/events?status=queued&status=queued": "status",
    "/api/events?event_type=a&type=b": "event_type",
    "/forgelog/read?offset=1&offset=2": "offset",
    "/health/ready?full=1&full=2": "full",
    "/events?status=queued&status=retrying": "status",
}
UNKNOWN_PARAMETERS = {
    "/api/events?stauts=queued": "'stauts' here; the nearest is 'status'",
    "/api/events?wrokflow=order-17": "'wrokflow' here; the nearest is 'workflow'",
    "/api/events?=1": "'' here; known",
    "/api/events/recent?status=queued": "'status' here; known: limit",
    "/api/events/x?limit=1": "'limit' here; known: wait",
    "/api/workflows?q=1": "'q' here; known: application_name, cursor, limit",
    "/api/deadletters?groupby=error": "'groupby' here; the nearest is 'group_by'",
    "/api/convergence?verbose": "'verbose' here; known: none",
    "/forgelog/read?from=3": "'from' here; known",
    "/metrics?name=x": "'name' here; known: none",
    "/openapi.json?v=1": "'v' here; known: none",
}


@shares_a_house
@pytest.mark.parametrize(
    ("status", "path", "words"),
    [*((400, *one) for one in DOUBLED_PARAMETERS.items()), *((422, *one) for one in UNKNOWN_PARAMETERS.items())],
)
async def test_parameters_nobody_knows_or_given_twice(shared_house: House, status: int, path: str, words: str) -> None:
    """A parameter that is given twice is 400; one that is unknown to the API is 422, and the nearest is named."""
    async with shared_house.http.get(path) as response:
        problem: dict[str, Any] = json.loads(await response.read())
    assert (problem["status"], words in problem["detail"]) == (status, True), problem


@shares_a_house
@pytest.mark.parametrize("path", ["/?utm_source=mail", "/events?fbclid=x", "/login?x=1", "/health?t=1"])
async def test_pages_pass_over_what_they_do_not_know(shared_house: House, path: str) -> None:
    """A link to a page may carry what a mail program hangs on it, a health check what keeps a proxy from storing it."""
    async with shared_house.http.get(path) as response:
        assert response.status == 200


@shares_a_house
@pytest.mark.parametrize("path", ["/api/events?dry_run=1", "/api/events/bulk?x=1", "/api/replays?force=true"])
async def test_parameters_where_none_are_known(shared_house: House, path: str) -> None:
    """What changes something takes no parameter it does not know."""
    status, problem = await shared_house.post(path, {})
    assert (status, problem["type"]) == (422, "urn:replayforge:unknown-parameter")
