"""What the driver asks of a server before it trusts it, and what it leaves behind on a connection: nothing."""

import asyncio
import itertools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from replayforge.chaos.private_server import unprivileged
from replayforge.domain.errors import Refused, Unavailable
from replayforge.domain.lifecycle import State
from replayforge.stores.driver import Fetch, Steps
from replayforge.stores.lookups import ping
from replayforge.stores.postgres import PostgresDriver, with_numbers
from replayforge.stores.queries import PLANNED_ONCE, load_book
from replayforge.stores.store import Store
from replayforge.stores.transactions import LeaseLost, settle_all
from replayforge.stores.trial import try_store
from tests.contract.store_backends import claimed, put
from tests.integration.postgres.conftest import OpenHouse
from tests.support.builders import record, success
from tests.support.postgres_server import PostgresServer, require_postgres


@pytest.fixture
def further_server() -> Iterator[PostgresServer]:
    """A server that is not started yet."""
    require_postgres()
    server = PostgresServer()
    yield server
    server.__exit__()


async def test_server_without_fsync_is_refused(further_server: PostgresServer) -> None:
    """A server that would lose what it acknowledged is refused by name."""
    further_server.settings["fsync"] = "off"
    further_server.start()
    for opening in (PostgresDriver.open(further_server.url), try_store(further_server.url, Path())):
        with pytest.raises(Refused, match="fsync = off"):
            await opening


async def test_starting_server_is_waited_for(further_server: PostgresServer) -> None:
    """A server that comes up after the daemon is waited for."""
    opening = asyncio.ensure_future(PostgresDriver.open(further_server.url))
    await asyncio.to_thread(further_server.start)
    driver = await opening
    await driver.close()


async def test_missing_server_is_refused_in_the_end() -> None:
    """A server that never comes up is named, without the password."""
    with pytest.raises(Refused) as refusal:
        await PostgresDriver.open("postgresql://someone:secret@127.0.0.1:1/store", wait_seconds=0)
    assert "127.0.0.1:1/store" in str(refusal.value)
    assert "secret" not in str(refusal.value)


async def test_missing_database_is_refused_at_once(server: PostgresServer) -> None:
    """No waiting makes a database appear that was never made."""
    with pytest.raises(Refused, match="does not exist"):
        await PostgresDriver.open(server.url.replace("/postgres", "/nowhere"), wait_seconds=60)


async def test_every_statement_is_sound(url: str, server: PostgresServer) -> None:
    """The server accepts every statement of the book as it stands."""
    store = await Store.open(url, node="node", owner="node/first")
    await store.close()
    connection = await asyncpg.connect(url)
    for sql in load_book("postgres").values():
        await connection.prepare(with_numbers(sql.replace("{filters}", ""))[0])
    await connection.close()


async def test_a_trial_makes_nothing(url: str, server: PostgresServer) -> None:
    """A database that is to become a store is right and stays empty; one of a schema that is not known is refused."""
    await try_store(url, Path())
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT to_regclass('migrations')") is None
    await (await Store.open(url, node="node", owner="node/first")).close()
    await try_store(url, Path())
    await connection.execute("INSERT INTO migrations (version, checksum) VALUES (99, '')")
    with pytest.raises(Refused, match="has schema version 99"):
        await try_store(url, Path())
    await connection.close()


async def test_rows_are_found_by_their_keys(url: str, server: PostgresServer) -> None:
    """On a table that was never analysed, claiming and settling look rows up by their keys instead of reading a whole
    backlog through the index of queued events."""
    store = await Store.open(url, node="node", owner="node/first")
    await put(store, [record(f"event-{number}") for number in range(3000)])
    connection = await asyncpg.connect(url)
    await connection.execute("SET enable_seqscan = off")
    values = {"entries": '[["event-1",1]]', "leases": "[[1,1]]", "owner": "node/first"}
    for name in ("claimable_events", "held_leases", "renew_leases"):
        sql = load_book("postgres")[name]
        for parameter, value in values.items():
            sql = re.sub(rf"(?<!:):{parameter}\b", f"'{value}'", sql)
        sql = re.sub(r"(?<!:):[a-z_]+", "1", sql)
        plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {sql}"))
        assert "events_pkey" in plan or "events_id_key" in plan, plan
        assert "events_queued" not in plan
        assert "Seq Scan on events" not in plan
    await connection.close()
    await store.close()


