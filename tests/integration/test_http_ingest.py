"""What comes in at ingest, what is refused there, and that a refusal leaves nothing behind."""

import asyncio
import gzip
import io
import json
import zlib
from dataclasses import dataclass
from typing import Any

import pytest

from replayforge.domain.document import DEPTH_MAX
from tests.integration.conftest import shares_a_house
from tests.support.house import House

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}


def envelope(payload: str = "{}", **fields: str) -> bytes:
    """Return the body of an event whose payload, and further fields, are the given JSON texts."""
    members = {"workflow_id": '"w"', "event_type": '"t"', **fields, "payload": payload}
    return ("{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}").encode()


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def raw_payload(body: bytes) -> bytes:
    """Return the payload's own bytes of an answer, in which metadata follows."""
    return body.partition(b'"payload":')[2].partition(b',"metadata":')[0]


async def post_raw(house: House, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    async with house.http.post("/api/events", data=io.BytesIO(body), headers={**JSON, **(headers or {})}) as response:
        return response.status, await response.read()


REFUSED: dict[str, tuple[bytes, int]] = {
    "NaN": (envelope("NaN"), 400),
    "NaN inside": (envelope('{"a":[NaN]}'), 400),
    "Infinity": (envelope("-Infinity"), 400),
    "comment": (envelope("{/* no */}"), 400),
    "trailing comma": (envelope('{"a":1,}'), 400),
    "byte order mark": (b"\xef\xbb\xbf" + envelope(), 400),
    "byte order mark of UTF-16": (envelope().decode().encode("utf-16"), 400),
    "UTF-16 without a mark": (envelope().decode().encode("utf-16-be"), 400),
    "UTF-32 without a mark": (envelope().decode().encode("utf-32-le"), 400),
    "NULs that look like UTF-16": (b'{\x00"\x00x', 400),
    "NULs that look like UTF-32": (b'{\x00\x00\x00"\x00\x00\x00', 400),
    "a NUL in front": (b"\x00" + envelope(), 400),
    "NULs behind": (envelope() + b"\x00\x00\x00", 400),
    "trailing garbage": (envelope() + b"x", 400),
    "second document": (envelope() + envelope(), 400),
    "invalid UTF-8": (envelope('"\xff"').replace("\xff".encode(), b"\xff"), 400),
    "overlong UTF-8": (envelope('"?"').replace(b"?", b"\xc0\xaf"), 400),
    "surrogate in UTF-8": (envelope('"?"').replace(b"?", b"\xed\xa0\x80"), 400),
    "control character in a string": (envelope('"a\nb"'), 400),
    "single quotes": (envelope("{'a':1}"), 400),
    "leading zero": (envelope("01"), 400),
    "plus sign": (envelope("+1"), 400),
    "bare point": (envelope("1."), 400),
    "hexadecimal": (envelope("0x10"), 400),
    "empty body": (b"", 400),
    "white space only": (b" \n ", 400),
    "cut off": (envelope()[:-1], 400),
    "1e999": (envelope("1e999"), 422),
    "-1e999 inside": (envelope('{"a":[1,-1e999]}'), 422),
    "1E+0309": (envelope("1E+0309"), 422),
    "299 digits and e99": (envelope("9" * 299 + "e99"), 422),
    "210 digits and e99": (envelope("9" * 210 + "e99"), 422),
    "400 digits and a point": (envelope("9" * 400 + ".5"), 422),
    "high surrogate": (envelope(r'"\ud800"'), 422),
    "low surrogate": (envelope(r'"\udfff"'), 422),
    "surrogates the wrong way round": (envelope(r'"\udc00\ud800"'), 422),
    "surrogate in a key": (envelope(r'{"\uD800":1}'), 422),
    "surrogate in the workflow": (envelope(workflow_id=r'"\ud800"'), 422),
    "twice the same field": (envelope(event_type='"t","event_type":"u"'), 422),
    "twice the same field, once escaped": (envelope(event_type='"t","event\\u005ftype":"u"'), 422),
    "4,301 digits": (envelope("1" * 4301), 422),
    "-4,301 digits": (envelope("-" + "1" * 4301), 422),
    "too deep": (envelope(nested(DEPTH_MAX + 1)), 422),
    "too deep in objects": (envelope('{"a":' * (DEPTH_MAX + 1) + "1" + "}" * (DEPTH_MAX + 1)), 422),
    "too deep and never closed": (b"[" * 100_000, 422),
    "a scalar as the event": (b"5", 422),
    "a string as the event": (b'"event"', 422),
    "null as the event": (b"null", 422),
    "an array as the event": (b"[]", 422),
    "no workflow": (b'{"event_type":"t"}', 422),
    "no type": (b'{"workflow_id":"w"}', 422),
    "empty workflow": (envelope(workflow_id='""'), 422),
    "null workflow": (envelope(workflow_id="null"), 422),
    "number as workflow": (envelope(workflow_id="1"), 422),
    "line feed in the workflow": (envelope(workflow_id='"a\\nb"'), 422),
    "line feed at the end of the workflow": (envelope(workflow_id='"a\\n"'), 422),
    "line feed at the end of the service": (envelope(service_name='"a\\n"'), 422),
    "NUL in the type": (envelope(event_type='"\\u0000"'), 422),
    "escape in the key": (envelope(idempotency_key='"\\u001b[31m"'), 422),
    "256 characters of key": (envelope(idempotency_key=f'"{"k" * 256}"'), 422),
    "empty key": (envelope(idempotency_key='""'), 422),
    "metadata that are no object": (envelope(metadata="[1]"), 422),
    "unknown field": (envelope(workflow='"w"'), 422),
    "zero attempts": (envelope(max_attempts="0"), 422),
    "attempts as text": (envelope(max_attempts='"3"'), 422),
    "half an attempt": (envelope(max_attempts="1.5"), 422),
    "no time": (envelope(run_at='"tomorrow"'), 422),
    "a week date": (envelope(run_at='"2026-W47-7T10:00:00Z"'), 422),
    "an ordinal date": (envelope(run_at='"2026-326T10:00:00Z"'), 422),
    "the basic form": (envelope(run_at='"20261122T100000Z"'), 422),
    "a time without an offset": (envelope(run_at='"2026-11-22T10:00:00"'), 422),
    "a date alone": (envelope(run_at='"2026-11-22"'), 422),
    "24 o'clock": (envelope(run_at='"2026-11-22T24:00:00Z"'), 422),
    "second 61": (envelope(run_at='"2026-11-22T10:00:61Z"'), 422),
    "an offset of seconds": (envelope(run_at='"2026-11-22T10:00:00+01:00:30"'), 422),
    "digits of another script": (envelope(run_at='"\u0662026-11-22T10:00:00Z"'), 422),
    "a leap second after the year 9999": (envelope(run_at='"9999-12-31T23:59:60Z"'), 422),
    "a time after the year 9999": (envelope(run_at='"9999-12-31T23:59:59-23:00"'), 422),
    "a time before the year 1": (envelope(run_at='"0001-01-01T00:00:00+23:00"'), 422),
}


@shares_a_house
@pytest.mark.parametrize(("body", "status"), REFUSED.values(), ids=REFUSED.keys())
async def test_refused_at_ingest(shared_house: House, body: bytes, status: int) -> None:
    """What the table forbids is refused with a problem, and nothing is logged; ingest stays open."""
    answered, content = await post_raw(shared_house, body)
    problem = json.loads(content)
    assert (answered, problem["status"]) == (status, status)
    assert problem["detail"]
    assert await shared_house.logged() == 0
    assert (await post_raw(shared_house, envelope()))[0] == 201
    assert await shared_house.logged() == 1
    assert shared_house.probe.counts["request.failed"] == 0


ACCEPTED: dict[str, str] = {
    "duplicate keys": '{"a":1,"a":2}',
    "NUL": r'"\u0000"',
    "20 digits": "12345678901234567890",
    "23 digits": "-12345678901234567890123",
    "4,000 digits": "7" * 4000,
    "4,300 digits": "7" * 4300,
    "4,300 digits and a sign": "-" + "7" * 4300,
    "the largest depth": nested(DEPTH_MAX),
    "brackets in a string": '"' + "[" * 1000 + '"',
    "white space": ' { "a" :\t[ 1 ,\r\n2 ] } ',
    "escapes": r'"\u00e9\ud83d\ude00\/\"\\"',
    "raw Unicode": '"é😀\u2028"',
    "number forms": "[1E5,1e-5,-0,-0.0,0.1e+1,1.0]",
    "a large float": "1.7976931348623157e308",
    "null": "null",
    "true": "true",
    "a string": '"text"',
    "an empty array": "[]",
    "the names of the envelope": '{"payload":{"workflow_id":"x"},"event_type":1,"event_type":2}',
}


@shares_a_house
@pytest.mark.parametrize("payload", ACCEPTED.values(), ids=ACCEPTED.keys())
async def test_payload_comes_back_byte_for_byte(shared_house: House, payload: str) -> None:
    """Every valid payload within the limits comes back in its own bytes: at once, from the store, and in lists."""
    status, content = await post_raw(shared_house, envelope(payload))
    assert status == 201, content
    expected = payload.strip(" ").encode()
    assert raw_payload(content) == expected
    event_id = json.loads(content)["id"]
    await shared_house.reaches(event_id, "succeeded")
    for path in (f"/api/events/{event_id}", "/api/events", "/api/events/recent"):
        async with shared_house.http.get(path) as response:
            assert raw_payload(await response.read()) == expected
    (stored,) = (await shared_house.daemon.store.events_by_ids([event_id])).values()
    assert stored[1].payload == expected


@shares_a_house
@pytest.mark.parametrize(
    "number", [12345678901234567890, -12345678901234567890123, 10**4299 + 7, 2**63, 2**64 - 1, -(2**63) - 1]
)
async def test_integers_reach_the_handler_exactly(shared_house: House, number: int) -> None:
    """A handler is given every digit of an integer."""
    event_id = await shared_house.send("exact", {"number": number})
    event = await shared_house.reaches(event_id, "succeeded", "dead_lettered", "retrying")
    assert event["status"] == "succeeded", event["last_error"]
    assert event["result"] == {"number": number}


@dataclass(frozen=True)
class Pointed:
    body: bytes
    pointer: str


POINTERS = {
    "missing field": Pointed(b'{"event_type":"t"}', "/workflow_id"),
    "wrong type": Pointed(envelope(max_attempts='"3"'), "/max_attempts"),
    "unknown field": Pointed(envelope(color="1"), "/color"),
    "surrogate": Pointed(envelope(r'{"a":[0,"\ud800"]}'), "/payload/a/1"),
    "metadata": Pointed(envelope(metadata="1"), "/metadata"),
    "time": Pointed(envelope(run_at='"x"'), "/run_at"),
    "twice": Pointed(envelope(event_type='"t","event_type":"u"'), "/event_type"),
}


@shares_a_house
@pytest.mark.parametrize("case", POINTERS.values(), ids=POINTERS.keys())
async def test_a_refusal_names_the_place(shared_house: House, case: Pointed) -> None:
    """What is wrong with a field is told with the JSON pointer of the field."""
    _, content = await post_raw(shared_house, case.body)
    assert [error["pointer"] for error in json.loads(content)["errors"]] == [case.pointer]


@shares_a_house
async def test_malformed_json_names_line_and_column(shared_house: House) -> None:
    """Invalid JSON is refused with the line and the column."""
    _, content = await post_raw(shared_house, b'{"workflow_id":"w",\n "event_type": nope}')
    assert "line 2, column 16" in json.loads(content)["detail"]


# Keys


async def test_same_key_same_content_is_the_same_event(house: House) -> None:
    """A key sent again with content of the same meaning answers 200, duplicate, and the same id, whatever the form."""
    first = {"workflow_id": "w", "event_type": "t", "payload": {"a": 1, "b": [1.0]}, "idempotency_key": "k"}
    status, event = await house.post("/api/events", first)
    assert (status, event["duplicate"]) == (201, False)
    await house.reaches(event["id"], "succeeded")
    for body in (b'{"a":1,"b":[1.0]}', b'{ "b": [1.00e0], "a": 1 }'):
        status, content = await post_raw(house, envelope(body.decode(), idempotency_key='"k"'))
        again = json.loads(content)
        assert (status, again["duplicate"], again["id"]) == (200, True, event["id"])
        assert again["status"] == "succeeded"
    assert await house.logged() == 1


OTHER_CONTENT: dict[str, dict[str, Any]] = {
    "payload": {"payload": {"a": 2}},
    "payload type": {"payload": {"a": True}},
    "payload text": {"payload": {"a": "1"}},
    "workflow": {"workflow_id": "other"},
    "type": {"event_type": "other"},
}
# What a sender may change from try to try: the first stands.
SAME_CONTENT: dict[str, dict[str, Any]] = {
    "metadata": {"metadata": {"signature": "t=2,v1=other", "traceparent": "00-2"}},
    "no metadata": {"metadata": {}},
    "another time": {"run_at": "2020-01-01T00:00:00Z"},
    "another limit": {"max_attempts": 7},
    "another service": {"service_name": "other"},
}


@pytest.mark.parametrize("change", SAME_CONTENT.values(), ids=SAME_CONTENT.keys())
@pytest.mark.parametrize("settled", [True, False], ids=["settled", "at once"])
async def test_a_retry_may_differ_beside_its_content(house: House, change: dict[str, Any], settled: bool) -> None:
    """Only workflow, type and payload are compared, alone and in bulk; the first metadata stands."""
    first: dict[str, Any] = {"workflow_id": "w", "event_type": "t", "payload": {"a": 1}, "idempotency_key": "k"}
    first |= {"metadata": {"signature": "t=1,v1=first"}, "service_name": "first", "max_attempts": 3}
    _, event = await house.post("/api/events", first)
    if settled:
        await house.reaches(event["id"], "succeeded")
    status, again = await house.post("/api/events", first | change)
    assert (status, again["duplicate"], again["id"]) == (200, True, event["id"])
    named = ("metadata", "service_name", "max_attempts", "next_run_at")
    assert [again[name] for name in named] == [first["metadata"], "first", 3, None]
    _, answer = await house.post("/api/events/bulk", [first | change, first, first | {"payload": {}}])
    assert [item.get("duplicate") for item in answer["items"]] == [True, True, None]
    assert answer["items"][2]["problem"]["status"] == 422
    assert await house.logged() == 1


async def test_equal_keys_in_one_request(house: House) -> None:
    """Of equal keys in one bulk request the first is accepted; whatever follows is compared with it."""
    first: dict[str, Any] = {"workflow_id": "w", "event_type": "t", "payload": {"a": 1}, "idempotency_key": "k"}
    first["metadata"] = {"n": 0}
    others: list[dict[str, Any]] = [
        {"metadata": {"n": 1}},
        {"payload": {"a": 2}},
        {"application_name": "other"},
        {"run_at": None},
    ]
    _, answer = await house.post("/api/events/bulk", [first, *(first | other for other in others)])
    assert [item.get("duplicate") for item in answer["items"]] == [False, True, None, False, True]
    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (2, 2, 1)
    assert await house.logged() == 2
    event = await house.reaches(answer["items"][0]["id"], "succeeded")
    assert event["metadata"] == {"n": 0}


@pytest.mark.parametrize("change", OTHER_CONTENT.values(), ids=OTHER_CONTENT.keys())
@pytest.mark.parametrize("settled", [True, False], ids=["settled", "at once"])
async def test_same_key_other_content_is_refused(house: House, change: dict[str, Any], settled: bool) -> None:
    """A key with other content is 422, names the first event, and leaves it as it was."""
    first = {"workflow_id": "w", "event_type": "t", "payload": {"a": 1}, "idempotency_key": "k"}
    _, event = await house.post("/api/events", first)
    if settled:
        await house.reaches(event["id"], "succeeded")
    status, problem = await house.post("/api/events", first | change)
    assert (status, problem["type"]) == (422, "urn:replayforge:idempotency-key-reused")
    assert problem["event_id"] == event["id"]
    assert event["id"] in problem["detail"]
    assert await house.logged() == 1


async def test_a_key_belongs_to_its_application(house: House) -> None:
    """The same key of two applications names two events."""
    body = {"workflow_id": "w", "event_type": "t", "idempotency_key": "k"}
    _, one = await house.post("/api/events", body | {"application_name": "one"})
    status, two = await house.post("/api/events", body | {"application_name": "two", "payload": {"x": 1}})
    assert status == 201
    assert one["id"] != two["id"]


@pytest.mark.parametrize("contents", [1, 4], ids=["same content", "four contents"])
async def test_a_hundred_at_once_with_one_key_make_one_event(house: House, contents: int) -> None:
    """Of 100 concurrent requests with one key exactly one is accepted; the others are duplicates or key reuse."""
    bodies = [
        {"workflow_id": "w", "event_type": "t", "payload": {"n": number % contents}, "idempotency_key": "k"}
        for number in range(100)
    ]
    answers = await asyncio.gather(*(house.post("/api/events", body) for body in bodies))
    statuses = sorted(status for status, _ in answers)
    assert statuses == [*[200] * (100 // contents - 1), 201, *[422] * (100 - 100 // contents)]
    assert len({answer.get("id") or answer["event_id"] for _, answer in answers}) == 1
    assert await house.logged() == 1
    assert (await house.converges())["succeeded"] == 1


HEADER_KEYS = {
    "bare": ("key-1", 201, "key-1"),
    "quoted": ('"key-1"', 201, "key-1"),
    "quoted with spaces": ('"a b"', 201, "a b"),
    "one quote": ('"', 201, '"'),
    "Unicode": ("schlüssel", 201, "schlüssel"),
    "empty quotes": ('""', 400, None),
    "too long": ("k" * 256, 400, None),
    "tab": ("a\tb", 400, None),
}


@pytest.mark.parametrize(("header", "status", "key"), HEADER_KEYS.values(), ids=HEADER_KEYS.keys())
async def test_key_in_the_header(house: House, header: str, status: int, key: str | None) -> None:
    """The header Idempotency-Key, quoted or bare, is the same as the field, and obeys the same rules."""
    answered, content = await post_raw(house, envelope(), {"Idempotency-Key": header})
    assert answered == status
    assert json.loads(content).get("idempotency_key") == key
    if key is not None:
        body = {"workflow_id": "w", "event_type": "t", "idempotency_key": key}
        assert (await house.post("/api/events", body))[0] == 200


async def test_header_and_field_must_agree(house: House) -> None:
    """The key may be given in header and field when it is the same, else the request is 400."""
    same = await post_raw(house, envelope(idempotency_key='"k"'), {"Idempotency-Key": '"k"'})
    other = await post_raw(house, envelope(idempotency_key='"k"'), {"Idempotency-Key": "other"})
    assert (same[0], other[0]) == (201, 400)
    assert await house.logged() == 1


# Sizes and types


@shares_a_house
@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json"]
)
async def test_only_json_is_taken(shared_house: House, content_type: str) -> None:
    """A body of another media type is 415, so that no form of another site gets in."""
    status, _ = await post_raw(shared_house, envelope(), {"Content-Type": content_type})
    assert status == 415


@shares_a_house
@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(envelope(), mtime=0)),
        ("GZIP", gzip.compress(envelope(), mtime=0)),
        ("deflate", zlib.compress(envelope())),
    ],
)
async def test_encoded_bodies_are_refused(shared_house: House, encoding: str, body: bytes) -> None:
    """A compressed body is 415, however right its content is."""
    status, _ = await post_raw(shared_house, body, {"Content-Encoding": encoding})
    assert status == 415
    assert await shared_house.logged() == 0


