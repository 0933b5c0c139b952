"""CloudEvents 1.0, in JSON or in HTTP headers: the events that they are here."""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from replayforge.domain.clock import parse_time
from replayforge.domain.document import Malformed, Unacceptable, decode_document, quoted, text_of
from replayforge.domain.event import Envelope
from replayforge.domain.trace import trace_of

HEADER_PREFIX = "ce-"
REQUIRED = ("specversion", "id", "source", "type")
KNOWN = (*REQUIRED, "subject", "time", "datacontenttype", "dataschema")
MEMBERS = quoted((*KNOWN, "data", "data_base64"))  # none of which may stand twice
NAME_CHARACTERS_MAX = 255
INTEGER_MIN, INTEGER_MAX = -(1 << 31), (1 << 31) - 1
ATTRIBUTE = re.compile(r"[a-z0-9]+")
TEXT = re.compile("[^\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
# What the attributes are whose form is known.
FORMS = {
    "specversion": (re.compile(r"1\.0"), "1.0"),
    "source": (re.compile(r"\S+"), "a URI reference"),
    "datacontenttype": (re.compile(r"[^\s/;]+/[^\s/;]+\s*(;.*)?"), "a media type"),
    "dataschema": (re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+"), "a URI"),
}
JSON_TYPE = re.compile(r"[^/]+/(json|[^;]+\+json)\s*(;.*)?", re.IGNORECASE)

decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
decode_value = msgspec.json.Decoder(str | bool | int | None).decode


class Extensions(msgspec.Struct):
    """The extensions of a CloudEvent, as its metadata has them."""

    headers: dict[str, str] = {}


decode_extensions = msgspec.json.Decoder(Extensions).decode


def from_json(body: bytes) -> Envelope:
    """Return the event that a CloudEvent in JSON is; raises Malformed, or Unacceptable with the attribute."""
    members = decode_document(body, decode_members, names=MEMBERS)
    data, packed = members.pop("data", None), members.pop("data_base64", None)
    attributes = {name: value for name, raw in members.items() if (value := attribute(name, raw)) is not None}
    if packed is None:
        return envelope_of(attributes, b"{}" if data is None else bytes(data), "/")
    if data is not None:
        raise Unacceptable("A CloudEvent has data or data_base64, not both.", "/data_base64")
    text = attribute("data_base64", packed) or ""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Unacceptable("The member data_base64 is not base64.", "/data_base64") from None
    payload, is_packed = packed_payload(content, attributes)
    return envelope_of(attributes, payload, "/", is_packed=is_packed)


def from_headers(headers: Iterable[tuple[str, str]], content_type: str, body: bytes) -> Envelope:
    """Return the event that `ce-` headers and a body are; raises Malformed, or Unacceptable with the header."""
    attributes: dict[str, str] = {}
    for header, value in headers:
        if header.lower().startswith(HEADER_PREFIX):
            name = header.lower().removeprefix(HEADER_PREFIX)
            if attributes.setdefault(name, decoded(name, value)) != decoded(name, value):
                raise Unacceptable(f"The header {HEADER_PREFIX}{name} is given twice, and not the same.", f"ce-{name}")
    if content_type:
        attributes["datacontenttype"] = content_type
    if not body:
        return envelope_of(attributes, b"{}", HEADER_PREFIX)
    if not content_type or JSON_TYPE.fullmatch(content_type):
        data = decode_document(body, msgspec.json.Decoder(msgspec.Raw).decode)
        return envelope_of(attributes, bytes(data), HEADER_PREFIX)
    payload, is_packed = packed_payload(body, attributes)
    return envelope_of(attributes, payload, HEADER_PREFIX, is_packed=is_packed)


def decoded(name: str, value: str) -> str:
    """Return the text that a header's value stands for, which is percent-encoded."""
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise Unacceptable(f"The header {HEADER_PREFIX}{name} is not percent-encoded UTF-8.", f"ce-{name}") from None


def attribute(name: str, raw: msgspec.Raw) -> str | None:
    """Return an attribute of a CloudEvent in JSON as headers would say it; None for null, which is as good as none."""
    try:
        value = decode_value(raw)
    except msgspec.ValidationError:
        raise Unacceptable(f"The attribute {name} is neither text, a number nor a boolean.", f"/{name}") from None
    if name in KNOWN and not isinstance(value, str | None):
        raise Unacceptable(f"The attribute {name} is not text.", f"/{name}")
    if isinstance(value, int) and not INTEGER_MIN <= value <= INTEGER_MAX:
        raise Unacceptable(f"The attribute {name} is a number of more than 32 bits.", f"/{name}")
    return str(value).lower() if isinstance(value, bool) else value if value is None else str(value)


def packed_payload(content: bytes, attributes: Mapping[str, str]) -> tuple[bytes, bool]:
    """Return as JSON what is none, and whether it is base64: text stays text, bytes of another kind do not."""
    if attributes.get("datacontenttype", "").lower().startswith("text/"):
        try:
            return msgspec.json.encode(text_of(content)), False
        except Malformed:
            pass
    return msgspec.json.encode(base64.b64encode(content).decode()), True


def envelope_of(attributes: Mapping[str, str], payload: bytes, place: str, *, is_packed: bool = False) -> Envelope:
    """Return the event of attributes and a payload; raises Unacceptable with the attribute, said to be at a place."""
    check(attributes, place)
    known = {name: attributes[name] for name in KNOWN if name in attributes}
    metadata: dict[str, Any] = {"cloudevent": known | ({"data_base64": True} if is_packed else {})}
    extensions = {name: value for name, value in attributes.items() if name not in KNOWN}
    return Envelope(
        workflow_id=attributes.get("subject", attributes["id"]),
        event_type=attributes["type"],
        payload=msgspec.Raw(payload),
        idempotency_key=key_of(attributes["source"], attributes["id"]),
        metadata=msgspec.Raw(msgspec.json.encode(metadata | ({"headers": extensions} if extensions else {}))),
    )


def trace_in(envelope: Envelope) -> str | None:
    """Return the trace that the extensions `traceparent` and `tracestate` of a CloudEvent speak of."""
    return trace_of(decode_extensions(envelope.metadata).headers)


def key_of(source: str, event_id: str) -> str:
    """Return what is the same for the same source and id only: a source has no space in it."""
    key = f"{source} {event_id}"
    return key if len(key) <= NAME_CHARACTERS_MAX else f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def check(attributes: Mapping[str, str], place: str) -> None:
    """Raise Unacceptable for the first attribute that CloudEvents 1.0 does not allow, or that is too long for us."""
    for name in REQUIRED:
        if name not in attributes:
            raise Unacceptable(f"The attribute {name} of the CloudEvent is missing.", f"{place}{name}")
    for name, value in attributes.items():
        wrong = fault_of(name, value)
        if wrong is not None:
            raise Unacceptable(f"The attribute {name} of the CloudEvent {wrong}.", f"{place}{name}")


def fault_of(name: str, value: str) -> str | None:
    """Return what is wrong with an attribute, in words, or None."""
    if not ATTRIBUTE.fullmatch(name):
        return "has a name of other characters than a-z and 0-9"
    if not TEXT.fullmatch(value):
        return "is empty, or has control characters"
    if name in ("id", "type", "subject") and len(value) > NAME_CHARACTERS_MAX:
        return f"has more than {NAME_CHARACTERS_MAX} characters"
    if name == "time":
        try:
            parse_time(value)
        except ValueError:
            return "is not an RFC 3339 time such as 2026-11-22T10:00:00Z"
    form = FORMS.get(name)
    return None if form is None or form[0].fullmatch(value) else f"is not {form[1]}"
