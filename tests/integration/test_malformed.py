"""What is not HTTP, or too much of it, is refused in our words, closed, and forgotten: a corpus of raw requests."""

import random
import re

import pytest

from tests.integration.conftest import shares_a_house
from tests.support.house import House
from tests.support.raw_http import Said, say

CANARY = b"qzj7x"  # stands in every request, and must not come back
EVENT = b'{"workflow_id":"w","event_type":"t"}'
HOST = b"Host: 127.0.0.1\r\nX-Canary: " + CANARY + b"\r\n"
GET = b"GET /health?" + CANARY + b" HTTP/1.1\r\n" + HOST
POST = b"POST /api/events HTTP/1.1\r\nContent-Type: application/json\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
GOOD = POST + b"Content-Length: %d\r\n\r\n" % len(EVENT) + EVENT
CHUNK = b"%x\r\n" % len(EVENT) + EVENT + b"\r\n"

Corpus = list[tuple[bytes, ...]]  # each request in the packets that it is sent in


def whole(*requests: bytes) -> Corpus:
    return [(request,) for request in requests]


def methods() -> Corpus:
    names = [b"", b"get", b"Get", b"GETX", b"GE", b"G T", b"G[T", b"(GET)", b"GET:", b"G@T", b"G\x00T", b"\x7fGET",
             "GÉT".encode(), b"XYZZY", b"GET\t", b"\tGET", b" GET", b"\x0bGET", b"A" * 10_000, b"-"]  # fmt: skip
    return whole(*(name + b" /health?" + CANARY + b" HTTP/1.1\r\n" + HOST + b"\r\n" for name in names))


def targets() -> Corpus:
    names = [b"health", b"*", b"?x", b"\\health", b"/a b", b"/a\x00", b"/a\x01", b"/a\x1f", b"/a\x7f", b"/a\tb",
             b"/a\rb", b"/\xff", b"/\xc3\xa9", b"http:", b"http://", b"http:///x", b"http://[::1", b"http://a b/",
             b"\x00", b"/ \x0c", b"127.0.0.1:80", b"//\x00"]  # fmt: skip
    return whole(*(b"GET " + name + b" HTTP/1.1\r\n" + HOST + b"\r\n" for name in names))


def versions() -> Corpus:
    names = [b"HTTP/0.9", b"HTTP/1.2", b"HTTP/1.9", b"HTTP/2.0", b"HTTP/2", b"HTTP/3.0", b"HTTP/9.9", b"HTTP/1",
             b"HTTP/1.", b"HTTP/.1", b"HTTP/11", b"HTTP/1.10", b"HTTP/01.1", b"HTTP/1.1.1", b"HTTP/1,1", b"HTTP/-1.1",
             b"HTTP/a.b", b"HTTP/ 1.1", b"HTTP 1.1", b"HTTP/1. 1", b"http/1.1", b"HTTPS/1.1", b"HTP/1.1", b"ICE/1.0",
             b"SIP/2.0", b"HTTP/1.1x", b"HTTP/1.1 x", b"HTTP/1.1\t",
             "HTTP/１.１".encode(), b"HTTP/" + b"1" * 10_000, b""]  # fmt: skip
    return whole(*(b"GET /health?" + CANARY + b" " + name + b"\r\n" + HOST + b"\r\n" for name in names))


def line_ends() -> Corpus:
    line = b"GET /health?" + CANARY + b" HTTP/1.1"
    return whole(
        *(line + end + HOST + b"\r\n" for end in (b"\n", b"\r", b"\n\r", b"\r\r\n", b"\x0b", b"\x00\r\n", b" \r\n")),
        *(GET + b"X: a" + end + b"Y: b\r\n\r\n" for end in (b"\n", b"\r", b"\n\r", b"\r\r\n", b"\x00\r\n")),
        *(GET + b"X: a\r\n" + end for end in (b"\n", b"\r\r\n", b"\r\rGET / HTTP/1.1\r\n\r\n")),
        line + b"\n" + HOST.replace(b"\r", b"") + b"\n",
    )


