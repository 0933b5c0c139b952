"""The heart that beats beside the event loop: what it renews, what it gives up, and when it judges others."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from replayforge.domain.event import Entry, Event
from replayforge.engine.care import heartbeat
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.registry import Handlers
from replayforge.stores.projection import Projected, Projection
from replayforge.stores.store import Store
from tests.contract.store_backends import MINUTE_US, claimed, put
from tests.contract.test_store_sharing import report
from tests.integration.postgres.conftest import OpenHouse
from tests.integration.postgres.network import CommitBreaker
from tests.support.builders import now_us, record
from tests.support.polling import persist
from tests.support.postgres_server import PostgresServer

REPORT = report("node")


class HandlerLimit:
    """A handler that says when it began and was cut short, and waits to be let go."""

    def __init__(self, handlers: Handlers) -> None:
        self.begun = asyncio.Event()
        self.open = asyncio.Event()
        self.cut_short = asyncio.Event()
        self.calls: Counter[str] = Counter()
        handlers.on("gated")(self.handle)

    async def handle(self, event: Event, context: Context) -> None:
        self.calls[event.id] += 1
        self.begun.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cut_short.set()
            raise


@pytest.fixture
async def gate(handlers: Handlers) -> HandlerLimit:
    return HandlerLimit(handlers)


async def soon(event: asyncio.Event, seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        await event.wait()


async def test_what_a_claim_under_way_has_taken_is_renewed(
    url: str, open_daemon: OpenHouse, server: PostgresServer
) -> None:
    """An event whose claim is committed and whose answer is late is in no list of leases yet, and is renewed too."""
    async with open_daemon(url, **{"workers.lease_seconds": 3, "workers.heartbeat_seconds": 0.1}) as house:
        project, held, answered = house.daemon.store.project, asyncio.Event(), asyncio.Event()

        async def answer_late(projection: Projection) -> Projected:
            projected = await project(projection)
            if projected.claimed:
                held.set()
                await answered.wait()
            return projected

        # A daemon that has just started looks for older events first, and claims none as it inserts them.
        await house.reaches(await house.send(), "succeeded")
        house.daemon.store.project = answer_late  # type: ignore[method-assign]
        event_id = await house.send()
        await soon(held)
        schema = url.partition("search_path=")[2]

        async def is_renewed() -> bool:
            rows = server.query(f"SELECT lease_beat FROM {schema}.events WHERE id = $1", event_id)
            return bool(rows[0]["lease_beat"] > 1)

        try:
            await persist(is_renewed)
        finally:
            answered.set()
        assert (await house.reaches(event_id, "succeeded"))["starts"] == 1


async def test_lease_is_renewed_while_the_handler_runs(
    url: str, open_daemon: OpenHouse, gate: HandlerLimit, server: PostgresServer
) -> None:
    """A handler that runs longer than its lease keeps it, and settles under the token it began with."""
    async with open_daemon(url, **{"workers.lease_seconds": 3, "workers.heartbeat_seconds": 0.2}) as house:
        event_id = await house.send("gated")
        await soon(gate.begun)
        await house.probe.saw("lease.renewed", 18, 60)
        gate.open.set()
        event = await house.reaches(event_id, "succeeded")
        assert (event["starts"], len(event["attempts"])) == (1, 1)


async def test_attempt_in_doubt_is_cut_short(
    impatient_far_url: str, proxy: CommitBreaker, open_daemon: OpenHouse, gate: HandlerLimit
) -> None:
    """When renewal has failed for two thirds of the lease, the unfinished attempt is cancelled, before anybody else may
    take it; after the outage it is on record as interrupted, spends no attempt, and the event runs again."""
    async with open_daemon(impatient_far_url) as house:
        event_id = await house.send("gated")
        await soon(gate.begun)
        await house.probe.saw("lease.renewed")
        proxy.blackhole()
        await soon(gate.cut_short)
        assert "could not be renewed" in house.probe.fields("lease.lost")[0]["reason"]
        gate.open.set()
        proxy.heal()
        event = await house.reaches(event_id, "succeeded", timeout_seconds=30)
        assert [one["outcome"] for one in event["attempts"]] == ["succeeded", "interrupted"]
        assert event["attempt_count"] == 0
        assert gate.calls[event_id] == 2


async def test_finished_result_is_kept(
    impatient_far_url: str, proxy: CommitBreaker, open_daemon: OpenHouse, gate: HandlerLimit
) -> None:
    """A handler that finishes while the store is away is not run again: its result waits and is committed."""
    async with open_daemon(impatient_far_url) as house:
        event_id = await house.send("gated")
        await soon(gate.begun)
        proxy.blackhole()
        gate.open.set()
        await house.probe.saw("store.failed")
        proxy.heal()
        event = await house.reaches(event_id, "succeeded", timeout_seconds=30)
        assert [one["outcome"] for one in event["attempts"]] == ["succeeded"]
        assert gate.calls[event_id] == 1
        assert not gate.cut_short.is_set()


async def test_overtime_is_not_renewed(
    url: str, open_daemon: OpenHouse, gate: HandlerLimit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease is renewed no longer than the handler's time-out and a little more."""
    monkeypatch.setattr(heartbeat, "OVERTIME_SECONDS", -59.0)
    async with open_daemon(url, **{"workers.lease_seconds": 1.5, "workers.heartbeat_seconds": 0.2}) as house:
        await house.send("gated")
        await soon(gate.cut_short)
        assert house.probe.counts["lease.renewed"] <= 8
        gate.open.set()
        await house.converges(30)


