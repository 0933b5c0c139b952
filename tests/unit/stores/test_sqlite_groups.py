"""What the group commit of the SQLite driver does with a transaction that fails."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from replayforge.domain.errors import Unavailable, Unstorable
from replayforge.stores import sqlite
from replayforge.stores.batches import MetaValue
from replayforge.stores.driver import Batch, Fetch, Steps
from replayforge.stores.migrations import migrate
from replayforge.stores.sqlite import SqliteDriver


def note(name: str, value: str | None) -> Steps[str]:
    """Write one value and read it back."""
    yield Batch("insert_meta", [MetaValue(name=name, value=value)])  # type: ignore[arg-type]  # None breaks a rule
    rows = yield Fetch("meta_value", {"name": name})
    return str(rows[0][0])


async def test_a_transaction_that_fails_leaves_its_neighbours_alone(tmp_path: Path) -> None:
    """Of a group in which one write breaks a rule of the schema, the others are committed and only that one fails."""
    driver = await SqliteDriver.open(tmp_path / "store.db")
    try:
        await migrate(driver)
        writes = [driver.write(lambda name=name, value=value: note(name, value)) for name, value in GROUP]  # type: ignore[misc]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert [outcome for outcome in outcomes if isinstance(outcome, str)] == ["1", "3"]
        assert [type(outcome) for outcome in outcomes if not isinstance(outcome, str)] == [Unstorable]
    finally:
        await driver.close()


GROUP: list[tuple[str, str | None]] = [("first", "1"), ("second", None), ("third", "3")]


async def test_a_group_that_finds_the_file_locked_waits_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody else holds the write lock, a whole group is refused after one wait, not after one for each."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_SECONDS", 0.05)
    path = tmp_path / "store.db"
    driver = await SqliteDriver.open(path)
    begins = 0

    def count(statement: str) -> None:
        nonlocal begins
        begins += statement.startswith("BEGIN IMMEDIATE")

    try:
        await migrate(driver)
        await driver.writer.set_trace_callback(count)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        writes = [driver.write(lambda name=name: note(name, "x")) for name in "abcdefgh"]  # type: ignore[misc]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        other.close()
        assert {type(outcome) for outcome in outcomes} == {Unavailable}
        assert begins <= 2  # the first write alone, then the group that came meanwhile
    finally:
        await driver.close()
