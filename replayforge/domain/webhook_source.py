"""A source of webhooks: what is known of it beforehand, and the event that one of its deliveries becomes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import msgspec

from replayforge.domain.event import EventRecord
from replayforge.domain.identity import new_event_id, source_event_id
from replayforge.domain.template import Placeholder, Template, cleaned, first_filled
from replayforge.domain.trace import trace_of
from replayforge.domain.webhook_body import Body, read
from replayforge.domain.webhook_presets import Challenge, Preset, Scheme
from replayforge.domain.webhook_signature import Refusal, WebhookDelivery, refusal_of

HEADER_BYTES_MAX = 8_192  # of all headers that are kept, since a record has room for not much more
ALWAYS_KEPT = "content-type"
NEVER_KEPT = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key"})
REVEALING = ("signature", "hmac", "token", "secret")
encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Source:
    """Where deliveries come from, and what is made of them. `keys` sign them; `rate` is how many a second may come."""

    name: str
    preset_name: str
    preset: Preset
    keys: tuple[bytes, ...] = field(repr=False)
    event_type: tuple[Template, ...]
    workflow: tuple[Template, ...]
    key: Template | None
    application: str
    headers: tuple[str, ...]
    rate: float | None = None

    def keeps(self, name: str) -> bool:
        """Tell whether a header is kept; asked anew for a name that was not heard before."""
        return is_kept(self.preset.signature_headers, self.headers, name)

    @property
    def origin(self) -> str:
        """What the events say of who made them."""
        return f"source:{self.name}"

    @property
    def is_signed(self) -> bool:
        """Whether a delivery proves by itself where it comes from."""
        return self.preset.scheme is not Scheme.NOTHING


@dataclass(frozen=True, slots=True)
class Arrival:
    """A delivery that is believed: the event that it is, or the answer to a challenge, which is no event."""

    record: EventRecord | None
    challenge: bytes | None = None


def judged(source: Source, delivery: WebhookDelivery, at_us: int, now_us: int) -> Arrival | Refusal:
    """Return what a delivery that came at a time becomes now, or why it is refused."""
    refusal = refusal_of(source.preset, source.keys, delivery, at_us / 1_000_000)
    if refusal is not None:
        return refusal
    body = read(delivery.body, delivery.headers.get("content-type", ""), source.preset.form_field)
    if source.preset.challenge is Challenge.POSTED and body.find("type") == "url_verification":
        return Arrival(None, (body.find("challenge") or "").encode())
    return Arrival(record_of(source, delivery, body, now_us))


def record_of(source: Source, delivery: WebhookDelivery, body: Body, now_us: int) -> EventRecord:
    """Return the event that a delivery is; the same delivery id always names the same one."""

    def find(part: Placeholder) -> str | None:
        if part.kind == "header":
            return delivery.headers.get(part.name)
        return source.name if part.kind == "source" else body.find(part.name)

    key, whole = source.key.filled(find) if source.key else ("", False)
    key = key if whole else ""
    return EventRecord(
        id=source_event_id(source.name, key) if key else new_event_id(now_us),
        application_name=source.application,
        workflow_id=first_filled(source.workflow, find) or source.name,
        event_type=first_filled(source.event_type, find) or source.name,
        created_at_us=now_us,
        service_name=source.name,
        idempotency_key=cleaned(key) if key else None,
        metadata=msgspec.Raw(metadata_of(source, delivery, body)),
        origin=source.origin,
        payload=msgspec.Raw(body.payload),
        before_payload=body.before,
        after_payload=body.after,
        trace=trace_of(delivery.headers),
    )


def metadata_of(source: Source, delivery: WebhookDelivery, body: Body) -> bytes:
    """Return what is kept beside the payload: the headers that were asked for, and how the payload was read."""
    metadata: dict[str, Any] = {"source": source.name, "headers": kept_headers(source, delivery.headers)}
    if body.wrapped:
        metadata["wrapped"] = True
    if body.form_field:
        metadata["form_field"] = body.form_field
    return encode(metadata)


def kept_headers(source: Source, headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that the source keeps, as long as there is room; none that could prove somebody's identity."""
    kept = {name: storable(value) for name, value in headers.items() if source.keeps(name)}
    while sum(map(len, kept.values())) > HEADER_BYTES_MAX // 4 and len(encode(kept)) > HEADER_BYTES_MAX:
        kept.popitem()
    return kept


def storable(value: str) -> str:
    """Return a header's value with a question mark for each byte that is not UTF-8."""
    return value if value.isascii() else value.encode(errors="replace").decode()


@lru_cache(maxsize=512)
def is_kept(signing: tuple[str, ...], patterns: tuple[str, ...], name: str) -> bool:
    """Tell whether a header has one of these names and reveals nothing; providers send the same ones every time."""
    wanted = name == ALWAYS_KEPT or any(fnmatchcase(name, pattern) for pattern in patterns)
    return wanted and not is_revealing(signing, name)


def is_revealing(signing: tuple[str, ...], name: str) -> bool:
    """Tell whether a header signs, or lets somebody in."""
    return name in NEVER_KEPT or name in signing or any(part in name for part in REVEALING)


def evidence(source: Source, headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that a refused delivery is judged by once more; cookies and others' passwords are left out."""
    shut = NEVER_KEPT - set(source.preset.signature_headers)
    return {name: storable(value) for name, value in headers.items() if name not in shut}
