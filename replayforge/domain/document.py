"""JSON at ingest: valid RFC 8259 within the limits comes in and comes back byte for byte, anything else is named.

The rules are the table "JSON at ingest": invalid JSON is 400, valid JSON that no handler could be given unchanged
is 422. Fast checks in C decide the common case; only suspicious bytes are looked at slowly.
"""

import codecs
import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeVar

import msgspec

from replayforge.domain.errors import Rejected

DEPTH_MAX = 64
DIGITS_MAX = 4300
COMMAS_MAX = 1 << 20
FLOAT_DIGITS_MAX = 400  # more than the largest float has
# Those of UTF-8 and of UTF-16, which is a beginning of UTF-32 as well.
MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)

Decoded = TypeVar("Decoded")

STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?'
STRINGS = re.compile(STRING, re.DOTALL)
TOKENS = re.compile(STRING + rb"|[\[{]|[\]}]", re.DOTALL)
ARRAY_TOKENS = re.compile(STRING + rb"|[\[{]|[\]}]|,", re.DOTALL)
SQUARE = bytes.maketrans(b"{}", b"[]")
NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
# Escaped ASCII, which could hide a key's name, and surrogates.
ESCAPES = re.compile(rb"\\u(?:00[2-7]|[dD][89a-fA-F])")
SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
SURROGATE = re.compile("[\ud800-\udfff]")
# With digits and exponents made alike and signs left out, plain searches find every number that may not fit a float
# or an int: with an exponent of two digits a number overflows from 210 digits on.
ALIKE = bytes.maketrans(b"123456789E", b"000000000e")
LARGE_EXPONENT = b"e000"
LARGE_DIGITS = b"0" * 200


class Malformed(Rejected):
    """The body is not valid JSON."""


class Unacceptable(Rejected):
    """The body is valid JSON, but not something that can be accepted; `pointer` names the place."""

    def __init__(self, message: str, pointer: str = "") -> None:
        super().__init__(message)
        self.pointer = pointer


def quoted(names: Iterable[str]) -> re.Pattern[bytes]:
    """Return what finds these names where they stand in quotes; the second one may be the first of another name."""
    return re.compile(rb'"(?:%s)(?=")' % b"|".join(re.escape(name.encode()) for name in names))


def decode_document(
    body: bytes,
    decode: Callable[[bytes], Decoded],
    *,
    names: re.Pattern[bytes] | None = None,
    depth_max: int = DEPTH_MAX + 1,
) -> Decoded:
    """Return `decode(body)` once the body is known to obey every rule of ingest.

    `decode` is a msgspec decoder that keeps nested values raw; `names` finds its field names, quoted, none of which may
    stand twice in the outermost object. Raises Malformed (with line and column) or Unacceptable (with a JSON pointer).
    """
    if body.count(b"[") + body.count(b"{") > depth_max and not is_shallow(body, depth_max):
        check_depth(body, depth_max)
    text_of(body)
    try:
        document = decode(body)
    except msgspec.ValidationError as error:
        check_slowly(body)
        raise unacceptable(error) from None
    except msgspec.DecodeError as error:
        check_slowly(body)
        raise Malformed(f"The body is not valid JSON: {error}.") from None
    if is_suspicious(body) or (names is not None and has_doubles(names.findall(body))):
        check_slowly(body)
    return document


def has_doubles(found: list[bytes]) -> bool:
    """Tell whether anything was found more than once."""
    return len(set(found)) != len(found)


def text_of(body: bytes) -> str:
    """Return the text that the body is in UTF-8; raises Malformed when it is none, or begins with a byte order mark."""
    if body.startswith(MARKS):
        raise Malformed("The body begins with a byte order mark (BOM); send UTF-8 without one.")
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"The body is not UTF-8: {error.reason} at byte {error.start}.") from None


def decode_exactly(body: bytes) -> Any:
    """Return the value of a document that ingest let in, with every digit of its integers."""
    try:
        return msgspec.json.decode(body)
    except msgspec.ValidationError:  # to msgspec the sign of an integer is one of its 4,300 digits
        return json.loads(body.decode())