async def test_largest_event(house: House) -> None:
    """An event of exactly the largest size is accepted, and one byte more is 413."""
    size = house.daemon.config.server.event_bytes_max
    filler = size - len(envelope('""'))
    status, content = await post_raw(house, envelope('"' + "x" * filler + '"'))
    assert status == 201
    assert len(raw_payload(content)) == filler + 2
    assert (await post_raw(house, envelope('"' + "x" * (filler + 1) + '"')))[0] == 413
    assert await house.logged() == 1


@shares_a_house
async def test_too_large_without_length(shared_house: House) -> None:
    """A body that never says how long it is gets 413 as soon as it is too long."""
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 64 << 20:
            sent += 1 << 16
            yield b"x" * (1 << 16)

    async with shared_house.http.post("/api/events", data=endless(), headers=JSON) as response:
        assert response.status == 413
    assert sent < 32 << 20


# Bulk


async def test_bulk_array_answers_for_each_event(house: House) -> None:
    """Good, bad and repeated events of one array are each answered for themselves, in order."""
    events = [
        envelope(idempotency_key='"a"'),
        b"5",
        envelope(nested(DEPTH_MAX + 1)),
        envelope(idempotency_key='"a"'),
        envelope('{"other":1}', idempotency_key='"a"'),
        envelope(r'"\ud800"'),
        envelope("NaN"),
        envelope(),
    ]
    async with house.http.post("/api/events/bulk", data=b"[" + b",".join(events) + b"]", headers=JSON) as response:
        assert response.status == 200
        answer = json.loads(await response.read())
    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (2, 1, 5)
    shown = [item.get("duplicate", item.get("problem", {}).get("status")) for item in answer["items"]]
    assert shown == [False, 422, 422, True, 422, 422, 400, False]
    assert [item["index"] for item in answer["items"]] == list(range(8))
    assert await house.logged() == 2


