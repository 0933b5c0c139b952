"""What this incarnation of the daemon leaves word of for the next one: a small file that survives its death."""

import contextlib
import os
import threading
from collections import deque
from pathlib import Path

import msgspec

from replayforge.domain.clock import Clock
from replayforge.domain.event import Lease
from replayforge.domain.reclaim import FormerIncarnation

FILE_NAME = "incarnation"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
WORD_BYTES = 4096  # a page: what lies in one is written whole, or not at all, when the process is killed
BEAT_SECONDS = 0.02
BEAT_SECONDS_MAX = 0.1  # what one beat adds at most: a process that is stopped, or gets no turn, does not run
OUTLIVED_MAX = 64


class Word(msgspec.Struct, frozen=True, omit_defaults=True):
    """The file's content. `boot` names the start of the machine, so that a power cut is told from a kill."""

    owner: str
    boot: str
    draining: bool = False
    alone: Lease | None = None
    seconds: float = 0.0
    outlived: tuple[Lease, ...] = ()


decode = msgspec.json.Decoder(Word).decode
encode = msgspec.json.Encoder().encode


class IncarnationFile:
    """Says durably that this incarnation drains, and while an event runs alone, for how long it has.

    A process that dies takes its clocks along, so how long an event ran before it died is written down as it runs, by a
    thread that no handler's waiting can hold up; nothing is written while nothing runs alone. What is written survives
    the end of the process at once; the drain mark, and who runs alone, the end of the machine too.
    """

    def __init__(self, handle: int, owner: str, clock: Clock) -> None:
        self.handle = handle
        self.owner = owner
        self.boot = boot_id()
        self.clock = clock
        self.draining = False
        self.alone: Lease | None = None
        self.seconds = 0.0
        self.beaten_at = 0.0
        self.outlived: deque[Lease] = deque(maxlen=OUTLIVED_MAX)
        # A signal may call `drain` in the middle of any other call on the same thread.
        self.lock = threading.RLock()
        self.ended = threading.Event()

    @classmethod
    def create(cls, directory: Path, owner: str, clock: Clock) -> "IncarnationFile":
        """Replace the word that the former incarnation left by that of this one; call it once that one is judged."""
        fresh, path = directory / f"{FILE_NAME}.tmp", directory / FILE_NAME
        handle = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        file = cls(handle, owner, clock)
        file.write()
        os.fsync(handle)
        fresh.replace(path)
        folder = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return file

    def close(self) -> None:
        """Let go of the file, which stays as it is for the next incarnation; safe twice."""
        with self.lock:
            self.ended.set()
            self.alone = None
            if self.handle >= 0:
                os.close(self.handle)
            self.handle = -1

    def drain(self) -> None:
        """Note durably that this incarnation was told to end: what it leaves is interrupted, no event killed it.

        Safe in a signal handler, and more than once.
        """
        if self.draining:
            return
        self.draining = True
        with self.lock, contextlib.suppress(OSError):
            self.write()
            os.fdatasync(self.handle)

    def begin_alone(self, lease: Lease) -> None:
        """Note that the event with this lease is about to run with nothing beside it, and for how long it does."""
        self.end_alone()
        with self.lock:
            self.alone, self.seconds, self.ended = lease, 0.0, threading.Event()
            self.beaten_at = self.clock.monotonic()
            self.write()
        threading.Thread(target=self.beat, args=(self.ended,), name="time alone", daemon=True).start()
        self.beaten_at = self.clock.monotonic()  # what it took to start the thread is no time of the event's

    def end_alone(self) -> None:
        """Note that the event which ran alone has ended, or that others are about to run beside it."""
        with self.lock:
            if self.alone is not None:
                self.ended.set()
                self.outlived.append(self.alone)
                self.alone = None
                self.write()

    def beat(self, ended: threading.Event) -> None:
        """Write down for how long the event has run, until it runs alone no more."""
        with contextlib.suppress(OSError):  # the file was let go of
            os.fdatasync(self.handle)
        while not ended.wait(BEAT_SECONDS):
            with self.lock:
                if not ended.is_set():
                    now = self.clock.monotonic()
                    self.seconds += min(now - self.beaten_at, BEAT_SECONDS_MAX)
                    self.beaten_at = now
                    self.write()

    def write(self) -> None:
        """Write down how things stand; a disk that does not take it costs evidence, never an event."""
        draining = self.draining
        seconds = 0.0 if self.alone is None else round(self.seconds, 3)
        word = Word(self.owner, self.boot, draining, self.alone, seconds, tuple(self.outlived))
        with contextlib.suppress(OSError):
            os.pwrite(self.handle, encode(word).ljust(WORD_BYTES), 0)
        if draining is not self.draining:  # a signal came in between
            self.write()


def read_former(directory: Path) -> FormerIncarnation:
    """Return the word that the last incarnation on this data directory left; an empty one when there is none."""
    try:
        word = decode((directory / FILE_NAME).read_bytes())
    except (OSError, msgspec.MsgspecError):
        return FormerIncarnation()
    # How long it ran was not made durable: after the end of the machine nobody knows.
    seconds = word.seconds if word.boot == boot_id() else None
    return FormerIncarnation(word.owner, word.draining, word.alone, seconds, frozenset(word.outlived))


def drained_word(directory: Path) -> bytes:
    """Return the word that the incarnation on this data directory would leave if it were told to end now."""
    return encode(Word(read_former(directory).owner, boot_id(), draining=True)).ljust(WORD_BYTES)


def boot_id() -> str:
    """Return what names this start of the machine, or "" where nothing does."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""
