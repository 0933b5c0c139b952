"""Reading what a request brings: bodies within their limits, query parameters within their ranges."""

import re
from collections.abc import Awaitable
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from aiohttp import hdrs, web
from multidict import MultiDict, MultiMapping, istr

from replayforge.domain.clock import parse_time
from replayforge.domain.document import decode_document
from replayforge.domain.errors import Rejected
from replayforge.domain.event import ENVELOPE_NAMES, Envelope
from replayforge.turns import computed
from replayforge.web.http.bodies import read_body, too_large
from replayforge.web.http.context import context_of
from replayforge.web.http.problems import HttpProblem

LIST_LIMIT_MAX = 200
CURSOR_MAX = 10**18 - 1
IDEMPOTENCY_KEY = istr("Idempotency-Key")
JSON = "application/json"
NDJSON = "application/x-ndjson"
FORM = "application/x-www-form-urlencoded"
FORM_BYTES_MAX = 64 << 10
FORM_FIELDS_MAX = 10_000
REASON_CHARACTERS_MAX = 1000
JSON_SUFFIX = re.compile(r"application/[a-z0-9][a-z0-9!#$&^_.+-]*\+json")
# Python reads more than these as numbers, such as 1_0 and digits of other scripts.
WHOLE = re.compile(r"-?[0-9]{1,20}")
NUMBER = re.compile(r"-?[0-9]{0,20}\.?[0-9]{1,20}(e[+-]?[0-9]{1,3})?", re.IGNORECASE)
CHARSETS = frozenset({"utf-8", "utf8", "us-ascii"})

KEY_FORM = re.compile("[^\x00-\x1f\x7f\ud800-\udfff]{1,255}")  # surrogates stand for bytes that are not UTF-8
KEY_RULE = "must have 1 to 255 characters of UTF-8, no control characters among them."

decode_envelope_bytes = msgspec.json.Decoder(Envelope).decode
Shape = TypeVar("Shape")


def check_type(request: web.Request, *accepted: str) -> str:
    """Return which of the accepted media types the body has, `application/*+json` being JSON.

    Raises 415 for another one, for text in anything but UTF-8, and for any content encoding.
    """
    check_encoding(request)
    if JSON in accepted and is_plain_json(request):
        return JSON
    given = request.content_type
    if given != JSON and JSON_SUFFIX.fullmatch(given):
        given = JSON
    if given not in accepted:
        named = " or ".join(accepted)
        raise unsupported(f"The body has type {given!r}; send {named} and say so in Content-Type.")
    charset = request.charset
    if charset is not None and charset.lower() not in CHARSETS:
        raise unsupported(f"The body is said to be {charset[:40]!r}; send UTF-8.")
    return given


def media_type(request: web.Request) -> str:
    """Return the media type of the body, without its parameters; the one that comes most often is not taken apart."""
    return JSON if is_plain_json(request) else request.content_type


def is_plain_json(request: web.Request) -> bool:
    """Tell whether the body is said to be JSON, and nothing else is said of it."""
    return request.headers.get(hdrs.CONTENT_TYPE) == JSON


def check_encoding(request: web.Request) -> None:
    """Raise 415 for a body that is packed."""
    encoding = request.headers.get(hdrs.CONTENT_ENCODING)
    if encoding is not None and encoding.lower() != "identity":
        raise HttpProblem("unsupported-encoding", "Send the body without encoding.")


def header_key(request: web.Request) -> str | None:
    """Return the key of the Idempotency-Key header, quoted or bare; None without one. Raises 400 for one that is none.

    A request that comes again with its key does nothing, and is answered with what it has done.
    """
    header = request.headers.get(IDEMPOTENCY_KEY)
    if header is None:
        return None
    key = header[1:-1] if re.fullmatch(r'".*"', header) else header
    if not KEY_FORM.fullmatch(key):
        raise HttpProblem("bad-idempotency-key", f"The Idempotency-Key header {KEY_RULE}")
    return key


def form_key(form: MultiMapping[str]) -> str | None:
    """Return the key of a form, by which it is known when it is sent again; raises Rejected for one that is none."""
    key = form.get("key")
    if not key:
        return None
    if not KEY_FORM.fullmatch(key):
        raise Rejected(f"The form's key {KEY_RULE}")
    return key


def unsupported(detail: str) -> HttpProblem:
    """Return the problem of a body of a kind that nobody reads."""
    return HttpProblem("unsupported-media-type", detail)


