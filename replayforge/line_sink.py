"""Hands lines to a file descriptor from a thread: one that fails or takes nothing costs lines, and never time."""

import contextlib
import io
import os
import select
import threading
import weakref
from collections import deque
from collections.abc import Callable
from os import write
from time import monotonic

WAITING_BYTES_MAX = 4 * 1024 * 1024
BATCH_BYTES_MAX = 64 * 1024
RETRY_SECONDS = 1.0
STUCK_SECONDS = 5.0


class LineSink:
    """Takes whole lines, in any thread, and returns at once. Lines that cannot be written are dropped and counted.

    What was dropped is said in the output itself, as soon as something can be written again. A process that is killed
    loses at most what was waiting. In a forked child, which has no such thread, lines are written by the caller.
    """

    def __init__(
        self,
        name: str,
        descriptor: int,
        lines_bytes_max: int = WAITING_BYTES_MAX,
    ) -> None:
        self.name = name
        self.descriptor = descriptor
        self.notice: Callable[[int], bytes] = lambda count: b"%d lines were dropped\n" % count
        self.lines_bytes_max = lines_bytes_max
        self.lines: deque[bytes] = deque()
        self.lines_bytes = 0
        self.dropped = 0
        self.unsaid = 0  # dropped, and not yet said in the output
        self.reason = ""  # why the last write failed
        self.torn = False  # the last write ended inside a line
        self.writing_since: float | None = None
        self.changed = threading.Condition()  # reentrant: a signal handler or a destructor may write, too
        self.thread: threading.Thread | None = None
        self.in_child = False
        register_at_fork(self)

    # For those who write

    def write(self, line: bytes) -> None:
        """Take a line that ends with a line feed; never waits, never raises."""
        if self.in_child:
            self.put_out([line])
            return
        with self.changed:
            if self.lines_bytes + len(line) > self.lines_bytes_max:
                self.drop(1)
                return
            self.lines.append(line)
            self.lines_bytes += len(line)
            if self.thread is None:
                self.start()
            self.changed.notify_all()

    def flush(self, timeout_seconds: float) -> bool:
        """Wait for what was taken to be written, for so long at most; returns whether it was."""
        with self.changed:
            return self.changed.wait_for(lambda: not self.lines and self.writing_since is None, timeout_seconds)

    def trouble(self) -> str:
        """Say why nothing can be written now; empty while something can."""
        since = self.writing_since
        if since is not None and monotonic() - since > STUCK_SECONDS:
            return "nobody takes what it writes"
        return self.reason

    def write_to(self, descriptor: int) -> None:
        """Write to another descriptor from now on."""
        self.descriptor = descriptor

    def say_dropped_by(self, notice: Callable[[int], bytes]) -> None:
        """Say from now on what was dropped by the line that `notice` makes of the number."""
        self.notice = notice

    # The thread

    def start(self) -> None:
        """Start the thread that writes; where none can be started, the lines wait for the next try."""
        thread = threading.Thread(target=self.work, name=f"{self.name} writer", daemon=True)
        self.thread = thread
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is ending
            self.thread = None

    def work(self) -> None:
        """Write what comes, for ever."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.lines)
                batch = self.take_batch()
                self.writing_since = monotonic()
            self.put_out(batch)
            with self.changed:
                self.writing_since = None
                self.changed.notify_all()

    def take_batch(self) -> list[bytes]:
        """Take so many lines off the queue as are worth one write."""
        batch, size = [self.lines.popleft()], 0
        while self.lines and (size := size + len(batch[-1])) < BATCH_BYTES_MAX:
            batch.append(self.lines.popleft())
        self.lines_bytes -= sum(map(len, batch))
        return batch

    def put_out(self, batch: list[bytes]) -> None:
        """Write lines in order; at an error count those that did not get out whole."""
        left = len(batch)
        try:
            self.say_what_was_dropped()
            for line in batch:
                self.write_whole(line)
                left -= 1
        except OSError as error:
            self.reason = error.strerror or type(error).__name__
            with self.changed:
                self.drop(left)
        else:
            self.reason = ""

    def say_what_was_dropped(self) -> None:
        """End the line that an error broke off, and say how many never came."""
        said = self.unsaid
        if self.torn:
            self.write_whole(b"\n")
        if said:
            self.write_whole(self.notice(said))
            with self.changed:
                self.unsaid -= said

    def write_whole(self, piece: bytes) -> None:
        """Write a piece however many calls it takes; a descriptor that blocks nobody is waited for."""
        rest = memoryview(piece)
        while rest:
            try:
                count = write(self.descriptor, rest)
            except BlockingIOError:
                wait_writable(self.descriptor)
                continue
            rest = rest[count:]
            self.torn = bool(rest)

    def drop(self, count: int) -> None:
        """Count lines that nobody will see."""
        self.dropped += count
        self.unsaid += count

    def begin_child(self) -> None:
        """After a fork, in the child: leave to the parent what is waiting, and do without the thread."""
        self.changed = threading.Condition()
        self.lines, self.lines_bytes, self.writing_since = deque(), 0, None
        self.in_child = True


def wait_writable(descriptor: int) -> None:
    """Wait a moment for a descriptor to take something."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll(RETRY_SECONDS * 1000)


def register_at_fork(sink: LineSink) -> None:
    """See that a forked child writes by itself; a sink that is gone needs nothing."""
    known = weakref.ref(sink)

    def begin_child() -> None:
        if (living := known()) is not None:
            living.begin_child()

    os.register_at_fork(after_in_child=begin_child)


class SinkStream(io.RawIOBase):
    """What `sys.stdout` or `sys.stderr` writes to: cuts what comes into lines and hands them to a sink."""

    def __init__(self, sink: LineSink, descriptor: int) -> None:
        super().__init__()
        self.sink = sink
        self.descriptor = descriptor
        self.begun = bytearray()

    def writable(self) -> bool:
        """Say that one can write."""
        return True

    def fileno(self) -> int:
        """Return the descriptor that the stream stands for."""
        return self.descriptor

    def isatty(self) -> bool:
        """Say whether a person looks on."""
        with contextlib.suppress(OSError):
            return os.isatty(self.descriptor)
        return False

    def write(self, data: "bytes | bytearray | memoryview[int]") -> int:  # type: ignore[override]
        """Take bytes; what is not ended by a line feed waits for the rest, up to a limit."""
        self.begun += data
        whole, separator, rest = self.begun.rpartition(b"\n")
        if separator or len(self.begun) > BATCH_BYTES_MAX:
            self.sink.write(bytes(whole + separator) if separator else bytes(self.begun))
            self.begun = rest if separator else bytearray()
        return len(data)
