"""One log on disk: locked, recovered, and open for one writer and many reads. Knows no thread and no event loop."""

import secrets
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from replayforge.domain.clock import Clock
from replayforge.domain.errors import Unavailable
from replayforge.forgelog.directory import LOCK_NAME, prepare_directory, take_lock
from replayforge.forgelog.disk import Disk, SyncFailed
from replayforge.forgelog.errors import LogMoved, LogRefused
from replayforge.forgelog.files import Files
from replayforge.forgelog.header import segment_name
from replayforge.forgelog.log_recovery import POISON_NAME, Found, RecoveryReport, recover, segment_ids, walk_segment
from replayforge.forgelog.manifest import MANIFEST_NAME, Manifest, load_manifest, save_manifest
from replayforge.forgelog.options import LogOptions
from replayforge.forgelog.reader import LogReader
from replayforge.forgelog.segment import Segment
from replayforge.forgelog.writer import Ending, Writer, as_unavailable


@dataclass(frozen=True, slots=True)
class LogIdentity:
    """Who a log is, and what it knows of its store; it holds records up to `last_offset` at least."""

    log_id: str
    store_id: str | None
    projected_offset: int
    last_offset: int


def read_identity(directory: Path, files: Files) -> LogIdentity | None:
    """Return the identity of the log in a directory without taking its lock; None when there is no log yet."""
    try:
        if MANIFEST_NAME not in files.list_directory(directory):
            return None
    except FileNotFoundError:
        return None
    manifest = load_manifest(files, directory)
    return LogIdentity(manifest.log_id, manifest.store_id, manifest.projected_offset, manifest.last_offset)