async def test_nobody_is_judged_right_after_an_outage(
    server: PostgresServer, url: str, open_daemon: OpenHouse, gate: HandlerLimit
) -> None:
    """After an outage one lease passes before lapsed leases of others are taken over."""
    async with open_daemon(url, **{"workers.lease_seconds": 2, "workers.heartbeat_seconds": 0.2}) as house:
        heart = house.daemon.heartbeat
        assert heart is not None
        await persist(as_async(lambda: heart.beating_since is not None))
        await asyncio.to_thread(server.stop)  # it waits for sessions of ours that this loop has begun to open
        await persist(as_async(lambda: heart.beating_since is None))
        server.start()
        other = await Store.open(url, node="other", owner="other/first")
        await put(other, [record("event", event_type="quick")], log_id="log of other")
        await other.claim([Entry("event", 1)], now_us())
        neighbours = house.daemon.status.peers
        await persist(as_async(lambda: heart.beating_since is not None))
        back_at = house.daemon.clock.monotonic()
        assert await neighbours.take_over() == 0
        await house.reaches("event", "succeeded")
        assert house.daemon.clock.monotonic() - back_at >= 2
        await other.close()


async def test_heart_that_stops_is_started_again(
    url: str, open_daemon: OpenHouse, gate: HandlerLimit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect on the heart's thread is seen by the supervisor, which starts another one."""
    async with open_daemon(url) as house:
        heart = house.daemon.heartbeat
        assert heart is not None
        await persist(as_async(lambda: heart.beating_since is not None))
        tick = heart.tick

        async def fail(store: Store) -> float:
            monkeypatch.setattr(heart, "tick", tick)
            raise RuntimeError("the heart fails")

        monkeypatch.setattr(heart, "tick", fail)
        await house.probe.saw("service.restarted")
        event_id = await house.send("gated")
        await soon(gate.begun)
        await house.probe.saw("lease.renewed")
        gate.open.set()
        await house.reaches(event_id, "succeeded")


async def test_a_locked_row_keeps_no_other_lease_from_being_renewed(url: str, server: PostgresServer) -> None:
    """While somebody holds a lock on one event the leases of all others are renewed, also those whose claims are under
    way; the locked one is neither renewed nor lost."""
    store = await Store.open(url, node="node", owner="node/first")
    locked, free, other = await claimed(store, 3)
    administrator = await asyncpg.connect(url)
    async with administrator.transaction():
        await administrator.execute("SELECT FROM events WHERE seq = $1 FOR UPDATE", locked.event.seq)
        renewal = await store.beat([locked.lease, free.lease], now_us(), REPORT, besides=[locked.lease, free.lease])
        assert renewal.renewed == {free.event.seq}
        assert renewal.held == {locked.event.seq, free.event.seq}
        assert renewal.complete
        assert not (await store.beat([free.lease], now_us(), REPORT, besides=[free.lease])).complete
    await administrator.close()
    watcher = await Store.open(url, node="watcher", owner="watcher/first")
    beats = await watcher.beats(now_us())
    assert beats.leases == {locked.lease: 0, free.lease: 2, other.lease: 2}
    for one in (store, watcher):
        await one.close()


async def test_last_beat_says_goodbye(url: str, open_daemon: OpenHouse, tmp_path: Path) -> None:
    """A daemon that ends in order is known to its neighbours as stopped, with nothing waiting on its disk."""
    async with open_daemon(url) as house:
        await house.send_many(20)
        await house.converges()
        name = house.daemon.store.node
    store = await Store.open(url, node="other", owner="other/first")
    (node,) = await store.nodes(now_us())
    assert (node.name, node.stopped, node.unprojected, node.durable_offset) == (name, True, 0, 20)
    assert not node.alive(MINUTE_US)
    await store.close()


def as_async(condition: Any) -> Any:
    """Return a condition as `persist` wants it."""

    async def look() -> bool:
        return bool(condition())

    return look