async def test_bulk_lines_answer_for_each_line(house: House) -> None:
    """NDJSON is answered one line for each line; blank lines are nothing; the last needs no line feed."""
    lines = [envelope(idempotency_key='"a"'), b"", b"{nope", b"  ", envelope(idempotency_key='"a"'), envelope()]
    async with house.http.post("/api/events/bulk", data=b"\r\n".join(lines), headers=NDJSON) as response:
        assert response.status == 200
        assert response.content_type == "application/x-ndjson"
        answers = [json.loads(line) async for line in response.content]
    assert [answer["index"] for answer in answers] == [0, 1, 2, 3]
    assert [answer.get("duplicate", answer.get("problem", {}).get("status")) for answer in answers] == [
        False, 400, True, False,
    ]  # fmt: skip
    assert await house.logged() == 2


@pytest.mark.parametrize("chunk_bytes", [1, 7, 64, 1000])
async def test_lines_cut_anywhere(house: House, chunk_bytes: int) -> None:
    """Lines mean the same however the network cuts them."""
    body = b"\n".join(envelope(f'"é😀 {number}"') for number in range(20))

    async def pieces() -> Any:
        for start in range(0, len(body), chunk_bytes):
            yield body[start : start + chunk_bytes]

    async with house.http.post("/api/events/bulk", data=pieces(), headers=NDJSON) as response:
        answers = [json.loads(line) async for line in response.content]
    assert [answer["status"] for answer in answers] == ["received"] * 20
    await house.converges()
    found = await house.get("/api/events", params={"limit": "200"})
    assert sorted(item["payload"] for item in found["items"]) == sorted(f"é😀 {number}" for number in range(20))


