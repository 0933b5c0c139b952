"""Reading: verified records by offset, whole ranges of batches with one system call."""

import threading
from bisect import bisect_right
from collections import OrderedDict
from pathlib import Path

from replayforge.forgelog.batch import BatchHead, decode_head
from replayforge.forgelog.checksum import EXTENDS
from replayforge.forgelog.errors import CorruptRecord, GapError
from replayforge.forgelog.files import Files
from replayforge.forgelog.limits import BATCH_HEAD_BYTES
from replayforge.forgelog.manifest import Manifest
from replayforge.forgelog.record import RECORD_HEAD_BYTES, DamagedRecord, Record, decode_records
from replayforge.forgelog.segment import Segment

HANDLES_MAX = 48
PIECE_BYTES = 1 << 20


class Handles:
    """Open files for reading, the least recently used closed first."""

    def __init__(self, files: Files, handles_max: int = HANDLES_MAX) -> None:
        self.files = files
        self.handles_max = handles_max
        self.open: OrderedDict[Path, int] = OrderedDict()

    def of(self, path: Path) -> int:
        """Return a handle for the file."""
        handle = self.open.get(path)
        if handle is None:
            handle = self.open[path] = self.files.open(path)
            if len(self.open) > self.handles_max:
                self.files.close(self.open.popitem(last=False)[1])
        else:
            self.open.move_to_end(path)
        return handle

    def forget(self, path: Path) -> None:
        """Close the file's handle, if there is one."""
        handle = self.open.pop(path, None)
        if handle is not None:
            self.files.close(handle)

    def close(self) -> None:
        """Close all of them."""
        for path in list(self.open):
            self.forget(path)


class LogReader:
    """Reads what is durable. Safe to call from any thread, one at a time; retention forgets segments under `lock`."""

    def __init__(self, files: Files, segments: list[Segment], manifest: Manifest) -> None:
        self.files = files
        self.handles = Handles(files)
        self.lock = threading.Lock()
        self.manifest = manifest
        self.segments: list[Segment] = []
        self.base_offsets: list[int] = []
        self.show(segments)

    def show(self, segments: list[Segment]) -> None:
        """Take another list of live segments."""
        self.base_offsets = [segment.header.base_offset for segment in segments]
        self.segments = segments

    def heed(self, manifest: Manifest) -> None:
        """Take another manifest: it says which losses are accepted."""
        self.manifest = manifest

    def read(self, after: int, last: int, *, records_max: int, bytes_max: int) -> list[Record]:
        """Return verified records from `after + 1` up to `last` at most; at least one if there is one.

        Raises GapError when the next record is gone, CorruptRecord when it is damaged. Records before such a place are
        returned first; the next call raises.
        """
        records: list[Record] = []
        wanted, room = max(after, 0) + 1, bytes_max
        with self.lock:
            while wanted <= last and len(records) < records_max and room > 0:
                try:
                    self.refuse_gone(wanted)
                    more, used = self.read_piece(wanted, last, records_max - len(records), room)
                except (GapError, CorruptRecord):
                    if records:
                        break
                    raise
                records += more
                wanted = more[-1].offset + 1
                room -= used
        return records

    def refuse_gone(self, offset: int) -> None:
        """Raise GapError when the record was removed by retention or its loss accepted."""
        first = self.base_offsets[0]
        if offset < first:
            raise GapError(offset, first - 1)
        gap = self.manifest.gap_at(offset)
        if gap is not None:
            raise GapError(offset, gap[1])

    def read_piece(self, wanted: int, last: int, records_max: int, room: int) -> tuple[list[Record], int]:
        """Read with one system call, two when the batch is larger than expected; pass the records and their bytes."""
        segment = self.segments[max(bisect_right(self.base_offsets, wanted) - 1, 0)]
        handle = self.handles.of(segment.path)
        position = segment.locate(wanted, self.files, handle, self.manifest)
        size = min(segment.end - position, PIECE_BYTES)
        data = self.files.pread(handle, size, position)
        piece = Piece(segment, position, wanted, last, records_max, room)
        missing = piece.take(data)
        if missing:
            missing = piece.take(self.files.pread(handle, missing, position))
        if not piece.records:
            raise CorruptRecord(wanted, segment.path.name, position)
        return piece.records, piece.used


class Piece:
    """Decodes one stretch of batches."""

    def __init__(self, segment: Segment, position: int, wanted: int, last: int, records_max: int, room: int) -> None:
        self.segment = segment
        self.salt = segment.header.salt
        self.extend = EXTENDS[segment.header.algorithm]
        self.position = position
        self.wanted = wanted
        self.last = last
        self.records_max = records_max
        self.room = room
        self.records: list[Record] = []
        self.used = 0

    def take(self, data: bytes) -> int:
        """Decode batches until a limit or the end of `data`; return the size needed when not even one fits."""
        at = 0
        size = len(data)
        while self.wanted <= self.last and len(self.records) < self.records_max and self.used < self.room:
            if at + BATCH_HEAD_BYTES > size:
                break
            head = decode_head(data, at, self.salt, self.extend)
            if head is None or not self.expected(head):
                return self.stop(at)
            end = at + BATCH_HEAD_BYTES + head.body_bytes
            if end > size:
                too_long = self.position + end > self.segment.end
                return 0 if self.records else self.stop(at) if too_long else end
            if head.count:
                self.decode(data, at, end, head)
            at = end
        return 0

    def expected(self, head: BatchHead) -> bool:
        """Tell whether the batch is the one that must stand here."""
        if self.records or not head.count:
            return head.base_offset == self.wanted
        return head.base_offset <= self.wanted < head.base_offset + head.count

    def stop(self, at: int) -> int:
        """End at damage: the records before it stand, and none at all is an error."""
        if not self.records:
            raise CorruptRecord(self.wanted, self.segment.path.name, self.position + at)
        self.last = self.wanted - 1
        return 0

    def decode(self, data: bytes, at: int, end: int, head: BatchHead) -> None:
        """Take the wanted records of one batch, as many as the limits allow."""
        skip = self.wanted - head.base_offset
        count = min(head.count, skip + self.records_max - len(self.records))
        body = data[at + BATCH_HEAD_BYTES : end]
        try:
            records = decode_records(body, head.base_offset, count, head.time_ns // 1000, self.extend, skip=skip)
        except DamagedRecord as error:
            records = self.before_damage(body, head, skip, error, at)
        if len(body) > self.room - self.used:
            records = self.trim(records)
        else:
            self.used += len(body)
        self.records += records
        self.wanted += len(records)

    def before_damage(self, body: bytes, head: BatchHead, skip: int, error: DamagedRecord, at: int) -> list[Record]:
        """Return the sound records in front of a damaged one; raises CorruptRecord when it is the first wanted."""
        count = error.offset - head.base_offset
        if not self.records and count <= skip:
            position = self.position + at + BATCH_HEAD_BYTES + error.position
            raise CorruptRecord(error.offset, self.segment.path.name, position) from None
        self.last = error.offset - 1
        return decode_records(body, head.base_offset, count, head.time_ns // 1000, self.extend, skip=skip)

    def trim(self, records: list[Record]) -> list[Record]:
        """Return the head of the records that fits the bytes allowed, at least one record in all."""
        kept = 0
        for record in records:
            size = RECORD_HEAD_BYTES + len(record.key) + len(record.payload)
            if self.used + size > self.room and (self.records or kept):
                self.used = self.room
                break
            self.used += size
            kept += 1
        return records[:kept]
