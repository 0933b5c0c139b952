"""What a look for people does to SQLite: it takes the interpreter's lock for its rows alone, and ends when told to."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Any

import pytest

from replayforge.domain.errors import TooSlow
from replayforge.stores.driver import Fetch, Steps
from replayforge.stores.sqlite import SqliteDriver

LONG = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) SELECT count(*) FROM n"
CALLS_MAX = 50  # of Python's functions around one statement


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[SqliteDriver]:
    """Give a store with a statement of a million of SQLite's steps, and one without end."""
    driver = await SqliteDriver.open(tmp_path / "store.db")
    driver.book = {**driver.book, "long": LONG.format(rows=100_000), "endless": LONG.format(rows=10**12)}
    yield driver
    await driver.close()


async def test_nothing_is_called_between_the_steps_of_a_look(driver: SqliteDriver) -> None:
    """Each call would wait for the interpreter's lock, which others hold while events arrive."""
    calls: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        calls.extend([frame.f_code.co_name] if event == "call" else [])

    def profiled() -> Steps[int]:
        sys.setprofile(note)
        rows = yield Fetch("long")
        sys.setprofile(None)
        return int(rows[0][0])

    assert await driver.look(profiled) == 100_000
    assert len(calls) < CALLS_MAX


async def given_up(driver: SqliteDriver, transaction: Callable[[], Steps[None]]) -> None:
    """Look for too long."""
    driver.look_seconds = 0.05
    with pytest.raises(TooSlow):
        await driver.look(transaction)
    driver.look_seconds = 5.0


async def test_a_look_that_was_given_up_leaves_its_connection_as_it_was(driver: SqliteDriver) -> None:
    """The next ones on it are answered, each on a snapshot of its own."""

    def endless() -> Steps[None]:
        yield Fetch("endless")

    for _ in range(2 * len(driver.lookers)):
        await given_up(driver, endless)
    assert not any(connection.in_transaction for connection in driver.lookers)
    assert await asyncio.gather(*(driver.look(long) for _ in range(4))) == [100_000] * 4


async def test_a_look_between_two_statements_is_given_up_at_the_next(driver: SqliteDriver) -> None:
    """What came too early for a statement comes again."""

    def late() -> Steps[None]:
        told.wait()
        yield Fetch("endless")

    told = Event()
    asyncio.get_running_loop().call_later(0.1, told.set)
    async with asyncio.timeout(5):
        await given_up(driver, late)


def long() -> Steps[int]:
    """Count to a hundred thousand."""
    rows = yield Fetch("long")
    return int(rows[0][0])
