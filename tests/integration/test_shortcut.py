"""The short way of single events and webhooks lets in, refuses and answers what the whole application does.

One table of requests goes both ways, each on a connection of its own: past the search for routes, and through it.
"""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import pytest
import pytest_asyncio
from aiohttp import web

from replayforge.domain.api_keys import Role
from replayforge.domain.errors import OutcomeUnknown
from replayforge.engine.accept.intake import Intake
from replayforge.web.http.connection import ConnectionLimits
from replayforge.web.http.context import CONTEXT, WebContext
from replayforge.web.http.guard import SESSION_COOKIE
from replayforge.web.http.shortcut import SHORT_WAYS
from tests.integration.conftest import echo_handlers, shares_a_house
from tests.integration.test_roles import KEYS
from tests.support.house import House, open_house
from tests.support.raw_http import Said, say

EVENT = b'{"workflow_id":"w","event_type":"t","payload":{"a":1}}'
KNOWN = EVENT[:-1] + b',"idempotency_key":"known"}'
OTHER = KNOWN.replace(b'"a":1', b'"a":2')
CLOUD = b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a":1}}'
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
SETTINGS = {
    "server.event_bytes_max": 2_000,
    "sources": [
        {"name": "open", "preset": "none"},
        {"name": "signed", "preset": "github", "secrets": ["secret"]},
    ],
}
HASTY = ConnectionLimits(head_seconds=0.1, body_seconds=0.1)

State = Callable[[House], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Case:
    """A request, what the daemon is like meanwhile, and its answer: a status, and the type of a problem.

    `emits` is what the daemon notes of it; `rest` stands in place of a length and the body.
    """

    status: int
    problem: str = ""
    headers: str = ""
    body: bytes = EVENT
    path: str = "/api/events"
    host: str = "127.0.0.1"
    kind: str = "application/json"
    version: str = "1.1"
    state: State = nullcontext
    emits: str = ""
    rest: bytes | None = None

    def request(self) -> bytes:
        head = f"POST {self.path} HTTP/{self.version}\r\nHost: {self.host}\r\nConnection: close\r\n"
        head += f"Content-Type: {self.kind}\r\n" if self.kind else ""
        head += "".join(f"{line}\r\n" for line in self.headers.split("\n") if line)
        rest = self.rest
        return head.encode() + (b"Content-Length: %d\r\n\r\n" % len(self.body) + self.body if rest is None else rest)


def context_of(house: House) -> WebContext:
    assert house.http.app is not None
    context: WebContext = house.http.app[CONTEXT]
    return context


@contextmanager
def stopping(house: House) -> Iterator[None]:
    house.daemon.intake.close()
    yield
    house.daemon.intake.open()


@contextmanager
def draining(house: House) -> Iterator[None]:
    house.daemon.intake.drain()
    yield
    house.daemon.intake.draining = False


@contextmanager
def disk_full(house: House) -> Iterator[None]:
    house.daemon.intake.note_disk(low=True)
    yield
    house.daemon.intake.note_disk(low=False)


@contextmanager
def backlog_full(house: House) -> Iterator[None]:
    window = house.daemon.intake.window
    events_max, window.events_max = window.events_max, 0
    yield
    window.events_max = events_max


@contextmanager
def memory_full(house: House) -> Iterator[None]:
    bodies = context_of(house).bodies
    bodies.taken += bodies.bytes_max
    yield
    bodies.taken -= bodies.bytes_max


def failing(error: Exception) -> State:
    """Return a state in which no event can be accepted, for an unusual reason."""

    async def fail(*_: object, **__: object) -> None:
        raise error

    @contextmanager
    def failing(_: House) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Intake, "accept", fail)
            yield

    return failing


@contextmanager
def keyed(house: House) -> Iterator[None]:
    """Only those with one of the keys may come in."""
    access = context_of(house).access
    access.replace_keys(tuple(key.entry() for _, key in KEYS.values()))
    yield
    access.replace_keys(())


@contextmanager
def rekeyed(house: House) -> Iterator[None]:
    """The key that sends has been taken away."""
    with keyed(house):
        context_of(house).access.replace_keys(tuple(key.entry() for _, key in KEYS.values() if key.role != Role.INGEST))
        yield


