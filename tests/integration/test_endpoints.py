"""Endpoints on a real network: what a receiver gets, what its answers do to the event, and where nobody is called."""

import asyncio
import base64
import gzip
import hashlib
import hmac
import io
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from replayforge.assembly import opened
from replayforge.config.settings import HttpEndpoint
from replayforge.domain.errors import Refused
from replayforge.domain.event import Event
from replayforge.domain.retry import Retry
from replayforge.engine.handlers.addresses import Denied
from replayforge.engine.handlers.callbacks import Callbacks
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.endpoint_handlers import handler_for
from replayforge.engine.handlers.endpoints import WebhookClient
from replayforge.engine.handlers.registry import Handlers
from tests.support.clock import FakeClock
from tests.support.house import House, configuration, open_house

Answer = Callable[[], web.StreamResponse]
PUBLIC_ADDRESS = "93.184.216.34"


@dataclass
class Receiver:
    """A receiver of webhooks on loopback: `answers` are given one by one, then 200 for ever."""

    answers: list[Answer] = field(default_factory=list)
    requests: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    async def receive(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.headers, await request.read()))
        return self.answers.pop(0)() if self.answers else web.Response()

    def headers(self, name: str) -> list[str]:
        """Return what each request had in one header."""
        return [headers[name] for headers, _ in self.requests]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{path:.*}", receiver.receive)
    async with TestServer(app, host="127.0.0.1") as server:
        receiver.url = str(server.make_url("/hook?token=s3cret"))
        yield receiver


@asynccontextmanager
async def house_with(
    directory: Path,
    *endpoints: dict[str, Any],
    handlers: Handlers | None = None,
    settings: Mapping[str, Any] | None = None,
) -> AsyncIterator[House]:
    """Open a daemon with endpoints that may have private addresses."""
    tables = [{"allow_private": True} | endpoint for endpoint in endpoints]
    async with open_house(directory / "data", handlers, {"handlers.http": tables} | dict(settings or {})) as house:
        yield house


# Through a whole daemon


async def test_an_event_is_delivered(tmp_path: Path, receiver: Receiver) -> None:
    """A 2xx answer is success with its JSON as result; the receiver got the sender's bytes and can verify them."""
    receiver.answers = [lambda: web.json_response({"order": 10.50})]
    key = bytes(range(32))
    secret = "whsec_" + base64.b64encode(key).decode()
    async with house_with(tmp_path, {"match": "order.*", "url": receiver.url, "secret": secret}) as house:
        payload = b'{ "price": 1.10,  "name": "\\u00e9", "big": 123456789012345678901234567890 }'
        body = b'{"workflow_id": "w-\xc3\xa9", "event_type": "order.paid", "payload": %s}' % payload
        status, accepted = await house.post("/api/events", data=body, headers={"Content-Type": "application/json"})
        assert status == 201, accepted
        event = await house.reaches(accepted["id"], "succeeded")
    assert event["result"] == {"order": 10.50}
    [(headers, sent)] = receiver.requests
    assert sent == payload
    assert headers["Content-Type"] == "application/json"
    assert (headers["webhook-id"], headers["replayforge-attempt"]) == (accepted["id"], "1")
    assert headers["replayforge-workflow-id"] == "w-é"
    assert int(headers["replayforge-lease-token"]) >= 1
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    signed = b"%s.%s." % (headers["webhook-id"].encode(), headers["webhook-timestamp"].encode()) + payload
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


