"""Event ids: the same for a key for ever, and of the form that RFC 9562 asks for."""

import uuid

import pytest

from replayforge.domain.identity import (
    event_id_for_key,
    event_id_for_reuse,
    from_bytes,
    new_event_id,
    to_bytes,
)

# An id that changes would make every old key a new event. Made with hashlib and RFC 9562 by hand, not by the product.
VECTORS = {
    ("default", "order-17:pay"): "4b3f92f9-2b47-8b22-9b89-1b6808eaace1",
    ("shop", "k"): "9ed1c0dc-fc8f-8ec1-84fa-5edf84f54640",
    ("", ""): "4ffc5496-c56b-82e4-b224-b6a2ddd66d83",
}


@pytest.mark.parametrize(
    ("application", "key"),
    [("default", "order-17:pay"), ("shop", "k"), ("", "x"), ("größe", "日本語"), ("a" * 255, "b")],
)
def test_id_of_a_key_is_version_8(application: str, key: str) -> None:
    """The id of a key is a UUIDv8 with the right variant, the same each time."""
    event_id = event_id_for_key(application, key)
    parsed = uuid.UUID(event_id)
    assert (parsed.version, parsed.variant) == (8, uuid.RFC_4122)
    assert str(parsed) == event_id == event_id_for_key(application, key)


def test_known_vectors() -> None:
    """The ids of some keys are written down, so that no change of the code gives an old key a new event."""
    assert {pair: event_id_for_key(*pair) for pair in VECTORS} == VECTORS


def test_parts_do_not_run_together() -> None:
    """No two pairs of application and key share an id, wherever the text is cut."""
    text = "application-key"
    assert len({event_id_for_key(text[:cut], text[cut:]) for cut in range(len(text) + 1)}) == len(text) + 1


def test_reused_key_gets_an_id_of_its_own() -> None:
    """Rows for reused keys differ by log and offset, and from the first event."""
    first = event_id_for_key("default", "k")
    found = {event_id_for_reuse(first, log, offset) for log in ("a", "b") for offset in (1, 2, 12)}
    assert len(found | {first}) == 7


def test_new_ids_are_version_7_and_in_order_of_time() -> None:
    """A fresh id is a UUIDv7 that begins with its millisecond, so later ids sort behind earlier ones."""
    now_us = 1_763_800_000_123_456
    ids = [new_event_id(now_us + step * 1000) for step in range(100)]
    assert {(uuid.UUID(one).version, uuid.UUID(one).variant) for one in ids} == {(7, uuid.RFC_4122)}
    assert ids == sorted(ids)
    assert uuid.UUID(ids[0]).int >> 80 == now_us // 1000
    assert len({new_event_id(now_us) for _ in range(10_000)}) == 10_000


def test_bytes_and_back() -> None:
    """An id survives the way through its 16 bytes."""
    event_id = new_event_id(1_763_800_000_000_000)
    assert len(to_bytes(event_id)) == 16
    assert from_bytes(to_bytes(event_id)) == event_id
