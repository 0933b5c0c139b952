"""Writing: one batch at a time at the end of the log, each durable before the next begins."""

import errno
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from replayforge import crashpoints
from replayforge.forgelog.atomic import write_fully
from replayforge.forgelog.batch import CLEAN, GAP, GAP_BODY, MARKER, encode_batch
from replayforge.forgelog.checksum import EXTENDS, preferred
from replayforge.forgelog.disk import Disk, SyncFailed
from replayforge.forgelog.errors import LogBusy, LogFull
from replayforge.forgelog.header import HEADER_BYTES, SegmentHeader, encode_header, with_checksum
from replayforge.forgelog.limits import BATCH_HEAD_BYTES, OFFSET_MAX, Limits
from replayforge.forgelog.record import NewRecord, encode_records
from replayforge.forgelog.scan import Index
from replayforge.forgelog.segment import Segment

OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OUT_OF_HANDLES = (errno.EMFILE, errno.ENFILE)
SPARE_NAME = "spare.tmp"
PROBE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Ending:
    """Where a log ends: what the header of the next segment states about the one before it."""

    log_id: bytes
    segment_id: int = 0
    position: int = 0
    last_offset: int = 0
    chain: int = 0
    time_ns: int = 0
    unused_segment_id: int = 1


class Writer:
    """Writes batches. Used by one thread at a time; LogFull and LogBusy lose nothing, any other error is fatal.

    `began` is called with each new segment after it is durable under its name; it may not raise.
    """

    def __init__(
        self, disk: Disk, directory: Path, ending: Ending, *, segment_bytes: int, limits: Limits,
        began: Callable[[Segment], None],
    ) -> None:  # fmt: skip
        self.disk = disk
        self.directory = directory
        self.segment_bytes = segment_bytes
        self.limits = limits
        self.began = began
        self.algorithm = preferred()
        self.extend = EXTENDS[self.algorithm]
        self.spare: int | None = None
        self.spare_missing = False
        self.handle: int | None = None
        self.salt = 0
        self.segment_id = ending.segment_id
        self.next_segment_id = ending.unused_segment_id
        self.log_id = ending.log_id
        self.position = ending.position
        self.next_offset = ending.last_offset + 1
        self.chain = ending.chain
        self.time_ns = ending.time_ns
        self.dirty_end = 0  # behind the end of the log, up to here, stands what a failed write left; 0 for nothing

    # Batches

    def commit(self, records: Sequence[NewRecord]) -> int:
        """Append records as one batch and return the first offset; they are durable when this returns.

        Raises LogFull when there is no space: then nothing was appended, and the next call tries the same place.
        """
        first = self.next_offset
        assert first + len(records) <= OFFSET_MAX
        body = encode_records(records, first, self.extend)
        if self.position + BATCH_HEAD_BYTES + len(body) > self.segment_bytes and self.position > HEADER_BYTES:
            self.roll()
        self.append(body, len(records), 0)
        return first

    def mark(self) -> None:
        """Write the proof that everything so far was durable."""
        self.append(b"", 0, MARKER)

    def accept_gap(self, first: int, last: int) -> None:
        """Record that the operator accepted the loss of these offsets; none of them is ever given out again."""
        self.append(GAP_BODY.pack(first, last), 0, GAP)
        self.next_offset = max(self.next_offset, last + 1)

    def append(self, body: bytes, count: int, flags: int) -> None:
        """Write one batch and make it durable."""
        assert self.handle is not None
        time_ns = max(self.time_ns, self.disk.clock.now_us() * 1000)
        data, chain = encode_batch(
            salt=self.salt, base_offset=self.next_offset, count=count, body=body, time_ns=time_ns,
            previous_chain=self.chain, flags=flags, extend=self.extend,
        )  # fmt: skip
        self.write(self.handle, data)
        self.disk.sync_data(self.handle)
        if count:
            self.segment.index.add(self.next_offset, self.position)
        self.position += len(data)
        self.next_offset += count
        self.chain, self.time_ns = chain, time_ns
        self.segment.last_offset, self.segment.end = self.next_offset - 1, self.position

    def write(self, handle: int, data: bytes) -> None:
        """Write at the end of the log."""
        if self.dirty_end:
            self.wipe(handle)
        self.dirty_end = self.position + len(data)
        self.put(handle, data)
        self.dirty_end = 0

    def wipe(self, handle: int) -> None:
        """Put zeros, durably, over what was written behind the end of the log and never synced.

        Until a sync each sector may hold any of what was written to it: two batches written to one place could leave
        the header of the second before the rest of the first, which to recovery is damage, not a tear.
        """
        self.put(handle, bytes(self.dirty_end - self.position))
        self.disk.sync_data(handle)
        self.dirty_end = 0

    def put(self, handle: int, data: bytes) -> None:
        """Write at the end of the log, and say so in the log's own words when there is no space."""
        try:
            write_fully(self.disk.files, handle, data, self.position)
        except OSError as error:
            raise as_unavailable(error) from error

    # Segments

    def roll(self) -> None:
        """Go on in a new segment, whose header states where this one ends.

        Raises LogFull when there is no space for it; then the log still ends in the old one. Once the new name stands,
        there is no way back.
        """
        try:
            handle, header = self.seal()
        except OSError as error:
            raise as_unavailable(error) from error
        old, self.handle = self.handle, handle
        self.salt, self.chain, self.position, self.dirty_end = header.salt, header.checksum, HEADER_BYTES, 0
        self.segment_id, self.next_segment_id = header.segment_id, header.segment_id + 1
        self.segment = Segment(
            header, self.directory / header.name, end=HEADER_BYTES, last_offset=self.next_offset - 1, index=Index()
        )
        if old is not None:
            crashpoints.reach("segment.sealed")
            self.disk.files.close(old)
        self.began(self.segment)
        self.prepare_spare()

    def seal(self) -> tuple[int, SegmentHeader]:
        """Give the spare file a header and its final name; return its handle and the header."""
        files = self.disk.files
        header = self.next_header()
        data = encode_header(header)
        if self.spare is None:
            self.spare = files.open(self.directory / SPARE_NAME, create=True)
        write_fully(files, self.spare, data, 0)
        self.disk.sync_data(self.spare)
        with self.disk.names_of(self.directory) as sync_names:
            files.rename(self.directory / SPARE_NAME, self.directory / header.name)
            handle, self.spare = self.spare, None
            sync_names()
        return handle, header

    def next_header(self) -> SegmentHeader:
        """Return the header of the segment that seals the present one, its checksum included."""
        from_fields = SegmentHeader(
            log_id=self.log_id, segment_id=self.next_segment_id, base_offset=self.next_offset,
            created_ns=max(self.time_ns, self.disk.clock.now_us() * 1000), previous_segment=self.segment_id,
            previous_end=self.position or HEADER_BYTES, previous_last_offset=self.next_offset - 1,
            previous_chain=self.chain, salt=secrets.randbits(32), algorithm=self.algorithm, limits=self.limits,
        )  # fmt: skip
        return with_checksum(from_fields)

    def prepare_spare(self) -> None:
        """Reserve the space of the next segment ahead; without space the log goes on and says so a segment early."""
        files, path = self.disk.files, self.directory / SPARE_NAME
        try:
            self.spare = files.open(path, create=True)
            files.allocate(self.spare, self.segment_bytes)
            self.spare_missing = False
        except OSError as error:
            if error.errno not in OUT_OF_SPACE + OUT_OF_HANDLES:
                raise
            self.spare_missing = True
            self.drop_spare()

    def drop_spare(self) -> None:
        """Remove the spare file and give its space back."""
        if self.spare is not None:
            self.disk.files.close(self.spare)
            self.spare = None
            with suppress(OSError):  # the next start removes it
                self.disk.files.unlink(self.directory / SPARE_NAME)

    def has_space(self) -> bool:
        """Try to write zeros where the next batch would go: they mean "nothing written yet" to recovery.

        No further than a batch goes: whatever a crash leaves of them must not be more than one could.
        """
        assert self.handle is not None
        size = min(PROBE_BYTES, self.limits.batch_bytes_max, max(self.segment_bytes - self.position, BATCH_HEAD_BYTES))
        self.dirty_end = max(self.dirty_end, self.position + size)
        try:
            self.wipe(self.handle)
        except LogFull:
            return False
        return True

    # The end

    def finish(self) -> None:
        """Close the log cleanly: a last batch says so, and the space reserved behind it is given back."""
        assert self.handle is not None
        self.append(b"", 0, CLEAN)
        self.disk.files.truncate(self.handle, self.position)
        self.disk.sync_file(self.handle)
        self.abandon()
        self.disk.sync_directory(self.directory)

    def abandon(self) -> None:
        """Let go of the files without a further write."""
        if self.handle is not None:
            self.disk.files.close(self.handle)
            self.handle = None
        self.drop_spare()


def as_unavailable(error: OSError) -> Exception:
    """Turn the want of space or of handles into errors that say "not accepted"; any other error stays what it is.

    A failed sync is never one of them, whatever its number.
    """
    if isinstance(error, SyncFailed):
        return error
    if error.errno in OUT_OF_SPACE:
        return LogFull()
    if error.errno in OUT_OF_HANDLES:
        return LogBusy("The process has too many open files")
    return error
