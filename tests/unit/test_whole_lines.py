"""Half a line is none."""

from pathlib import Path

import pytest

from replayforge.whole_lines import whole_lines


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        (b"", []),
        (b"one", []),
        (b"one\n", ["one"]),
        (b"one\n\ntwo\nthr", ["one", "", "two"]),
        ("one\ntwo\u2028é\n".encode() + "é".encode()[:1], ["one", "two\u2028é"]),
    ],
)
def test_a_line_counts_once_it_has_its_end(tmp_path: Path, written: bytes, lines: list[str]) -> None:
    """What is being written may break off anywhere, in the middle of a character as well."""
    path = tmp_path / "lines.txt"
    path.write_bytes(written)
    assert whole_lines(path) == lines


def test_a_file_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert whole_lines(tmp_path / "missing.txt") == []
