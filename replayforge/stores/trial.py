"""Tries a store as a daemon does before it opens one, and neither makes nor changes anything."""

import contextlib
import os
from pathlib import Path

from replayforge.domain.errors import Refused
from replayforge.stores.migrations import check_seen
from replayforge.stores.sqlite import check_version, examined, mapped_errors, reading

WAIT_SECONDS = 1.0  # for a server that is just starting; a daemon waits longer


async def try_store(url: str, data_directory: Path) -> None:
    """Raise Refused, or Corrupt, for a store that a daemon would not open; one that is yet to be made is right."""
    if url.startswith("sqlite:///"):
        try_file(Path(url.removeprefix("sqlite:///")), data_directory)
    elif url.startswith(("postgresql://", "postgres://")):
        await try_server(url)


def try_file(path: Path, data_directory: Path) -> None:
    """Try a database file, or the directory that it would be made in."""
    check_version()
    with mapped_errors(path):
        path = examined(path)
        if path.exists():
            check_writable(path, path)
            check_seen(migrations_in(path), "sqlite")
            return
    directory = path.parent
    if directory == data_directory.resolve():  # which a daemon makes, and nothing else
        directory = next(one for one in (directory, *directory.parents) if one.exists())
    check_writable(directory, path)


def check_writable(place: Path, path: Path) -> None:
    """Raise Refused where what a store needs is not there to be written."""
    if not place.exists():
        raise Refused(f"The store {path} cannot be opened for writing: there is no directory {place}.")
    if not os.access(place, os.W_OK | (os.X_OK if place.is_dir() else 0)):
        raise Refused(f"The store {path} cannot be opened for writing: {place} cannot be written.")


def migrations_in(path: Path) -> dict[int, str]:
    """Return version -> checksum of what was run on a file; nothing of one that is empty."""
    with contextlib.closing(reading(path)) as raw:
        if not raw.execute("SELECT 1 FROM sqlite_master WHERE name = 'migrations'").fetchall():
            return {}
        return dict(raw.execute("SELECT version, checksum FROM migrations"))


async def try_server(url: str) -> None:
    """Try a PostgreSQL server."""
    from replayforge.stores.postgres_errors import mapped_errors as mapped  # loaded for those who have one
    from replayforge.stores.postgres_link import PostgresAddress
    from replayforge.stores.postgres_start import usable

    address = await usable(PostgresAddress.parse(url), WAIT_SECONDS)
    with mapped(address.place):
        connection = await address.connect()
        try:
            made = await connection.fetchval("SELECT to_regclass('migrations') IS NOT NULL")
            rows = await connection.fetch("SELECT version, checksum FROM migrations") if made else []
        finally:
            connection.terminate()
    check_seen({row[0]: row[1] for row in rows}, "postgres")
