"""Group commit: one thread writes what the event loop queued; whoever waited learns of it after the sync."""

import asyncio
import threading
from asyncio import get_running_loop
from collections import deque
from collections.abc import Callable, Sequence

from replayforge.forgelog.disk import Disk
from replayforge.forgelog.errors import LogBusy, LogClosed, LogFull, LogPoisoned
from replayforge.forgelog.limits import Limits
from replayforge.forgelog.options import LogOptions
from replayforge.forgelog.record import NewRecord, record_bytes
from replayforge.forgelog.writer import Writer

# The records of one call, the future of its first offset, and the bytes it holds in the queue.
Appending = tuple[Sequence[NewRecord], "asyncio.Future[int]", int]
Report = Callable[..., None]
LOOK_SECONDS = 0.4


class Committer:
    """Owns the writer. `append` belongs to the event loop, `run` to the thread; between them stands one queue.

    `durable_offset` moves only after a sync, and never back. After `poisoned` is set nothing is written any more.
    """

    def __init__(
        self,
        writer: Writer,
        disk: Disk,
        options: LogOptions,
        report: Report,
        leave_poison_marker: Callable[[BaseException], None],
        refuse_moved: Callable[[], None],
    ) -> None:
        self.writer = writer
        self.disk = disk
        self.options = options
        self.report = report
        self.leave_poison_marker = leave_poison_marker
        self.refuse_moved = refuse_moved
        self.looked_at = disk.clock.monotonic()
        self.queue: deque[Appending] = deque()
        self.wake = threading.Event()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.waiters: set[asyncio.Future[None]] = set()
        self.callbacks: set[Callable[[], None]] = set()
        self.closing = False
        self.poisoned: BaseException | None = None
        self.full = False
        self.marked = True
        self.durable_offset = writer.next_offset - 1
        self.queued_bytes = self.queued_records = 0
        self.appended_records = self.committed_batches = self.slow_syncs = self.sync_count = 0
        self.thread = threading.Thread(target=self.run, name="forgelog-writer", daemon=True)

    # In the event loop

    def append(self, records: Sequence[NewRecord], size: int) -> "asyncio.Future[int]":
        """Queue the records of one call; the future resolves after the sync that covers all of them."""
        loop = self.loop = get_running_loop()  # first: who poisons from now on answers in this loop
        if self.poisoned is not None:
            raise as_poisoned(self.poisoned)
        if self.queued_bytes + size > self.options.append_queue_bytes_max:
            raise LogBusy(f"The append queue holds {self.queued_bytes:,} bytes already")
        if self.queued_records + len(records) > self.options.append_queue_records_max:
            raise LogBusy(f"The append queue holds {self.queued_records:,} records already")
        future: asyncio.Future[int] = loop.create_future()
        self.queued_bytes += size
        self.queued_records += len(records)
        self.queue.append((records, future, size))
        if not self.wake.is_set():
            self.wake.set()
        return future

    def resolve(self, items: list[Appending], first: int) -> None:
        """Tell each caller of a batch its first offset."""
        for records, future, size in items:
            if not future.done():
                future.set_result(first)
            first += len(records)
            self.queued_bytes -= size
            self.queued_records -= len(records)
        self.wake_waiters()

    def fail(self, items: list[Appending], error: Exception) -> None:
        """Tell each caller of a batch why it was not acknowledged."""
        for records, future, size in items:
            if not future.done():
                future.set_exception(error)
                future.exception()  # a caller that went away meanwhile shall not be reported as careless
            self.queued_bytes -= size
            self.queued_records -= len(records)
        self.wake_waiters()

    def wake_waiters(self) -> None:
        """Let everyone who waits for new records look again."""
        waiters, self.waiters = self.waiters, set()
        callbacks, self.callbacks = self.callbacks, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        for callback in callbacks:
            callback()

    def call_when_moved(self, callback: Callable[[], None]) -> None:
        """Have a function called once, when everyone who waits for new records is to look again."""
        self.callbacks.add(callback)

    def is_beyond(self, offset: int) -> bool:
        """Tell whether the durable end is beyond `offset`; raises LogClosed or LogPoisoned when it never will be."""
        self.loop = get_running_loop()  # first: who poisons from now on answers in this loop
        if self.durable_offset > offset:
            return True
        if self.poisoned is not None:
            raise as_poisoned(self.poisoned)
        if self.closing:
            raise LogClosed
        return False

    async def wait_beyond(self, offset: int) -> int:
        """Return the durable end once it is beyond `offset`; raises LogClosed or LogPoisoned when it never will be."""
        while not self.is_beyond(offset):
            waiter: asyncio.Future[None] = get_running_loop().create_future()
            self.waiters.add(waiter)
            try:
                await waiter
            finally:
                self.waiters.discard(waiter)
        return self.durable_offset

    # In the thread

    def run(self) -> None:
        """Commit until told to stop; any error that is not "no space" ends it for good."""
        try:
            while self.work_once():
                pass
        except BaseException as error:  # whatever it is, the state of the log is unknown now
            self.poison(error)

    def work_once(self) -> bool:
        """Commit what is queued, or mark the idle log, or wait; False when there is nothing more to come."""
        self.look()
        self.wake.clear()
        items = self.take() if self.poisoned is None else []
        if items:
            self.commit(items)
            return True
        if self.closing or self.poisoned is not None:
            return False
        if not self.wake.wait(self.idle_seconds()):
            self.idle()
        return True

    def look(self) -> None:
        """See several times a second that the log still lies where it is called to lie, with or without work."""
        now = self.disk.clock.monotonic()
        if self.poisoned is None and now - self.looked_at >= LOOK_SECONDS:
            self.looked_at = now
            self.refuse_moved()

    def idle_seconds(self) -> float:
        """Return how long to wait for work before the idle log wants something."""
        if self.full:
            return min(self.options.space_retry_seconds, LOOK_SECONDS)
        return LOOK_SECONDS if self.marked else self.options.marker_idle_seconds

    def idle(self) -> None:
        """Look for space again after a full disk; else prove that the last batch was durable."""
        if self.full:
            self.full = not self.writer.has_space()
            return
        if self.marked:
            return
        try:
            self.writer.mark()
            self.note_sync()
        except (LogFull, LogBusy):
            self.note_full()
        self.marked = True

    def take(self) -> list[Appending]:
        """Take calls off the queue up to the limits of one batch; a call too large for one comes alone."""
        limits: Limits = self.options.limits
        items: list[Appending] = []
        count = size = 0
        queue = self.queue
        while queue:
            records, _, item_bytes = queue[0]
            count += len(records)
            size += item_bytes
            if items and (count > limits.batch_records_max or size > limits.batch_bytes_max):
                break
            items.append(queue.popleft())
        return items

    def commit(self, items: list[Appending]) -> None:
        """Write the records of these calls and schedule their answers."""
        first, written, segment_id = self.writer.next_offset, 0, self.writer.segment_id
        try:
            for batch in split(items, self.options.limits):
                self.writer.commit(batch)
                written += len(batch)
                self.note_sync()
                self.full = self.marked = False
                self.durable_offset = self.writer.next_offset - 1
                self.appended_records += len(batch)
                self.committed_batches += 1
        except LogFull:
            self.note_full()
            self.call(self.fail, items, LogFull(accepted=written))
        except LogBusy as error:
            self.call(self.fail, items, LogBusy(error.reason, accepted=written))
        except BaseException as error:
            self.poison(error)  # before the callers hear of it, so that none of them finds the log still open
            self.call(self.fail, items, as_poisoned(error))
        else:
            self.call(self.resolve, items, first)
        if self.writer.segment_id != segment_id:
            self.call(self.report, "log.rolled", self.writer.segment_id)

    def note_sync(self) -> None:
        """Count a sync, and report a slow one."""
        self.sync_count += 1
        seconds = self.disk.latencies[-1]
        if seconds > self.options.sync_warning_seconds:
            self.slow_syncs += 1
            self.call(self.report, "log.slowed", seconds)

    def note_full(self) -> None:
        """Report a full disk, once until it has space again."""
        if not self.full:
            self.full = True
            self.call(self.report, "log.filled", None)

    def poison(self, error: BaseException) -> None:
        """Give up: nothing more is written, and everyone who waits learns that the outcome is unknown."""
        if self.poisoned is not None:
            return
        self.poisoned = error
        self.leave_poison_marker(error)
        self.call(self.report, "log.poisoned", error)
        self.call(self.fail_queue)
        self.wake.set()

    def fail_queue(self) -> None:
        """Answer all that wait. In the event loop, so that no call can slip in behind it."""
        items = list(self.queue)
        self.queue.clear()
        self.fail(items, as_poisoned(self.poisoned))

    def call(self, function: Callable[..., None], *arguments: object) -> None:
        """Run a function in the event loop; directly when no loop was ever here, not at all when it is gone."""
        if self.loop is None:
            function(*arguments)
            return
        try:
            self.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed: nobody is left to be told
            return

    def abandon(self) -> None:
        """Take no more work, and drop what is queued."""
        self.queue.clear()
        self.stop()

    def stop(self) -> None:
        """Take no more work; the thread ends when the queue is empty."""
        self.closing = True
        self.wake.set()


def split(items: list[Appending], limits: Limits) -> list[list[NewRecord]]:
    """Return the records of the calls as batches within the limits: one, unless a single call is too large for one."""
    records = [record for records, _, _ in items for record in records]
    if len(records) <= limits.batch_records_max and sum(size for _, _, size in items) <= limits.batch_bytes_max:
        return [records]
    batches: list[list[NewRecord]] = [[]]
    size = 0
    for record in records:
        size += record_bytes(record)
        if batches[-1] and (len(batches[-1]) >= limits.batch_records_max or size > limits.batch_bytes_max):
            batches.append([])
            size = record_bytes(record)
        batches[-1].append(record)
    return batches


def as_poisoned(error: BaseException | None) -> LogPoisoned:
    """Return what callers get to hear of a log that gave up."""
    return LogPoisoned(f"The log could not be made durable ({error}); whether the records survive is unknown.")
