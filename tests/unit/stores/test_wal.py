"""The write-ahead file of SQLite: it is emptied once it is long, however closely pages follow each other."""

import asyncio
import functools
import sqlite3
from pathlib import Path
from typing import Any, ClassVar

import aiosqlite
import pytest

from replayforge.domain.reports import EventFilter
from replayforge.stores import sqlite
from replayforge.stores.batches import StoredContent
from replayforge.stores.driver import Batch, Steps
from replayforge.stores.lookups import list_rows
from replayforge.stores.migrations import migrate
from replayforge.stores.sqlite import SqliteDriver
from tests.support.polling import persist

LONG = 1 << 20


def fill(number: int) -> Steps[None]:
    """Write some 100 KiB."""
    rows = [StoredContent(seq=number * 10 + part, payload=b"x" * 10_000, metadata=b"{}") for part in range(10)]
    yield Batch("insert_contents", rows)


async def test_a_long_file_is_emptied_while_pages_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers that overlap without a gap keep SQLite from beginning the file anew; the driver makes the gap."""
    monkeypatch.setattr(sqlite, "WAL_BYTES_MAX", LONG)
    driver = await SqliteDriver.open(tmp_path / "store.db")
    over = asyncio.Event()

    async def look_on() -> None:
        while not over.is_set():
            await driver.look(lambda: list_rows(EventFilter(), None, 100))

    looks = []
    try:
        await migrate(driver)
        looks = [asyncio.ensure_future(look_on()) for _ in range(6)]
        for number in range(30):
            await driver.write(lambda number=number: fill(number))  # type: ignore[misc]
        assert driver.wal_bytes() > LONG

        async def is_short() -> bool:
            driver.shorten_wal()
            return driver.wal_bytes() <= LONG

        await persist(is_short)
        assert not any(look.done() for look in looks)
    finally:
        over.set()
        await asyncio.gather(*looks)
        await driver.close()
    assert driver.wal_bytes() == 0


class Keeping(sqlite3.Connection):
    """A connection whose cursors outlive whoever asked, as they do where a frame or a traceback is kept for a while."""

    kept: ClassVar[list[sqlite3.Cursor]] = []

    def execute(self, *given: Any) -> sqlite3.Cursor:
        """Keep what the connection gives."""
        self.kept.append(super().execute(*given))
        return self.kept[-1]


async def test_no_cursor_has_rows_left_that_would_hold_up_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened, migrated, written and emptied with every cursor kept: nothing waits for one to be forgotten."""
    monkeypatch.setattr(Keeping, "kept", [])
    monkeypatch.setattr(aiosqlite, "connect", functools.partial(aiosqlite.connect, factory=Keeping))
    driver = await SqliteDriver.open(tmp_path / "store.db")
    try:
        await migrate(driver)
        await driver.write(lambda: fill(1))
        await driver.look(lambda: list_rows(EventFilter(), None, 100))
        await driver.empty_wal()
        assert driver.wal_bytes() == 0
        await driver.write(lambda: fill(2))
    finally:
        await driver.close()
    assert Keeping.kept


async def test_it_may_be_closed_while_the_file_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing waits for nobody who looks, and every connection is let go."""
    monkeypatch.setattr(sqlite, "WAL_BYTES_MAX", 0)
    driver = await SqliteDriver.open(tmp_path / "store.db")
    await migrate(driver)
    driver.shorten_wal()
    await driver.close()
    await driver.close()