@pytest.mark.parametrize("name", sorted(PLANNED_ONCE))
async def test_plans_made_for_empty_tables_are_good_for_full_ones(name: str, url: str, server: PostgresServer) -> None:
    """What is planned once goes down an index by what it is given, never through a table or once for each row; only
    cursors are so few, one for each log, that they may be read whole."""
    store = await Store.open(url, node="node", owner="node/first")
    driver = store.driver
    assert isinstance(driver, PostgresDriver)
    sql = with_numbers(driver.book[name])[0]
    count = max(map(int, re.findall(r"\$(\d+)", sql)))
    async with driver.connections.lend() as connection:
        await connection.execute(f"PREPARE one AS {sql}")
        rows = await connection.fetch(f"EXPLAIN EXECUTE one ({', '.join(['NULL'] * count)})")
        await connection.execute("DEALLOCATE one")
    await store.close()
    lines = [row[0].strip() for row in rows]
    for line, following in itertools.pairwise([*lines, ""]):
        assert "Seq Scan" not in line, lines
        assert "Nested Loop" not in line, lines
        is_index = "Index Scan" in line and "cursors_pkey" not in line
        assert not is_index or following.startswith("Index Cond"), lines


async def test_only_what_is_planned_once_has_a_plan_that_is_kept(url: str, server: PostgresServer) -> None:
    """A transaction begins with plans that are kept, and has every one made anew from its first statement on that needs
    it; the next one begins as it did."""
    store = await Store.open(url, node="node", owner="node/first")
    driver = store.driver
    assert isinstance(driver, PostgresDriver)
    setting = "SELECT current_setting('plan_cache_mode'), current_setting('enable_nestloop')"
    driver.book = driver.book | {"kept": setting, "anew": setting}
    driver.planned_once |= {"kept"}
    seen: list[tuple[str, ...]] = []

    def steps(*names: str) -> Steps[None]:
        for name in names:
            seen.extend((yield Fetch(name)))  # type: ignore[arg-type]  # rows of texts

    kept, anew = ("force_generic_plan", "off"), ("force_custom_plan", "on")
    await driver.write(lambda: steps("kept", "kept", "anew", "kept"))
    await driver.write(lambda: steps("kept"))
    await driver.write(lambda: steps("anew"))
    await driver.read(lambda: steps("anew"))
    assert seen == [kept, kept, anew, anew, kept, anew, anew]
    await store.close()


async def test_a_refusal_of_ours_leaves_the_connection_in_use(url: str, server: PostgresServer) -> None:
    """Where a lease is lost nothing is written, the connection stays, and what stood in the way of writes before still
    does: that nothing was committed says nothing of the next commit."""
    store = await Store.open(url, node="node", owner="node/first")
    first, second = await claimed(store, 2)
    await store.settle([success(first)])
    driver = store.driver
    assert isinstance(driver, PostgresDriver)
    driver.writes.note(Unavailable("The disk is full."))
    (connection,) = driver.connections.idle

    both = [success(first), success(second)]
    with pytest.raises(LeaseLost):
        await driver.write(lambda: settle_all("node", "node/first", both))

    assert driver.connections.idle == [connection]
    assert not connection.is_closed()
    assert not connection.is_in_transaction()
    assert driver.writes.error == "The disk is full."
    states = {
        event.id: event.state for event, _ in (await store.events_by_ids([first.event.id, second.event.id])).values()
    }
    assert states == {first.event.id: State.SUCCEEDED, second.event.id: State.PROCESSING}

    await store.settle([success(second)])
    assert driver.connections.idle == [connection]
    assert driver.writes.error is None
    await store.close()


