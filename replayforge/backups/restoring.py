"""Brings a backup back into an empty place: verified before, byte for byte on the way, and as `check` does after."""

import shutil
from pathlib import Path

from msgspec.structs import replace

from replayforge.backups.record import LOG_DIRECTORY, STORE_NAME, BackedFile, BackupRecord, compare, read_record
from replayforge.config import Config
from replayforge.domain.clock import SystemClock
from replayforge.domain.errors import Corrupt, Refused, ReplayForgeError
from replayforge.engine.report.audit import Findings
from replayforge.forgelog.check import verify
from replayforge.forgelog.disk import Disk
from replayforge.forgelog.files import OsFiles, make_private_directory
from replayforge.forgelog.findings import LogVerdict
from replayforge.forgelog.manifest import MANIFEST_NAME, load_manifest, save_manifest
from replayforge.offline_check import check_offline
from replayforge.stores.sqlite_copy import rename_store, sync
from replayforge.threads import in_thread

MANIFEST = f"{LOG_DIRECTORY}/{MANIFEST_NAME}"


async def restore(source: Path, config: Config) -> tuple[BackupRecord, Findings | None]:
    """Copy a backup to where the settings say that data directory, log and store lie, and compare them as `check` does.

    The manifest of the log comes last, so that no daemon starts on less than all of it. When anything is wrong, what
    was copied is removed again. The store gets a new id: its original may still run, and both may use one Redis.
    """
    record = read_record(source)
    refuse_other_store(record, config)
    refuse_occupied(config)
    for file in record.files:
        await in_thread(compare, source / file.name, file)
    places = {file: place_of(config, file.name) for file in record.files}
    try:
        for file, place in sorted(places.items(), key=lambda item: item[0].name == MANIFEST):
            if file.name == MANIFEST and record.store == "sqlite":
                await in_thread(bind_anew, source, config)
            else:
                await in_thread(copy_verified, source / file.name, place, file)
        return record, await verified(record, config)
    except BaseException as error:
        for place in places.values():
            place.unlink(missing_ok=True)
        if isinstance(error, ReplayForgeError | OSError):
            raise Corrupt(f"{error} What was copied is removed again.") from error
        raise


def refuse_other_store(record: BackupRecord, config: Config) -> None:
    """Raise Refused when the settings name another kind of store than was backed up."""
    configured = "postgres" if config.store.sqlite_path is None else "sqlite"
    if record.store != configured:
        raise Refused(f"The backup is of a daemon whose store is {record.store}, but store.url names {configured}.")


def refuse_occupied(config: Config) -> None:
    """Raise Refused unless everything that is restored has an empty place to go."""
    for directory in (Path(config.data_dir), Path(config.log.dir)):
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise Refused(f"{directory} is not empty; move it away, or name another one with --data-dir.")
    if config.store.sqlite_path is not None and config.store.sqlite_path.exists():
        raise Refused(f"There is a store {config.store.sqlite_path} already; move it away.")


def place_of(config: Config, name: str) -> Path:
    """Return where a file of a backup belongs; raises Refused for a name that leads out of it."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise Refused(f"The backup names a file outside of it, {name!r}.")
    if name.startswith(f"{LOG_DIRECTORY}/"):
        return Path(config.log.dir) / name.removeprefix(f"{LOG_DIRECTORY}/")
    if name == STORE_NAME and config.store.sqlite_path is not None:
        return config.store.sqlite_path
    return Path(config.data_dir) / name


def copy_verified(source: Path, place: Path, file: BackedFile) -> None:
    """Copy one file, for this user alone, durably, and read it back."""
    make_private_directory(place.parent)
    shutil.copyfile(source, place)
    place.chmod(0o600)
    sync(place)
    sync(place.parent)
    compare(place, file)


def bind_anew(source: Path, config: Config) -> None:
    """Give the store its new id, and have the log know it by that."""
    assert config.store.sqlite_path is not None
    disk = Disk(OsFiles(), SystemClock())
    manifest = load_manifest(disk.files, source / LOG_DIRECTORY)
    store_id = rename_store(config.store.sqlite_path)
    save_manifest(disk, Path(config.log.dir), replace(manifest, store_id=store_id if manifest.store_id else None))


async def verified(record: BackupRecord, config: Config) -> Findings | None:
    """Verify what was restored; raises Corrupt when it is not what was backed up."""
    report = await in_thread(verify, OsFiles(), Path(config.log.dir), deep=True)
    if report.verdict not in (LogVerdict.CLEAN, LogVerdict.TORN) or report.last_offset < record.last_offset:
        raise Corrupt(f"The log in {config.log.dir} is not what was backed up.")
    findings = await check_offline(config) if record.store == "sqlite" else None
    if findings is not None and record.clean and not findings.clean:
        raise Corrupt("Log and store do not agree any more, but did when they were backed up.")
    return findings