def header_names() -> Corpus:
    wrong = [*b'()<>@,;\\"/[]?={} ', *range(10), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F, 0x80, 0xA0, 0xFF]
    names = [b"X" + bytes([byte]) + b"Y" for byte in wrong]
    return whole(
        *(GET + name + b": a\r\n\r\n" for name in names),
        *(GET + line + b"\r\n\r\n" for line in (b": a", b"X", b"X : a", b"X\t: a", b" X: a", b"\tX: a", b"=")),
        *(GET + b"X: a\r\n" + fold + b"b\r\n\r\n" for fold in (b" ", b"\t", b"  \t ")),
        b"GET /health HTTP/1.1\r\n " + HOST + b"\r\n",
    )


def header_values() -> Corpus:
    wrong = [*range(9), *range(0x0A, 0x20), 0x7F]
    return whole(*(GET + b"X: a" + bytes([byte]) + b"b\r\n\r\n" for byte in wrong))


def single_headers() -> Corpus:
    twice = [b"Host: 127.0.0.1", b"Content-Type: application/json", b"User-Agent: a\r\nUser-Agent: b",
             b"Content-Length: 36\r\nContent-Length: 36"]  # fmt: skip
    return whole(
        *(POST + lines + b"\r\n\r\n" + EVENT for lines in twice),
        b"GET /health?" + CANARY + b" HTTP/1.1\r\n\r\n",
        b"POST /api/events HTTP/1.1\r\nContent-Length: 36\r\n\r\n" + EVENT,
        GET + b"Sec-WebSocket-Key1: a\r\n\r\n",
    )


def lengths() -> Corpus:
    values = [b"", b" ", b"-1", b"-36", b"+36", b"36.0", b"3.6e1", b"0x24", b"3 6", b"3\t6", b"36,36", b"36, 36",
              b"36;36", b"36x", b"x36", b"a", b'"36"', b"36-", b"'", b"\xb3\xb6", "３６".encode(), b"9" * 20,
              b"9" * 400, b"18446744073709551616"]  # fmt: skip
    return whole(
        *(POST + b"Content-Length: " + value + b"\r\n\r\n" + EVENT for value in values),
        *(
            POST + b"Content-Length: 36\r\ncontent-LENGTH: " + other + b"\r\n\r\n" + EVENT
            for other in (b"36", b"0", b"37")
        ),
    )


def transfer_encodings() -> Corpus:
    values = [b"", b"gzip", b"deflate", b"identity", b"smuggled", b"xchunked", b"chunkedx", b"chunk ed", b"chunked x",
              b"chunked, gzip", b"chunked, chunked", b"gzip, chunked", b"identity, chunked", b", chunked", b"chunked,",
              b"chunked;q=1", b'"chunked"', b"\x0bchunked", b"\x00chunked", b"chunked\x00", b"chunked\xff"]  # fmt: skip
    sized = POST + b"Content-Length: 36\r\n"
    return whole(
        *(POST + b"Transfer-Encoding: " + value + b"\r\n\r\n" + CHUNK + b"0\r\n\r\n" for value in values),
        *(
            POST
            + b"Transfer-Encoding: "
            + one
            + b"\r\nTransfer-Encoding: "
            + other
            + b"\r\n\r\n"
            + CHUNK
            + b"0\r\n\r\n"
            for one, other in ((b"chunked", b"chunked"), (b"chunked", b"identity"), (b"identity", b"chunked"))
        ),
        sized + b"Transfer-Encoding: chunked\r\n\r\n" + EVENT,
        sized + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK + b"0\r\n\r\n",
        sized + b"Transfer-Encoding: identity\r\n\r\n" + EVENT,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 36\r\n\r\n" + EVENT,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
        POST.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK + b"0\r\n\r\n",
    )


