"""Makes a backup: the store first, then the log, so that the copy of the store never knows more than that of the log.

What the log has and the store has not is dispatched by whoever starts on the copy. The other way round such a start
would be refused.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from replayforge.backups.record import (
    LOG_DIRECTORY,
    STORE_NAME,
    BackupRecord,
    examined,
    write_record,
)
from replayforge.client.progress import progress_bar
from replayforge.config import Config
from replayforge.domain.clock import SystemClock, format_time
from replayforge.domain.errors import Refused
from replayforge.engine.dispatch.incarnation import FILE_NAME, drained_word
from replayforge.engine.report.audit import Findings
from replayforge.forgelog.check import CheckReport
from replayforge.forgelog.directory import is_live
from replayforge.forgelog.files import OsFiles, make_private_directory
from replayforge.forgelog.live_copy import HeldLog
from replayforge.offline_check import check_offline
from replayforge.opening import LOG_ID_NAME, NODE_NAME, keep, known_directory
from replayforge.stores.sqlite_copy import copy_database, sync
from replayforge.stores.store import Store
from replayforge.threads import in_thread

PAGE_BYTES = 4096


async def back_up(config: Config, target: Path) -> tuple[BackupRecord, Findings | None]:
    """Copy log and store into a new directory, while a daemon runs or not, and compare them as `check` does.

    The directory gets its name when it is whole, durable and verified, and not before. With PostgreSQL it has the log
    alone, and there is nothing to compare. Raises Refused, LogRefused, and what the store does.
    """
    known_directory(Path(config.data_dir))
    with partial(target) as directory:
        report, cursor = await copy_parts(config, directory)
        findings = None if config.store.sqlite_path is None else await check_offline(copied(config, directory))
        record = BackupRecord(
            made_at=format_time(SystemClock().now_us()),
            node=(directory / NODE_NAME).read_text().strip(),
            log_id=str(report.log_id),
            store="postgres" if findings is None else "sqlite",
            first_offset=report.first_offset,
            last_offset=report.last_offset,
            projected_offset=report.projected_offset if cursor is None else cursor,
            clean=findings is None or findings.clean,
            files=await in_thread(examined, directory),
        )
        write_record(directory, record)
    return record, findings


async def copy_parts(config: Config, directory: Path) -> tuple[CheckReport, int | None]:
    """Copy store, log and small files; returns what the copy of the log is, and how far its store knows it."""
    store, source = config.store.sqlite_path, Path(config.log.dir)
    held = HeldLog(OsFiles(), source)
    try:
        held.look()
        cursor, changes = None, {}
        keep_small_files(config, directory)
        if store is not None:
            await in_thread(copy_store, store, directory / STORE_NAME, held)
            cursor = await cursor_of(directory / STORE_NAME, held.latest.log_id)
            # The mirror in the live log may know more than this copy of the store, whose loss it would be taken for.
            changes = {"projected_offset": cursor}
        held.look()
        return await in_thread(held.copy, directory / LOG_DIRECTORY, **changes), cursor
    finally:
        held.close()


def copy_store(source: Path, target: Path, held: HeldLog) -> None:
    """Copy the store, and hold what the log begins meanwhile."""
    with progress_bar("copying the store", source.stat().st_size // PAGE_BYTES) as bar:
        reached = 0

        def progress(pages: int, total: int) -> None:
            nonlocal reached
            bar.advance(pages - reached)
            reached = pages
            held.look()

        copy_database(source, target, progress)


async def cursor_of(path: Path, log_id: str) -> int:
    """Return how far the store in a file has projected a log."""
    store = await Store.open(f"sqlite:///{path}", node="backup", owner="backup")
    try:
        cursors, _ = await store.ledger_snapshot()
    finally:
        await store.close()
    return next((cursor.log_offset for cursor in cursors if cursor.log_id == log_id), 0)


def keep_small_files(config: Config, directory: Path) -> None:
    """Copy the names of node and log, and say of what is in flight that a stop interrupted it: no event killed it."""
    data_dir = Path(config.data_dir)
    for name in (NODE_NAME, LOG_ID_NAME):
        if (data_dir / name).exists():
            keep(directory / name, (data_dir / name).read_text().strip())
    if (data_dir / FILE_NAME).exists():
        running = is_live(OsFiles(), Path(config.log.dir))
        (directory / FILE_NAME).write_bytes(drained_word(data_dir) if running else (data_dir / FILE_NAME).read_bytes())
        sync(directory / FILE_NAME)


def copied(config: Config, directory: Path) -> Config:
    """Return the settings under which the copy is what the original is under its own."""
    return replace(
        config,
        data_dir=str(directory),
        log=replace(config.log, dir=str(directory / LOG_DIRECTORY)),
        store=replace(config.store, url=f"sqlite:///{directory / STORE_NAME}"),
    )


@contextlib.contextmanager
def partial(target: Path) -> Iterator[Path]:
    """Make a directory under a temporary name; it gets its own, durably, when all inside has gone well, else it goes.

    What a killed backup left under the temporary name is removed.
    """
    target = target.expanduser().absolute()
    if target.exists():
        raise Refused(f"{target} is there already; name a new directory for each backup.")
    temporary = target.with_name(f"{target.name}.partial")
    make_private_directory(temporary)
    lock = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        take(lock, temporary)
        empty(temporary)
        try:
            yield temporary
            for directory in (path for path in (temporary / LOG_DIRECTORY, temporary) if path.is_dir()):
                sync(directory)
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync(target.parent)
    finally:
        os.close(lock)


def take(lock: int, temporary: Path) -> None:
    """Lock a directory for this process; raises Refused when another backup makes it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise Refused(f"Another backup is being made in {temporary}.") from None


def empty(directory: Path) -> None:
    """Remove everything in a directory."""
    for path in directory.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
