"""Small files that are always whole: read and replaced with a checksum, a temporary name and two syncs."""

import errno
import json
from pathlib import Path
from typing import Any

from replayforge.forgelog.checksum import CRC32C, EXTENDS
from replayforge.forgelog.disk import Disk
from replayforge.forgelog.files import Files

INTERRUPTIONS_MAX = 100

extend = EXTENDS[CRC32C]
as_json = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


class NotWhole(Exception):
    """A small file is not the text that was written; the message says what is wrong."""


def seal(content: dict[str, Any]) -> bytes:
    """Return one line of JSON and one line with its CRC-32C."""
    line = as_json(content).encode()
    return b"%s\n%08x\n" % (line, extend(0, line))


def unseal(data: bytes) -> dict[str, Any]:
    """Return what `seal` was given; raises NotWhole when a single bit differs."""
    line = data.partition(b"\n")[0]
    if data != b"%s\n%08x\n" % (line, extend(0, line)):
        raise NotWhole("it does not match its checksum.")
    content: dict[str, Any] = json.loads(line)
    return content


def read_whole(files: Files, path: Path) -> bytes:
    """Return all bytes of a file."""
    handle = files.open(path)
    try:
        return files.pread(handle, files.size(handle), 0)
    finally:
        files.close(handle)


def write_fully(files: Files, handle: int, data: bytes, position: int) -> None:
    """Write all of `data`, however short the single writes are; an interrupted write is taken up again."""
    interruptions = 0
    while data:
        try:
            taken = files.pwrite(handle, data, position)
        except InterruptedError:
            interruptions += 1
            if interruptions == INTERRUPTIONS_MAX:
                raise
            continue
        if not taken:
            raise OSError(errno.EIO, "a write took no byte")
        data = data[taken:]
        position += taken


def replace_file(disk: Disk, path: Path, data: bytes) -> None:
    """Replace a file: afterwards, and after any crash, it holds either the old bytes or the new ones, whole.

    Durable when it returns. An OSError other than SyncFailed leaves the old file in place.
    """
    files = disk.files
    temporary = path.with_name(path.name + ".tmp")
    handle = files.open(temporary, create=True)
    try:
        files.truncate(handle, 0)
        write_fully(files, handle, data, 0)
        disk.sync_file(handle)
    finally:
        files.close(handle)
    with disk.names_of(path.parent) as sync_names:
        files.rename(temporary, path)
        sync_names()
