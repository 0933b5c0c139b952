"""Signatures of the providers' own published examples, and what makes a right one wrong."""

import pytest

from replayforge.domain.webhook_presets import PRESETS
from replayforge.domain.webhook_signature import Refusal, WebhookDelivery, echoed, key_of, refusal_of, signed

SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
    b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
TWILIO_BODY = b"CallSid=CA1234567890ABCDE&Caller=%2B14158675310&Digits=1234&From=%2B14158675310&To=%2B18005551212"
FORM = {"content-type": "application/x-www-form-urlencoded"}

# What the providers publish: GitHub "Validating webhook deliveries", Slack "Verifying requests from Slack", the
# specification of Standard Webhooks, Twilio's api-snippets. Shopify publishes a rule and no example: this one was made
# by another project (SQLPage). Of Stripe, which publishes a rule as well, see below.
PUBLISHED = {
    "github": (
        "It's a Secret to Everybody",
        b"Hello, World!",
        {"x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
        0,
    ),
    "slack": (
        "8f742231b10e8888abcd99yyyzzz85a5",
        SLACK_BODY,
        {
            "x-slack-request-timestamp": "1531420618",
            "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        },
        1531420618,
    ),
    "standard-webhooks": (
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        b'{"test": 2432232314}',
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
        1614265330,
    ),
    "twilio": ("12345", TWILIO_BODY, FORM | {"x-twilio-signature": "GvWf1cFY/Q7PnoempGyD5oXAezc="}, 0),
    "shopify": (
        "test-webhook-secret",
        b'{"id":1234567890,"email":"customer@example.com","total_price":"123.45"}',
        {"x-shopify-hmac-sha256": "QNyObTlKbMx2qDlPF/ZOZcBqg5OgPg+2oky3zldc0Gw="},
        0,
    ),
    # By Stripe's rule, HMAC-SHA256 over "TIME.BODY", with `openssl dgst -sha256 -hmac`.
    "stripe": (
        "whsec_test_secret",
        b'{"id": "evt_test_webhook","object": "event"}',
        {"stripe-signature": "t=1492774577,v0=6,v1=66d86a97ac5620300b0335877ac036f6d74f84ea2e1df371bd45689d0090f9b7"},
        1492774577,
    ),
}


def published(preset: str) -> tuple[bytes, WebhookDelivery, int]:
    secret, body, headers, at = PUBLISHED[preset]
    return (
        key_of(PRESETS[preset], secret),
        WebhookDelivery("https://mycompany.com/myapp.php?foo=1&bar=2", headers, body),
        at,
    )


@pytest.mark.parametrize("preset", PUBLISHED)
def test_published_examples_are_right(preset: str) -> None:
    """What a provider publishes as an example is accepted, at its time and up to 300 seconds from it."""
    key, delivery, at = published(preset)
    for distance in (-300, 0, 300):
        assert refusal_of(PRESETS[preset], [b"another", key], delivery, at + distance) is None


@pytest.mark.parametrize("preset", PUBLISHED)
def test_nothing_else_is_right(preset: str) -> None:
    """Another body, another secret, no header and an old time are each refused by their own reason."""
    key, delivery, at = published(preset)
    rules, flipped = PRESETS[preset], WebhookDelivery(delivery.url, delivery.headers, delivery.body[:-1] + b"~")
    assert refusal_of(rules, [key], flipped, at) is Refusal.WRONG_SIGNATURE
    assert refusal_of(rules, [key + b"."], delivery, at) is Refusal.WRONG_SIGNATURE
    assert refusal_of(rules, [], delivery, at) is Refusal.WRONG_SIGNATURE
    for missing in delivery.headers.keys() - FORM.keys():
        left = {name: value for name, value in delivery.headers.items() if name != missing}
        assert refusal_of(rules, [key], WebhookDelivery(delivery.url, left, delivery.body), at) is Refusal.NO_SIGNATURE
    if rules.signs_time:
        assert refusal_of(rules, [key], delivery, at + 301) is Refusal.STALE
        assert refusal_of(rules, [key], delivery, at - 301) is Refusal.STALE
        assert refusal_of(rules, [b"another"], delivery, at + 301) is Refusal.WRONG_SIGNATURE


@pytest.mark.parametrize(
    "header",
    ["", "t=", "v1=", ",,,", "t=1492774577", "t=x,v1=aa", "v1=\udcff,t=1492774577", "t=1492774577,v1=" + "a" * 70_000],
)
def test_what_is_no_signature_is_refused(header: str) -> None:
    """A header that holds anything else is refused, and nothing else happens."""
    delivery = WebhookDelivery("", {"stripe-signature": header}, b"{}")
    assert refusal_of(PRESETS["stripe"], [b"secret"], delivery, 1492774577) is not None


def test_twilio_signs_bodies_of_other_kinds_by_their_hash() -> None:
    """Where the body is no form its SHA-256 stands in the URL that is signed, and must fit."""
    digest = "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"  # of 12345
    unsigned = WebhookDelivery(f"https://example.com/in/twilio?bodySHA256={digest}", {}, b"12345")
    right = signed(PRESETS["twilio"], b"token", unsigned, 0)
    assert refusal_of(PRESETS["twilio"], [b"token"], right, 0) is None
    other = WebhookDelivery(right.url, right.headers, b"12346")
    assert refusal_of(PRESETS["twilio"], [b"token"], other, 0) is Refusal.WRONG_SIGNATURE
    bare = signed(PRESETS["twilio"], b"token", WebhookDelivery("https://example.com/in/twilio", {}, b""), 0)
    moved = WebhookDelivery(bare.url, bare.headers, b"anything")
    assert refusal_of(PRESETS["twilio"], [b"token"], moved, 0) is Refusal.WRONG_SIGNATURE


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_signed_for_a_trial_is_right(preset: str) -> None:
    """A delivery that `sources test` signs is accepted under each preset."""
    rules = PRESETS[preset]
    key = key_of(rules, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    trial = signed(rules, key, WebhookDelivery("https://example.com/in/one", dict(FORM), b"a=1&b=2"), 1_700_000_000)
    assert refusal_of(rules, [key], trial, 1_700_000_000) is None


def test_the_question_of_a_get_is_answered_to_those_who_know_a_secret() -> None:
    """`hub.challenge` comes back for a verify_token that is a secret, `crc_token` is signed; else nothing."""
    assert echoed([b"one", b"two"], {"hub.challenge": "1158201444", "hub.verify_token": "two"}) == b"1158201444"
    assert echoed([b"one", b"two"], {"hub.challenge": "1158201444", "hub.verify_token": "three"}) is None
    assert echoed([b"one"], {"hub.challenge": "1158201444"}) is None
    assert echoed([b"one"], {}) is None
    answer = echoed([b"one"], {"crc_token": "token"})
    assert answer is not None
    assert answer.startswith(b'{"response_token":"sha256=')


def test_a_secret_that_cannot_be_meant_is_named_without_its_value() -> None:
    with pytest.raises(ValueError, match="whsec_ with Base64") as caught:
        key_of(PRESETS["standard-webhooks"], "whsec_no base64!")
    assert "no base64" not in str(caught.value)