async def test_bulk_limits(house: House) -> None:
    """An array of 1,000 events passes and one of 1,001 is 413; NDJSON may be longer."""
    event = envelope()
    for count, status in ((1000, 200), (1001, 413)):
        body = b"[" + b",".join([event] * count) + b"]"
        async with house.http.post("/api/events/bulk", data=body, headers=JSON) as response:
            assert response.status == status
    assert await house.logged() == 1000
    async with house.http.post("/api/events/bulk", data=b"\n".join([event] * 1001), headers=NDJSON) as response:
        assert len([line async for line in response.content]) == 1001


@shares_a_house
@pytest.mark.parametrize("body", [b"{}", b"5", b"", b"[", b"[1", b"[{]", b'["a]', b"[] x", b"\xef\xbb\xbf[]"])
async def test_bulk_of_no_array_is_400(shared_house: House, body: bytes) -> None:
    """A bulk body that is not a whole array is refused as a whole."""
    async with shared_house.http.post("/api/events/bulk", data=body, headers=JSON) as response:
        assert response.status == 400
        assert response.content_type == "application/problem+json"
    assert await shared_house.logged() == 0


@shares_a_house
async def test_empty_bulk(shared_house: House) -> None:
    """Nothing sent is nothing accepted, in both forms."""
    status, answer = await shared_house.post("/api/events/bulk", [])
    assert (status, answer) == (200, {"accepted": 0, "duplicates": 0, "rejected": 0, "items": []})
    async with shared_house.http.post("/api/events/bulk", data=b"\n\n", headers=NDJSON) as response:
        assert (response.status, await response.read()) == (200, b"")