def chunks() -> Corpus:
    """Return chunks gone wrong, each in one packet with its head, and in another after its head."""
    sizes = [b"zz", b"g", b"-5", b"+5", b"0x5", b" 5", b"5 ", b"5\t", b"5 5", b"", b"5;\x00", b"5;a=\x01", b"5\x00",
             b"5\n", b"5\r", b"5,", b"5.0", "５".encode(), b"f" * 17, b"1" * 40, b"5;a=\r"]  # fmt: skip
    bodies = [
        *(size + b"\r\nhello\r\n0\r\n\r\n" for size in sizes),
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello world\r\n0\r\n\r\n",
        b"9\r\nhello\r\n0\r\n\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r0\r\n\r\n",
        b"5\r\nhello\r\n\r\n0\r\n\r\n",
        CHUNK + b"0\r\nX : a\r\n\r\n",
        CHUNK + b"0\r\n: a\r\n\r\n",
        CHUNK + b"0\r\nX\r\n\r\n",
        CHUNK + b"0\r\nX: a\x00b\r\n\r\n",
        CHUNK + b"0\r\n X: a\r\n\r\n",
        CHUNK + b"0\n\n",
        CHUNK + b"0\r\nContent-Length: 5\r\n\r\n",
    ]
    return [packets for body in bodies for packets in ((CHUNKED + body,), (CHUNKED, body))]


def other_protocols() -> Corpus:
    rubbish = random.Random(7)
    return whole(
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50),
        b"\x80\x2e\x01\x00\x02" + bytes(50),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"EHLO example.com\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"PING\r\n",
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
        b"\x05\x01\x00",
        b"\x03\x00\x00\x13\x0e\xe0\x00\x00",
        b'{"jsonrpc":"2.0"}\n',
        b"<?xml version='1.0'?>\r\n\r\n",
        b"\xef\xbb\xbf" + GET + b"\r\n",
        (GET + b"\r\n").decode().encode("utf-16"),
        bytes(100),
        b"\xff" * 100,
        b"\r\n\r\nGARBAGE\r\n\r\n",
        *(b"\x01" + rubbish.randbytes(rubbish.randrange(1, 2_000)) for _ in range(20)),
    )


FAMILIES = {
    "methods": methods(),
    "targets": targets(),
    "versions": versions(),
    "line ends": line_ends(),
    "header names": header_names(),
    "header values": header_values(),
    "headers that come once": single_headers(),
    "lengths": lengths(),
    "transfer encodings": transfer_encodings(),
    "chunks": chunks(),
    "other protocols": other_protocols(),
}


def check_refusal(said: Said, *statuses: int) -> None:
    """Raise AssertionError unless a connection was closed on with one of the statuses, as a problem, in our words."""
    assert said.status in statuses
    problem = said.problem
    assert problem["status"] == said.status
    assert problem["type"].startswith("urn:replayforge:")
    assert problem["title"]
    assert problem["detail"]
    assert said.headers["content-type"] == "application/problem+json"
    assert said.headers["x-request-id"] == problem["request_id"] != ""
    assert said.headers["x-content-type-options"] == "nosniff"
    assert CANARY not in said.answer
    assert len(re.findall(rb"HTTP/1.[01] \d{3} ", said.answer)) == 1


def test_the_corpus_is_large() -> None:
    """The corpus has hundreds of requests, and no two of them are the same."""
    requests = [packets for family in FAMILIES.values() for packets in family]
    assert len(set(requests)) == len(requests) >= 350


@shares_a_house
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
async def test_malformed_http_is_refused_and_harms_nobody(shared_house: House, family: Corpus) -> None:
    """What is not HTTP is 400 and closed, nothing of it is logged or repeated, and the next connection is served."""
    port = int(shared_house.http.port or 0)
    failed: list[str] = []
    for packets in family:
        try:
            check_refusal(await say(port, *packets), 400)
            check = await say(port, GET + b"Connection: close\r\n\r\n")
            assert check.status == 200
        except (AssertionError, TimeoutError) as error:
            failed.append(f"{packets!r:.300}: {error!r:.300}")
    assert not failed, "\n".join(failed)
    assert await shared_house.logged() == 0
    assert shared_house.probe.counts["request.failed"] == 0
    assert shared_house.probe.counts["connection.refused"] >= len(family)
    posted = await say(port, POST + b"Connection: close\r\nContent-Length: 36\r\n\r\n" + EVENT)
    assert posted.status == 201


