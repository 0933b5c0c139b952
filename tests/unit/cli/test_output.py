"""What a terminal is shown."""

import pytest

from replayforge.cli import output
from replayforge.client import terminal
from replayforge.domain.clock import parse_time

NOW_US = parse_time("2026-11-22T12:00:00Z")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2026-11-22T11:59:57Z", "3 s ago"),
        ("2026-11-22T12:00:08Z", "in 8 s"),
        ("2026-11-22T11:57:01Z", "2 min ago"),
        ("2026-11-22T07:00:00Z", "5 h ago"),
        ("2026-11-19T11:00:00Z", "3 d ago"),
        ("2026-11-22T12:00:00.4Z", "now"),
        (None, "–"),
        ("whenever", "whenever"),
    ],
)
def test_relative_times(text: str | None, words: str) -> None:
    """A time is told by its distance from now, in the largest unit."""
    assert output.relative(text, NOW_US) == words


def test_terminal_is_never_obeyed() -> None:
    """Control characters and direction marks are shown, not carried out."""
    assert terminal.printable("a\x1bb\nc") == "a\\x1bb\nc"
    assert terminal.plain("a\x1b[2Jb\r\n\u202ec") == "a\\x1b[2Jb\\x0d\\x0a\\x202ec"


def test_table_lines_up(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns begin at the same place in every row."""
    output.table(("STATE", "ID"), [("✓ succeeded", "a"), ("✕ dead", "bb")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == ["ID", "a", "bb"]
    assert len({line.index(line.split()[-1]) for line in lines}) == 1
