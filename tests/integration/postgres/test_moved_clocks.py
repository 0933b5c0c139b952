"""The database's clock is moved while daemons share it: nobody is thought dead that lives, or alive that is dead."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from replayforge.domain.event import Event
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.registry import Handlers
from replayforge.stores.replays import SLACK_US
from replayforge.stores.store import Store
from tests.contract.store_backends import put
from tests.contract.test_replay_contract import dead, running
from tests.contract.test_store_sharing import report
from tests.support.builders import now_us, record
from tests.support.clock_jumps import JumpingPostgres
from tests.support.house import House, open_house
from tests.support.polling import persist
from tests.support.postgres_server import require_postgres
from tests.support.slow import the_rest_slow

LEASE_SECONDS = 3.0
BEAT_SECONDS = 1.0
SWEEP_SECONDS = 0.4
MARGIN_SECONDS = 10.0  # for two cores that others use
MINUTE, HOUR, DECADE = 60.0, 3600.0, 3_652 * 86_400.0


@pytest.fixture(scope="module")
def running_server() -> Iterator[JumpingPostgres]:
    require_postgres()
    with JumpingPostgres() as server:
        yield server


@pytest.fixture
def server(running_server: JumpingPostgres) -> Iterator[JumpingPostgres]:
    """A database whose clock is right when a test begins."""
    running_server.set_clock(0)
    yield running_server
    running_server.set_clock(0)


class HandlerLimit:
    """A handler that says when it began, and waits to be let go."""

    def __init__(self) -> None:
        self.handlers = Handlers()
        self.handlers.on("*")(self.handle)
        self.begun = asyncio.Event()
        self.open = asyncio.Event()
        self.calls: list[str] = []

    async def handle(self, event: Event, context: Context) -> None:
        self.calls.append(event.id)
        self.begun.set()
        await self.open.wait()


@pytest.fixture
def gate() -> HandlerLimit:
    return HandlerLimit()


@pytest.fixture
def url(server: JumpingPostgres) -> str:
    return server.new_schema()


def daemon(directory: Path, url: str, gate: HandlerLimit, **settings: float) -> AbstractAsyncContextManager[House]:
    quick = {
        "store.url": url,
        "workers.lease_seconds": LEASE_SECONDS,
        "workers.heartbeat_seconds": BEAT_SECONDS,
        "janitor.sweep_seconds": SWEEP_SECONDS,
    }
    return open_house(directory, gate.handlers, quick | settings)


@pytest.fixture
async def holder(tmp_path: Path, url: str, gate: HandlerLimit) -> AsyncIterator[House]:
    async with daemon(tmp_path / "holder", url, gate) as house:
        yield house


@pytest.fixture
async def observer(tmp_path: Path, holder: House, url: str, gate: HandlerLimit) -> AsyncIterator[House]:
    async with daemon(tmp_path / "observer", url, gate) as house:
        yield house


async def looked(house: House, seconds: float) -> None:
    """Return once a daemon has watched the leases of others for so long."""
    watch = house.daemon.status.peers.lease_beats
    begun = house.daemon.clock.monotonic()

    async def watched() -> bool:
        return watch.looked_at - begun >= seconds

    await persist(watched, 60)


@pytest.mark.slow
async def test_living_leases_and_daemons_stand(
    server: JumpingPostgres, holder: House, observer: House, gate: HandlerLimit
) -> None:
    """While a handler runs the database's clock is set again and again, each time just after a beat: nobody takes its
    event over, no daemon is thought to be gone, and the handler is started once."""
    event_id = await holder.send()
    await gate.begun.wait()
    await looked(observer, SWEEP_SECONDS)
    for shift in (MINUTE, HOUR, DECADE, -10 * MINUTE, -DECADE):
        await holder.probe.saw("lease.renewed", holder.probe.counts["lease.renewed"] + 1)
        await asyncio.to_thread(server.set_clock, shift)
        await looked(observer, BEAT_SECONDS)
        for house in (holder, observer):
            living, gone = await house.daemon.status.peers.others()
            assert (len(living), gone) == (1, [])
    gate.open.set()
    event = await holder.reaches(event_id, "succeeded")
    assert (event["starts"], [one["outcome"] for one in event["attempts"]]) == (1, ["succeeded"])
    assert gate.calls == [event_id]
    for house in (holder, observer):
        assert not house.probe.counts["attempt.reclaimed"] + house.probe.counts["lease.lost"]


@pytest.mark.parametrize("shift", the_rest_slow([MINUTE, DECADE, -10 * MINUTE, -DECADE]))
async def test_a_dead_daemon_is_inherited_in_time(
    server: JumpingPostgres, holder: House, url: str, shift: float
) -> None:
    """Whatever the database's clock does meanwhile, a dead daemon's events run elsewhere within lease and sweep, not
    before its lease is over, and it is known to be gone."""
    dead = await Store.open(url, node="dead", owner="dead/first")
    await dead.beat([], now_us(), replace(report("dead"), beat=1))
    (claimed,) = (await put(dead, [record("event")], log_id="log of dead", claims_max=1)).claimed
    await dead.beat([claimed.lease], now_us(), replace(report("dead"), beat=2))
    clock, died_at = holder.daemon.clock, holder.daemon.clock.monotonic()
    await asyncio.to_thread(server.set_clock, shift)
    await holder.probe.saw("attempt.reclaimed", 1, 60)
    took_seconds = clock.monotonic() - died_at
    assert LEASE_SECONDS <= took_seconds < LEASE_SECONDS + SWEEP_SECONDS + MARGIN_SECONDS
    _, gone = await holder.daemon.status.peers.others()
    assert [node.name for node in gone] == ["dead"]
    assert gone[0].silent_us >= LEASE_SECONDS * 1e6
    await dead.close()


async def test_age_removes_nothing_by_a_clock_that_was_set(
    server: JumpingPostgres, tmp_path: Path, url: str, gate: HandlerLimit
) -> None:
    """While the database's clock is ten years ahead or behind what has just ended is kept, and a word says so; when the
    clock is right again that is said, too."""
    gate.open.set()
    settings = {"retention.succeeded_seconds": 86_400.0, "janitor.retention_seconds": 0.05}
    async with daemon(tmp_path, url, gate, **settings) as house:
        ids = [await house.send()]
        await house.reaches(ids[0], "succeeded")
        await looked(house, SWEEP_SECONDS)
        for shift in (DECADE, 0, -DECADE, 0):
            words = house.probe.counts["clock.jumped"]
            await asyncio.to_thread(server.set_clock, shift)
            await house.probe.saw("clock.jumped", words + 1)
            ids.append(await house.send())
            await house.reaches(ids[-1], "succeeded")
            told = house.probe.fields("clock.jumped")[-1]
            assert (told["of"], bool(told["remedy"])) == ("store", bool(shift))
            if shift:
                await looked(house, SWEEP_SECONDS)
                assert house.probe.counts["event.retired"] == 0
        # What ended under the clock that was ten years behind looks old to the right one: that much is as documented.
        assert {"succeeded"} == {(await house.event(one))["status"] for one in ids[:3]}


@pytest.mark.slow
async def test_a_database_that_was_always_wrong_is_right_about_ages(
    server: JumpingPostgres, tmp_path: Path, url: str, gate: HandlerLimit
) -> None:
    """A database whose clock has stood ten years behind from the start removes what is old by its own clock only."""
    gate.open.set()
    server.set_clock(-DECADE)
    settings = {"retention.succeeded_seconds": 3.0, "janitor.retention_seconds": 0.05}
    async with daemon(tmp_path, url, gate, **settings) as house:
        event_id = await house.send()
        ended_at = house.daemon.clock.monotonic()
        await house.reaches(event_id, "succeeded")
        await house.probe.saw("event.retired", 1, 30)
        assert house.daemon.clock.monotonic() - ended_at >= 2.9


async def test_a_bulk_replay_goes_on_when_the_clock_is_set_back(server: JumpingPostgres, url: str) -> None:
    """What a bulk replay has put off by the old time is due under the new one, and paced by it."""
    store = await Store.open(url, node="node", owner="node/first")
    await dead(store, 5)
    job = await running(store, rate_per_second=2)
    step = await store.advance_replay(job.seq, 1, now_us())
    assert step is not None
    assert len(step.entries) == 1
    assert 500_000 - SLACK_US <= step.wait_us <= 500_000
    await asyncio.to_thread(server.set_clock, -10 * MINUTE)
    waits = [await store.advance_replay(job.seq, 1, now_us()) for _ in range(3)]
    assert [(len(one.entries), 0 <= one.wait_us <= 500_000) for one in waits if one] == [(1, True)] + [(0, True)] * 2
    await store.close()
