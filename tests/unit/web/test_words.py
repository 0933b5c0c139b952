"""How pages write things."""

import pytest

from replayforge.web.pages.flash import is_ours
from replayforge.web.pages.words import (
    SHOWN_BYTES_MAX,
    count,
    duration,
    excerpt,
    first_line,
    link,
    size,
    workflow_path,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 ms"), (0.0004, "0 ms"), (0.412, "412 ms"), (1.25, "1.2 s"), (59.4, "59 s"), (60, "1 min"),
     (61, "1 min 1 s"), (3600, "1 h"), (7500, "2 h 5 min"), (200_000, "2 d 7 h")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    """Durations have two parts at most and are never negative."""
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (0.25, "0.2"), (5.0, "5"), (1204, "1,204"), (17.6, "18")])
def test_numbers(number: float, text: str) -> None:
    """Numbers have separators, small ones a digit."""
    assert count(number) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KB"), (3 << 40, "3072.0 GB")])
def test_sizes(number: int, text: str) -> None:
    """Sizes have a unit that fits."""
    assert size(number) == text


def test_an_excerpt_never_splits_a_character() -> None:
    """A cut in the middle of a character leaves it out; what is short comes whole, even when it is not text."""
    body = b"x" + "ä".encode() * SHOWN_BYTES_MAX
    shown = excerpt(body)
    assert shown.cut
    assert body.startswith(shown.text.encode())
    assert shown.bytes_count == len(body)
    assert excerpt(b"\xff{").text == "\\xff{"


def test_the_first_line_is_short() -> None:
    """A traceback becomes one line that a table can hold."""
    assert first_line("ValueError: x\n\nTraceback") == "ValueError: x"
    assert len(first_line("x" * 1000)) == 200
    assert first_line(None) == ""


def test_links_quote_names() -> None:
    """Names with odd characters stay one segment; those that browsers would swallow go by a query."""
    assert workflow_path("a/b#c?d%e") == "/workflows/a%2Fb%23c%3Fd%25e"
    assert workflow_path("..") == "/events?workflow=.."
    assert link("/events", {"type": "a&b=c", "q": "", "cursor": None}) == "/events?type=a%26b%3Dc"


@pytest.mark.parametrize("path", ["//evil", "https://evil", "/\\evil", "/a\r\nSet-Cookie: x", "evil", "javascript:1"])
def test_foreign_targets_are_not_ours(path: str) -> None:
    """Only a plain path of this site is one."""
    assert not is_ours(path)
    assert is_ours("/events?q=1#x")