class Storage:
    """An open log. The lock is held from `open` to `finish` or `abandon`.

    One thread writes; reads, retention and changes of the manifest may come from any other.
    """

    def __init__(self, disk: Disk, directory: Path, options: LogOptions, lock_handle: int, found: Found) -> None:
        self.disk = disk
        self.directory = directory
        self.options = options
        self.lock_handle = lock_handle
        self.manifest_lock = threading.RLock()
        self.manifest = found.manifest
        self.consumers = found.consumers
        segments = [self.segment_of(found, number) for number in range(len(found.segments))]
        self.reader = LogReader(disk.files, segments, self.manifest)
        self.writer = Writer(
            disk, directory, ending_of(found), segment_bytes=options.segment_bytes, limits=options.limits,
            began=self.began,
        )  # fmt: skip

    @classmethod
    def open(cls, directory: Path, options: LogOptions, *, floor: int, files: Files, clock: Clock) -> "Storage":
        """Lock and recover the log, and begin a new segment; raises LogLocked, LogRefused, LogFull, or OSError."""
        directory = directory.absolute()
        prepare_directory(files, directory, options.allow_network_fs)
        files.hold(directory)
        try:
            return cls.open_held(directory, options, floor, Disk(files, clock))
        except BaseException:
            files.release(directory)
            raise

    @classmethod
    def open_held(cls, directory: Path, options: LogOptions, floor: int, disk: Disk) -> "Storage":
        """Lock, recover and begin, in a directory that is fit for it and held."""
        started = disk.clock.monotonic()
        lock_handle = take_lock(disk.files, directory)
        try:
            found = recover(disk, directory, floor=floor) or found_nothing(disk, directory)
            storage = cls(disk, directory, options, lock_handle, found)
        except BaseException:
            disk.files.close(lock_handle)
            raise
        try:
            storage.begin(found, started)
        except BaseException:
            storage.abandon()
            raise
        return storage

    # Opening

    def begin(self, found: Found, started: float) -> None:
        """Make ready to write behind what was found."""
        poisoned = self.verify_after_poison(found)
        self.delete_leftovers()
        self.writer.roll()
        self.give_back_space(found)
        if poisoned:
            self.disk.files.unlink(self.directory / POISON_NAME)
        self.report = RecoveryReport(
            segments=len(found.segments), first_offset=self.first_offset, last_offset=found.last_offset,
            torn_bytes=found.torn_bytes, clean=found.clean, seconds=self.disk.clock.monotonic() - started,
            warnings=tuple(found.warnings),
        )  # fmt: skip

    def segment_of(self, found: Found, number: int) -> Segment:
        """Return the readable segment for one that recovery found; the tail brings its index along."""
        entry = found.segments[number]
        index = found.tail.index if found.tail and number == len(found.segments) - 1 else None
        path = self.directory / entry.header.name
        return Segment(entry.header, path, end=entry.end, last_offset=entry.last_offset, index=index)

    def verify_after_poison(self, found: Found) -> bool:
        """After the log gave up, read every live byte back from the disk before anything is believed (rule 14).

        What the other rules pass is passed here too: losses that were accepted, and damage that costs no record.
        """
        if POISON_NAME not in self.disk.files.list_directory(self.directory):
            return False
        for entry in found.segments:
            if entry.size < entry.end:  # rule 8 has read it back already
                continue
            walk = walk_segment(self.disk, self.directory, entry.header, entry.end, found.manifest)
            if walk.position != entry.end and not found.manifest.covers(walk.next_offset, entry.last_offset):
                raise LogRefused(
                    "E_CORRUPT", "the log had given up, and the data did not survive.", segment=entry.header.name,
                    position=walk.position, first_lost=walk.next_offset, last_lost=entry.last_offset,
                )  # fmt: skip
        return True

    def delete_leftovers(self) -> None:
        """Remove what an interrupted roll or retention left behind (rule 11)."""
        files = self.disk.files
        names = files.list_directory(self.directory)
        retired = [number for number in segment_ids(names) if number < self.manifest.first_segment]
        for name in [name for name in names if name.endswith(".tmp")] + [segment_name(number) for number in retired]:
            files.unlink(self.directory / name)

    def give_back_space(self, found: Found) -> None:
        """Cut the never written rest off the former tail; torn bytes are evidence and stay."""
        if not found.segments or found.torn_bytes or found.segments[-1].size == found.segments[-1].end:
            return
        path = self.directory / found.segments[-1].header.name
        handle = self.disk.files.open(path, write=True)
        try:
            self.disk.files.truncate(handle, found.segments[-1].end)
        finally:
            self.disk.files.close(handle)

    # The manifest

    def change_manifest(self, **changes: Any) -> None:
        """Replace the manifest with a changed one; durable when it returns. It becomes a floor for the next start."""
        with self.manifest_lock:
            manifest = replace(self.manifest, last_offset=self.writer.next_offset - 1, **changes)
            save_manifest(self.disk, self.directory, manifest)
            self.manifest = manifest
            self.reader.heed(manifest)

    def began(self, segment: Segment) -> None:
        """Take note of a new segment. Without space for the manifest, recovery adopts it by its name (rule 12)."""
        with self.manifest_lock:
            for former in self.reader.segments[-1:]:
                former.seal()
            self.reader.show([*self.reader.segments, segment])
            try:
                self.change_manifest(last_segment=segment.header.segment_id)
            except OSError as error:
                if as_unavailable(error) is error:
                    raise

    def bind_store(self, store_id: str, projected_offset: int, *, reset: bool = False) -> None:
        """Remember the store and how far it has projected; durable when it returns, and with it the end of the log.

        The offset only grows unless `reset` is given.
        """
        with self.manifest_lock:
            known = self.manifest
            if not reset and store_id == known.store_id:
                projected_offset = max(projected_offset, known.projected_offset)
            last_offset = self.writer.next_offset - 1
            if (store_id, projected_offset, last_offset) == (known.store_id, known.projected_offset, known.last_offset):
                return
            self.change_manifest(store_id=store_id, projected_offset=projected_offset)

    def delete_segments(self, segments: list[Segment]) -> list[Segment]:
        """Remove these oldest segments: the manifest lets go of them first, durably, then the files go.

        Returns those that were still there. A file that cannot be removed now is removed by the next start.
        """
        with self.manifest_lock:
            gone = [segment for segment in segments if segment in self.reader.segments]
            if not gone:
                return []
            kept = self.reader.segments[len(gone) :]
            first = kept[0].header.base_offset
            gaps = tuple(gap for gap in self.manifest.gaps if gap[1] >= first)
            self.change_manifest(first_segment=kept[0].header.segment_id, gaps=gaps)
            with self.reader.lock:
                self.reader.show(kept)
                for segment in gone:
                    segment.removed = True
                    self.reader.handles.forget(segment.path)
        for segment in gone:
            with suppress(OSError):
                self.disk.files.unlink(segment.path)
        return gone

    # Reading

    @property
    def first_offset(self) -> int:
        """Return the lowest offset that is still there."""
        return self.reader.base_offsets[0]

    @property
    def segments(self) -> list[Segment]:
        """Return the live segments, oldest first; the last one is being written."""
        return self.reader.segments

    def wal_bytes(self) -> int:
        """Return how many bytes of valid data the log holds."""
        return sum(segment.end for segment in self.segments)

    # Its place

    def refuse_moved(self) -> None:
        """Raise LogMoved unless directory, lock and the segment being written are still what their names lead to.

        For the writing thread alone: it is the one that gives the segment another name.
        """
        files, writer = self.disk.files, self.writer
        if not files.is_in_place(self.directory):
            raise LogMoved(f"{self.directory} was removed, renamed or replaced while the log was open")
        for path, handle in ((self.directory / LOCK_NAME, self.lock_handle), (writer.segment.path, writer.handle)):
            if handle is not None and not files.leads_to(path, handle):
                raise LogMoved(f"{path} was removed or replaced while the log was open")

    # The end

    def finish(self) -> None:
        """Close the log cleanly and unlock it; without space for that, the next start finds it as after a crash."""
        try:
            self.writer.finish()
            self.change_manifest()
        except SyncFailed:
            raise
        except (Unavailable, OSError):
            self.writer.abandon()
        self.release()

    def abandon(self, poison: BaseException | None = None) -> None:
        """Unlock the log without another sync; `poison` leaves word for the next start."""
        if poison is not None:
            self.leave_poison_marker(poison)
        self.writer.abandon()
        self.release()

    def leave_poison_marker(self, poison: BaseException) -> None:
        """Leave the marker that makes the next start read everything back; best effort, and never synced."""
        try:
            handle = self.disk.files.open(self.directory / POISON_NAME, create=True)
            self.disk.files.pwrite(handle, f"{poison}\n".encode(), 0)
            self.disk.files.close(handle)
        except OSError:
            return

    def release(self) -> None:
        """Close every handle; the lock goes with its own."""
        with self.reader.lock:
            self.reader.handles.close()
        self.disk.files.close(self.lock_handle)
        self.disk.files.release(self.directory)


def found_nothing(disk: Disk, directory: Path) -> Found:
    """Give a new log its identity; the manifest comes first, so that no segment ever stands without one."""
    found = Found(Manifest(secrets.token_hex(16)))
    save_manifest(disk, directory, found.manifest)
    return found


def ending_of(found: Found) -> Ending:
    """Return where the found log ends, and the first segment id that was never used."""
    log_id = bytes.fromhex(found.manifest.log_id)
    unused = max(found.manifest.last_segment, *found.manifest.lost_segments, 0) + 1
    if found.tail is None:
        return Ending(log_id, unused_segment_id=unused)
    tail = found.tail
    return Ending(
        log_id, tail.header.segment_id, tail.position, tail.next_offset - 1, tail.chain, tail.time_ns,
        max(unused, tail.header.segment_id + 1),
    )  # fmt: skip
