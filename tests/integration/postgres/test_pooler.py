"""Behind a real pgbouncer that lends three connections to everybody, each for one transaction only."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from replayforge.domain.errors import Refused
from replayforge.stores.lookups import ping
from replayforge.stores.migrations import migrations
from replayforge.stores.postgres import PostgresDriver
from replayforge.stores.store import Store
from tests.contract.store_backends import claimed
from tests.support.builders import success
from tests.support.daemon_process import DaemonProcess, until
from tests.support.fleet import LEASE_SECONDS, Fleet, Sender, event
from tests.support.pooler import Pooler, require_pooler
from tests.support.postgres_server import PostgresServer, in_own_thread, require_postgres
from tests.support.redis_server import MISSING, RedisServer, redis_binaries

POOL_SIZE = 3
EVENTS = 400
SENDERS = 4
KINDS = {"quick": ["succeeded"], "flaky.one": ["failed", "failed", "succeeded"], "doomed.one": ["failed"]}
SESSIONS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    require_postgres()
    require_pooler()
    with PostgresServer() as server:
        yield server


@pytest.fixture
def pooler(postgres: PostgresServer) -> Iterator[Pooler]:
    """A pooler in front of an empty store."""
    with Pooler(postgres.new_schema(), default_pool_size=POOL_SIZE) as pooler:
        yield pooler


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    if not redis_binaries():
        pytest.skip(MISSING)
    with RedisServer(next(iter(redis_binaries().values())), tmp_path) as server:
        yield server


@pytest.fixture
def fleet(tmp_path: Path, postgres: PostgresServer, redis: RedisServer) -> Iterator[Fleet]:
    with Fleet(tmp_path, postgres, redis) as fleet:
        yield fleet


@pytest.fixture
def fleet_pooler(fleet: Fleet) -> Iterator[Pooler]:
    """A pooler in front of the store of the fleet, whose daemons know no other way to it."""
    with Pooler(fleet.store_url, default_pool_size=POOL_SIZE) as pooler:
        fleet.settings["store.url"] = pooler.url
        yield pooler


@pytest.mark.slow
def test_two_daemons(fleet: Fleet, fleet_pooler: Pooler, postgres: PostgresServer) -> None:
    """Behind a pooler that is killed and comes back, and whose sessions on the server are terminated, two daemons
    accept events all the while; each ends once, attempted as often as its handler makes it, and a lease is renewed for
    as long as its handler runs."""
    with ThreadPoolExecutor() as threads:  # at once, so that both want to make the schema
        daemons = list(threads.map(fleet.start, ("first", "second")))
    kinds = list(KINDS)
    events = [event(f"key-{number}", kinds[number % len(kinds)], failures=2) for number in range(EVENTS)]
    senders = [Sender(daemons, events[part::SENDERS]) for part in range(SENDERS)]
    for sender in senders:
        sender.start()

    until(lambda: fleet.lines() > EVENTS // 4, 20, "a part of the events to have started")
    fleet_pooler.kill()
    meanwhile = [
        daemon.http.post("/api/events", event(f"meanwhile-{number}", failures=2))
        for number in range(20)
        for daemon in daemons
    ]
    assert {answer.status for answer in meanwhile} <= {200, 201}, "both daemons accept, and know their own copies"
    until(lambda: all(status(daemon) == "degraded" for daemon in daemons), 20, "both to miss the pooler")
    fleet_pooler.start()

    until(lambda: fleet.lines() > EVENTS, 20, "the work to go on")
    assert 0 < in_own_thread(postgres.terminate_sessions) <= POOL_SIZE
    for sender in senders:
        sender.join(30)
    long = daemons[0].http.post("/api/events", event("long", "slow.one", seconds=LEASE_SECONDS * 1.5)).json()["id"]
    until(lambda: all(daemon.converged() for daemon in daemons), 30, "everything to end")

    rows, attempts, starts = fleet.rows(), fleet.attempts(), fleet.starts()
    acknowledged = {one for sender in senders for one in sender.acknowledged}
    assert len(acknowledged) == EVENTS
    assert acknowledged | {answer.json()["id"] for answer in meanwhile} | {long} == set(rows)
    types = {row["id"]: row["event_type"] for row in fleet.table("events")}
    for one, (state, begun) in rows.items():
        spent = [outcome for outcome in attempts[one] if outcome in ("succeeded", "failed")]
        assert spent == KINDS.get(types[one], ["succeeded"]), one
        assert state == ("succeeded" if spent[-1] == "succeeded" else "dead_lettered"), one
        assert starts[one] <= begun, one
    assert (attempts[long], rows[long]) == (["succeeded"], ("succeeded", 1))
    assert len(postgres.query(SESSIONS)) <= POOL_SIZE + 1, "those of the pooler, and the one that this fleet asks over"

    for daemon in daemons:
        assert daemon.terminate() == 0
        assert "prepared statement" not in daemon.stderr.read_text()
        check = daemon.run_command("check", "--data-dir", str(daemon.data_dir))
        assert check.code == 0, check.out


def status(daemon: DaemonProcess) -> str:
    """Return what a daemon says of itself."""
    return str(daemon.http.get("/health/ready")["status"])


async def test_schema_is_made_once(pooler: Pooler, postgres: PostgresServer) -> None:
    """Six daemons that meet an empty database at the same moment make its schema once, over three connections."""
    stores = await asyncio.gather(*(Store.open(pooler.url, node=f"n{n}", owner=f"n{n}/first") for n in range(6)))
    assert len({store.store_id for store in stores}) == 1
    schema = pooler.target.partition("search_path=")[2]
    rows = await postgres.fetch(f"SELECT version FROM {schema}.migrations ORDER BY version")
    assert [row["version"] for row in rows] == list(range(1, len(migrations("postgres")) + 1))
    for store in stores:
        await store.close()


async def test_nothing_stays_on_the_lent_connections(pooler: Pooler) -> None:
    """After work over the pooler no connection that it lends has anything prepared, set or locked on it."""
    store = await Store.open(pooler.url, node="node", owner="node/first")
    assert store.beside is not None
    beside = store.beside(10)
    await store.settle([success(one) for one in await claimed(store, 20)])
    await asyncio.gather(*(one.ping() for one in (store, beside) for _ in range(20)))
    left: dict[int, list[Any]] = {}
    async with asyncio.timeout(10):
        await asyncio.gather(*(look(pooler, left) for _ in range(POOL_SIZE)))
    assert list(left.values()) == [[]] * POOL_SIZE
    await beside.close()
    await store.close()


async def look(pooler: Pooler, left: dict[int, list[Any]]) -> None:
    """Note what a connection of the pooler has on it, and keep it until all of them have been looked at."""
    connection = await asyncpg.connect(pooler.url, statement_cache_size=0)
    async with connection.transaction():
        found = await connection.fetch(
            "SELECT name FROM pg_prepared_statements UNION SELECT locktype FROM pg_locks WHERE locktype = 'advisory'"
            " UNION SELECT name FROM pg_settings"
            " WHERE source = 'session' AND setting <> reset_val AND name <> 'search_path'"
        )
        left[await connection.fetchval("SELECT pg_backend_pid()")] = [row[0] for row in found]
        while len(left) < POOL_SIZE:  # noqa: ASYNC110  # the others are in transactions of their own
            await asyncio.sleep(0.01)
    await connection.close()


async def test_pooler_is_noticed(pooler: Pooler) -> None:
    """A pooler is told from a server without being named in the URL, and a server is not taken for one."""
    through = await PostgresDriver.open(pooler.url)
    straight = await PostgresDriver.open(pooler.target)
    assert (through.address.pooler, through.beside(1).address.pooler) == (True, True)
    assert straight.address.pooler is False
    await asyncio.gather(*(through.read(ping) for _ in range(50)))
    await through.close()
    await straight.close()


async def test_session_pooling(postgres: PostgresServer) -> None:
    """A pooler that lends for a whole session serves a daemon that it has a connection for each of its nine."""
    with Pooler(postgres.new_schema(), pool_mode="session", default_pool_size=9) as pooler:
        store = await Store.open(pooler.url, node="node", owner="node/first")
        assert store.beside is not None
        beside = store.beside(10)
        await store.settle([success(one) for one in await claimed(store, 20)])
        await asyncio.gather(*(one.ping() for one in (store, beside) for _ in range(20)))
        await beside.close()
        await store.close()


async def test_settings_in_the_url_are_refused_at_once(pooler: Pooler) -> None:
    """A pooler that takes no setting from a URL will take none later either, so the remedy is named without waiting."""
    with pytest.raises(Refused, match=r"search_path.*ALTER ROLE"):
        await PostgresDriver.open(f"{pooler.url}?search_path=elsewhere", wait_seconds=60)


async def test_statement_pooling_is_refused_at_once(postgres: PostgresServer) -> None:
    """A pooler that allows no transactions is refused, and the modes that work are named."""
    with (
        Pooler(postgres.new_schema(), pool_mode="statement") as pooler,
        pytest.raises(Refused, match="transaction or session"),
    ):
        await PostgresDriver.open(pooler.url, wait_seconds=60)
