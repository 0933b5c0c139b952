"""Every stream with every store: one daemon, the same behaviour; and when an event is acknowledged."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.integration.conftest import echo_handlers
from tests.support.house import open_house
from tests.support.postgres_server import PostgresServer, require_postgres, shared_server
from tests.support.redis_server import MISSING, RedisServer, redis_binaries


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    if not redis_binaries():
        pytest.skip(MISSING)
    with RedisServer(next(iter(redis_binaries().values())), tmp_path) as server:
        yield server


@pytest.fixture
def postgres() -> PostgresServer:
    require_postgres()
    return shared_server()


@pytest.fixture(params=["embedded-sqlite", "embedded-postgres", "redis-sqlite", "redis-postgres"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    stream, _, store = request.param.partition("-")
    chosen: dict[str, Any] = {"stream.backend": stream}
    if stream == "redis":
        chosen["redis.url"] = request.getfixturevalue("redis").url
    if store == "postgres":
        chosen["store.url"] = request.getfixturevalue("postgres").new_schema()
    return chosen


async def test_events_end_the_same_way(settings: dict[str, Any], tmp_path: Path) -> None:
    """Successes, failures, duplicates, scheduled events, replays and a restart come out the same on each of them."""
    async with open_house(tmp_path / "data", echo_handlers(), settings) as house:
        ids = await house.send_many(200)
        dead = await house.send("fails")
        keyed = await house.send(idempotency_key="key")
        assert await house.send(idempotency_key="key") == keyed
        later = await house.send(run_at="2020-01-01T00:00:00Z")
        assert (await house.reaches(dead, "dead_lettered"))["reason"] == "attempts_exhausted"
        ledger = await house.converges()
        assert (ledger["succeeded"], ledger["dead_lettered"], ledger["lost"]) == (202, 1, 0)
        assert (await house.event(later))["status"] == "succeeded"
        status, _ = await house.post(f"/api/events/{dead}/replay", {"reason": "again"})
        assert status == 202
        await house.reaches(dead, "dead_lettered")
        assert {worker["node"] for worker in (await house.get("/api/workers"))["items"]} == {house.daemon.store.node}
    async with open_house(tmp_path / "data", echo_handlers(), settings) as house:
        assert (await house.event(ids[0]))["status"] == "succeeded"
        again = await house.send(idempotency_key="key")
        assert again == keyed
        ledger = await house.converges()
        assert (ledger["succeeded"], ledger["dead_lettered"], ledger["lost"]) == (202, 1, 0)


async def test_acknowledged_when_stored(postgres: PostgresServer, tmp_path: Path) -> None:
    """With ack = "stored" the answer comes when the row is there, and not before."""
    url = postgres.new_schema()
    async with open_house(tmp_path / "data", echo_handlers(), {"store.url": url, "ingest.ack": "stored"}) as house:
        await house.send()
        locker = await asyncpg.connect(url)
        await locker.execute("BEGIN; LOCK TABLE cursors IN EXCLUSIVE MODE")
        sending = asyncio.ensure_future(house.send())
        await house.probe.saw("event.accepted", 2)
        done, _ = await asyncio.wait([sending], timeout=0.3)
        assert not done
        await locker.execute("ROLLBACK")
        await locker.close()
        assert (await house.event(await sending))["status"] != "received"


async def test_ingest_stays_open_while_everything_else_is_away(
    postgres: PostgresServer, redis: RedisServer, tmp_path: Path
) -> None:
    """With ack = "log", and neither Redis nor the database there, every event is answered 201 and runs afterwards."""
    with PostgresServer() as own:
        chosen = {"store.url": f"{own.new_schema()}&call_seconds=1", "redis.url": redis.url}
        async with open_house(tmp_path / "data", echo_handlers(), chosen) as house:
            await house.send_many(20)
            await house.converges()
            redis.kill()
            own.kill()
            for number in range(50):
                status, event = await house.post(
                    "/api/events",
                    {"workflow_id": "workflow", "event_type": "test", "idempotency_key": f"key-{number}"},
                )
                assert (status, event["status"]) == (201, "received")
            own.start()
            redis.start()
            ledger = await house.converges(40)
            assert (ledger["accepted"], ledger["succeeded"], ledger["lost"]) == (70, 70, 0)
