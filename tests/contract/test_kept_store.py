"""What one test leaves in the store that they share on PostgreSQL reaches no other test."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from tests.contract.store_backends import StoreHouse, claimed, store_house
from tests.support.kept_store import KeptStore
from tests.support.postgres_server import require_postgres, shared_server

NAMES = "SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind = $2 ORDER BY relname"


@pytest_asyncio.fixture(loop_scope="session")
async def own(kept: KeptStore) -> AsyncIterator[KeptStore]:
    """A kept store of this test's own; `kept` is asked for its loop."""
    require_postgres()
    own = KeptStore()
    yield own
    await own.close()


async def contents(house: StoreHouse) -> dict[str, list[Any]]:
    """Return every row and every sequence of the store but for what each store has of its own, its name and its key."""
    schema = house.url.rpartition("=")[2]
    found = {}
    for kind in (b"r", b"S"):
        for (name,) in await shared_server().fetch(NAMES, schema, kind):
            found[name] = [tuple(row) for row in await shared_server().fetch(f'SELECT * FROM "{schema}"."{name}"')]
    found["meta"] = sorted(name for name, *_ in found["meta"])
    return found


OF_TYPES = {"text": "'any'", "bytea": "'any'", "boolean": "true"}
OF_COLUMNS = {
    "attempts.outcome": "'succeeded'", "replay_members.outcome": "'succeeded'", "replays.previous_state": "'new'",
    "replays.state": "'pending'", "replays.total": "99", "replays.replayed": "33", "steps.kind": "'step'",
    "steps.state": "'done'",
}  # fmt: skip
REQUIRED = """
SELECT relname, array_agg(attname ORDER BY attnum), array_agg(format_type(atttypid, NULL) ORDER BY attnum)
FROM pg_attribute JOIN pg_class ON attrelid = pg_class.oid
WHERE relnamespace = $1::regnamespace AND relkind = 'r' AND attnum > 0
    AND attnotnull AND NOT atthasdef AND attidentity = ''
GROUP BY relname
"""


async def fill(house: StoreHouse) -> None:
    """Leave a row in every table, whether it makes sense or not."""
    await claimed(await house.join(), 3, workflow_id="used")
    schema = house.url.rpartition("=")[2]
    for table, columns, types in await shared_server().fetch(REQUIRED, schema):
        columns_and_types = zip(columns, types, strict=True)
        values = [OF_COLUMNS.get(f"{table}.{name}") or OF_TYPES.get(kind, "7") for name, kind in columns_and_types]
        into = f'"{schema}"."{table}" ({", ".join(columns)})'
        if table not in ("events", "migrations"):
            await shared_server().fetch(f"INSERT INTO {into} VALUES ({', '.join(values)})")


async def test_the_next_test_finds_a_new_store(own: KeptStore, tmp_path: Path) -> None:
    """Rows and sequences are those of a store that was just made; its name and its key are others."""
    async with store_house("postgres", tmp_path) as house:
        await house.join()
        new = await contents(house)
    async with store_house("postgres", tmp_path, own) as house:
        used, url = await house.join(), house.url
        await fill(house)
        left = await contents(house)
    async with store_house("postgres", tmp_path, own) as house:
        again = await house.join()
        assert house.url == url
        assert [name for name, rows in left.items() if rows == new[name]] == ["migrations"]
        assert await contents(house) == new
        assert again.store_id != used.store_id


async def test_a_changed_schema_is_not_used_again(own: KeptStore, tmp_path: Path) -> None:
    """Whether a test has removed a trigger or let the planner take note of what was there."""
    urls = set()
    for change in ("ANALYZE {}.events", "ALTER TABLE {}.events DISABLE TRIGGER ALL", "DROP TABLE {}.meta", ""):
        async with store_house("postgres", tmp_path, own) as house:
            await claimed(await house.join())
            urls.add(house.url)
            if change:
                await shared_server().fetch(change.format(house.url.rpartition("=")[2]))
    assert len(urls) == 4