def read_envelope(body: bytes, *, event_bytes_max: int) -> Awaitable[Envelope]:
    """Return the event that a piece of JSON is, looked at in a thread when it is large; raises as decode_envelope."""
    return computed(decode_envelope, body, event_bytes_max, size=len(body))


def decode_envelope(body: bytes, event_bytes_max: int) -> Envelope:
    """Return the event that a piece of JSON is; raises Malformed or Unacceptable with the place."""
    if len(body) > event_bytes_max:
        raise too_large(event_bytes_max)
    return decode_document(body, decode_envelope_bytes, names=ENVELOPE_NAMES)


async def read_object(request: web.Request, shape: type[Shape]) -> Shape:
    """Return a small JSON body as a struct; no body at all means every default."""
    body = await read_body(request, 1 << 20)
    if not body.strip():
        body = b"{}"
    else:
        check_type(request, JSON)
    return await computed(decode_document, body, msgspec.json.Decoder(shape).decode, size=len(body))


async def read_form(request: web.Request, bytes_max: int | None = None) -> MultiMapping[str]:
    """Return the fields of a form; raises 415 or 413 for a body that is none, or is too large.

    Without a limit of its own a form may hold an event, of which each byte may be written as three.
    """
    if request.content_type != FORM:
        raise HttpProblem("unsupported-media-type", "Send a form.")
    body = await read_body(request, bytes_max or FORM_BYTES_MAX + 3 * context_of(request).limits.event_bytes_max)
    try:
        fields = await computed(parse_form, body, size=len(body))
    except ValueError as error:
        raise HttpProblem("malformed-form", f"The form cannot be read: {error}.") from None
    return MultiDict(fields)


def reason_in(form: MultiMapping[str]) -> str:
    """Return why something is done, no longer than the API takes it; raises 422."""
    reason = form.get("reason", "")
    if len(reason) > REASON_CHARACTERS_MAX:
        raise HttpProblem("unacceptable", f"A reason may have {REASON_CHARACTERS_MAX:,} characters.")
    return reason


def parse_form(body: bytes) -> list[tuple[str, str]]:
    """Return the fields of a form; raises ValueError."""
    return parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=FORM_FIELDS_MAX)


def query_int(request: web.Request, name: str, default: int, *, low: int, high: int) -> int:
    """Return a whole number from the query."""
    text = request.query.get(name)
    if text is None:
        return default
    value = int(text) if WHOLE.fullmatch(text) else low - 1
    if not low <= value <= high:
        raise bad_query(name, text, f"a whole number from {low} to {high}")
    return value


def query_float(request: web.Request, name: str, default: float, *, low: float, high: float) -> float:
    """Return a number from the query."""
    text = request.query.get(name)
    if text is None:
        return default
    value = float(text) if NUMBER.fullmatch(text) else low - 1
    if not low <= value <= high:
        raise bad_query(name, text, f"a number from {low:g} to {high:g}")
    return value


def query_time(request: web.Request, name: str) -> int | None:
    """Return a time from the query in microseconds, or None."""
    text = request.query.get(name)
    if text is None:
        return None
    try:
        return parse_time(re.sub(r" (?=\d\d:\d\d$)", "+", text))  # a plus that was not escaped arrives as a space
    except ValueError:
        raise bad_query(name, text, "an RFC 3339 time such as 2026-11-22T10:00:00Z") from None


def query_limit(request: web.Request, default: int = 50) -> int:
    """Return how many items a list may have."""
    return query_int(request, "limit", default, low=1, high=LIST_LIMIT_MAX)


def query_cursor(request: web.Request) -> int | None:
    """Return where a list goes on, or None for its beginning."""
    return query_int(request, "cursor", 0, low=0, high=CURSOR_MAX) or None


def bad_query(name: str, text: str, accepted: str) -> HttpProblem:
    """Return the problem of a query parameter."""
    return HttpProblem("bad-parameter", f"{name}={text!r} is wrong; give {accepted}.", f"?{name}")


def page(items: list[Any], cursors: list[int], limit: int) -> dict[str, Any]:
    """Return one page of a list; it was fetched with one item more than `limit`, to see whether there is more."""
    return cut_page(items[:limit], cursors[limit - 1] if len(items) > limit else None)


def cut_page(items: list[Any], next_cursor: int | None) -> dict[str, Any]:
    """Return one page of a list that goes on at a cursor, or ends here."""
    return {
        "items": items,
        "next_cursor": None if next_cursor is None else str(next_cursor),
        "has_more": next_cursor is not None,
    }
