"""Logs in memory: written without threads, opened from images, judged by what can be read."""

import random
from dataclasses import dataclass, field
from functools import cache
from pathlib import PosixPath

from replayforge.forgelog.disk import Disk
from replayforge.forgelog.errors import CorruptRecord, GapError, LogRefused
from replayforge.forgelog.files import Files
from replayforge.forgelog.limits import Limits
from replayforge.forgelog.log_recovery import Found, recover
from replayforge.forgelog.options import LogOptions
from replayforge.forgelog.reader import LogReader
from replayforge.forgelog.record import NewRecord
from replayforge.forgelog.scan import Index
from replayforge.forgelog.segment import Segment
from replayforge.forgelog.storage import Storage
from tests.support.clock import FakeClock
from tests.support.files.sim import Image, SimFile, SimFiles


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
        # One with too little room for so many batches is not the last: whoever asks gets one more.
        if len(storage.segments) >= segments and (
            in_last == last_segment_batches or (full and not last_segment_batches)
        ):
            return written


def outcome(image: Image, *, floor: int = 0, options: LogOptions = TINY) -> str | list[bytes]:
    """Open an image and read it to the end: the payloads, or the code of the refusal."""
    try:
        storage = open_storage(SimFiles(image), floor=floor, options=options)
    except LogRefused as refusal:
        return refusal.code
    return what_reads(storage)


def what_reads(storage: Storage) -> str | list[bytes]:
    """Read an open log to its end: the payloads, or what stands in the way."""
    try:
        return read_all(storage)
    except CorruptRecord:
        return "CorruptRecord"
    except GapError:
        return "GapError"


def known_to_readers(storage: Storage) -> object:
    """All that an open log answers from, but for the bytes of its files."""
    segments = [
        (one.header, one.end, one.last_offset, one.complete, *known_to_index(one.index)) for one in storage.segments
    ]
    return (*segments, storage.writer.next_offset, storage.manifest, *storage.consumers.items())


class NotingFiles(SimFiles):
    """Notes how far each file was read."""

    def __init__(self, image: Image) -> None:
        super().__init__(image)
        self.read_to: dict[SimFile, int] = {}

    def pread(self, handle: int, size: int, position: int) -> bytes:
        file = self.handles[handle]
        self.read_to[file] = max(self.read_to.get(file, 0), position + size)
        return super().pread(handle, size, position)


class Opened:
    """One log, opened once for many images of it, each of which must be answered as if it were opened by itself.

    An image that differs only where opening neither reads nor writes would be opened by the same calls to the last, so
    it is only read, through a reader that knows nothing. Any other is recovered, and opened and read unless one before
    it was the same in all that counts from there on: its names, what recovery knows, and every byte before the ends.
    """

    def __init__(self, image: Image, *, floor: int = 0, options: LogOptions = TINY) -> None:
        self.image = image
        self.floor = floor
        self.options = options
        self.outcomes: dict[int, str | list[bytes]] = {}
        files = self.files = NotingFiles(image)
        self.storage = open_storage(files, floor=floor, options=options)
        self.read_to = {
            name: files.read_to.get(file, 0)
            for name, file in files.names.items()
            if name in image and file.data is image[name]
        }

    def outcome(self, image: Image) -> str | list[bytes]:
        """What `outcome` finds."""
        changed = [name for name, data in image.items() if data is not self.image.get(name)]
        if image.keys() != self.image.keys() or not all(self.opens_alike(name, image[name]) for name in changed):
            return self.outcome_of_opening(image)
        segments = [as_opened(segment) for segment in self.storage.segments]
        self.storage.reader = LogReader(self.files, segments, self.storage.manifest)
        for name in changed:
            self.files.names[name].data = image[name]
        try:
            return what_reads(self.storage)
        finally:
            self.storage.reader.handles.close()
            for name in changed:
                self.files.names[name].data = self.image[name]

    def outcome_of_opening(self, image: Image) -> str | list[bytes]:
        """Recover an image; what was found before in all that opening and reading go by is opened and read once."""
        files = SimFiles(image)
        try:
            found = recover(Disk(files, FakeClock()), DIRECTORY, floor=self.floor)
        except LogRefused as refusal:
            return refusal.code
        assert found is not None
        assert found.tail is not None
        ends = [image[f"{DIRECTORY}/{one.header.name}"][: one.end] for one in found.segments]
        key = hash((frozenset(image), *ends, known_of(found)))
        if key not in self.outcomes:
            self.outcomes[key] = outcome(image, floor=self.floor, options=self.options)
        return self.outcomes[key]

    def opens_alike(self, name: str, data: bytes) -> bool:
        """Tell whether opening the log sees no difference in this file."""
        known, read_to = self.image[name], self.read_to.get(name)
        return read_to is not None and len(data) == len(known) and data[:read_to] == known[:read_to]


def known_of(found: Found) -> object:
    """All that recovery knows of a log."""
    walk = found.tail
    assert walk is not None
    tail = (walk.position, walk.next_offset, walk.chain, walk.time_ns, walk.flags, *known_to_index(walk.index))
    learned = (found.manifest, *found.consumers.items(), *found.segments)
    return (*tail, *learned, found.torn_bytes, *found.warnings)


def known_to_index(index: Index) -> tuple[bytes, bytes]:
    return bytes(index.offsets), bytes(index.positions)


def as_opened(segment: Segment) -> Segment:
    """The segment as it was before anything was read from it."""
    index = segment.index if segment.complete else None
    return Segment(segment.header, segment.path, end=segment.end, last_offset=segment.last_offset, index=index)
