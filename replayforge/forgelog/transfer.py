"""Export and import: a copy of a log that is verified on the way, byte for byte, before and after."""

from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from replayforge.domain.clock import SystemClock
from replayforge.forgelog.atomic import write_fully
from replayforge.forgelog.check import verify
from replayforge.forgelog.consumers import CONSUMERS_NAME, load_consumers, save_consumers
from replayforge.forgelog.disk import Disk
from replayforge.forgelog.errors import LogRefused
from replayforge.forgelog.files import Files
from replayforge.forgelog.findings import LogVerdict
from replayforge.forgelog.header import segment_name
from replayforge.forgelog.log_recovery import segment_ids
from replayforge.forgelog.manifest import MANIFEST_NAME, load_manifest, save_manifest

PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied."""

    segments: int
    bytes: int
    first_offset: int
    last_offset: int


def copy_log(files: Files, source: Path, target: Path) -> Copied:
    """Copy a log into an empty or new directory and verify the copy deeply; the source may be live.

    The copy is durable. Of a live source it may hold records at its end whose sync had not returned there.

    Raises LogRefused, with nothing usable left in the target, when either is not sound: the manifest comes last.
    """
    before = verify(files, source, deep=True)
    if before.verdict not in (LogVerdict.CLEAN, LogVerdict.TORN):
        raise LogRefused("E_CORRUPT", f"{source} is not sound; nothing was copied.")
    files.make_directory(target)
    if any(name == MANIFEST_NAME or name.endswith(".flog") for name in files.list_directory(target)):
        raise LogRefused("E_NOT_EMPTY", f"{target} holds a log already.", remedy="Name an empty directory.")
    disk = Disk(files, SystemClock())
    manifest = load_manifest(files, source)
    ids = [number for number in segment_ids(files.list_directory(source)) if number >= manifest.first_segment]
    total = sum(copy_file(disk, source / segment_name(number), target / segment_name(number)) for number in ids)
    if CONSUMERS_NAME in files.list_directory(source):
        save_consumers(disk, target, load_consumers(files, source))
    save_manifest(disk, target, replace(manifest, last_segment=max([manifest.last_segment, *ids])))
    after = verify(files, target, deep=True)
    if after.verdict not in (LogVerdict.CLEAN, LogVerdict.TORN) or after.last_offset < before.last_offset:
        files.unlink(target / MANIFEST_NAME)
        raise LogRefused("E_CORRUPT", f"the copy in {target} is not what was read.", remedy="Check that disk.")
    return Copied(len(ids), total, after.first_offset, after.last_offset)


def copy_file(disk: Disk, source: Path, target: Path) -> int:
    """Copy one file, durably, and return its size."""
    reading = disk.files.open(source)
    try:
        return copy_open_file(disk, reading, target)
    finally:
        disk.files.close(reading)


def copy_open_file(disk: Disk, reading: int, target: Path) -> int:
    """Copy what a handle leads to, durably, and return its size."""
    writing = disk.files.open(target, create=True)
    try:
        position = 0
        while piece := disk.files.pread(reading, PIECE_BYTES, position):
            write_fully(disk.files, writing, piece, position)
            position += len(piece)
        disk.sync_file(writing)
        return position
    finally:
        disk.files.close(writing)
