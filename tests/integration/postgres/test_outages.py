"""The database goes away, hangs, or refuses, while a daemon runs: ingest stays open and everything ends once."""

import asyncio
from collections import Counter
from typing import Any

import asyncpg
import pytest

from tests.integration.postgres.conftest import OpenHouse
from tests.integration.postgres.network import CommitBreaker
from tests.support.house import House
from tests.support.polling import persist
from tests.support.postgres_server import PostgresServer
from tests.support.slow import the_rest_slow


async def all_succeed(house: House, ids: list[str], effects: Counter[str]) -> None:
    """Everything that was sent ends succeeded, nothing is lost, and no attempt was charged to an event."""

    async def converged() -> dict[str, Any] | None:
        try:
            return await house.converges(5)
        except AssertionError:  # a question that went down a broken connection is answered 503; ask again
            return None

    ledger = await persist(converged, 40)
    assert ledger is not None
    assert (ledger["accepted"], ledger["succeeded"], ledger["lost"]) == (len(ids), len(ids), 0)
    assert set(effects) == set(ids)
    store = house.daemon.store
    assert (await store.discrepancies()).doubled == []
    assert (await store.error_insights(0)) == []


async def test_killed_server(server: PostgresServer, url: str, open_daemon: OpenHouse, effects: Counter[str]) -> None:
    """While the server is dead events are accepted with 201; when it is back the backlog drains by itself."""
    async with open_daemon(url) as house:
        ids = await house.send_many(100)
        server.kill()
        ids += [await house.send() for _ in range(50)]
        await house.probe.saw("store.failed")
        assert (await house.get("/health/ready"))["status"] == "degraded"
        server.start()
        await house.probe.saw("store.recovered")
        ids += await house.send_many(50)
        await all_succeed(house, ids, effects)


@pytest.mark.slow
async def test_stopped_server(server: PostgresServer, url: str, open_daemon: OpenHouse, effects: Counter[str]) -> None:
    """An ordered restart of the server, which ends every session, costs nothing."""
    async with open_daemon(url) as house:
        ids = await house.send_many(200)
        await asyncio.to_thread(server.stop)  # it waits for sessions of ours that this loop has begun to open
        ids += await house.send_many(20)
        server.start()
        await all_succeed(house, ids, effects)


async def test_terminated_sessions(
    server: PostgresServer, url: str, open_daemon: OpenHouse, effects: Counter[str]
) -> None:
    """Sessions that are terminated in the middle of their work, again and again, are replaced."""
    async with open_daemon(url) as house:
        ids: list[str] = []
        for _ in range(10):
            ids += await house.send_many(20)
            await server.terminate_sessions()
        await all_succeed(house, ids, effects)


@pytest.mark.parametrize("harm", the_rest_slow(["reset", "half_open", "blackhole", "swallow_answers"]))
async def test_partition(
    harm: str, proxy: CommitBreaker, impatient_far_url: str, open_daemon: OpenHouse, effects: Counter[str]
) -> None:
    """Whatever the network does to the connections, events are accepted meanwhile and end once it heals."""
    async with open_daemon(impatient_far_url) as house:
        ids = await house.send_many(50)
        getattr(proxy, harm)()
        ids += [await house.send() for _ in range(20)]
        if harm != "reset":
            await house.probe.saw("store.failed")
        proxy.heal()
        await all_succeed(house, ids, effects)


@pytest.mark.slow
async def test_silent_server_holds_nobody_up(
    proxy: CommitBreaker, far_url: str, open_daemon: OpenHouse, effects: Counter[str]
) -> None:
    """A key is looked up in a store that says nothing any more for a moment only, and once for everybody; when the
    store speaks again, a key that was used is told at ingest as before."""
    async with open_daemon(f"{far_url}&call_seconds=20") as house:
        ids = [await house.send(idempotency_key="before")]
        await house.reaches(ids[0], "succeeded")
        proxy.blackhole()
        async with asyncio.timeout(15):
            ids += [await house.send(idempotency_key=f"key-{number}") for number in range(100)]
        proxy.heal()
        await all_succeed(house, ids, effects)
        await house.send(idempotency_key="before")  # it finds out that the store is back
        reused = {"workflow_id": "workflow", "event_type": "test", "payload": "other", "idempotency_key": "before"}
        assert (await house.post("/api/events", reused))[0] == 422


async def test_locked_table(url: str, impatient_url: str, open_daemon: OpenHouse, effects: Counter[str]) -> None:
    """Work that waits for a lock gives up, backs off and comes again; nothing is charged to an event."""
    async with open_daemon(impatient_url) as house:
        locker = await asyncpg.connect(url)
        await locker.execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        ids = [await house.send() for _ in range(20)]
        await house.probe.saw("store.failed")
        error = str(house.probe.fields("store.failed")[0]["error"])
        assert "lock timeout" in error or "statement timeout" in error
        await locker.execute("ROLLBACK")
        await locker.close()
        await all_succeed(house, ids, effects)


async def test_lost_tables_end_the_daemon(server: PostgresServer, url: str, open_daemon: OpenHouse) -> None:
    """A store whose tables are gone is not made anew behind the daemon's back: it ends with a clear word."""
    async with open_daemon(url, **{"supervisor.restarts_max": 1}) as house:
        await house.send_many(10)
        await house.converges()
        schema = url.partition("search_path=")[2].partition("&")[0]
        await server.fetch(f"DROP SCHEMA {schema} CASCADE")
        await house.send()
        error = await house.daemon.supervisor.failed
        assert "has lost its tables" in str(error)
