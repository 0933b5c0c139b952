"""What is shown of users' JSON: every token as it was, secrets hidden wherever they stand, never more than 16 KB."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayforge.web.pages.documents import MASK, Reading, shown
from replayforge.web.pages.words import SHOWN_BYTES_MAX

NAMES = ("password", "token", "api_key")
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
DOCUMENTS = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
SECRET = "correct horse"


def text_of(body: str, *, indented: bool = False) -> str:
    return shown(body.encode(), Reading(NAMES, indented)).text


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"password": "x", "n": 1.10}', f'{{"password": {MASK}, "n": 1.10}}'),
        ('{"a":{"API-Key" :\n 12}}', f'{{"a":{{"API-Key" :\n {MASK}}}}}'),
        ('{"accessToken":{"v":["]","}"],"w":{}},"b":[]}', f'{{"accessToken":{MASK},"b":[]}}'),
        ('[{"tokens":[1,[2]]},"token"]', f'[{{"tokens":{MASK}}},"token"]'),
        ('{"p\\u0061ssword":null,"passw":"rd"}', f'{{"p\\u0061ssword":{MASK},"passw":"rd"}}'),
        ('{"a\\"password":"x","b":"password","c":":"}', f'{{"a\\"password":{MASK},"b":"password","c":":"}}'),
        ('"password"', '"password"'),
        ("9007199254740993", "9007199254740993"),
    ],
)
def test_values_of_secret_names_are_hidden_and_nothing_else_changes(body: str, expected: str) -> None:
    """A value goes whole, whatever it is and however its name is written; every other byte stays."""
    assert text_of(body) == expected


@given(DOCUMENTS)
def test_without_secrets_every_document_stays_as_it_is(document: object) -> None:
    """As sent means as sent; indented, the same tokens in the same order."""
    body = json.dumps(document, ensure_ascii=False)
    found = shown(body.encode("utf-8", "surrogatepass"), Reading())
    if "\ud800" <= max(body, default="") <= "\udfff" or found.cut:
        return
    assert found.text == body
    assert json.loads(text_of(body, indented=True)) == document or any(name in body.lower() for name in NAMES)


@given(DOCUMENTS, st.sampled_from(["password", "Access_Token", "API-KEY"]), st.booleans())
def test_a_secret_is_never_shown(document: object, name: str, indented: bool) -> None:
    """Wherever the pair stands and whatever stands around it, its value does not."""
    body = json.dumps([document, {"x": {name: [SECRET, {"y": SECRET}]}}, document])
    found = shown(body.encode(), Reading(NAMES, indented))
    assert SECRET not in found.text
    assert found.masked_count >= 1


def test_indented() -> None:
    """Each member has a line of its own, numbers keep their digits, and empty brackets stay together."""
    body = '{"a":[1,{"b":2.50}],"c":{},"d":[ ],"e":9007199254740993}'
    assert text_of(body, indented=True) == (
        '{\n  "a": [\n    1,\n    {\n      "b": 2.50\n    }\n  ],\n  "c": {},\n  "d": [],\n  "e": 9007199254740993\n}'
    )


@pytest.mark.parametrize("length", [SHOWN_BYTES_MAX - 2, SHOWN_BYTES_MAX - 1, 1 << 20])
def test_what_is_long_is_cut_and_says_so(length: int) -> None:
    """16 KB are shown, to the byte, and `cut` tells whether that was all."""
    found = shown(b'"' + b"x" * length + b'"', Reading())
    assert found.cut == (length + 2 > SHOWN_BYTES_MAX)
    assert len(found.text) == min(length + 2, SHOWN_BYTES_MAX)
    assert found.bytes_count == length + 2
