"""Syncs: the only place that asks a disk to make something durable, and that remembers when one failed."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from replayforge.domain.clock import Clock, to_us
from replayforge.domain.durations import Durations
from replayforge.forgelog.files import Files

LATENCIES_KEPT = 1024


class SyncFailed(OSError):
    """A sync failed: what the disk holds is unknown, so nothing may be acknowledged until it was read back cold."""


class Disk:
    """A file system whose syncs are watched: after the first failed one, none is ever tried again."""

    def __init__(self, files: Files, clock: Clock) -> None:
        self.files = files
        self.clock = clock
        self.failed: OSError | None = None
        self.lock = threading.Lock()
        self.under_way: dict[object, float] = {}  # since when each sync of this moment runs
        self.latencies: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self.durations = Durations()  # of every sync of data

    def sync_data(self, handle: int) -> float:
        """Make the data of a file durable and return how many seconds that took; raises SyncFailed."""
        seconds = self.sync(lambda: self.files.fdatasync(handle))
        self.latencies.append(seconds)
        self.durations.note(to_us(seconds))
        return seconds

    def sync_file(self, handle: int) -> None:
        """Make the data and the attributes of a file durable; raises SyncFailed."""
        self.sync(lambda: self.files.fsync(handle))

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable; raises SyncFailed, or OSError when it could not even be tried."""
        with self.names_of(path) as sync_names:
            sync_names()

    @contextmanager
    def names_of(self, path: Path) -> Iterator[Callable[[], None]]:
        """Open a directory and pass what makes its names durable.

        Whoever renames within it finds out before, not after, that no handle is to be had.
        """
        handle = self.files.open_directory(path)
        try:
            yield lambda: self.sync_names(path, handle)
        finally:
            self.files.close(handle)

    def sync_names(self, path: Path, handle: int) -> None:
        """Make the names in an open directory durable; raises SyncFailed."""
        self.sync(lambda: self.files.sync_directory(path, handle))

    def sync(self, act: Callable[[], None]) -> float:
        """Carry out one sync, exactly once."""
        if self.failed is not None:
            raise SyncFailed(self.failed.errno, f"an earlier sync failed ({self.failed}); none is tried again")
        token, started = object(), self.clock.monotonic()
        with self.lock:
            self.under_way[token] = started
        try:
            act()
        except OSError as error:
            self.failed = error
            raise SyncFailed(error.errno, f"sync failed: {error}") from error
        finally:
            with self.lock:
                del self.under_way[token]
        return self.clock.monotonic() - started

    def stalled_seconds(self) -> float:
        """Return how long the longest of the syncs under way has been running; 0 when there is none."""
        with self.lock:
            since = min(self.under_way.values(), default=None)
        return 0.0 if since is None else self.clock.monotonic() - since
