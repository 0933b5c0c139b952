"""Webhooks from the socket to the handler: each preset as its provider signs, and each way in which that goes wrong."""

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from replayforge.domain.clock import SystemClock
from replayforge.domain.event import Event
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.registry import Handlers
from tests.integration.conftest import shares_a_house
from tests.support.house import House, open_house
from tests.support.providers import SIGNED, WITH_TIME, headers_of, secrets_of

FORM = "application/x-www-form-urlencoded"
KEYED = ("github", "stripe", "shopify", "slack", "standard-webhooks", "hmac")
SOURCES: list[dict[str, Any]] = [
    {"name": preset, "preset": preset, "secrets": secrets_of(preset)}
    | ({"key": "{header:x-delivery}", "headers": ["X-Kept"]} if preset == "hmac" else {})
    for preset in SIGNED
]
UNSIGNED = {"name": "open", "preset": "none"}

Answer = tuple[int, dict[str, str], bytes]
UNKNOWN = {"standard-webhooks": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oE"}

seen: dict[str, Event] = {}


def noting_handlers() -> Handlers:
    """Return a handler that notes what it was given."""
    handlers = Handlers()

    @handlers.on("*")
    async def note(event: Event, context: Context) -> None:
        seen[event.id] = event

    return handlers


@asynccontextmanager
async def house_of(directory: Path, **settings: Any) -> AsyncIterator[House]:
    chosen = {"sources": [*SOURCES, UNSIGNED], "server.event_bytes_max": 4 << 20} | settings
    async with open_house(directory, noting_handlers(), chosen) as house:
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sources_house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with house_of(tmp_path_factory.mktemp("sources") / "data") as house:
        yield house


def body_of(preset: str, name: str, size: int = 0) -> bytes:
    """Return a body as the provider would send it, with bytes that any decoding and encoding would change."""
    filler = "x" * size
    if preset == "twilio":
        return f"SmsStatus=sent&Body=h%c3%a9llo+{name}&To=%2B1&filler={filler}".encode()
    event = {"type": "message"} if preset == "slack" else {}
    written = json.dumps({"type": "a.b", "id": name, "event_id": name, "event": event, "filler": filler})
    return b' \n{"first" : 1.0,' + written[1:].encode() + b"\n"


def content_type_of(preset: str) -> str:
    """Return as what the provider sends its bodies."""
    return FORM if preset == "twilio" else "application/json"


async def deliver(
    house: House,
    preset: str,
    body: bytes,
    *,
    secret: str = "",
    at: float | None = None,
    name: str = "d1",
    **changed: Any,
) -> Answer:
    """Send a body as its provider does; `changed` is what is sent instead: the body, its type, other headers."""
    url, at = str(house.http.make_url(f"/in/{preset}")), time.time() if at is None else at
    headers = headers_of(preset, secret or secrets_of(preset)[0], body, int(at), url=url, delivery=name)
    headers |= {"Content-Type": changed.get("content_type", content_type_of(preset))}
    headers.pop(changed.get("without", ""), None)
    data = changed.get("sent", body)
    async with house.http.post(f"/in/{preset}", data=data, headers=headers | changed.get("headers", {})) as response:
        return response.status, dict(response.headers), await response.read()


async def handled(house: House, headers: dict[str, str]) -> Event:
    """Return the event of an answer as its handler was given it."""
    event_id = headers["ReplayForge-Event-Id"]
    await house.reaches(event_id, "succeeded")
    return seen[event_id]


def assert_came_whole(event: Event, body: bytes, content_type: str = "application/json") -> None:
    if content_type == "application/json":
        assert event.payload_bytes == body
        return
    payload = event.payload
    form = payload.pop("form", None)
    assert payload == {"content_type": content_type, "text": body.decode()}
    assert (form is not None) == (content_type == FORM)


SIGNATURE_HEADERS = {
    "github": "X-Hub-Signature-256", "stripe": "Stripe-Signature", "shopify": "X-Shopify-Hmac-Sha256",
    "slack": "X-Slack-Signature", "standard-webhooks": "webhook-signature", "twilio": "X-Twilio-Signature",
    "hmac": "X-Webhook-Signature", "basic": "Authorization",
}  # fmt: skip
# What is done to a delivery, and at whose deliveries it shows.
CASES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "right": ({}, ()),
    "1 MiB": ({"size": 1 << 20}, ()),
    "chunked": ({"chunked": True}, ()),
    "old secret": ({"secret": 1}, ()),
    "duplicate": ({}, ()),
    "wrong content type": ({"content_type": "text/plain"}, ("twilio",)),  # what is no form it signs in another way
    "flipped byte": ({"flipped": True}, tuple(one for one in SIGNED if one != "basic")),
    "stale time": ({"late_seconds": 400}, WITH_TIME),
    "unknown secret": ({"secret": 2}, SIGNED),
    "missing header": ({"unsigned": True}, SIGNED),
}


