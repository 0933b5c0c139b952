"""ForgeLog: the durable log as the rest of the daemon sees it."""

import asyncio
import os
from asyncio import ensure_future, shield
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from replayforge.domain.clock import Clock, SteadyClock, SystemClock
from replayforge.domain.durations import Durations
from replayforge.domain.errors import ReplayForgeError
from replayforge.forgelog.committer import Committer, as_poisoned
from replayforge.forgelog.consumers import Consumers, save_consumers
from replayforge.forgelog.errors import CorruptRecord, LogClosed, LogRefused, LogStalled, LogUnreadable
from replayforge.forgelog.files import Files, OsFiles
from replayforge.forgelog.limits import MEBIBYTE
from replayforge.forgelog.log_recovery import RecoveryReport
from replayforge.forgelog.options import LogOptions
from replayforge.forgelog.record import NewRecord, Record
from replayforge.forgelog.retention import Retained, RetentionRule, deletable
from replayforge.forgelog.scrubber import Scrubber, ScrubStep
from replayforge.forgelog.stats import LogStats, percentile
from replayforge.forgelog.storage import LogIdentity, Storage
from replayforge.forgelog.storage import read_identity as read_identity_through
from replayforge.forgelog.writer import as_unavailable
from replayforge.telemetry import Telemetry
from replayforge.threads import in_thread

__all__ = [
    "ForgeLog",
    "LogIdentity",
    "LogOptions",
    "LogStats",
    "NewRecord",
    "Record",
    "RecoveryReport",
    "Retained",
    "ScrubStep",
    "read_identity",
]


def read_identity(directory: Path) -> LogIdentity | None:
    """Return what the log in a directory knows of itself and its store, without a lock; None when there is no log."""
    return read_identity_through(directory, OsFiles())