async def test_what_an_event_is_travels_with_it(tmp_path: Path, receiver: Receiver) -> None:
    """Type, key, service, application, run and metadata are in headers of the delivery, and a replay says its run."""
    sent = {"event_type": "größe", "service_name": "ß 50%", "application_name": "shop", "idempotency_key": "k\u2028"}
    async with house_with(tmp_path, {"match": "*", "url": receiver.url}) as house:
        event_id = await house.send(**sent, metadata={"trace": "a\r\nb"})
        await house.reaches(event_id, "succeeded")
        await house.post(f"/api/events/{event_id}/replay", {"force": True})
        await house.probe.saw("attempt.settled", 2)
    headers = receiver.requests[1][0]
    names = ("event-type", "service", "application", "idempotency-key", "run", "attempt")
    assert [headers[f"replayforge-{name}"] for name in names] == [*sent.values(), "2", "1"]
    assert json.loads(base64.b64decode(headers["replayforge-metadata"])) == {"trace": "a\r\nb"}


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_bad_deploy_is_no_verdict(tmp_path: Path, receiver: Receiver, status: int) -> None:
    """An endpoint that is not there, or not let in, for a while gets the event once more."""
    receiver.answers = [lambda: web.Response(status=status)]
    async with house_with(tmp_path, {"match": "*", "url": receiver.url}) as house:
        event = await house.reaches(await house.send(), "succeeded")
    assert [attempt["outcome"] for attempt in event["attempts"]] == ["succeeded", "failed"]


async def test_unsigned_without_secret(tmp_path: Path, receiver: Receiver) -> None:
    """An endpoint without a secret gets no signature, and an answer without a body is success without a result."""
    receiver.answers = [lambda: web.Response(status=204)]
    async with house_with(tmp_path, {"match": "*", "url": receiver.url}) as house:
        event = await house.reaches(await house.send(), "succeeded")
    assert event["result"] is None
    assert "webhook-signature" not in receiver.requests[0][0]


async def test_503_is_tried_again(tmp_path: Path, receiver: Receiver) -> None:
    """A 503 is retried under the same webhook-id with the next attempt's number and a later lease token."""
    receiver.answers = [lambda: web.Response(status=503, text="not now")]
    async with house_with(tmp_path, {"match": "*", "url": receiver.url}) as house:
        event_id = await house.send()
        event = await house.reaches(event_id, "succeeded")
    assert [attempt["outcome"] for attempt in event["attempts"]] == ["succeeded", "failed"]
    assert "answered 503 Service Unavailable: not now" in event["attempts"][1]["error"]
    assert receiver.headers("webhook-id") == [event_id] * 2
    assert receiver.headers("replayforge-attempt") == ["1", "2"]
    first, second = map(int, receiver.headers("replayforge-lease-token"))
    assert second > first


async def test_400_is_a_dead_letter(tmp_path: Path, receiver: Receiver) -> None:
    """A 400 ends the run at the first attempt, and the error shows the answer but not the URL's path."""
    receiver.answers = [lambda: web.Response(status=400, text="no such\x1b field")]
    async with house_with(tmp_path, {"match": "*", "url": receiver.url, "secret": "s3cret"}) as house:
        event = await house.reaches(await house.send(), "dead_lettered")
    assert event["reason"] == "permanent"
    [attempt] = event["attempts"]
    assert attempt["error"].startswith("Permanent: http://127.0.0.1:")
    assert "answered 400 Bad Request: no such\ufffd field" in attempt["error"]
    assert "s3cret" not in json.dumps(event)


async def test_retry_after_is_honoured(tmp_path: Path, receiver: Receiver) -> None:
    """A 429 with Retry-After puts the event off for that long instead of the usual delay."""
    receiver.answers = [lambda: web.Response(status=429, headers={"Retry-After": "3600"})]
    async with house_with(tmp_path, {"match": "*", "url": receiver.url}) as house:
        event_id = await house.send()
        event = await house.reaches(event_id, "retrying")
    waits = datetime.fromisoformat(event["next_run_at"]) - datetime.fromisoformat(event["updated_at"])
    assert abs(waits - timedelta(hours=1)) < timedelta(seconds=5)


async def test_redirects_are_not_followed(tmp_path: Path, receiver: Receiver) -> None:
    """A redirect is a dead letter, and nobody connects to where it points."""
    async with canary() as seen:
        receiver.answers = [lambda: web.Response(status=307, headers={"Location": f"http://127.0.0.1:{seen.port}/"})]
        async with house_with(tmp_path, {"match": "*", "url": receiver.url}) as house:
            event = await house.reaches(await house.send(), "dead_lettered")
        assert "redirects are not followed" in event["attempts"][0]["error"]
        assert (seen.connections, len(receiver.requests)) == (0, 1)