async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 7):
        yield body[start : start + 7]
        await asyncio.sleep(0)


async def deliver_changed(house: House, preset: str, body: bytes, name: str, change: dict[str, Any]) -> Answer:
    """Send a body as its provider does, but for what is changed."""
    sent: Any = body[:-2] + bytes([body[-2] ^ 1]) + body[-1:] if "flipped" in change else body
    return await deliver(
        house,
        preset,
        body,
        name=name,
        secret=[*secrets_of(preset), UNKNOWN.get(preset, "unknown:secret")][change.get("secret", 0)],
        at=time.time() - change.get("late_seconds", 0),
        content_type=change.get("content_type", content_type_of(preset)),
        without=SIGNATURE_HEADERS[preset] if "unsigned" in change else "",
        sent=in_pieces(body) if "chunked" in change else io.BytesIO(sent),
    )


@shares_a_house
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("preset", SIGNED)
async def test_deliveries(sources_house: House, preset: str, case: str) -> None:
    """What is signed as its provider signs is run with the bytes that were sent; what is not is 401 and no event."""
    house, name, (change, refused) = sources_house, f"{preset} {case}", CASES[case]
    body, logged = body_of(preset, name, change.get("size", 0)), await house.logged()
    status, headers, said = await deliver_changed(house, preset, body, name, change)
    if preset in refused:
        assert (status, await house.logged()) == (401, logged)
        assert secrets_of(preset)[0].encode() not in said
        return
    assert status == 200, said
    event = await handled(house, headers)
    if "flipped" not in change:
        assert_came_whole(event, body, change.get("content_type", content_type_of(preset)))
    if case == "duplicate":
        status, again, answer = await deliver(house, preset, body, name=name, at=time.time() + 1)
        assert (status, answer) == (200, said)
        known = again["ReplayForge-Event-Id"] == headers["ReplayForge-Event-Id"]
        assert known == (again.get("ReplayForge-Duplicate") == "true") == (preset in KEYED)
        assert await house.logged() == logged + (1 if preset in KEYED else 2)


@shares_a_house
async def test_packed_bodies_are_refused(sources_house: House) -> None:
    """What is signed is packed or not, and nobody unpacks it: 415."""
    assert (await deliver(sources_house, "github", b"{}", headers={"Content-Encoding": "gzip"}))[0] == 415


@shares_a_house
async def test_what_an_event_tells_of_its_source(sources_house: House) -> None:
    """Type, workflow, key and origin are those of the preset; headers are kept, and none that signs."""
    house = sources_house
    _, headers, said = await deliver(house, "github", b'{"repository":{"full_name":"a/b"}}', name="told")
    event = await house.event(headers["ReplayForge-Event-Id"])
    assert said == b'{"received":true}'
    told = (event["event_type"], event["workflow_id"], event["idempotency_key"], event["origin"], event["service_name"])
    assert told == ("github.push", "a/b", "told", "source:github", "github")
    assert event["metadata"] == {
        "source": "github",
        "headers": {
            "x-github-event": "push",
            "x-github-delivery": "told",
            "x-github-hook-id": "292430182",
            "content-type": "application/json",
        },
    }


@shares_a_house
async def test_a_differing_delivery_changes_nothing(sources_house: House) -> None:
    """The first of a delivery id stands, whatever the next one says; it is 200, counted, and kept to be looked at."""
    house = sources_house
    _, first, _ = await deliver(house, "shopify", b'{"a":1}', name="one id")
    await handled(house, first)
    house.daemon.sources.kept_at.clear()
    status, again, _ = await deliver(house, "shopify", b'{"a":2}', name="one id")
    assert (status, again["ReplayForge-Event-Id"]) == (200, first["ReplayForge-Event-Id"])
    assert (await house.event(first["ReplayForge-Event-Id"]))["payload"] == {"a": 1}
    kept = (await house.get("/api/sources/shopify/refusals"))["items"]
    assert (kept[0]["reason"], kept[0]["size_bytes"], kept[0]["whole"]) == ("differs", 7, True)
    assert "x-shopify-hmac-sha256" not in kept[0]["headers"]
    (shown,) = [one for one in (await house.get("/api/sources"))["items"] if one["name"] == "shopify"]
    assert shown["differing"] == 1
    # Nobody who sends events can take a delivery's place.
    sent = await house.send("shopify.orders/create", {"a": 3}, application_name="shopify", idempotency_key="one id")
    assert sent != first["ReplayForge-Event-Id"]