@shares_a_house
async def test_a_bulk_line_that_is_too_long(shared_house: House) -> None:
    """A line above the size of an event is 413."""
    async with shared_house.http.post(
        "/api/events/bulk", data=io.BytesIO(b"x" * (2 << 20)), headers=NDJSON
    ) as response:
        assert response.status == 413


@shares_a_house
async def test_lines_before_a_line_that_is_too_long(shared_house: House) -> None:
    """Lines that were answered stay so; what ends the body in its midst is the last line, and no second answer."""
    begun = asyncio.Event()

    async def pieces() -> Any:
        yield envelope() + b"\n"
        await begun.wait()
        yield b"x" * (2 << 20)

    async with shared_house.http.post("/api/events/bulk", data=pieces(), headers=NDJSON) as response:
        assert response.status == 200
        assert response.headers["X-Request-ID"]
        begun.set()
        first, last = [json.loads(line) async for line in response.content]
    assert (first["index"], first["status"]) == (0, "received")
    assert (last["index"], last["problem"]["status"]) == (1, 413)
    assert await shared_house.logged() == 1


async def test_large_events_one_after_the_other_on_one_connection(house: House) -> None:
    """A body that comes in many packets leaves its connection as it was."""
    connector = house.http.session.connector
    assert connector is not None
    for number in range(4):
        await house.send("large", {"number": number, "text": "a" * 1_000_000})
    assert sum(len(connections) for connections in connector._conns.values()) == 1
    assert house.probe.counts["connection.refused"] == 0


async def test_too_many_waiting_events_are_refused_with_a_time(house: House) -> None:
    """Beyond the backlog's limit a request is 429 with Retry-After, and nothing of it is accepted."""
    house.daemon.intake.window.events_max = 5
    status, _ = await house.post("/api/events/bulk", [{"workflow_id": "w", "event_type": "t"}] * 6)
    assert status == 429
    async with house.http.post("/api/events/bulk", json=[{"workflow_id": "w", "event_type": "t"}] * 6) as response:
        assert int(response.headers["Retry-After"]) >= 1
    assert await house.logged() == 0


async def test_the_answer_waits_for_the_row_when_asked_to(house: House) -> None:
    """The event that was just accepted is found at once, received or later, never 404."""
    for number in range(50):
        event_id = await house.send("t", {"number": number})
        assert (await house.event(event_id))["payload"] == {"number": number}
