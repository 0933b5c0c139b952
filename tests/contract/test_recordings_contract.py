"""Recorded runs are read as whole values, beside the daemon that has the store, and nothing is written."""

from msgspec.structs import replace

from replayforge.domain.journal import StepKind
from replayforge.domain.lifecycle import Reason, State
from replayforge.domain.reports import EventFilter
from replayforge.stores.recordings import COMPARABLE, recorded_runs
from replayforge.stores.snapshot import read_snapshot
from tests.contract.store_backends import StoreHouse, claimed
from tests.contract.test_journal_contract import commit, step
from tests.support.builders import settlement, success


async def test_a_run_is_read_with_its_content_its_newest_steps_its_children_and_its_last_attempt(
    house: StoreHouse,
) -> None:
    store = await house.join()
    one, child, _ = await claimed(store, 3)
    sent = step(one.event, "mail", kind=StepKind.SEND, begun=3, recorded=4, other_id=child.event.id)
    old, new = step(one.event), step(one.event, generation=1, result=b"2")
    await store.record_steps([commit(one.event, old, new, sent)])
    ended = replace(success(one), started_at_us=77, journal=1, result=b'{"fee":2.5}')
    dead = settlement(child.event, State.DEAD_LETTERED, reason=Reason.PERMANENT)
    await store.settle([ended, dead])
    before = await store.ledger_snapshot()
    runs = await read_snapshot(house.url, lambda: recorded_runs(EventFilter(), COMPARABLE, 10))
    first, second = runs
    assert (first.id, first.event.result, first.content, first.started_at_us) == (
        one.event.id, b'{"fee":2.5}', one.content, 77,
    )  # fmt: skip
    assert set(first.journal.records) == {new, sent}
    assert first.children == {child.event.id: child.content.payload}
    assert (second.id, second.journal.records, second.children) == (child.event.id, (), {})
    assert await store.ledger_snapshot() == before


async def test_the_newest_runs_are_read_that_pass_a_filter(house: StoreHouse) -> None:
    store = await house.join()
    some = await claimed(store, 3)
    await store.settle([success(one) for one in some])
    wanted = EventFilter(state=State.SUCCEEDED)
    runs = await read_snapshot(house.url, lambda: recorded_runs(wanted, COMPARABLE, 2))
    assert [run.id for run in runs] == [one.event.id for one in some[1:]]