@shares_a_house
async def test_challenges_are_answered(sources_house: House) -> None:
    """Slack's question is answered when it is signed, that of a GET when a secret comes with it; none is an event."""
    house = sources_house
    logged = await house.logged()
    body = b'{"token":"x","challenge":"3eZbrw1aBm2rZgRNFdxV","type":"url_verification"}'
    status, headers, said = await deliver(house, "slack", body)
    assert (status, said, headers["Content-Type"]) == (200, b"3eZbrw1aBm2rZgRNFdxV", "text/plain")
    assert (await deliver(house, "slack", body, secret="another"))[0] == 401
    token = secrets_of("hmac")[1]
    query = {"hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": token}
    assert await ask(house, "hmac", query) == (200, "1158201444")
    assert (await ask(house, "hmac", query | {"hub.verify_token": "no"}))[0] == 401
    assert (await ask(house, "hmac", {"crc_token": "challenge"}))[0] == 200
    assert (await ask(house, "github", query))[0] == 405
    assert (await ask(house, "unknown", query))[0] == 404
    assert await house.logged() == logged


async def ask(house: House, source: str, query: dict[str, str]) -> tuple[int, str]:
    async with house.http.get(f"/in/{source}", params=query) as response:
        return response.status, await response.text()


@shares_a_house
async def test_providers_get_the_answers_that_they_expect(sources_house: House) -> None:
    """Slack shows what it is answered, so it is nothing; Twilio reads XML."""
    assert (await deliver(sources_house, "slack", body_of("slack", "answer")))[2] == b""
    _, headers, said = await deliver(sources_house, "twilio", body_of("twilio", "answer"))
    assert (headers["Content-Type"], said) == ("text/xml", b"<Response></Response>")


async def test_a_provider_needs_no_key(tmp_path: Path) -> None:
    """Key, host and same-origin checks are not for what is signed; a source without a signature keeps all three.

    What is signed lies below the base path and is signed for the public URL.
    """
    settings = {"server.api_keys": ["key"], "server.allowed_hosts": ["inside"], "server.base_path": "/rf",
                "server.public_url": "https://hooks.example.com"}  # fmt: skip
    async with house_of(tmp_path / "data", **settings) as house:
        body, foreign = body_of("twilio", "far"), {"Host": "hooks.example.com", "Origin": "https://elsewhere.com"}
        signed = headers_of(
            "twilio", secrets_of("twilio")[0], body, 0, url="https://hooks.example.com/rf/in/twilio?a=1"
        )
        headers = {"Content-Type": FORM, **foreign, **signed}
        assert await posted(house, "/rf/in/twilio?a=1", body, headers) == 200
        assert await posted(house, "/rf/in/twilio?a=2", body, headers) == 401
        inside = {"Host": "inside", "Content-Type": "application/json"}
        assert await posted(house, "/rf/in/open", b"{}", inside) == 401
        assert await posted(house, "/rf/in/open", b"{}", inside | {"Host": "else", "X-API-Key": "key"}) == 421
        assert await posted(house, "/rf/in/open", b"{}", inside | {"X-API-Key": "key"}) == 200
        assert await posted(house, "/rf/in/nobody", b"{}", inside) == 401
        assert await posted(house, "/rf/in/github/x", b"{}", inside) == 401
    async with house_of(tmp_path / "other") as house:
        assert await posted(house, "/in/open", b"{}", {"Origin": "https://elsewhere.com"}) == 403


async def posted(house: House, path: str, body: bytes, headers: dict[str, str]) -> int:
    async with house.http.post(path, data=body, headers=headers) as response:
        return response.status


