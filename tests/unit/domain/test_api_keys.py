"""How keys are written in the configuration, and what is kept of them."""

import pytest

from replayforge.domain.api_keys import ApiKey, Role, digest_of, matching_key, new_key, parse_keys

DIGEST = "ab" * 32


def test_entries() -> None:
    """An entry is a name, a role and a digest, or a key in plain text, which may do everything; no key is kept."""
    named, plain = parse_keys([f"grafana:metrics:sha256-{DIGEST}", "a:key:with:colons"])
    assert named == ApiKey("grafana", Role.METRICS, bytes.fromhex(DIGEST))
    assert named.entry() == f"grafana:metrics:sha256-{DIGEST}"
    assert plain == ApiKey("key-2", Role.ADMIN, digest_of("a:key:with:colons"))
    assert "colons" not in repr(plain)


@pytest.mark.parametrize(
    "entry",
    [
        f"ops:operat:sha256-{DIGEST}",
        f"ops:operate:sha256-{DIGEST[1:]}",
        f"ops:operate:sha256-{DIGEST.upper()}",
        f"Ops:operate:sha256-{DIGEST}",
        f"o.ps:operate:sha256-{DIGEST}",
        f":operate:sha256-{DIGEST}",
        f"sha256:sha256-{DIGEST}",
        "ops:read:canary",
    ],
)
def test_slips_are_no_keys(entry: str) -> None:
    """What is nearly a named key is refused, for as a key in plain text it would be one that may do everything."""
    with pytest.raises(ValueError, match="looks like a named key") as raised:
        parse_keys(["other", entry])
    assert "number 2" in str(raised.value)
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize("entry", ["${RF_KEY}", "@/run/secrets/key"])
def test_references_are_no_keys(entry: str) -> None:
    """Who thinks that a key is read from there would be left with a key that everybody can guess."""
    with pytest.raises(ValueError, match="number 2, that says where a key is found"):
        parse_keys(["other", entry])


def test_doubles() -> None:
    """No key stands in the list twice, however it is written, and no name."""
    key, known = new_key("one", Role.READ)
    with pytest.raises(ValueError, match="a key twice"):
        parse_keys([key, known.entry()])
    with pytest.raises(ValueError, match="two keys of one name"):
        parse_keys([known.entry(), new_key("one", Role.READ)[1].entry()])


def test_who_shows_it() -> None:
    """A fresh key is found by what was printed of it, and its digest is no key."""
    key, known = new_key("one", Role.READ)
    keys = parse_keys(["plain", known.entry()])
    assert matching_key(key, keys) == known
    assert [matching_key(shown, keys) for shown in (known.digest.hex(), known.entry(), key[:-1], "")] == [None] * 4