async def test_a_silent_endpoint_times_out(tmp_path: Path) -> None:
    """An endpoint that takes the request and never answers is a timed-out attempt."""
    async with canary() as seen:
        endpoint = {"match": "*", "url": f"http://127.0.0.1:{seen.port}/", "timeout_seconds": 0.2}
        async with house_with(tmp_path, endpoint) as house:
            event = await house.reaches(await house.send(max_attempts=1), "dead_lettered")
        assert [attempt["outcome"] for attempt in event["attempts"]] == ["timed_out"]
        assert seen.connections == 1


async def test_a_closed_port_is_tried_again(tmp_path: Path) -> None:
    """A connection that nobody takes is a failed attempt like any other, until none are left."""
    async with canary() as seen:
        port = seen.port
    async with house_with(tmp_path, {"match": "*", "url": f"http://127.0.0.1:{port}/s3cret"}) as house:
        event = await house.reaches(await house.send(max_attempts=2), "dead_lettered")
    assert [attempt["outcome"] for attempt in event["attempts"]] == ["failed", "failed"]
    assert event["reason"] == "attempts_exhausted"
    assert "did not answer: ClientConnectorError" in event["attempts"][0]["error"]
    assert "s3cret" not in json.dumps(event)


async def test_an_answer_that_is_no_http_is_tried_again(tmp_path: Path) -> None:
    """Bytes that are no HTTP are a network error, whose message does not show the URL."""
    async with canary(b"SSH-2.0-server\r\n\r\n") as seen:
        async with house_with(tmp_path, {"match": "*", "url": f"http://127.0.0.1:{seen.port}/s3cret"}) as house:
            event = await house.reaches(await house.send(max_attempts=2), "dead_lettered")
        assert event["reason"] == "attempts_exhausted"
        assert "did not answer: ClientResponseError: Bad status line" in event["attempts"][0]["error"]
        assert "s3cret" not in json.dumps(event)


async def test_a_huge_answer_is_success_without_a_result(tmp_path: Path, receiver: Receiver) -> None:
    """The endpoint has done its work: an answer above 256 KiB is not read to its end and fails nothing."""
    receiver.answers = [lambda: web.Response(text=json.dumps("x" * 50_000_000), content_type="application/json")]
    async with house_with(tmp_path, {"match": "*", "url": receiver.url}) as house:
        event = await house.reaches(await house.send(), "succeeded")
    assert event["result"] is None
    assert len(receiver.requests) == 1


async def test_a_large_event_is_sent_whole(tmp_path: Path, receiver: Receiver) -> None:
    """An event of several MiB arrives with its length and every byte."""
    payload = b'{"text":"%s"}' % (b"x" * 3_000_000)
    body = io.BytesIO(b'{"workflow_id":"w","event_type":"t","payload":%s}' % payload)
    settings = {"server.event_bytes_max": 4 << 20}
    async with house_with(tmp_path, {"match": "*", "url": receiver.url}, settings=settings) as house:
        _, accepted = await house.post("/api/events", data=body, headers={"Content-Type": "application/json"})
        await house.reaches(accepted["id"], "succeeded")
    [(headers, sent)] = receiver.requests
    assert headers["Content-Length"] == str(len(payload))
    assert sent == payload


async def test_a_packed_answer_is_not_unpacked(tmp_path: Path, receiver: Receiver) -> None:
    """The receiver is asked for plain JSON, and what it packs all the same is success without a result."""
    packed = gzip.compress(b'{"a": 1}')
    receiver.answers = [lambda: web.Response(body=packed, headers={"Content-Encoding": "gzip"})]
    async with house_with(tmp_path, {"match": "*", "url": receiver.url}) as house:
        event = await house.reaches(await house.send(), "succeeded")
    assert event["result"] is None
    assert receiver.headers("Accept-Encoding") == ["identity"]


async def test_cookies_are_forgotten(tmp_path: Path, receiver: Receiver) -> None:
    """What one answer wants remembered is not told to the next request."""
    receiver.answers = [lambda: web.Response(headers={"Set-Cookie": "a=b"})]
    async with house_with(tmp_path, {"match": "*", "url": receiver.url}) as house:
        for _ in range(2):
            await house.reaches(await house.send(), "succeeded")
    assert ["Cookie" in headers for headers, _ in receiver.requests] == [False, False]


