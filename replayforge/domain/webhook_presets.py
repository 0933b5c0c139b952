"""How providers send webhooks, as data: what they sign and how, what an event of theirs is called, what they expect."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

WINDOW_SECONDS = 300  # how old, or how far ahead, the time may be that a provider has signed


class Scheme(StrEnum):
    """By what a delivery proves its sender: a signature of its body, or of its URL and form, a password, nothing."""

    BODY = "body"
    URL = "url"
    PASSWORD = "password"  # noqa: S105 - the name of a scheme
    NOTHING = "nothing"


class Challenge(StrEnum):
    """How a provider asks whether the address is ours before it sends events: not, by a POST, or by a GET."""

    NONE = "none"
    POSTED = "posted"
    ASKED = "asked"


@dataclass(frozen=True, slots=True)
class Preset:
    """One way to send webhooks. Header names are lower case; of templates the first whose parts are all there is taken.

    A signature stands in the first of `signature_headers` that is there, behind one of `prefixes`; where a header holds
    several, a `separator` stands between them. What is signed is `before`, with the delivery's id and time, and then
    the body. `form_field` is the field of a form that carries JSON. `answer` is what the provider is told in a 200.
    """

    scheme: Scheme
    event_type: tuple[str, ...] = ("{source}",)
    workflow: tuple[str, ...] = ("{source}",)
    key: str = ""
    headers: tuple[str, ...] = ()
    signature_headers: tuple[str, ...] = ()
    digest: str = "sha256"
    encodings: tuple[str, ...] = ("hex",)
    prefixes: tuple[str, ...] = ("",)
    separator: str = ""
    before: str = ""
    id_header: str = ""
    time_header: str = ""
    time_prefix: str = ""
    secret_prefix: str = ""
    form_field: str = ""
    challenge: Challenge = Challenge.NONE
    answer: bytes = b'{"received":true}'
    answer_type: str = "application/json"

    @property
    def signs_time(self) -> bool:
        """Whether a delivery is refused when it is too old."""
        return bool(self.time_header or self.time_prefix)


PRESETS: Mapping[str, Preset] = {
    "github": Preset(
        Scheme.BODY,
        event_type=("github.{header:x-github-event}.{body:action}",),
        workflow=("{body:repository.full_name}", "{body:organization.login}", "{source}"),
        key="{header:x-github-delivery}",
        headers=("x-github-*",),
        signature_headers=("x-hub-signature-256",),
        prefixes=("sha256=",),
        form_field="payload",
    ),
    "stripe": Preset(
        Scheme.BODY,
        event_type=("stripe.{body:type}",),
        workflow=("{body:data.object.customer}", "{source}"),
        key="{body:id}",
        signature_headers=("stripe-signature",),
        prefixes=("v1=",),
        separator=",",
        before="{time}.",
        time_prefix="t=",
    ),
    "shopify": Preset(
        Scheme.BODY,
        event_type=("shopify.{header:x-shopify-topic}",),
        workflow=("{header:x-shopify-shop-domain}", "{source}"),
        key="{header:x-shopify-webhook-id}",
        headers=("x-shopify-*",),
        signature_headers=("x-shopify-hmac-sha256",),
        encodings=("base64",),
    ),
    "slack": Preset(
        Scheme.BODY,
        event_type=("slack.{body:event.type}", "slack.{body:type}"),
        workflow=("{body:team_id}", "{body:team.id}", "{source}"),
        key="{body:event_id}",
        headers=("x-slack-*",),
        signature_headers=("x-slack-signature",),
        prefixes=("v0=",),
        before="v0:{time}:",
        time_header="x-slack-request-timestamp",
        form_field="payload",
        challenge=Challenge.POSTED,
        answer=b"",  # what stands there is shown to the person who gave a command
        answer_type="text/plain",
    ),
    "standard-webhooks": Preset(
        Scheme.BODY,
        event_type=("{body:type}", "{source}"),
        key="{header:webhook-id}",
        headers=("webhook-id", "webhook-timestamp"),
        signature_headers=("webhook-signature",),
        encodings=("base64",),
        prefixes=("v1,",),
        separator=" ",
        before="{id}.{time}.",
        id_header="webhook-id",
        time_header="webhook-timestamp",
        secret_prefix="whsec_",  # noqa: S106 - what secrets begin with
    ),
    "twilio": Preset(
        Scheme.URL,
        signature_headers=("x-twilio-signature",),
        digest="sha1",
        encodings=("base64",),
        answer=b"<Response></Response>",
        answer_type="text/xml",
    ),
    "hmac": Preset(
        Scheme.BODY,
        signature_headers=(
            "x-signature-256",
            "x-hub-signature-256",
            "x-signature",
            "x-webhook-signature",
            "x-twitter-webhooks-signature",
        ),
        encodings=("hex", "base64"),
        prefixes=("sha256=", ""),
        challenge=Challenge.ASKED,
    ),
    "basic": Preset(Scheme.PASSWORD, signature_headers=("authorization",)),
    "none": Preset(Scheme.NOTHING),
}
