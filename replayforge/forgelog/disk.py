"""Syncs: the only place that asks a disk to make something durable, and that remembers when one failed."""

from collections import deque
from collections.abc import Callable
from pathlib import Path

from replayforge.domain.clock import Clock
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
        self.syncing_since: float | None = None
        self.latencies: deque[float] = deque(maxlen=LATENCIES_KEPT)

    def sync_data(self, handle: int) -> float:
        """Make the data of a file durable and return how many seconds that took; raises SyncFailed."""
        seconds = self.sync(lambda: self.files.fdatasync(handle))
        self.latencies.append(seconds)
        return seconds

    def sync_file(self, handle: int) -> None:
        """Make the data and the attributes of a file durable; raises SyncFailed."""
        self.sync(lambda: self.files.fsync(handle))

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable; raises SyncFailed."""
        self.sync(lambda: self.files.sync_directory(path))

    def sync(self, act: Callable[[], None]) -> float:
        """Carry out one sync, exactly once."""
        if self.failed is not None:
            raise SyncFailed(self.failed.errno, f"an earlier sync failed ({self.failed}); none is tried again")
        started = self.syncing_since = self.clock.monotonic()
        try:
            act()
        except OSError as error:
            self.failed = error
            raise SyncFailed(error.errno, f"sync failed: {error}") from error
        finally:
            self.syncing_since = None
        return self.clock.monotonic() - started

    def stalled_seconds(self) -> float:
        """Return how long the sync that is under way has been running; 0 when there is none."""
        since = self.syncing_since
        return 0.0 if since is None else self.clock.monotonic() - since