async def test_slow_endpoints_do_not_hold_up_others(tmp_path: Path, receiver: Receiver) -> None:
    """While one worker waits for a silent endpoint, another delivers to the same host."""
    waiting, told = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        waiting.set()
        await told.wait()
        return web.Response()

    app = web.Application()
    app.router.add_post("/slow", slow)
    app.router.add_post("/hook", receiver.receive)
    async with TestServer(app, host="127.0.0.1") as server:
        endpoints = [{"match": name, "url": str(server.make_url(f"/{name}"))} for name in ("slow", "hook")]
        async with house_with(tmp_path, *endpoints) as house:
            held = await house.send("slow")
            await asyncio.wait_for(waiting.wait(), 10)
            await house.reaches(await house.send("hook"), "succeeded")
            assert (await house.event(held))["status"] == "processing"
            told.set()
            await house.reaches(held, "succeeded")


async def test_connections_are_shared_and_closed(tmp_path: Path, receiver: Receiver) -> None:
    """Many events need few connections, and the daemon's end closes them all."""
    async with house_with(tmp_path, {"match": "*", "url": receiver.url}) as house:
        await house.send_many(100)
        await house.converges()
        find = house.daemon.workers[0].handlers.find("test")
        function: Any = find and find.function
        session = function.__self__.webhook_client.session(allow_private=True)
        assert not session.closed
    assert session.closed
    assert len(receiver.requests) == 100


async def test_endpoints_and_functions_share_the_work(tmp_path: Path, receiver: Receiver) -> None:
    """The more specific pattern gets the event, be it a function's or an endpoint's."""
    handlers = Handlers()

    @handlers.on("mail.*")
    async def function(event: Event, context: Context) -> str:
        return "function"

    receiver.answers = [lambda: web.json_response("endpoint")]
    async with house_with(tmp_path, {"match": "mail.urgent", "url": receiver.url}, handlers=handlers) as house:
        general = await house.reaches(await house.send("mail.slow"), "succeeded")
        urgent = await house.reaches(await house.send("mail.urgent"), "succeeded")
    assert (general["result"], urgent["result"]) == ("function", "endpoint")


async def test_a_daemon_with_a_bad_endpoint_does_not_start(tmp_path: Path) -> None:
    """A private address without permission rules the start out before anything is written."""
    tables = [{"match": "*", "url": "http://127.0.0.1/"}]
    with pytest.raises(Refused, match="allow_private = true"):
        async with opened(configuration(tmp_path / "data", {"handlers.http": tables})):
            pass
    assert not (tmp_path / "data").exists()


# Where nobody may be called


@dataclass
class Canary:
    """A listener that counts who connects and says nothing, or one thing, to them."""

    port: int = 0
    connections: int = 0


@asynccontextmanager
async def canary(says: bytes = b"", port: int = 0) -> AsyncIterator[Canary]:
    seen = Canary()
    writers = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        writers.append(writer)
        writer.write(says)
        await reader.read()

    server = await asyncio.start_server(hear, "127.0.0.1", port)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


