"""What a webhook's body becomes: JSON is the payload byte for byte, anything else is described in JSON."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote_plus

import msgspec

from replayforge.domain.document import decode_document, decode_exactly
from replayforge.domain.errors import Rejected
from replayforge.domain.webhook_signature import FORM, FORM_FIELDS_MAX

WHITESPACE = b" \t\r\n"
check_json = msgspec.json.Decoder(msgspec.Raw).decode
decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


@dataclass(slots=True)
class Body:
    """A body that was read: its payload, and the JSON or the form whose values have names.

    `form_field` is the field of a form that the payload was taken from; `wrapped` says that the payload describes the
    body instead of being it. `before` and `after` are the white space around its JSON.
    """

    payload: bytes
    document: bytes | None = None
    form: Mapping[str, str] = field(default_factory=dict)
    form_field: str = ""
    wrapped: bool = False
    before: str = ""
    after: str = ""
    outermost: Mapping[str, msgspec.Raw] | None = None

    def find(self, path: str) -> str | None:
        """Return the value at a path as text, such as `repository.full_name`; None for none, and for no plain value."""
        if path in self.form:
            return self.form[path]
        if self.document is None:
            return None
        names = path.split(".")
        if self.outermost is None:
            self.outermost = members_of(self.document)
        value = self.outermost.get(names[0])
        for name in names[1:]:
            value = members_of(bytes(value or b"")).get(name)
        return text_of_value(bytes(value or b""))


def members_of(value: bytes) -> Mapping[str, msgspec.Raw]:
    """Return the members of an object, or the items of an array by number; nothing of anything else."""
    if value[:1] == b"{":
        return decode_object(value)
    return {str(index): item for index, item in enumerate(decode_array(value))} if value[:1] == b"[" else {}


def text_of_value(value: bytes) -> str | None:
    """Return a text, a number, true or false as they are written; None for the rest."""
    if value[:1] == b'"':
        return str(msgspec.json.decode(value))
    return None if value[:1] in (b"", b"{", b"[", b"n") else value.decode()


def read(body: bytes, content_type: str, form_field: str = "") -> Body:
    """Return what a body says; never fails, for what cannot be read is carried along as it is."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in ("", "application/json") or media_type.endswith("+json"):
        return json_body(body) or wrapped(body, content_type, {})
    if media_type != FORM:
        return wrapped(body, content_type, {})
    fields = form_of(body)
    carried = fields.get(form_field) if form_field else None
    opened = json_body(carried.encode()) if isinstance(carried, str) else None
    if opened is None:
        return wrapped(body, content_type, fields)
    opened.form_field = form_field
    return opened


def json_body(body: bytes) -> Body | None:
    """Return a body that is JSON within the rules of ingest, or None for another one."""
    document = body.strip(WHITESPACE)
    try:
        decode_document(document, check_json)
    except Rejected:
        return None
    start = len(body) - len(body.lstrip(WHITESPACE))
    return Body(document, document, before=body[:start].decode(), after=body[start + len(document) :].decode())


def wrapped(body: bytes, content_type: str, fields: Mapping[str, Any]) -> Body:
    """Return a body that is described: its type, its text or its bytes in Base64, and the fields of a form."""
    described: dict[str, Any] = {"content_type": content_type}
    try:
        described["text"] = body.decode()
    except UnicodeDecodeError:
        described["base64"] = base64.b64encode(body).decode()
    if fields:
        described["form"] = fields
    plain = {name: value if isinstance(value, str) else value[0] for name, value in fields.items()}
    return Body(msgspec.json.encode(described), form=plain, wrapped=True)


def form_of(body: bytes) -> dict[str, Any]:
    """Return the fields of a form by name, those given several times as lists; nothing of what is no form."""
    fields: dict[str, Any] = {}
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX)
    except ValueError:
        return {}
    for name, value in pairs:
        known = fields.get(name)
        fields[name] = value if known is None else [*([known] if isinstance(known, str) else known), value]
    return fields


def raw_of(payload: bytes, metadata: Mapping[str, Any]) -> bytes:
    """Return the body that a payload was read from.

    A form that carried JSON is written anew, and may be quoted in another way than it came.
    """
    if metadata.get("form_field"):
        return f"{metadata['form_field']}={quote_plus(payload)}".encode()
    if not metadata.get("wrapped"):
        return payload
    described = decode_exactly(payload)
    return base64.b64decode(described["base64"]) if "base64" in described else str(described["text"]).encode()
