"""JSON at ingest as a function: what it lets through is what any parser understands, in its own bytes."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from replayforge.domain.document import (
    DEPTH_MAX,
    Malformed,
    Unacceptable,
    canonical,
    decode_document,
    quoted,
    same_json,
    split_array,
)

decode_raw = msgspec.json.Decoder(msgspec.Raw).decode

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab\u2028é", max_size=3), inner, max_size=4),
)


def decoded_document(body: bytes) -> bytes:
    return bytes(decode_document(body, decode_raw))


@settings(max_examples=100, deadline=None)
@given(documents, st.booleans(), st.sampled_from([None, 1]))
def test_valid_documents_pass_unchanged(value: Any, escape: bool, indent: int | None) -> None:
    """Whatever a JSON writer writes passes, and its bytes stay as they were."""
    body = json.dumps(value, ensure_ascii=escape, indent=indent).encode()
    assert decoded_document(body) == body


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=60) | st.text('{}[]",:0123456789eE+-.\\u d8tfn', max_size=40).map(str.encode))
@example(b'"\\ud800"')
@example(b"9" * 299 + b"e99")
@example(b"[" * 70)
def test_what_passes_can_be_given_to_a_handler(body: bytes) -> None:
    """Whatever ingest lets through is decoded without an error, and nothing but our own errors leaves it."""
    try:
        passed = decoded_document(body)
    except (Malformed, Unacceptable):
        return
    value = msgspec.json.decode(passed)
    json.dumps(value).encode()
    assert json.loads(body) == value


NAMES = ["id", "idx", "a.b"]
TRICKY = ["id", '"id"', '"idx', "axb", ":", "\\"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*NAMES, *TRICKY]), st.sampled_from([*NAMES, *TRICKY])), max_size=5))
@example([("id", "a"), ("idx", "a"), ("id", "b")])
@example([('"id', "id"), ("id", '"id"')])
def test_no_name_stands_twice(pairs: list[tuple[str, str]]) -> None:
    """A double of a known name is found, whatever stands around it; one that stands in texts alone is none."""
    body = "{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs) + "}"
    given_names = [name for name, _ in pairs]
    if any(given_names.count(name) > 1 for name in NAMES):
        with pytest.raises(Unacceptable, match="given twice"):
            decode_document(body.encode(), decode_raw, names=quoted(NAMES))
    elif len(set(given_names)) == len(given_names):
        assert bytes(decode_document(body.encode(), decode_raw, names=quoted(NAMES))) == body.encode()


@settings(max_examples=100, deadline=None)
@given(st.lists(documents, max_size=6), st.sampled_from(["", " ", "\n\t"]))
def test_arrays_are_split_at_their_commas(items: list[Any], space: str) -> None:
    """The pieces of an array are its items, however it is written."""
    body = f"[{space}{f'{space},{space}'.join(json.dumps(item) for item in items)}{space}]".encode()
    assert [json.loads(piece) for piece in split_array(body)] == items


@pytest.mark.parametrize("depth", [DEPTH_MAX - 1, DEPTH_MAX, DEPTH_MAX + 1])
def test_a_piece_too_deep_does_not_take_its_neighbours(depth: int) -> None:
    """An array with an item of any depth is taken apart into all its items."""
    deep = b"[" * depth * 40 + b"]" * depth * 40
    pieces = split_array(b'[{"a":1},' + deep + b',"],["]')
    assert [piece.strip() for piece in pieces] == [b'{"a":1}', deep, b'"],["']


SAME = [
    ('{"a":1,"b":2}', '{"b":2,"a":1}'),
    ("1.0", "1"),
    ("1e2", "100"),
    ("0.10", "1e-1"),
    ('"\\u00e9"', '"é"'),
    ("[1, 2]", "[1,2]"),
    ("-0", "0"),
    ("-0.0", "0"),
    ("0e7", "0.000"),
    ("12E-1", "1.20"),
    ("-1.5e1", "-15"),
    ("1" + "0" * 300, "1e300"),
    ("1e-400", "0." + "0" * 399 + "10"),
    ('{"b":[{"d":1,"c":2}],"a":1}', '{"a":1e0,"b":[{"c":2,"d":1.0}]}'),
]
OTHER = [
    ("1", "true"),
    ("0", "false"),
    ("1", '"1"'),
    ("null", "{}"),
    ("[]", "{}"),
    ("[1,2]", "[2,1]"),
    ('{"a":1}', '{"a":1,"b":null}'),
    ("12345678901234567890123", "12345678901234567890124"),
    ("0.1", "0.10000000000000000001"),
    ('["number", 1]', "1"),
    ('{"a":1,"a":2}', '{"a":2}'),
    ('{"a":1,"a":2}', '{"a":2,"a":1}'),
    ('{"object":[["a",1]]}', '{"a":1}'),
    ('{"number":"1e-1"}', "0.1"),
    ("1.5", "-1.5"),
    ("1e-400", "0"),
    ("1e-400", "1e-401"),
    ("9007199254740993.0", "9007199254740992"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_same_meaning(one: str, other: str) -> None:
    """Documents are the same when their values are, numbers compared exactly, whatever the form."""
    assert same_json(one.encode(), other.encode())
    assert same_json(f"[{one}]".encode(), f"[{other}]".encode())


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_other_meaning(one: str, other: str) -> None:
    """Documents of different values are never taken for the same."""
    assert not same_json(one.encode(), other.encode())
    assert not same_json(f'{{"k":{one}}}'.encode(), f'{{"k":{other}}}'.encode())


@settings(max_examples=60, deadline=None)
@given(documents, documents)
def test_sameness_is_that_of_the_values(one: Any, other: Any) -> None:
    """A document means the same as itself in another form, and what means the same is written alike by one writer."""
    compact, spread = json.dumps(one, separators=(",", ":")).encode(), json.dumps(one, indent=2).encode()
    assert same_json(compact, spread)
    if canonical(compact) == canonical(json.dumps(other).encode()):
        assert json.loads(compact) == other