class Names:
    """A name server that gives each answer once, the last one for ever, and counts the questions."""

    def __init__(self, *answers: Sequence[str] | OSError) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def look_up(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer


@pytest.fixture
async def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every address that the loop connects to from now on; only loopback is let through to the network."""
    loop, addresses = asyncio.get_running_loop(), list[str]()
    connect = loop.sock_connect

    async def watched(sock: Any, address: Any) -> None:
        addresses.append(address[0])
        if address[0] not in ("127.0.0.1", "::1"):
            raise ConnectionRefusedError(111, "no network in this test")
        await connect(sock, address)

    monkeypatch.setattr(loop, "sock_connect", watched)
    return addresses


async def deliver(url: str, names: Names, *, allow_private: bool = False, times: int = 1) -> list[BaseException | None]:
    """Deliver an event to an endpoint and return what each delivery raised."""
    webhook_client = WebhookClient(FakeClock(), names.look_up)
    handler = handler_for(HttpEndpoint("*", url, allow_private=allow_private), webhook_client, Callbacks())
    event = Event("id", "app", "w", "type", "", None, b"{}", b"{}", 0, 1, 1)
    raised: list[BaseException | None] = []
    for _ in range(times):
        try:
            async with asyncio.timeout(10):
                await handler.function(event, Context(event, 1, 0.0, {}))
            raised.append(None)
        except Exception as error:  # what it was is what the tests look at
            raised.append(error)
    await webhook_client.close()
    return raised


FORGED = [
    "http://127.0.0.1:PORT/",
    "http://127.1:PORT/",
    "http://[::1]:PORT/",
    "http://[::ffff:127.0.0.1]:PORT/",
    "http://[::ffff:10.0.0.1]:PORT/",
    "http://169.254.169.254:PORT/",
    "http://2130706433:PORT/",
    "http://017700000001:PORT/",
    "http://0177.0.0.1:PORT/",
    "http://0x7f000001:PORT/",
    "http://0:PORT/",
    "http://0.0.0.0:PORT/",
    "http://localhost:PORT/",
    "http://user@127.0.0.1:PORT/",
    "http://example.com@127.0.0.1:PORT/",
    "http://127.0.0.1:PORT@example.com/",
    "http://①②⑦.0.0.1:PORT/",
    "gopher://127.0.0.1:PORT/_POST",
    "file:///etc/passwd",
]


@pytest.mark.parametrize("url", FORGED)
async def test_no_forged_url_reaches_loopback(url: str, dialled: list[str]) -> None:
    """None of the ways to write an inner address gets as far as a connection."""
    async with canary() as seen:
        names = Names(["127.0.0.1"])
        with pytest.raises(Refused):
            await deliver(url.replace("PORT", str(seen.port)), names)
        assert (seen.connections, dialled, names.asked) == (0, [], [])


async def test_the_canary_sings(receiver: Receiver, dialled: list[str]) -> None:
    """With permission the same address, and a name for it, are reached: the silence of the canary means something."""
    assert await deliver(receiver.url, Names([]), allow_private=True) == [None]
    named = receiver.url.replace("127.0.0.1", "inner.example")
    assert await deliver(named, Names(["127.0.0.1"]), allow_private=True) == [None]
    assert dialled == ["127.0.0.1", "127.0.0.1"]
    assert len(receiver.requests) == 2


@pytest.mark.parametrize(
    "answer", [["127.0.0.1"], [PUBLIC_ADDRESS, "127.0.0.1"], ["::ffff:127.0.0.1"], ["169.254.169.254"]]
)
async def test_a_name_for_an_inner_address_is_denied(answer: list[str], dialled: list[str]) -> None:
    """A name that stands for an inner address, among others or alone, is a permanent failure without a connection."""
    async with canary() as seen:
        [error] = await deliver(f"http://hook.example:{seen.port}/s3cret", Names(answer))
        assert isinstance(error, Denied)
        assert "s3cret" not in str(error)
        assert (seen.connections, dialled) == (0, [])


async def test_a_second_answer_is_never_used(dialled: list[str]) -> None:
    """A name that is first public and then private is dialled where it was checked, or not at all."""
    async with canary() as seen:
        names = Names([PUBLIC_ADDRESS], ["127.0.0.1"])
        url = f"http://rebinding.example:{seen.port}/"
        first, second = await deliver(url, names, times=2)
        assert isinstance(first, Retry)
        assert isinstance(second, Denied)
        assert dialled == [PUBLIC_ADDRESS]
        assert names.asked == ["rebinding.example"] * 2
        assert seen.connections == 0


@pytest.mark.parametrize(
    "failure",
    [socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), socket.gaierror(socket.EAI_NONAME, "No"), TimeoutError()],
)
async def test_a_name_server_that_fails_is_a_retry(failure: OSError, dialled: list[str]) -> None:
    """A name that cannot be looked up is tried again later and dialled nowhere."""
    [error] = await deliver("https://gone.example/s3cret", Names(failure))
    assert isinstance(error, Retry)
    assert error.after is None
    assert str(error).startswith("https://gone.example did not answer: ")
    assert "s3cret" not in str(error)
    assert dialled == []
