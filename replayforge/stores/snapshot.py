"""Looks into a store that may be a living daemon's: one snapshot, nothing is made, changed or locked."""

import contextlib
from asyncio import to_thread
from pathlib import Path

from replayforge.domain.errors import Refused
from replayforge.stores.driver import Result, Transaction
from replayforge.stores.migrations import check_seen, seen_migrations
from replayforge.stores.sqlite import Statements, check_version, examined, mapped_errors, reading
from replayforge.stores.trial import migrations_in

WAIT_SECONDS = 5.0


async def read_snapshot(url: str, transaction: Transaction[Result]) -> Result:
    """Carry out a transaction that only fetches, on one snapshot of the store that `url` names.

    A SQLite file is opened read-only, beside the daemon that has it; on PostgreSQL the transaction is READ ONLY,
    REPEATABLE READ. Raises Refused where there is no store, or one of another version.
    """
    if url.startswith("sqlite:///"):
        return await to_thread(read_file, Path(url.removeprefix("sqlite:///")), transaction)
    return await read_server(url, transaction)


def read_file(path: Path, transaction: Transaction[Result]) -> Result:
    """Carry it out on a database file."""
    check_version()
    with mapped_errors(path):
        path = examined(path)
        if not path.exists():
            raise Refused(f"There is no store {path}; name the daemon's configuration, or its data directory.")
        check_seen(migrations_in(path), "sqlite")
        with contextlib.closing(reading(path)) as raw:
            raw.isolation_level = None
            return Statements().in_snapshot(raw, transaction)


async def read_server(url: str, transaction: Transaction[Result]) -> Result:
    """Carry it out on a PostgreSQL server."""
    from replayforge.stores.postgres import PostgresDriver  # loaded for those who have one

    driver = await PostgresDriver.open(url, connections=1, wait_seconds=WAIT_SECONDS)
    try:
        check_seen(await driver.read(seen_migrations), "postgres")
        return await driver.read(transaction)
    finally:
        await driver.close()