INGEST, READ, OPERATE, ADMIN = (KEYS[letter][0] for letter in "IROA")
CASES = {
    "an event": Case(201),
    "an event that is known": Case(200, body=KNOWN),
    "a key that names another event": Case(422, "idempotency-key-reused", body=OTHER),
    "a key in the header": Case(200, headers='Idempotency-Key: "known"'),
    "two keys": Case(400, "bad-idempotency-key", "Idempotency-Key: another", KNOWN),
    "a key that is none": Case(400, "bad-idempotency-key", "Idempotency-Key: " + "k" * 256),
    "HTTP/1.0": Case(201, version="1.0"),
    "in chunks": Case(201, rest=CHUNKED % (len(EVENT), EVENT)),
    "leave asked for": Case(201, headers="Expect: 100-continue"),
    "another expectation": Case(417, "expectation-failed", "Expect: more"),
    "its own id": Case(201, headers="X-Request-ID: my-id.1"),
    "an id that is none": Case(201, headers="X-Request-ID: <script>"),
    "a trace": Case(201, headers=f"traceparent: 00-{'1' * 32}-{'2' * 16}-01"),
    "a question mark": Case(201, path="/api/events?"),
    "an absolute address": Case(201, path="http://127.0.0.1/api/events"),
    "an escaped address": Case(201, path="/api/%65vents"),
    "rubbish": Case(400, "malformed", body=b"{"),
    "too deep": Case(422, "unacceptable", body=EVENT.replace(b"1", b"[" * 70 + b"]" * 70)),
    "what it needs is missing": Case(422, "unacceptable", body=b"{}"),
    "metadata that is no object": Case(422, "unacceptable", body=EVENT[:-1] + b',"metadata":[]}'),
    "too large": Case(413, "too-large", body=EVENT + b" " * 2_000),
    "too large in chunks": Case(413, "too-large", rest=CHUNKED % (2_001, b" " * 2_001)),
    "no type": Case(415, "unsupported-media-type", kind=""),
    "another type": Case(415, "unsupported-media-type", kind="application/x-www-form-urlencoded"),
    "another charset": Case(415, "unsupported-media-type", kind="application/json; charset=latin-1"),
    "a type of its own": Case(201, kind="application/vnd.acme+json; charset=utf-8"),
    "packed": Case(415, "unsupported-encoding", "Content-Encoding: gzip"),
    "a CloudEvent": Case(200, body=CLOUD, kind="application/cloudevents+json"),
    "a CloudEvent in headers": Case(200, headers="ce-specversion: 1.0\nce-id: 2\nce-source: /s\nce-type: t"),
    "a CloudEvent that is none": Case(422, "unacceptable", kind="application/cloudevents+json"),
    "CloudEvents": Case(200, body=b"[%s]" % CLOUD, kind="application/cloudevents-batch+json"),
    "a doubled header": Case(400, "doubled-header", "Idempotency-Key: k\nidempotency-key: l"),
    "an unknown parameter": Case(422, "unknown-parameter", path="/api/events?a=1"),
    "a doubled parameter": Case(422, "unknown-parameter", path="/api/events?a=1&a=2"),
    "a foreign host": Case(421, "wrong-host", host="evil.example"),
    "a host that begins like ours": Case(421, "wrong-host", host="127.0.0.1.evil.example:80"),
    "an absolute address of a foreign host": Case(421, "wrong-host", path="http://evil.example/api/events"),
    "a foreign site": Case(403, "cross-site", "Sec-Fetch-Site: cross-site"),
    "a foreign origin": Case(403, "cross-site", "Origin: http://evil.example"),
    "its own origin": Case(201, headers="Origin: http://127.0.0.1"),
    "a browser": Case(400, "malformed", "Accept: text/html", b"{"),
    "stopping": Case(503, "unavailable", state=stopping),
    "draining": Case(201, state=draining),
    "the disk is full": Case(507, "disk-full", state=disk_full),
    "the backlog is full": Case(429, "overloaded", state=backlog_full),
    "the memory is full": Case(429, "overloaded", state=memory_full),
    "nobody knows": Case(503, "outcome-unknown", state=failing(OutcomeUnknown())),
    "a defect": Case(500, "internal-error", state=failing(RuntimeError("inside")), emits="request.failed"),
    "too slow": Case(408, "request-too-slow", rest=b"Content-Length: 9\r\n\r\n{", emits="connection.refused"),
    "no length": Case(400, "malformed-request", rest=b"Content-Length: x\r\n\r\n", emits="connection.refused"),
    "no key": Case(401, "unauthorized", state=keyed),
    "a wrong key": Case(401, "unauthorized", f"X-API-Key: {INGEST}x", state=keyed),
    "a key that sends": Case(201, "", f"X-API-Key: {INGEST}", state=keyed),
    "a key that sends, as a bearer": Case(201, "", f"Authorization: Bearer {INGEST}", state=keyed),
    "a key that only reads": Case(403, "role-needed", f"X-API-Key: {READ}", state=keyed),
    "a key that only operates": Case(403, "role-needed", f"X-API-Key: {OPERATE}", state=keyed),
    "a key that may do everything": Case(201, "", f"X-API-Key: {ADMIN}", state=keyed),
    "a key from a foreign site": Case(201, "", f"X-API-Key: {INGEST}\nOrigin: http://evil.example", state=keyed),
    "a key that was taken away": Case(401, "unauthorized", f"X-API-Key: {INGEST}", state=rekeyed),
    "two keys of the API": Case(400, "doubled-header", f"X-API-Key: {INGEST}\nX-API-Key: {ADMIN}", state=keyed),
    "somebody signed in": Case(201, "", f"Cookie: {SESSION_COOKIE}=SESSION", state=keyed),
    "somebody signed in elsewhere": Case(
        403, "cross-site", f"Cookie: {SESSION_COOKIE}=SESSION\nSec-Fetch-Site: cross-site", state=keyed
    ),
    "a session that is none": Case(401, "unauthorized", f"Cookie: {SESSION_COOKIE}=SESSIONX", state=keyed),
    "a delivery": Case(200, path="/in/open"),
    "a delivery that needs a key": Case(401, "unauthorized", path="/in/open", state=keyed),
    "a delivery of a foreign site": Case(403, "cross-site", "Origin: http://evil.example", path="/in/open"),
    "a delivery without its signature": Case(401, "signature-refused", path="/in/signed"),
    "a delivery without its signature or a key": Case(401, "signature-refused", path="/in/signed", state=keyed),
    "a delivery under a foreign host": Case(401, "signature-refused", path="/in/signed", host="hooks.example"),
}  # fmt: skip
# These go the long way in any case: clients that wait for leave, and addresses written in another way.
LONG = {"leave asked for", "an escaped address"}
# What is no request comes to neither.
REFUSED_BEFORE = {"malformed-request", "expectation-failed"}
VARY = re.compile(
    rb'(?<=\r\nDate: )[^\r]*|(?<=\r\nContent-Length: )\d+|(?<=\r\nX-Request-ID: )[0-9a-f]{16}\b'
    rb'|(?<="request_id":")[0-9a-f]{16}\b|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}'
    rb'|(?<="log_offset":)\d+|(?<="created_at":")[^"]*|(?<="updated_at":")[^"]*'
)  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house_of_both(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A daemon with sources, small events and no patience; events that have a key are known to it, and have ended."""
    directory = tmp_path_factory.mktemp("house") / "data"
    async with open_house(directory, echo_handlers(), SETTINGS, limits=HASTY) as house:
        for name in ("an event that is known", "a CloudEvent", "a CloudEvent in headers"):
            assert (await say(house.http.port or 0, CASES[name].request())).status == 201
        await house.converges()
        for source in ("open", "signed"):  # what is found for the first request of a path is kept
            await house.http.post(f"/in/{source}")
        yield house


@shares_a_house
@pytest.mark.parametrize("name", CASES)
async def test_both_ways_answer_alike(house_of_both: House, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What is let in and refused is the same, and the answers byte by byte, but for times and ids."""
    case, house = CASES[name], await house_of_both.begin()
    resolved = resolutions(monkeypatch)
    short_ways = house.http.app[SHORT_WAYS]
    session = context_of(house).sessions.begin(KEYS["A"][1])
    request = case.request().replace(b"SESSION", session.encode())
    said: list[Said] = []
    for way in ("short", "long"):
        if way == "long":
            resolved.clear()
            for path in list(short_ways):
                monkeypatch.delitem(short_ways, path)
        house.probe.forget()
        with case.state(house):
            answer = (await say(house.http.port or 0, request)).answer
        said.append(Said(answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")))
        assert (said[-1].status, kind_of(said[-1])) == (case.status, case.problem), said
        assert bool(house.probe.counts[case.emits]) == bool(case.emits)
        assert bool(resolved) == ((way == "long" or name in LONG) and case.problem not in REFUSED_BEFORE)
        assert said[-1].headers["content-length"] == str(len(said[-1].answer.partition(b"\r\n\r\n")[2]))
        assert case.status not in (429, 503) or int(said[-1].headers["retry-after"]) >= 1
        assert context_of(house).bodies.taken == 0
    short, long = (VARY.sub(b"*", one.answer) for one in said)
    assert short == long


def resolutions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return where every search for a route will be noted."""
    looked: list[str] = []
    resolve = web.UrlDispatcher.resolve

    async def counted(router: web.UrlDispatcher, request: web.Request) -> web.UrlMappingMatchInfo:
        looked.append(request.path)
        return await resolve(router, request)

    monkeypatch.setattr(web.UrlDispatcher, "resolve", counted)
    return looked


def kind_of(said: Said) -> str:
    """Return the type of a problem, or nothing."""
    return said.problem["type"].rpartition(":")[2] if said.headers["content-type"] == "application/problem+json" else ""
