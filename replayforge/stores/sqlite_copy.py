"""A copy of a SQLite store while a daemon writes it: one snapshot, in pages, and nobody waits for it."""

import contextlib
import os
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path

from replayforge.stores.sqlite import BUSY_TIMEOUT_SECONDS, make_private_file, mapped_errors

PAGES_PER_STEP = 4096


def copy_database(source: Path, target: Path, progress: Callable[[int, int], None]) -> None:
    """Copy one snapshot of a database into a new file, durably; `progress` is told the pages done, and all of them.

    Writers go on meanwhile. The read transaction that stays open around the copy keeps it from beginning anew with each
    of their commits; all it costs is that the write-ahead file grows until it ends. Raises what the store does.
    """
    with mapped_errors(source), contextlib.closing(connect(source)) as reading:
        make_private_file(target)
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the snapshot is taken here
        with contextlib.closing(connect(target)) as writing:
            reading.backup(
                writing, pages=PAGES_PER_STEP, sleep=0, progress=lambda _, left, total: progress(total - left, total)
            )
        reading.execute("ROLLBACK")
    sync(target)


def rename_store(path: Path) -> str:
    """Give a store that nobody has open a new id, and return it: what goes by it, a stream say, is not its twin's."""
    store_id = str(uuid.uuid4())
    with mapped_errors(path), contextlib.closing(connect(path)) as raw, raw:
        raw.execute("UPDATE meta SET value = ? WHERE name = 'store_id'", (store_id,))
    sync(path)
    return store_id


def connect(path: Path) -> sqlite3.Connection:
    """Open a database in autocommit mode."""
    return sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_SECONDS)


def sync(path: Path) -> None:
    """Make a file durable."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
