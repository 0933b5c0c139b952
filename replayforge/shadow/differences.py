"""In which places two JSON documents differ: by JSON pointers, with every digit of their numbers."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec

ABSENT = object()
Place = tuple[str, str | None, str | None]
encode_exactly = msgspec.json.Encoder(decimal_format="number").encode


def differences(before: bytes | None, after: bytes | None, pointer: str) -> Iterator[Place]:
    """Yield (pointer, JSON before, JSON after) of each place in which two documents differ, None for what is not there.

    Numbers count by their values, however they are written; the order of names does not count. No document is null.
    """
    if before != after:
        yield from differing(read(before), read(after), pointer)


def read(document: bytes | None) -> Any:
    """Return a document as a value, with every digit of its numbers."""
    return None if document is None else json.loads(document, parse_float=Decimal)


def differing(before: Any, after: Any, pointer: str) -> Iterator[Place]:
    """Yield the places in which two values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in (*before, *(name for name in after if name not in before)):
            yield from differing(before.get(name, ABSENT), after.get(name, ABSENT), f"{pointer}/{escaped(name)}")
    elif isinstance(before, list) and isinstance(after, list):
        for at in range(max(len(before), len(after))):
            yield from differing(at_index(before, at), at_index(after, at), f"{pointer}/{at}")
    elif isinstance(before, bool) is not isinstance(after, bool) or before != after:
        yield pointer, shown(before), shown(after)


def at_index(values: list[Any], at: int) -> Any:
    """Return an item, or that there is none."""
    return values[at] if at < len(values) else ABSENT


def escaped(name: str) -> str:
    """Return a name as a part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def shown(value: Any) -> str | None:
    """Return a value as JSON, None where there is none."""
    return None if value is ABSENT else encode_exactly(value).decode()