@shares_a_house
@pytest.mark.parametrize("expected", [b"rubbish", b"", b"100-continue, rubbish", b"200-ok"])
async def test_nothing_else_can_be_expected_than_to_continue(shared_house: House, expected: bytes) -> None:
    """Any other expectation is 417, as a problem like all others, and nothing is accepted."""
    head = POST + b"Content-Length: 36\r\nExpect: "
    check_refusal(await say(int(shared_house.http.port or 0), head + expected + b"\r\n\r\n", EVENT), 417)
    assert await shared_house.logged() == 0
    said = await say(int(shared_house.http.port or 0), head + b"100-Continue\r\nConnection: close\r\n\r\n", EVENT)
    assert (said.status, said.answer.count(b"HTTP/1.1 201 ")) == (100, 1)


def fields(count: int, size: int) -> bytes:
    """Return header lines of a size each."""
    return b"".join(b"X%04d: %s\r\n" % (number, b"a" * (size - 9)) for number in range(count))


def path(size: int) -> bytes:
    """Return a target of a size."""
    return b"/health?" + b"a" * (size - len(b"/health?"))


TOO_MUCH: dict[str, tuple[bytes, int]] = {
    "longest address": (b"GET " + path(8_192) + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n", 200),
    "address one byte longer": (b"GET " + path(8_193) + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    "address of 100 KiB": (b"GET " + path(102_400) + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    "address without an end": (b"GET " + path(102_400), 414),
    "large headers": (GET + fields(100, 150) + b"Connection: close\r\n\r\n", 200),
    "one header of 16 KiB": (GET + fields(1, 16_400) + b"\r\n", 431),
    "one header of 64 KiB": (GET + fields(1, 65_536) + b"\r\n", 431),
    "headers of 17 KiB together": (GET + fields(17, 1_024) + b"\r\n", 431),
    "headers of 128 KiB together": (GET + fields(64, 2_048) + b"\r\n", 431),
    "headers of 17 KiB and a body": (POST + b"Content-Length: 36\r\n" + fields(17, 1_024) + b"\r\n" + EVENT, 431),
    "129 headers": (GET + fields(129, 12) + b"\r\n", 431),
    "10,000 headers": (GET + fields(10_000, 12) + b"\r\n", 431),
    "a name of 64 KiB": (GET + b"a" * 65_536 + b": x\r\n\r\n", 431),
    "headers without an end": (GET + fields(100, 1_024), 431),
    "10,000 trailers": (CHUNKED + CHUNK + b"0\r\n" + fields(10_000, 12) + b"\r\n", 431),
}


@shares_a_house
@pytest.mark.parametrize("packet_bytes", [1_000_000, 1_000], ids=["at once", "in packets"])
@pytest.mark.parametrize(("request_bytes", "status"), TOO_MUCH.values(), ids=TOO_MUCH.keys())
async def test_addresses_and_headers_have_limits(
    shared_house: House, request_bytes: bytes, status: int, packet_bytes: int
) -> None:
    """Up to the limit it is served; beyond, an address is 414 and headers are 431, however the network cuts them."""
    packets = [request_bytes[start : start + packet_bytes] for start in range(0, len(request_bytes), packet_bytes)]
    said = await say(int(shared_house.http.port or 0), *packets)
    if status == 200:
        assert said.status == 200
    else:
        check_refusal(said, status)
    assert await shared_house.logged() == 0


@shares_a_house
@pytest.mark.parametrize(
    "packets",
    [(GOOD, GOOD, b"GARBAGE\r\n\r\n"), (GOOD + GOOD + GET.replace(b"HTTP/1.1", b"HTTP/2.0") + b"\r\n", GOOD)],
    ids=["no request", "another version"],
)
async def test_good_requests_do_not_suffer_from_what_follows(shared_house: House, packets: tuple[bytes, ...]) -> None:
    """Requests before a malformed one on the same connection are answered, and those after it are not."""
    said = await say(int(shared_house.http.port or 0), *packets)
    assert re.findall(rb"HTTP/1.[01] (\d{3}) ", said.answer) == [b"201", b"201", b"400"]
    assert await shared_house.logged() == 2
