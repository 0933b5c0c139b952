"""What /proc tells of processes that go on, and may end, while it is read."""

import os
from contextlib import suppress
from pathlib import Path


def lives(pid: int) -> bool:
    """Tell whether a process has not come to its end; who started it need not have heard of that."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # the latter when it goes between the opening and the reading
        return False


def open_files(pid: int) -> list[str]:
    """Return what a process has open; what it closes meanwhile is none of it."""
    links = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            links.append(os.readlink(path))
    return links
