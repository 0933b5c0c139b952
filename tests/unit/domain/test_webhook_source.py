"""Templates, bodies, headers: what a delivery becomes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayforge.config import SourceConfig
from replayforge.domain.event import EventRecord
from replayforge.domain.identity import event_id_for_key, source_event_id
from replayforge.domain.template import template_of
from replayforge.domain.webhook_body import raw_of, read
from replayforge.domain.webhook_presets import PRESETS
from replayforge.domain.webhook_signature import WebhookDelivery, signed
from replayforge.domain.webhook_source import Arrival, Source, judged
from replayforge.engine.accept.source_loading import source_of

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
NOW_US = 1_700_000_000_000_000


def source(preset: str, **fields: Any) -> Source:
    secrets = () if preset == "none" else ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",)
    return source_of(SourceConfig(name="shop", preset=preset, secrets=secrets, **fields), {})  # type: ignore[arg-type]


def arrival(source: Source, body: bytes, **headers: str) -> Arrival:
    given = {"content-type": JSON} | {name.replace("_", "-"): value for name, value in headers.items()}
    delivery = WebhookDelivery("https://example.com/in/shop", given, body)
    trial = signed(source.preset, source.keys[0], delivery, NOW_US // 1_000_000) if source.keys else delivery
    found = judged(source, trial, NOW_US, NOW_US)
    assert isinstance(found, Arrival)
    return found


def record(source: Source, body: bytes, **headers: str) -> EventRecord:
    found = arrival(source, body, **headers).record
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("preset", "body", "headers", "event_type", "workflow", "key"),
    [
        ("github", {"action": "opened", "repository": {"full_name": "a/b"}}, {"x_github_event": "issues"},
         "github.issues.opened", "a/b", None),
        ("github", {"ref": "main"}, {"x_github_event": "push", "x_github_delivery": "d1"}, "github.push", "shop", "d1"),
        ("stripe", {"id": "evt_1", "type": "charge.failed"}, {}, "stripe.charge.failed", "shop", "evt_1"),
        ("stripe", {"type": "x", "data": {"object": {"customer": "cus_1"}}}, {}, "stripe.x", "cus_1", None),
        ("shopify", {}, {"x_shopify_topic": "orders/create", "x_shopify_webhook_id": "w", "x_shopify_shop_domain": "s"},
         "shopify.orders/create", "s", "w"),
        ("slack", {"type": "event_callback", "event": {"type": "message"}, "event_id": "Ev1", "team_id": "T"}, {},
         "slack.message", "T", "Ev1"),
        ("slack", {"type": "block_actions"}, {}, "slack.block_actions", "shop", None),
        ("standard-webhooks", {"type": "user.created"}, {"webhook_id": "m"}, "user.created", "shop", "m"),
        ("standard-webhooks", [1], {"webhook_id": "m"}, "shop", "shop", "m"),
        ("twilio", {}, {}, "shop", "shop", None),
        ("hmac", {"type": "x"}, {}, "shop", "shop", None),
        ("basic", {"type": "x"}, {}, "shop", "shop", None),
        ("none", {"type": "x"}, {}, "shop", "shop", None),
    ],
)  # fmt: skip
def test_presets_name_what_comes(
    preset: str, body: Any, headers: dict[str, str], event_type: str, workflow: str, key: str | None
) -> None:
    """Type, workflow and key are those of the table; what is missing drops out, and without a key every one is new."""
    if preset == "twilio":
        raw, headers = b"a=1", {"content_type": FORM}
    else:
        raw = json.dumps(body).encode()
    found = record(source(preset), raw, **headers)
    assert (found.event_type, found.workflow_id, found.idempotency_key) == (event_type, workflow, key)
    assert (found.origin, found.application_name, found.parent_id) == ("source:shop", "shop", None)
    if key is not None:
        assert found.id == source_event_id("shop", key) != event_id_for_key("shop", key)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{source}.{body:a}.{body:no}.end", "shop.1.end"),
        ("{body:no}", "shop"),
        ("{body:a}-{body:no}.{body:b.c}", "1-.true"),
        ("{header:X-Given}{body:list.1.d}", "héllo?deep"),
        ("{body:big}.{body:null}.{body:b}", "12345678901234567890.5"),
    ],
)
def test_templates_are_filled(template: str, name: str) -> None:
    """Values are as they are written, names of headers in any case; what is no plain value is missing."""
    body = b'{"a": 1, "b": {"c": true}, "list": [0, {"d": "deep"}], "big": 12345678901234567890.5, "null": null}'
    assert record(source("none", event_type=template), body, x_given="héllo\n").event_type == name


def test_a_key_must_be_whole() -> None:
    """A key of which a part is missing could be that of others, so there is none."""
    keyed = source("none", key="{body:a}-{body:b}")
    assert record(keyed, b'{"a": 1}').idempotency_key is None
    first, second = (record(keyed, b'{"a": "%s", "b": 2}' % (b"x" * 300 + end)) for end in (b"1", b"2"))
    assert first.idempotency_key == second.idempotency_key == "x" * 255
    assert first.id != second.id


@pytest.mark.parametrize("template", ["{body}", "{name}", "{body:a", "a}", "{header:a{b}}"])
def test_templates_that_name_nothing_are_refused(template: str) -> None:
    with pytest.raises(ValueError, match="braces"):
        template_of(template)


@pytest.mark.parametrize("body", [b'{"a":1}', b' \r\n{"a": [1 ,2] }\n\n', b"[]", b"1", b'"\\ud83d\\ude00"', b"null\n"])
def test_json_is_the_payload_byte_for_byte(body: bytes) -> None:
    """White space around it included, and what is sent on is the same."""
    for content_type in (JSON, "application/vnd.api+json; charset=utf-8", ""):
        found = record(source("none"), body, content_type=content_type)
        assert found.content.payload == body
        assert raw_of(found.content.payload, json.loads(found.content.metadata)) == body


@pytest.mark.parametrize(
    ("body", "content_type", "payload"),
    [
        (b'{"a":1}', "text/plain", {"content_type": "text/plain", "text": '{"a":1}'}),
        (b'{"a":', JSON, {"content_type": JSON, "text": '{"a":'}),
        (b"", JSON, {"content_type": JSON, "text": ""}),
        (b'{"a":1,"a":NaN}', JSON, {"content_type": JSON, "text": '{"a":1,"a":NaN}'}),
        (b"\xff\x00", "image/png", {"content_type": "image/png", "base64": "/wA="}),
        (b"a=1&b=%C3%A9&a=2&c=", FORM, {"content_type": FORM, "text": "a=1&b=%C3%A9&a=2&c=",
                                       "form": {"a": ["1", "2"], "b": "é", "c": ""}}),
        (b"a=\xff", FORM, {"content_type": FORM, "base64": "YT3/"}),
    ],
)  # fmt: skip
def test_other_bodies_are_described(body: bytes, content_type: str, payload: Any) -> None:
    """Text as text, bytes in Base64, the fields of a form beside its text; the body can be had back from it."""
    found = record(source("none"), body, content_type=content_type)
    assert json.loads(bytes(found.payload)) == payload
    assert raw_of(found.content.payload, json.loads(found.content.metadata)) == body


def test_forms_that_carry_json_are_opened() -> None:
    """Slack's interactions and GitHub's forms are the JSON in their field; where it is none the form stays a form."""
    found = record(source("slack"), b"payload=%7B%22type%22%3A%22view%20closed%22%7D", content_type=FORM)
    assert (bytes(found.payload), found.event_type) == (b'{"type":"view closed"}', "slack.view closed")
    assert (
        raw_of(found.content.payload, json.loads(found.content.metadata))
        == b"payload=%7B%22type%22%3A%22view+closed%22%7D"
    )
    command = record(source("slack"), b"command=%2Fdeploy&payload=no", content_type=FORM)
    assert json.loads(bytes(command.payload))["form"] == {"command": "/deploy", "payload": "no"}
    twilio = record(source("twilio", event_type="sms.{body:SmsStatus}"), b"SmsStatus=sent&a=1", content_type=FORM)
    assert twilio.event_type == "sms.sent"


def test_the_posted_challenge_is_answered_and_no_event() -> None:
    found = arrival(source("slack"), b'{"type":"url_verification","challenge":"3eZbrw1a"}')
    assert found == Arrival(None, b"3eZbrw1a")


def test_no_header_that_proves_an_identity_is_kept() -> None:
    """Whatever a source asks for: keys, cookies, passwords and signatures are left out, and the rest has its limit."""
    given = {
        "authorization": "Bearer x", "cookie": "a=b", "x_api_key": "k", "x_hub_signature": "s", "x_custom_hmac": "h",
        "x_gitlab_token": "t", "proxy_authorization": "p", "x_github_event": "push", "user_agent": "GitHub-Hookshot/1",
        "x_long": "y" * 8_000, "x_longer": "z" * 8_000,
    }  # fmt: skip
    found = json.loads(bytes(record(source("github", headers=("*",)), b"{}", **given).metadata))
    assert set(found["headers"]) == {"content-type", "x-github-event", "user-agent", "x-long"}


@given(st.sampled_from(sorted(PRESETS)), st.binary(max_size=200), st.text(max_size=40))
def test_any_delivery_is_judged(preset: str, body: bytes, header: str) -> None:
    """Whatever comes is accepted or refused, and no template stumbles."""
    rules = source(preset)
    for content_type in (JSON, FORM, header):
        headers = {"content-type": content_type, **dict.fromkeys(rules.preset.signature_headers, header)}
        judged(rules, WebhookDelivery("https://example.com/in/shop", headers, body), NOW_US, NOW_US)
        read(body, content_type, "payload").find("a.b.c")