async def test_nothing_stays_on_a_connection(url: str, server: PostgresServer) -> None:
    """Behind a transaction pooler nothing is prepared or set on a connection beyond its transaction."""
    store = await Store.open(f"{url}&pgbouncer=true", node="node", owner="node/first")
    await store.settle([success(one) for one in await claimed(store, 5)])

    driver = store.driver
    assert isinstance(driver, PostgresDriver)
    async with driver.connections.lend() as connection:
        assert await connection.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE NOT from_sql") <= 1
        settings = await connection.fetch(
            "SELECT name FROM pg_settings WHERE source = 'session' AND name IN"
            " ('statement_timeout', 'lock_timeout', 'plan_cache_mode', 'synchronous_commit', 'enable_nestloop',"
            " 'enable_seqscan', 'idle_in_transaction_session_timeout')"
        )
        assert settings == []
        assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
    await store.close()


async def test_commits_are_durable_whatever_the_default(url: str, server: PostgresServer) -> None:
    """A role that commits without waiting for the disk by default still waits for ours."""
    store = await Store.open(f"{url}&synchronous_commit=off", node="node", owner="node/first")
    seen: list[str] = []

    def steps() -> Steps[None]:
        rows = yield Fetch("durability")
        seen.append(rows[0][0])

    driver = store.driver
    assert isinstance(driver, PostgresDriver)
    driver.book = driver.book | {"durability": "SELECT current_setting('synchronous_commit')"}
    await driver.write(steps)
    assert seen == ["on"]
    await store.close()


async def test_texts_with_nul(url: str, server: PostgresServer) -> None:
    """A text that PostgreSQL has no place for is kept with a picture of NUL, and payloads are kept byte by byte."""
    store = await Store.open(url, node="node", owner="node/first")
    payload = rb'{"a": "\u0000", "b": 1e400, "a": 1.10}'
    await put(store, [record("event", payload, workflow_id="work\0flow")])
    event, content = (await store.events_by_ids(["event"]))["event"]
    assert (event.workflow_id, content.payload) == ("work\u2400flow", payload)
    await store.close()


@pytest.fixture
def small_disk(further_server: PostgresServer) -> Iterator[Path]:
    """A disk of 6 MiB that a server of its own may write."""
    server = further_server.start()
    account = unprivileged()
    if account is None:
        pytest.skip("only root can mount a small disk")
    disk = server.directory / "small"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size=6m,uid={account.pw_uid},mode=700", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield disk
    server.kill()
    subprocess.run(["umount", "-l", disk], check=True)


async def fill(server: PostgresServer) -> None:
    """Write until there is no room."""
    while True:
        await server.fetch("INSERT INTO filling SELECT repeat('x', 100) FROM generate_series(1, 700)")


async def test_full_disk(further_server: PostgresServer, open_daemon: OpenHouse, small_disk: Path) -> None:
    """While the database's disk is full events are accepted and wait; nothing is charged to them, and they end once
    there is room."""
    server = further_server
    await server.fetch(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
    async with open_daemon(f"{server.new_schema()}&default_tablespace=small") as house:
        first = await house.send_many(20)
        await house.converges()
        await server.fetch("CREATE TABLE filling (line text) TABLESPACE small")
        with pytest.raises(asyncpg.DiskFullError):
            await fill(server)
        ids = await house.send_many(400, payload={"text": "x" * 1500})
        await house.probe.saw("store.failed")
        assert "No space left" in str(house.probe.fields("store.failed")[0]["error"])
        ids.append(await house.send())
        await server.fetch("DROP TABLE filling")
        ledger = await house.converges(40)
        assert ledger["succeeded"] == len(first) + len(ids)
        assert await house.daemon.store.error_insights(0) == []


async def test_busy_pool_is_told(impatient_url: str, server: PostgresServer) -> None:
    """When every connection is in use for too long, the caller hears of it instead of waiting for ever."""
    driver = await PostgresDriver.open(impatient_url, connections=1)
    async with driver.connections.lend():
        with pytest.raises(Unavailable, match="every connection is in use"):
            await driver.read(ping)
    await driver.close()
