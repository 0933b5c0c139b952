"""The connection breaks after a commit was carried out and before its answer: every caller looks before it acts."""

from collections import Counter

import pytest

from replayforge.domain.errors import Unavailable
from replayforge.domain.lifecycle import State
from replayforge.domain.reports import Node
from replayforge.stores.store import Store
from tests.contract.store_backends import claimed, put
from tests.contract.test_journal_contract import commit, rows_of, step
from tests.integration.postgres.conftest import OpenHouse
from tests.integration.postgres.network import CommitBreaker
from tests.support.builders import now_us, record, success

REPORT = Node("node-1", "log", "first", "host", 1, 0)


async def test_unknown_outcome_is_told(far_url: str, proxy: CommitBreaker) -> None:
    """A write whose COMMIT got no answer raises Unavailable, although it has happened."""
    store = await Store.open(far_url, node="node-1", owner="node-1/first")
    proxy.break_commits(1)
    with pytest.raises(Unavailable):
        await store.open_cursor("log", "incarnation", 5, now_us())
    assert await store.cursor("log") == (5, "incarnation")
    await store.close()


async def test_settled_again(far_url: str, proxy: CommitBreaker) -> None:
    """An outcome whose COMMIT got no answer is found by its attempt row: committed once, and not called fenced."""
    store = await Store.open(far_url, node="node-1", owner="node-1/first")
    settlements = [success(one) for one in await claimed(store, 20)]
    proxy.break_commits(1)
    with pytest.raises(Unavailable):
        await store.settle(settlements)
    assert (await store.settle(settlements)).fenced == []
    _, tallies = await store.ledger_snapshot()
    assert {name: amount for name, amount in tallies.items() if amount} == {"succeeded": 20}
    await store.close()


async def test_a_step_that_is_committed_by_itself(far_url: str, proxy: CommitBreaker) -> None:
    """A later step of a journal is one statement without BEGIN and COMMIT; without its answer it is found recorded, and
    not called fenced though its lease is gone by then."""
    store = await Store.open(far_url, node="node-1", owner="node-1/first")
    (one,) = await claimed(store)
    await store.record_steps([commit(one.event, step(one.event, "first"))])
    later = commit(one.event, step(one.event, "later", begun=3, recorded=4), noted=True)
    proxy.sign = b"later"
    proxy.break_commits(1)
    with pytest.raises(Unavailable):
        await store.record_steps([later])
    await store.settle([success(one)])
    assert [said.fenced for said in await store.record_steps([later])] == [False]
    assert [record.step for record in await rows_of(store, one.event)] == ["first", "later"]
    await store.close()


async def test_projected_again(far_url: str, proxy: CommitBreaker) -> None:
    """After a projection without an answer the cursor says where to go on; nothing is inserted twice."""
    store = await Store.open(far_url, node="node-1", owner="node-1/first")
    proxy.break_commits(1, after=1)
    with pytest.raises(Unavailable):
        await put(store, [record(f"event-{number}") for number in range(10)])
    assert await store.cursor("log-1") == (10, "incarnation")
    _, tallies = await store.ledger_snapshot()
    assert tallies["queued"] == 10
    await store.close()


@pytest.mark.slow
async def test_storm_of_lost_answers(
    far_url: str, proxy: CommitBreaker, open_daemon: OpenHouse, effects: Counter[str]
) -> None:
    """With every eleventh answer to COMMIT lost, each event has one outcome, and nothing is fenced or miscounted."""
    async with open_daemon(far_url) as house:
        proxy.every = 11
        ids = [identity for _ in range(10) for identity in await house.send_many(10)]
        await house.probe.saw("attempt.settled", 100, 40)
        await proxy.has_broken(3)
        proxy.every = 0
        ledger = await house.converges()
        assert (ledger["accepted"], ledger["succeeded"], ledger["lost"]) == (100, 100, 0)
        assert house.probe.counts["attempt.fenced"] == 0
        assert set(effects) == set(ids)
        wrong = await house.daemon.store.discrepancies()
        assert (wrong.doubled, wrong.orphans, wrong.states) == ([], [], {State.SUCCEEDED: 100})


async def test_lease_renewed_without_answer(far_url: str, proxy: CommitBreaker) -> None:
    """A beat whose answer was lost may be made again: the lease stands either way."""
    store = await Store.open(far_url, node="node-1", owner="node-1/first")
    (one,) = await claimed(store)
    lease = [one.lease]
    proxy.break_commits(1)
    with pytest.raises(Unavailable):
        await store.beat(lease, now_us(), REPORT)
    assert (await store.beat(lease, now_us(), REPORT)).renewed == {one.event.seq}
    await store.close()