async def test_limits_and_pauses_say_when_to_come_back(tmp_path: Path) -> None:
    """Too fast is 429, paused 503, too large 413; each with its Retry-After, counted, and nothing of it an event."""
    limited = {"name": "github", "preset": "github", "secrets": ["x"], "rate": "2/h"}
    async with house_of(tmp_path / "data", sources=[limited], **{"server.event_bytes_max": 2048}) as house:

        async def send(body: bytes, name: str) -> Answer:
            return await deliver(house, "github", body, secret="x", name=name)

        assert [(await send(b"{}", name))[0] for name in "ab"] == [200, 429]
        status, headers, _ = await send(b"{}", "c")
        assert (status, int(headers["Retry-After"]) > 1000) == (429, True)
        assert (await send(b" " * 2049, "d"))[0] == 413
        status, paused = await house.post("/api/sources/github/pause", {"reason": "<moving>", "by": "me"})
        assert (status, paused["pattern"], paused["reason"]) == (200, "github", "<moving>")
        status, headers, _ = await send(b"{}", "e")
        assert (status, headers["Retry-After"]) == (503, "30")
        (shown,) = (await house.get("/api/sources"))["items"]
        assert (shown["status"], shown["accepted"], shown["paused"]["by"]) == ("paused", 1, "me")
        assert shown["refused"] == {"overloaded": 2, "too-large": 1, "unavailable": 1}
        assert (await house.post("/api/sources/github/resume"))[0] == 200
        assert (await house.post("/api/sources/github/resume"))[0] == 404
        assert (await house.post("/api/sources/github/pause", {"reason": " "}))[0] == 422
        assert (await house.post("/api/sources/other/pause", {"reason": "x"}))[0] == 404
        assert (await send(b"{}", "f"))[0] == 429


async def test_a_pause_holds_from_the_first_request_after_a_restart(tmp_path: Path) -> None:
    """A source that is paused accepts nothing, not even what comes before any chore was done."""
    github = {"name": "github", "preset": "github", "secrets": ["x"]}
    async with house_of(tmp_path / "data", sources=[github]) as house:
        await house.post("/api/sources/github/pause", {"reason": "moving", "by": "me"})
    async with house_of(tmp_path / "data", sources=[github], **{"janitor.refill_seconds": 3600}) as house:
        assert (await deliver(house, "github", b"{}", secret="x", name="a"))[0] == 503


class HourLater(SystemClock):
    """The machine's clock an hour from now."""

    def now_us(self) -> int:
        return super().now_us() + 3_600_000_000


async def test_what_was_refused_is_verified_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the secret is right, what was refused for a wrong one is accepted as if it had just come, and run once.

    Time is judged as at arrival: what was stale then stays refused, what was fresh then is right long after.
    """
    wrong = [one | {"secrets": ["mistyped"]} for one in SOURCES if one["name"] == "stripe"]
    body = body_of("stripe", "evt_1")
    async with house_of(tmp_path / "data", sources=wrong) as house:
        assert (await deliver(house, "stripe", body))[0] == 401
        for refused in ("stale", "too large", "forged"):
            house.daemon.sources.kept_at.clear()
            at = time.time() - 400 if refused == "stale" else None
            large = body_of("stripe", "evt_large", 100_000) if refused == "too large" else body_of("stripe", refused)
            secret = "forged" if refused == "forged" else ""
            assert (await deliver(house, "stripe", large, at=at, secret=secret))[0] == 401
        assert (await deliver(house, "stripe", body_of("stripe", "one too soon")))[0] == 401
        assert (await house.post("/api/sources/stripe/refusals/verify"))[1]["accepted"] == []
        (shown,) = (await house.get("/api/sources"))["items"]
        assert (shown["refused"], shown["refusals_kept"]) == ({"wrong_signature": 5}, 4)
    right = [one for one in SOURCES if one["name"] == "stripe"]
    async with house_of(tmp_path / "data", sources=right) as house:
        kept = (await house.get("/api/sources/stripe/refusals"))["items"]
        assert [(one["reason"], one["whole"]) for one in kept] == [
            ("wrong_signature", True), ("wrong_signature", False), ("wrong_signature", True), ("wrong_signature", True),
        ]  # fmt: skip
        assert "Signature" not in json.dumps(kept)
        monkeypatch.setattr(house.daemon.sources, "clock", HourLater())
        status, verified = await house.post("/api/sources/stripe/refusals/verify")
        assert (status, verified["still_refused"], verified["cut"]) == (200, 2, 1)
        (event_id,) = verified["accepted"]
        await house.reaches(event_id, "succeeded")
        assert seen[event_id].payload_bytes == body
        again = (await house.post("/api/sources/stripe/refusals/verify"))[1]
        assert (again["accepted"], again["duplicates"], again["still_refused"], again["cut"]) == ([], 0, 2, 1)
        monkeypatch.undo()
        status, headers, _ = await deliver(house, "stripe", body)
        assert (status, headers["ReplayForge-Event-Id"]) == (200, event_id)
