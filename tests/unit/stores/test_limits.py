"""What the databases themselves set limits to: how long one text may be, and how a file or a database writes texts."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from replayforge.domain.errors import Refused
from replayforge.stores import transactions
from replayforge.stores.sqlite import APPLICATION_ID, SqliteDriver, in_thread
from replayforge.stores.store import Store
from tests.contract.store_backends import put
from tests.contract.test_deferred_contract import project, recall, room
from tests.support.builders import now_us, record
from tests.support.postgres_server import require_postgres, shared_server

LENGTH_MAX = 3 << 20
LARGE = b'"' + b"x" * (1 << 20) + b'"'


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store in which no text may be longer than 3 MiB; SQLite's own limit is 1 GB, which 520 events may exceed."""
    store = await Store.open(f"sqlite:///{tmp_path}/store.db", node="node-1", owner="node-1/first")
    await set_limit(store, LENGTH_MAX)
    yield store
    await store.close()


async def set_limit(store: Store, bytes_max: int) -> None:
    assert isinstance(store.driver, SqliteDriver)
    for connection in (store.driver.writer, *store.driver.readers):
        await in_thread(connection, lambda raw: raw.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, bytes_max))


async def test_a_claim_may_be_larger_than_the_longest_text(store: Store) -> None:
    """Eight events of 1 MiB are projected, compared, claimed and recalled where no text may be longer than 3 MiB."""
    records = [record(f"event-{number}", LARGE) for number in range(8)]
    projected = await put(store, records)
    assert (await put(store, records, after=8)).copies == 8
    claim = await store.claim(projected.queued, now_us())
    assert [one.content.payload for one in claim.taken] == [LARGE] * 8
    assert not claim.left


async def test_a_recall_may_be_larger_than_the_longest_text(store: Store) -> None:
    """So are those that waited for their handler."""
    await project(store, [record(f"event-{number}", LARGE) for number in range(8)], room(test=0))
    assert len((await recall(store, "test")).taken) == 8


async def test_many_small_events_fit_whatever_they_hold(store: Store) -> None:
    """What travels in one text stays far below the limit: 500 events just below the size, every byte to be escaped."""
    await set_limit(store, 30 << 20)
    payload = b'"' + b'\\"' * 8_000 + b'"'
    projected = await put(store, [record(f"event-{number}", payload) for number in range(500)])
    claim = await store.claim(projected.queued, now_us())
    assert {one.content.payload for one in claim.taken} == {payload}
    assert len(claim.taken) == 500
    assert 500 * len(payload) < transactions.CLAIM_BYTES_MAX


async def test_a_file_of_utf16_texts_is_refused(tmp_path: Path) -> None:
    """Whoever made the file with another encoding hears of it at the start."""
    path = tmp_path / "store.db"
    with sqlite3.connect(path) as made:
        made.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        made.execute("PRAGMA encoding = 'UTF-16le'")
        made.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        made.execute("CREATE TABLE t (x)")
    made.close()
    with pytest.raises(Refused, match="UTF-16le"):
        await Store.open(f"sqlite:///{path}", node="node-1", owner="node-1/first")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
async def test_a_database_of_another_encoding_is_refused(encoding: str) -> None:
    """The refusal names the database, its encoding, and how to make one that can be used."""
    require_postgres()
    server, name = shared_server(), f"encoded_{encoding.lower()}"
    administrator = await asyncpg.connect(server.url)
    try:
        await administrator.execute(f"DROP DATABASE IF EXISTS {name}")
        await administrator.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        )
        url = server.url.rpartition("/")[0] + f"/{name}"
        with pytest.raises(Refused, match=rf"{name}.*{encoding}.*ENCODING 'UTF8'"):
            await Store.open(url, node="node-1", owner="node-1/first")
    finally:
        await administrator.execute(f"DROP DATABASE IF EXISTS {name}")
        await administrator.close()
