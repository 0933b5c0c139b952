"""Whether a webhook comes from who it says: checked over its raw bytes, in constant time, and signed for trials."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import parse_qs, parse_qsl, urlsplit

from replayforge.domain.webhook_presets import WINDOW_SECONDS, Preset, Scheme

FORM = "application/x-www-form-urlencoded"
SIGNATURES_MAX = 20  # of one header; more are not looked at
FORM_FIELDS_MAX = 10_000
DIGITS = re.compile(r"[0-9]{1,12}")
ANSWERED_CHARACTERS_MAX = 1024


@dataclass(frozen=True, slots=True)
class WebhookDelivery:
    """A request as a provider has sent it: the URL as the provider calls it, headers by lower-case names, raw bytes."""

    url: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        """What its body is said to be."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class Refusal(StrEnum):
    """Why a delivery is not believed."""

    NO_SIGNATURE = "no_signature"
    WRONG_SIGNATURE = "wrong_signature"
    STALE = "stale"


def key_of(preset: Preset, secret: str) -> bytes:
    """Return what signs with a secret; raises ValueError, without the secret, for one that cannot be meant."""
    if not preset.secret_prefix:
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(preset.secret_prefix), validate=True)
    except binascii.Error:
        raise ValueError(f"it is not {preset.secret_prefix} with Base64 behind it") from None


def refusal_of(preset: Preset, keys: Sequence[bytes], delivery: WebhookDelivery, at_seconds: float) -> Refusal | None:
    """Return why a delivery that came at this time is refused, or None for one that any of the keys has signed.

    How long it takes tells nothing of a key. The time counts only once the signature is right.
    """
    if preset.scheme is Scheme.NOTHING:
        return None
    given = list(signatures(preset, delivery))
    sent_at = signed_time(preset, delivery)
    unsigned = not given or (preset.signs_time and sent_at is None)
    if unsigned or (preset.id_header and not delivery.headers.get(preset.id_header)):
        return Refusal.NO_SIGNATURE
    if not any(fits(one, right) for key in keys for right in expected(preset, key, delivery) for one in given):
        return Refusal.WRONG_SIGNATURE
    if sent_at is not None and abs(at_seconds - int(sent_at)) > WINDOW_SECONDS:
        return Refusal.STALE
    return None


def fits(given: str, right: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(given.encode(errors="surrogateescape"), right.encode())


def signatures(preset: Preset, delivery: WebhookDelivery) -> Iterator[str]:
    """Yield the signatures that a delivery carries."""
    header = next((delivery.headers[name] for name in preset.signature_headers if delivery.headers.get(name)), "")
    for item in items(preset, header)[:SIGNATURES_MAX]:
        prefix = next((prefix for prefix in preset.prefixes if item.startswith(prefix)), None)
        if prefix is not None and len(item) > len(prefix):
            yield item.removeprefix(prefix)


def items(preset: Preset, header: str) -> list[str]:
    """Return what stands in a header one beside the other."""
    return [item.strip() for item in (header.split(preset.separator) if preset.separator else [header])]


def signed_time(preset: Preset, delivery: WebhookDelivery) -> str | None:
    """Return the time that a delivery says it was sent at, in the digits that are signed; None without one."""
    text = delivery.headers.get(preset.time_header, "")
    if preset.time_prefix:
        header = delivery.headers.get(preset.signature_headers[0], "")
        times = [one for one in items(preset, header) if one.startswith(preset.time_prefix)]
        text = times[0].removeprefix(preset.time_prefix) if times else ""
    return text if DIGITS.fullmatch(text) else None


def expected(preset: Preset, key: bytes, delivery: WebhookDelivery) -> list[str]:
    """Return what may stand in the header when this key has signed, one for each way to write it."""
    if preset.scheme is Scheme.PASSWORD:
        return [f"Basic {base64.b64encode(key).decode()}"]
    digest = hmac.digest(key, signed_bytes(preset, delivery), preset.digest)
    written = {"hex": digest.hex(), "base64": base64.b64encode(digest).decode()}
    return [written[encoding] for encoding in preset.encodings]


def signed_bytes(preset: Preset, delivery: WebhookDelivery) -> bytes:
    """Return what is signed."""
    if preset.scheme is Scheme.URL:
        return signed_url(delivery)
    named = {"id": delivery.headers.get(preset.id_header, ""), "time": signed_time(preset, delivery) or ""}
    before = re.sub(r"\{(id|time)\}", lambda found: named[found[1]], preset.before)
    return before.encode(errors="surrogateescape") + delivery.body


def signed_url(delivery: WebhookDelivery) -> bytes:
    """Return the URL with the fields of the form behind it, sorted; a body of another kind has its hash in the URL."""
    url = delivery.url.encode(errors="surrogateescape")
    if delivery.media_type == FORM:
        try:
            fields = parse_qsl(delivery.body.decode(), keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX)
        except ValueError:
            fields = []
        return url + "".join(name + value for name, value in sorted(set(fields))).encode(errors="surrogatepass")
    named = parse_qs(urlsplit(delivery.url).query).get("bodySHA256", [""])[0]
    right = hashlib.sha256(delivery.body).hexdigest()
    # What the hash does not fit is signed by nobody: a NUL stands in no URL.
    return url if named == right or not (named or delivery.body) else url + b"\0"


def signed(preset: Preset, key: bytes, delivery: WebhookDelivery, at_seconds: int) -> WebhookDelivery:
    """Return the delivery with the headers that a provider would sign it with now; for trials."""
    headers = dict(delivery.headers)
    if preset.time_header:
        headers[preset.time_header] = str(at_seconds)
    if preset.id_header:
        headers.setdefault(preset.id_header, f"msg_{hashlib.sha256(delivery.body).hexdigest()[:24]}")
    if preset.time_prefix:
        headers[preset.signature_headers[0]] = f"{preset.time_prefix}{at_seconds}"
    unsigned = WebhookDelivery(delivery.url, headers, delivery.body)
    if preset.signature_headers:
        signature = preset.prefixes[0] + expected(preset, key, unsigned)[0]
        before = headers[preset.signature_headers[0]] + preset.separator if preset.time_prefix else ""
        headers[preset.signature_headers[0]] = before + signature
    return WebhookDelivery(delivery.url, headers, delivery.body)


def echoed(keys: Sequence[bytes], query: Mapping[str, str]) -> bytes | None:
    """Return what answers a GET that asks whether the address is ours, or None for one that nobody with a key asks.

    `hub.challenge` comes with one of the secrets as `hub.verify_token` and is given back; of `crc_token` the signature.
    """
    if "hub.challenge" in query:
        token, wanted = query.get("hub.verify_token", "").encode(), query["hub.challenge"]
        known = any(hmac.compare_digest(token, key) for key in keys)
        return wanted[:ANSWERED_CHARACTERS_MAX].encode() if known else None
    if "crc_token" in query:
        digest = hmac.digest(keys[0], query["crc_token"].encode(), "sha256")
        return f'{{"response_token":"sha256={base64.b64encode(digest).decode()}"}}'.encode()
    return None
