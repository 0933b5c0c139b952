"""When two documents mean the same: what decides between a duplicate and a reused key."""

import json

import pytest

from replayforge.domain.document import same_json


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b'{"a":1,"b":[2,3]}', b'{ "b" : [2, 3], "a" : 1.0 }'),
        (b"100", b"1e2"),
        (b'"\\u00e9"', '"é"'.encode()),
        (b'{"a":{"x":1,"y":2}}', b'{"a":{"y":2,"x":1}}'),
        (b"1e-99999999999999999999", b"1e-99999999999999999999 "),
    ],
)
def test_equal_values_are_the_same_however_they_are_written(first: bytes, second: bytes) -> None:
    """Spaces, the order of keys, escapes and the writing of numbers make no difference."""
    assert same_json(first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b'{"a":1}', b'{"a":true}'),
        (b"[1,2]", b"[2,1]"),
        (b"9007199254740993", b"9007199254740992"),
        (b'{"a":1,"a":2}', b'{"a":2}'),
        (b"null", b"{}"),
        (b"1e-99999999999999999999", b"2e-99999999999999999999"),
    ],
)
def test_different_values_are_told_apart(first: bytes, second: bytes) -> None:
    """Order in lists, every digit, repeated keys and types make a difference."""
    assert not same_json(first, second)


def test_a_comparison_asks_no_part_for_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison never prints what lies below a key, which would cost the whole document again at every level."""

    def refuse(_: object) -> str:
        raise AssertionError("a part of the document was printed")

    monkeypatch.setattr("replayforge.domain.document.repr", refuse, raising=False)
    text = json.dumps(list(range(1000)))
    for _ in range(60):
        text = f'{{"a":{text}}}'
    assert same_json(text.encode(), text.replace(", ", ",").encode())
