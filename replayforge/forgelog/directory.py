"""The directory of a log: fit to keep one in, and locked for as long as one is open there."""

import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from replayforge.forgelog.errors import LogLocked, LogRefused
from replayforge.forgelog.files import Files, is_network

LOCK_NAME = "LOCK"
CHECK_IT = "Choose a local disk, or pass --allow-network-fs if you know that its fsync and locks hold."


def prepare_directory(files: Files, directory: Path, allow_network_fs: bool) -> None:
    """Make the directory, and refuse one that is not safe to keep a log in."""
    files.make_directory(directory)
    owner = files.owner(directory)
    if owner != os.getuid():
        raise LogRefused(
            "E_OWNER", f"{directory} belongs to user {owner}.", remedy="Run as that user, or choose another."
        )
    kind = files.kind(directory)
    if is_network(kind) and not allow_network_fs:
        raise LogRefused("E_NETWORK_FS", f"{directory} is on a {kind} file system.", remedy=CHECK_IT)


def take_lock(files: Files, directory: Path) -> int:
    """Take the lock of the log for life; raises LogLocked with the holder's process id."""
    handle = files.open(directory / LOCK_NAME, create=True)
    try:
        if not files.lock(handle):
            holder = files.pread(handle, 64, 0).decode(errors="replace").partition(" ")[0].strip() or "unknown"
            raise LogLocked(f"The log in {directory} is locked by pid {holder}.")
        files.truncate(handle, 0)
        with suppress(OSError):  # for people; the lock itself is what counts
            files.pwrite(handle, f"{os.getpid()} {boot_id()}\n".encode(), 0)
    except BaseException:
        files.close(handle)
        raise
    return handle


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Return the id of this boot of the machine, where it has one."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else "unknown"


def is_live(files: Files, directory: Path) -> bool:
    """Tell whether a process has the log open."""
    if LOCK_NAME not in files.list_directory(directory):
        return False
    handle = files.open(directory / LOCK_NAME)
    try:
        return files.is_locked(handle)
    finally:
        files.close(handle)
