"""Bulk replays in PostgreSQL, while answers to COMMIT are lost on the way: nothing happens twice."""

from typing import Any

import pytest

from replayforge.domain.bulk_replay import ReplayOrder
from replayforge.domain.errors import Unavailable
from replayforge.engine.handlers.registry import Handlers
from replayforge.stores.store import Store
from tests.contract.test_replay_contract import DEAD, running
from tests.contract.test_replay_contract import dead as dead_letters
from tests.integration.postgres.network import CommitBreaker
from tests.integration.test_bulk_replay import dead, figures, job_in, make, mending_handlers, runs
from tests.support.builders import now_us
from tests.support.house import House


@pytest.fixture
def handlers() -> Handlers:
    return mending_handlers()


@pytest.fixture
def settings(far_url: str) -> dict[str, Any]:
    return {"store.url": far_url}


@pytest.mark.slow
async def test_storm_of_lost_answers(house: House, proxy: CommitBreaker) -> None:
    """With every seventh answer to COMMIT lost, each member has one further run, and each figure is true."""
    ids = await dead(house, 60)
    job = await make(house, rate_per_second=60)
    proxy.every = 7
    await house.probe.saw("attempt.started", 90)  # of a batch without an answer nothing is said but what comes of it
    await proxy.has_broken(3)
    proxy.every = 0
    job = await job_in(house, job, "done", ended=True)
    assert figures(job) == {"total": 60, "replayed": 60, "succeeded": 60}
    await house.converges()
    assert set(await runs(house, ids)) == {2}
    for event_id in ids:
        assert len((await house.event(event_id))["actions"]) == 1


async def test_request_whose_answer_was_lost(far_url: str, proxy: CommitBreaker) -> None:
    """A request that made a bulk replay without knowing it comes again with its key, and finds what it has made."""
    store = await Store.open(far_url, node="node-1", owner="node-1/first")
    await dead_letters(store, 3)
    order = ReplayOrder("mended", {}, request_key="key-1")
    given: dict[str, Any] = {"ids": [], "states": frozenset(), "now_us": now_us()}
    proxy.break_commits(1)
    with pytest.raises(Unavailable):
        await store.create_replay(order, DEAD, **given)
    job, is_new = await store.create_replay(order, DEAD, **given)
    assert (job.total, is_new) == (3, False)
    assert len(await store.list_replays(before_seq=None, limit=10)) == 1
    await store.close()


async def test_batch_whose_answer_was_lost(far_url: str, proxy: CommitBreaker) -> None:
    """A batch that was committed without an answer is not replayed again by the next one, which takes the rest."""
    store = await Store.open(far_url, node="node-1", owner="node-1/first")
    names = await dead_letters(store, 5)
    job = await running(store)
    proxy.break_commits(1)
    with pytest.raises(Unavailable):
        await store.advance_replay(job.seq, 2, now_us())
    done = await store.advance_replay(job.seq, 9, now_us())
    assert done is not None
    assert done.entries == [(name, 2) for name in names[2:]]
    assert await store.queued_entries(9) == [(name, 2) for name in names]
    await store.close()
