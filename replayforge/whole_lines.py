"""Reads the lines of a file that other processes go on writing."""

from pathlib import Path


def whole_lines(path: Path) -> list[str]:
    """Return the lines so far, none of a file that is not there, and without one that is being written just now.

    Who writes a line with one call does not keep it whole for others: it shows piece by piece, where a page ends.
    """
    written = path.read_bytes() if path.exists() else b""
    return [line.decode() for line in written.split(b"\n")[:-1]]
