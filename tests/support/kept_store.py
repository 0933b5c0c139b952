"""One PostgreSQL store that tests use one after the other: emptied in between, its schema and its connections kept.

To make a store takes ten times as long as what most tests do with it. A schema that cannot be told from a new one once
its rows are gone is used again: not one whose catalog entries a test has changed, that has statistics, or that grew.
"""

from typing import Any

from replayforge.stores import lookups
from replayforge.stores.migrations import migrate, name_store
from replayforge.stores.postgres import CONNECTIONS, PostgresDriver
from replayforge.stores.store import Store
from tests.support.postgres_server import shared_server

GROWN_BYTES = 8 << 20
KEPT_EACH = 2
# Every entry with the transaction that wrote it; what ANALYZE and VACUUM note in place is looked at by its value.
CATALOG = """
WITH relations AS (SELECT oid, xmin, reltuples FROM pg_class WHERE relnamespace = $1::regnamespace)
SELECT md5(string_agg(entry, ' ' ORDER BY entry)) FROM (
    SELECT concat_ws(',', 'relation', oid, xmin, reltuples) FROM relations
    UNION ALL SELECT concat_ws(',', 'column', attrelid, attnum, xmin) FROM pg_attribute
        WHERE attrelid IN (SELECT oid FROM relations)
    UNION ALL SELECT concat_ws(',', 'trigger', oid, xmin) FROM pg_trigger WHERE tgrelid IN (SELECT oid FROM relations)
    UNION ALL SELECT concat_ws(',', 'function', oid, xmin) FROM pg_proc WHERE pronamespace = $1::regnamespace
) AS entries (entry)
"""
SIZE = "SELECT sum(pg_relation_size(oid)) FROM pg_class WHERE relnamespace = $1::regnamespace"
NAMES = "SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind = $2"


class KeptStore:
    """Belongs to one event loop. `ready`, any number of `open` and `take_back`, and `empty`, again and again."""

    def __init__(self) -> None:
        self.url = ""
        self.drivers: list[PostgresDriver] = []
        self.idle: list[Any] = []

    async def ready(self) -> None:
        """Have an empty store, a new one if need be."""
        if not self.url:
            await self.make()

    async def make(self) -> None:
        """Make a store as a daemon would that finds none."""
        self.url = shared_server().new_schema()
        self.schema = self.url.rpartition("=")[2]
        driver = await PostgresDriver.open(self.url)
        self.address = driver.address
        self.version = await migrate(driver)
        self.store_id = await driver.read(lambda: lookups.meta_value("store_id"))
        async with driver.connections.lend() as connection:
            tables = [row[0] for row in await connection.fetch(NAMES, self.schema, b"r")]
            self.sequences = [row[0] for row in await connection.fetch(NAMES, self.schema, b"S")]
            self.catalog = await connection.fetchval(CATALOG, self.schema)
        looks = (f"SELECT '{table}' WHERE EXISTS (SELECT FROM {table})" for table in tables if table != "migrations")
        self.filled = " UNION ALL ".join(looks)
        await self.let_go(driver)

    def open(self, node: str, owner: str) -> Store:
        """Return the store as one daemon has it, with a driver of its own."""
        driver = PostgresDriver(self.address, CONNECTIONS)
        driver.connections.idle.extend(self.idle.pop() for _ in range(min(KEPT_EACH, len(self.idle))))
        self.drivers.append(driver)
        return Store(driver, node=node, owner=owner, schema_version=self.version, store_id=self.store_id)

    async def empty(self) -> None:
        """End what was opened and make the store as it was before anybody did; a changed one is given up."""
        for driver in self.drivers:
            await self.let_go(driver)
        self.drivers.clear()
        driver = PostgresDriver(self.address, CONNECTIONS)
        driver.connections.idle, self.idle = self.idle, []
        async with driver.connections.lend() as connection:
            unchanged = await connection.fetchval(CATALOG, self.schema) == self.catalog
            unchanged = unchanged and await connection.fetchval(SIZE, self.schema) < GROWN_BYTES
            if unchanged:
                await self.remove_rows(connection)
        if unchanged:
            await driver.write(name_store)
            self.store_id = await driver.read(lambda: lookups.meta_value("store_id"))
            await self.let_go(driver)
        else:
            self.url = ""
            await driver.close()

    async def remove_rows(self, connection: Any) -> None:
        """Leave no row but those that say which migrations have run, and count from one again."""
        removals = [f"DELETE FROM {row[0]}" for row in await connection.fetch(self.filled)]
        resets = [f"SELECT setval('{name}', 1, false)" for name in self.sequences]
        quietly = "SET LOCAL session_replication_role = replica"  # no trigger takes note of it
        await connection.execute("; ".join(["BEGIN", quietly, *removals, *resets, "COMMIT"]))

    async def let_go(self, driver: PostgresDriver) -> None:
        """Close a driver once it has done what was handed in, and keep the connections that it leaves in order."""
        while driver.running:
            await next(iter(driver.running))
        spare = CONNECTIONS - len(self.idle)
        self.idle += driver.connections.idle[:spare]
        del driver.connections.idle[:spare]
        await driver.close()

    async def close(self) -> None:
        """Let go of every connection."""
        while self.idle:
            await self.idle.pop().close()
