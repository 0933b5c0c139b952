"""What a backup says of itself: of which log and store it is, how far it goes, and the digest of each of its files."""

import hashlib
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from replayforge.domain.clock import SystemClock
from replayforge.domain.errors import Corrupt, Refused
from replayforge.forgelog.atomic import NotWhole, replace_file, seal, unseal
from replayforge.forgelog.directory import LOCK_NAME
from replayforge.forgelog.disk import Disk
from replayforge.forgelog.files import OsFiles

RECORD_NAME = "BACKUP"
STORE_NAME = "store.db"
LOG_DIRECTORY = "log"
LOCKS = frozenset({LOCK_NAME, f"{STORE_NAME}.lock"})
FORMAT = 1


class BackedFile(Struct, frozen=True):
    """One file, named from the directory of the backup."""

    name: str
    bytes: int
    sha256: str


class BackupRecord(Struct, frozen=True):
    """A whole backup. `last_offset` is where its log ends, `projected_offset` how far of it the store knows.

    With `store` = "postgres" it has the log only. `clean` is what `check` said of log and store.
    """

    made_at: str
    node: str
    log_id: str
    store: Literal["sqlite", "postgres"]
    first_offset: int
    last_offset: int
    projected_offset: int
    clean: bool
    files: tuple[BackedFile, ...]


def write_record(directory: Path, record: BackupRecord) -> None:
    """Put the record into the directory of its backup; durable when it returns."""
    content = {"format": FORMAT, **msgspec.to_builtins(record)}
    replace_file(Disk(OsFiles(), SystemClock()), directory / RECORD_NAME, seal(content))


def read_record(directory: Path) -> BackupRecord:
    """Return the record of the backup in a directory; raises Refused where there is none that can be read."""
    try:
        content = unseal((directory / RECORD_NAME).read_bytes())
        if content.pop("format") != FORMAT:
            raise Refused(f"The backup in {directory} was made by a later version; use that one.")
        return msgspec.convert(content, BackupRecord)
    except (FileNotFoundError, NotADirectoryError):
        raise Refused(f"{directory} is no backup: it has no file {RECORD_NAME}.") from None
    except (NotWhole, msgspec.ValidationError, KeyError) as error:
        raise Refused(f"The file {RECORD_NAME} in {directory} is damaged: {error}") from None


def examined(directory: Path) -> tuple[BackedFile, ...]:
    """Return every file of a backup with its size and digest; locks mean nothing in another place."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and path.name not in LOCKS)
    return tuple(
        BackedFile(str(path.relative_to(directory)), path.stat().st_size, digest_of(path)) for path in paths
    )  # fmt: skip


def compare(path: Path, expected: BackedFile) -> None:
    """Raise Corrupt unless a file holds what was backed up."""
    if not path.is_file():
        raise Corrupt(f"{path} is missing; nothing was restored.")
    if digest_of(path) != expected.sha256:
        raise Corrupt(f"{path} is not what was backed up; nothing was restored. Take another copy, or check that disk.")


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