class ForgeLog:
    """An open log. What `append` has acknowledged is on the disk and keeps its offset for ever.

    Belongs to one event loop; `read`, `bind_store`, `retain` and `scrub_step` may also be called from other threads.
    """

    def __init__(self, storage: Storage, clock: Clock, telemetry: Telemetry) -> None:
        self.storage = storage
        self.telemetry = telemetry
        self.options = storage.options
        self.committer = Committer(
            storage.writer,
            storage.disk,
            storage.options,
            self.report,
            storage.leave_poison_marker,
            storage.refuse_moved,
        )
        self.named = Consumers(storage.consumers, self.save_consumers)
        self.scrubber = Scrubber(storage.disk.files)
        self.steady_clock = SteadyClock(clock)
        self.log_id = storage.manifest.log_id
        self.recovery: RecoveryReport = storage.report
        self.pid = os.getpid()
        self.damaged_reads = 0
        self.ending: asyncio.Future[None] | None = None
        self.abandoned = False

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        options: LogOptions | None = None,
        floor: int = 0,
        files: Files | None = None,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
    ) -> "ForgeLog":
        """Lock, recover and open the log in a directory, making it when there is none; starts the writer thread.

        `floor` is the highest offset the store knows. Raises LogLocked when another process has it, LogRefused when
        going on could hide the loss of acknowledged records or the directory cannot be used, LogFull when there is no
        space for a new segment.
        """
        clock = clock or SystemClock()
        try:
            storage = Storage.open(
                directory, options or LogOptions(), floor=floor, files=files or OsFiles(), clock=clock
            )
        except OSError as error:
            raise as_refused(error, directory) from error
        log = cls(storage, clock, telemetry or Telemetry())
        log.committer.thread.start()
        report = log.recovery
        log.telemetry.emit(
            "log.opened", segments=report.segments, last_offset=report.last_offset, torn_bytes=report.torn_bytes,
            clean=report.clean, seconds=round(report.seconds, 6), warnings=list(report.warnings),
        )  # fmt: skip
        return log

    # Appending

    def append(self, records: Sequence[NewRecord]) -> "asyncio.Future[int]":
        """Hand in records; the future gives the offset of the first, the others follow without a hole.

        It resolves only after the sync that covers all of them. Cancelling it never takes the records back. LogFull,
        LogBusy, LogStalled and LogClosed mean "not accepted" (but for the head of a call too large for one batch, which
        `accepted` of LogFull and LogBusy counts); after LogPoisoned the outcome is unknown.
        """
        self.refuse_append()
        return self.committer.append(records, self.options.limits.measure(records))

    def refuse_append(self) -> None:
        """Raise the reason why nothing can be appended now, if there is one."""
        if self.committer.poisoned is not None:
            raise as_poisoned(self.committer.poisoned)
        if self.committer.closing:
            raise LogClosed
        if os.getpid() != self.pid:
            raise LogClosed("The log belongs to the parent process; after a fork it cannot be used.")
        if self.storage.disk.stalled_seconds() > self.options.sync_stalled_seconds:
            raise LogStalled

    # Reading

    @property
    def first_offset(self) -> int:
        """The lowest offset that can still be read; 1 for a fresh log."""
        return self.storage.first_offset

    @property
    def durable_offset(self) -> int:
        """The highest acknowledged offset; 0 for an empty log."""
        return self.committer.durable_offset

    def read(self, after: int, *, records_max: int = 1000, bytes_max: int = 4 * MEBIBYTE) -> list[Record]:
        """Return verified records after an offset, at most up to the durable end; at least one if there is one.

        Raises GapError when the next record is gone, CorruptRecord when it is damaged, LogUnreadable when the disk
        answers with an error.
        """
        try:
            return self.storage.reader.read(after, self.durable_offset, records_max=records_max, bytes_max=bytes_max)
        except CorruptRecord as error:
            self.damaged_reads += 1
            self.telemetry.emit("log.damaged", offset=error.offset, segment=error.segment, position=error.position)
            raise
        except OSError as error:
            raise LogUnreadable(f"The disk of the log did not give the records asked for ({error}).") from error

    def is_beyond(self, offset: int) -> bool:
        """Tell whether the durable end is beyond `offset`; raises LogClosed or LogPoisoned when it never will be."""
        return self.committer.is_beyond(offset)

    def call_when_moved(self, callback: Callable[[], None]) -> None:
        """Have a function called once in this loop, as soon as the durable end has moved or never will again."""
        self.committer.call_when_moved(callback)

    async def wait_beyond(self, offset: int) -> int:
        """Return the durable end once it is beyond `offset`; raises LogClosed or LogPoisoned when it never will be."""
        return await self.committer.wait_beyond(offset)

    # What others have read

    def bind_store(self, store_id: str, projected_offset: int, *, reset: bool = False) -> None:
        """Remember the store and how far it has projected; durable when it returns. From any thread.

        The mirror only moves forward unless `reset` says that the operator adopted another store.
        """
        with self.guarded():
            self.storage.bind_store(store_id, projected_offset, reset=reset)

    @property
    def consumers(self) -> dict[str, int]:
        """The committed offset of each named consumer."""
        return dict(self.named.offsets)

    async def commit(self, consumer: str, offset: int) -> None:
        """Remember that a consumer is done up to an offset; durable when it returns."""
        self.refuse_poisoned()
        if self.committer.closing:
            raise LogClosed
        await self.named.commit(consumer, offset, self.durable_offset)

    def save_consumers(self, offsets: dict[str, int]) -> None:
        """Make committed offsets durable, in the thread of their batch."""
        with self.guarded():
            save_consumers(self.storage.disk, self.storage.directory, offsets)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Judge errors around the small files: no space is "not accepted", any other one poisons the log."""
        self.refuse_poisoned()
        try:
            yield
        except OSError as error:
            unavailable = as_unavailable(error)
            if unavailable is not error:
                raise unavailable from error
            self.committer.poison(error)
            raise as_poisoned(error) from error

    def refuse_poisoned(self) -> None:
        """Raise LogPoisoned when the log gave up."""
        if self.committer.poisoned is not None:
            raise as_poisoned(self.committer.poisoned)

    # Chores

    def retain(self, projected_offset: int) -> Retained:
        """Remove the whole segments that retention asks for and the dispatcher has passed; one bounded step."""
        rule = RetentionRule(self.options.retention_seconds, self.options.retention_bytes_max)
        now_us = self.steady_clock.now_us()
        gone = deletable(
            self.storage.segments, rule, projected_offset=min(projected_offset, self.durable_offset),
            slowest_consumer=min(self.named.offsets.values(), default=None),
            now_ns=None if now_us is None else now_us * 1000,
        )  # fmt: skip
        with self.guarded():
            gone = self.storage.delete_segments(gone)
        if gone:
            self.telemetry.emit("log.retained", segments=len(gone), first_offset=self.first_offset)
        return Retained(len(gone), self.first_offset)

    def scrub_step(self) -> ScrubStep:
        """Verify a little of the sealed segments from the disk; the step says how long to wait before the next."""
        step = self.scrubber.step(self.storage.segments[:-1], self.storage.manifest)
        if step.damaged_segment is not None:
            self.telemetry.emit("log.damaged", segment=step.damaged_segment, position=step.damaged_position)
        if step.pass_finished:
            self.telemetry.emit("log.scrubbed", bytes=self.scrubber.scrubbed_bytes)
        return step

    # State

    @property
    def poisoned(self) -> BaseException | None:
        """What ended the log's writing for good, if anything did; the process should end with exit code 70."""
        return self.committer.poisoned

    @property
    def writable(self) -> bool:
        """Whether an append would be accepted now."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why an append would not be accepted now, in words; empty when it would."""
        if self.committer.poisoned is not None:
            return f"writing the log failed ({self.committer.poisoned}); restart to verify the log"
        if self.committer.closing:
            return "the log is closed"
        if self.committer.full:
            return "the disk of the log is full"
        stalled = self.storage.disk.stalled_seconds()
        if stalled > self.options.sync_stalled_seconds:
            return f"the disk has not answered for {stalled:.0f} seconds"
        return ""

    def stats(self) -> LogStats:
        """Return the figures of this moment."""
        committer, storage, scrubber = self.committer, self.storage, self.scrubber
        latencies = list(storage.disk.latencies)
        reason = self.reason
        return LogStats(
            log_id=self.log_id, first_offset=self.first_offset, last_offset=committer.durable_offset,
            durable_offset=committer.durable_offset, projected_offset=storage.manifest.projected_offset,
            consumers=self.consumers, wal_bytes=storage.wal_bytes(), segment_count=len(storage.segments),
            appended_records=committer.appended_records, committed_batches=committer.committed_batches,
            queued_records=committer.queued_records, queued_bytes=committer.queued_bytes,
            sync_p50_ms=percentile(latencies, 0.5) * 1000, sync_p99_ms=percentile(latencies, 0.99) * 1000,
            sync_count=committer.sync_count, slow_syncs=committer.slow_syncs,
            stalled_seconds=storage.disk.stalled_seconds(), torn_bytes_repaired=self.recovery.torn_bytes,
            full=committer.full, spare_missing=storage.writer.spare_missing, poisoned=self.poisoned is not None,
            writable=not reason, reason=reason, scrubbed_bytes=scrubber.scrubbed_bytes,
            scrub_errors=scrubber.errors, scrub_passes=scrubber.passes, damaged_reads=self.damaged_reads,
        )  # fmt: skip

    def sync_durations(self) -> Durations:
        """Return how long every sync of data has taken."""
        return self.storage.disk.durations.copy()

    def report(self, name: str, detail: object) -> None:
        """Emit what the writer thread came upon."""
        self.telemetry.emit(name, detail=str(detail))

    # The end

    def abandon(self) -> None:
        """Write nothing more, not even what is queued: the next start finds the log as after a crash, once `close` has
        unlocked it. Those who wait for a sync are not answered."""
        self.abandoned = True
        self.committer.abandon()

    async def close(self) -> None:
        """Write what is queued, say that the end is clean, sync, unlock. Safe to call twice."""
        if self.ending is None:
            self.committer.stop()
            self.ending = ensure_future(self.end())
        await shield(self.ending)

    async def end(self) -> None:
        """Let the last commits and batches through, then finish in a thread."""
        await self.named.batcher.drain()
        await in_thread(self.finish)
        self.committer.wake_waiters()

    def finish(self) -> None:
        """Join the writer thread and close the files; blocks. A forked child only forgets."""
        self.committer.stop()
        if os.getpid() != self.pid:
            return
        self.committer.thread.join()
        if self.committer.poisoned is not None or self.abandoned:
            self.storage.abandon()
            return
        try:
            self.storage.finish()
        except OSError as error:
            self.committer.poison(error)
            self.storage.abandon(error)


def as_refused(error: OSError, directory: Path) -> ReplayForgeError:
    """Say in one sentence why the directory of a log cannot be used."""
    unavailable = as_unavailable(error)
    if isinstance(unavailable, ReplayForgeError):
        return unavailable
    remedy = "Check that the directory exists on a sound disk and that this user may write there."
    return LogRefused("E_IO", f"{directory} cannot be used ({error}).", remedy=remedy)