def is_suspicious(body: bytes) -> bool:
    """Tell whether the body holds bytes that only a slow look can judge; takes the same time whatever it holds."""
    if b"\\" in body and b"\\u" in body and ESCAPES.search(body):  # a single byte is found the fastest
        return True
    alike = body.translate(ALIKE, b"+-")
    return LARGE_EXPONENT in alike or LARGE_DIGITS in alike


def is_shallow(body: bytes, depth_max: int) -> bool:
    """Tell quickly that brackets are closed and do not nest deeper; False says nothing."""
    brackets = STRINGS.sub(b"", body).translate(SQUARE, NO_BRACKETS)
    for _ in range(depth_max):
        if not brackets:
            return True
        brackets = brackets.replace(b"[]", b"")
    return not brackets


def check_depth(body: bytes, depth_max: int) -> None:
    """Raise Unacceptable when brackets nest deeper than `depth_max`, closed or not; looks at bytes, parses nothing."""
    depth = 0
    for token in TOKENS.finditer(body):
        first = body[token.start()]
        if first in b"[{":
            depth += 1
            if depth > depth_max:
                raise Unacceptable(f"The JSON nests deeper than {DEPTH_MAX} levels, at byte {token.start()}.")
        elif first in b"]}":
            depth -= 1


class TooMany(Rejected):
    """The array has too many items."""


def split_array(body: bytes, items_max: int = sys.maxsize) -> list[bytes]:
    """Return the items of a JSON array, each to be checked for itself.

    Raises Malformed when it is not a whole array, and TooMany as soon as that is known.

    One item that nests too deep or holds no Unicode text must not take its neighbours along, so when the parser
    refuses the array as a whole, it is taken apart at its outermost commas.
    """
    if body.startswith(MARKS):
        text_of(body)
    if body.count(b",") > COMMAS_MAX:  # the parser would make something of each of them before it counts
        return cut_at_commas(body.strip(b" \t\r\n"), items_max)
    try:
        items = decode_items(body)
        check_count(len(items), items_max)
        return [bytes(item) for item in items]
    except msgspec.ValidationError:
        raise Malformed("The body is not a JSON array.") from None
    except (msgspec.DecodeError, RecursionError):
        return cut_at_commas(body.strip(b" \t\r\n"), items_max)


def check_count(count: int, items_max: int) -> None:
    """Raise TooMany when an array has more items than are accepted."""
    if count > items_max:
        raise TooMany(f"The array has more than {items_max:,} items.")


def cut_at_commas(body: bytes, items_max: int = sys.maxsize) -> list[bytes]:
    """Cut an array into the pieces between its outermost commas."""
    if body[:1] != b"[":
        raise Malformed("The body is not a JSON array.")
    pieces: list[bytes] = []
    depth, start = 0, 1
    for token in ARRAY_TOKENS.finditer(body):
        first = body[token.start()]
        if first in b"[{":
            depth += 1
        elif first in b"]}":
            depth -= 1
        if depth == 1 and first == ord(","):
            pieces.append(body[start : token.start()])
            check_count(len(pieces) + 1, items_max)
            start = token.end()
        if depth == 0:
            if token.end() != len(body):
                break
            pieces.append(body[start : token.start()])
            if not pieces[-1].strip() and len(pieces) > 1:
                break
            return pieces
    raise Malformed("The body is not valid JSON: its brackets, commas or quotes do not match.")


