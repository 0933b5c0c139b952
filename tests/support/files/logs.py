"""Logs in memory: written without threads, opened from images, judged by what can be read."""

import random
from dataclasses import dataclass, field
from functools import cache
from pathlib import PosixPath

from replayforge.forgelog.errors import CorruptRecord, GapError, LogRefused
from replayforge.forgelog.files import Files
from replayforge.forgelog.limits import Limits
from replayforge.forgelog.options import LogOptions
from replayforge.forgelog.record import NewRecord
from replayforge.forgelog.storage import Storage
from tests.support.clock import FakeClock
from tests.support.files.sim import Image, SimFiles


class KnownPath(PosixPath):
    """A path that remembers the paths made from it: half a million logs ask for the same few names."""

    __truediv__ = cache(PosixPath.__truediv__)  # type: ignore[assignment]
    with_name = cache(PosixPath.with_name)
    parent = property(cache(PosixPath.parent.__get__))


DIRECTORY = KnownPath("/log")
TINY = LogOptions(segment_bytes=12_288, limits=Limits(batch_bytes_max=4096, payload_bytes_max=2048))


def open_storage(files: Files, *, floor: int = 0, options: LogOptions = TINY) -> Storage:
    return Storage.open(DIRECTORY, options, floor=floor, files=files, clock=FakeClock())


def read_all(storage: Storage, after: int | None = None) -> list[bytes]:
    """Every payload from the first offset on; raises what reading raises."""
    found: list[bytes] = []
    after = storage.first_offset - 1 if after is None else after
    last = storage.writer.next_offset - 1
    while records := storage.reader.read(after, last, records_max=1000, bytes_max=1 << 22):
        assert [record.offset for record in records] == list(range(after + 1, after + 1 + len(records)))
        found += [record.payload for record in records]
        after += len(records)
    return found


@dataclass
class Written:
    """A log as it stands, and what it must hold: the payloads by offset, and where each batch of the tail ends."""

    files: SimFiles
    payloads: list[bytes] = field(default_factory=list)
    batches: list[tuple[str, int, int, int]] = field(default_factory=list)  # segment, begin, end, last offset

    @property
    def image(self) -> Image:
        return self.files.image()


def write_log(
    rng: random.Random, *, segments: int, batch_records: int = 3, payload_bytes: int = 300, options: LogOptions = TINY,
    last_segment_batches: int | None = None,
) -> Written:  # fmt: skip
    """Write batches until so many segments are begun, the last with so many batches; then stop as a crash would."""
    written = Written(SimFiles())
    storage = open_storage(written.files, options=options)
    in_last = 0
    while True:
        records = [
            NewRecord(rng.randbytes(rng.randint(1, payload_bytes)), rng.randbytes(rng.randint(0, 12)))
            for _ in range(rng.randint(1, batch_records))
        ]
        before = len(storage.segments)
        storage.writer.commit(records)
        written.payloads += [record.payload for record in records]
        segment = storage.segments[-1]
        written.batches.append(
            (segment.path.name, segment.index.positions[-1], storage.writer.position, segment.last_offset)
        )
        in_last = in_last + 1 if len(storage.segments) == before else 1
        full = storage.writer.position + 3000 > options.segment_bytes
        if len(storage.segments) == segments and (
            in_last == last_segment_batches or (full and not last_segment_batches)
        ):
            return written


def outcome(image: Image, *, floor: int = 0, options: LogOptions = TINY) -> str | list[bytes]:
    """Open an image and read it to the end: the payloads, or the code of the refusal."""
    try:
        storage = open_storage(SimFiles(image), floor=floor, options=options)
    except LogRefused as refusal:
        return refusal.code
    try:
        return read_all(storage)
    except CorruptRecord:
        return "CorruptRecord"
    except GapError:
        return "GapError"