def check_slowly(body: bytes) -> None:
    """Raise what is wrong with the body, however well hidden; returns when nothing is."""
    outermost: list[tuple[str, Any]] = []

    def remember_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        outermost[:] = pairs
        return dict(pairs)

    try:
        # The text, not the bytes: json would take bytes with NULs among them for UTF-16 or UTF-32.
        document = json.loads(
            text_of(body),
            parse_int=parse_int,
            parse_float=parse_float,
            parse_constant=refuse_constant,
            object_pairs_hook=remember_pairs,
        )
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise Malformed(f"The body is not valid JSON: {error.msg}, {place}.") from None
    if SURROGATE_ESCAPE.search(body):
        for pointer, text in strings_of(document):
            if SURROGATE.search(text):
                raise Unacceptable("A string holds half of a surrogate pair, which is not Unicode text.", pointer)
    if isinstance(document, dict):
        seen: set[str] = set()
        for name, _ in outermost:
            if name in seen:
                raise Unacceptable(f"The field {name!r} is given twice.", f"/{name}")
            seen.add(name)


def parse_int(digits: str) -> int:
    """Read an integer of at most 4,300 digits."""
    if len(digits.lstrip("-")) > DIGITS_MAX:
        raise Unacceptable(f"An integer has {len(digits):,} digits; at most {DIGITS_MAX:,} are accepted.")
    return int(digits)


def parse_float(text: str) -> float:
    """Read a number that a float can hold."""
    value = float(text)
    if math.isinf(value):
        raise Unacceptable(f"The number {text[:40]} is too large for any handler to be given.")
    return value


def refuse_constant(name: str) -> None:
    """Raise for NaN and Infinity, which RFC 8259 does not know."""
    raise Malformed(f"The body is not valid JSON: {name} is not a JSON value.")


def strings_of(value: Any, pointer: str = "") -> Iterator[tuple[str, str]]:
    """Yield every string of a decoded document, keys too, with the JSON pointer of its place (RFC 6901)."""
    if isinstance(value, str):
        yield pointer, value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from strings_of(item, f"{pointer}/{index}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield pointer, key
            yield from strings_of(item, f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}")


def unacceptable(error: msgspec.ValidationError) -> Unacceptable:
    """Turn msgspec's words and path (`$.a[0]`) into a sentence and a JSON pointer."""
    message, _, path = str(error).partition(" - at `")
    pointer = re.sub(r"\[(\d+|\.\.\.)\]", r"/\1", path.rstrip("`").removeprefix("$")).replace(".", "/")
    missing = re.search(r"missing required field `(.+?)`", message)
    unknown = re.search(r"unknown field `(.+?)`", message)
    named = missing or unknown
    return Unacceptable(f"{message}.", f"{pointer}/{named[1]}" if named else pointer)


def same_json(first: bytes, second: bytes) -> bool:
    """Tell whether two valid documents mean the same: equal bytes, or equal values with numbers compared exactly."""
    return first == second or digest_of(first) == digest_of(second)


@lru_cache(maxsize=8)
def digest_of(document: bytes) -> bytes:
    """Return what is equal for documents that mean the same; kept for a while, as one is often compared with many."""
    return hashlib.blake2b(canonical(document), digest_size=32).digest()


def canonical(document: bytes) -> bytes:
    """Return bytes that are equal for equal documents, today and by whatever is built tomorrow: some are kept.

    Key order is ignored, 1 and true are told apart, and numbers count by their value. A document that cannot be read,
    which ingest does not let in, is equal to itself alone.
    """
    try:
        value = json.loads(document.decode(), parse_float=exact_number, object_pairs_hook=sorted_pairs)
        return json.dumps(value, separators=(",", ":"), check_circular=False).encode()
    except (ValueError, RecursionError):
        return document


def sorted_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object as a list of its pairs by name, a repeated name in its order, under a name of its own."""
    return {"object": sorted(pairs, key=itemgetter(0))}


def exact_number(text: str) -> int | dict[str, str]:
    """Return a number with a point or an exponent: an integer if it is one, else its digits and its exponent."""
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole.lstrip("-") + fraction).lstrip("0")
    significant = digits.rstrip("0")
    if not significant:
        return 0
    sign = "-" if whole.startswith("-") else ""
    power = int(exponent or 0) - len(fraction) + len(digits) - len(significant)
    if 0 <= power <= FLOAT_DIGITS_MAX:
        return int(sign + significant + "0" * power)
    return {"number": f"{sign}{significant}e{power}"}
