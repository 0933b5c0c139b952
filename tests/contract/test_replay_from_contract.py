"""What a replay may expect of the store: it begins from where it is asked to, at once with all that it touches."""

from typing import Any

import pytest
from msgspec.structs import replace

from replayforge.domain.bulk_replay import JobState, ReplayOrder
from replayforge.domain.errors import Conflict
from replayforge.domain.event import ClaimedEvent, StoredEvent
from replayforge.domain.journal import AwaitedEvent, StepKind, StepRecord, StepState
from replayforge.domain.lifecycle import State
from replayforge.domain.reports import EventFilter
from replayforge.stores.store import Store
from tests.contract.store_backends import claimed, put, stored
from tests.contract.test_journal_contract import commit, parked, pending, rows_of, step
from tests.support.builders import now_us, record, settlement


def failed(event: StoredEvent, name: str, begun: int, recorded: int, **fields: Any) -> StepRecord:
    """Return a step that has failed for good."""
    given = {"state": StepState.FAILED, "result": None, "error_type": "RuntimeError", "error": "no"} | fields
    return step(event, name, begun=begun, recorded=recorded, **given)


async def dies(store: Store, one: ClaimedEvent, *records: StepRecord, ended_by: tuple[str, ...] = ()) -> StoredEvent:
    """Record steps of an event and have its run end with failures of some."""
    await store.record_steps([commit(one.event, *records)])
    end = replace(settlement(one.event, State.DEAD_LETTERED), journal=1, failed_steps=ended_by)
    await store.settle([end])
    return await stored(store, one.event.id)


def two_steps(event: StoredEvent) -> tuple[StepRecord, StepRecord]:
    """Return a step that was taken, and then one that has failed."""
    return step(event, "reserve", begun=1, recorded=2), failed(event, "charge", 3, 4, tries=2)


async def test_from_failure_only_what_ended_the_run_is_done_again(store: Store) -> None:
    """The failed step waits, not begun, in its generation; what else is recorded stays as it was."""
    (one,) = await claimed(store)
    taken, lost = two_steps(one.event)
    letter = await dies(store, one, taken, lost, ended_by=("charge",))
    done = await store.replay(letter, now_us(), "mended")
    assert done is not None
    assert [entry.run for entry in done.entries] == [2]
    again, reserved = sorted(await rows_of(store, letter), key=lambda record: record.step)
    assert reserved == taken
    assert (again.step, again.state, again.generation, again.begun, again.recorded) == (
        "charge", StepState.PENDING, 0, 0, 0,
    )  # fmt: skip
    assert (again.error, again.tries) == (None, 0)
    assert (await stored(store, letter.id)).state is State.QUEUED


async def test_what_ended_an_earlier_run_is_forgotten(store: Store) -> None:
    """A run that ends without the failure of a step has nothing cleared by the next replay."""
    (one,) = await claimed(store)
    letter = await dies(store, one, *two_steps(one.event), ended_by=("charge",))
    await store.replay(letter, now_us(), "mended", begins_from="charge")
    (again,) = (await store.claim(await store.queued_entries(10), now_us())).taken
    await store.record_steps([commit(again.event, failed(again.event, "charge", 5, 6, generation=1))])
    await store.settle([settlement(again.event, State.DEAD_LETTERED)])
    done = await store.replay(await stored(store, again.event.id), now_us(), "mended")
    assert done is not None
    assert done.plan.cleared == ()


async def test_a_compensation_stands_in_the_way_and_nothing_is_written(store: Store) -> None:
    (one,) = await claimed(store)
    released = step(one.event, "release", begun=5, recorded=6)
    letter = await dies(store, one, *two_steps(one.event), released, ended_by=("charge",))
    before = await rows_of(store, letter)
    with pytest.raises(Conflict, match="'release'"):
        await store.replay(letter, now_us(), "mended")
    assert await rows_of(store, letter) == before
    assert (await stored(store, letter.id)).state is State.DEAD_LETTERED
    planned = await store.look_at_replay(letter, None)
    assert "'release'" in planned.objection


async def test_from_a_step_on_the_generation_rises(store: Store) -> None:
    """The steps are done again as others outside; an older generation is there, and nobody hears of it."""
    (one,) = await claimed(store)
    letter = await dies(store, one, *two_steps(one.event))
    await store.replay(letter, now_us(), "again", begins_from="reserve")
    rows = await rows_of(store, letter)
    assert {(row.step, row.generation, row.begun, row.state) for row in rows} == {
        ("reserve", 1, 0, StepState.PENDING),
        ("charge", 1, 0, StepState.PENDING),
    }


async def test_from_the_start_is_the_next_journal(store: Store) -> None:
    (one,) = await claimed(store)
    letter = await dies(store, one, *two_steps(one.event))
    done = await store.replay(letter, now_us(), "again", begins_from="start")
    assert done is not None
    assert (done.plan.number, done.plan.effects) == (2, 1)
    journal = await store.read_journal(await stored(store, letter.id), now_us())
    assert (journal.number, journal.records) == (2, ())


async def test_a_cleared_wait_gives_its_signal_back(store: Store) -> None:
    """The signal is kept again, in the replay's transaction; one that is gone is named."""
    one, signal = await claimed(store, 2)
    await store.settle([settlement(signal.event, State.SUCCEEDED)])
    waits = [
        step(one.event, name, kind=StepKind.WAIT, begun=n, recorded=n + 1, other_id=other)
        for name, n, other in (("scanned", 1, signal.event.id), ("signed", 3, "retired"))
    ]
    letter = await dies(store, one, *waits)
    done = await store.replay(letter, now_us(), "again", begins_from="scanned")
    assert done is not None
    assert (done.given_back, done.gone) == ((signal.event.id,), ("retired",))
    kept = await stored(store, signal.event.id)
    assert (kept.state, kept.result) == (State.KEPT, None)
    assert (await store.ledger_snapshot())[1][State.KEPT] == 1


async def test_a_signal_that_is_given_back_goes_to_whoever_waits_for_it(store: Store) -> None:
    """No signal is kept beside a parked event that waits for one of its type: it is taken, and its waiter woken."""
    one, other, signal = await claimed(store, 3)
    await store.settle([settlement(signal.event, State.SUCCEEDED)])
    wait = step(one.event, "scanned", kind=StepKind.WAIT, begun=1, recorded=2, other_id=signal.event.id)
    letter = await dies(store, one, wait)
    event_type = signal.event.event_type
    waits = pending(other.event, "scanned", StepKind.WAIT, event_type=event_type)
    await store.settle([parked(other.event, waits, waits=(AwaitedEvent("scanned", event_type),))])
    done = await store.replay(letter, now_us(), "again", begins_from="start")
    assert done is not None
    assert [entry.event_id for entry in done.woken] == [other.event.id]
    assert (await stored(store, signal.event.id)).state is State.SUCCEEDED


async def test_a_failed_call_has_its_child_replayed_with_it(store: Store) -> None:
    """The child begins from its own failure; one whose own journal stands in the way stands in its parent's."""
    one, child = await claimed(store, 2)
    await dies(store, child, *two_steps(child.event), ended_by=("charge",))
    call = failed(one.event, "invoice", 1, 2, kind=StepKind.CALL, other_id=child.event.id)
    letter = await dies(store, one, call, ended_by=("invoice",))
    done = await store.replay(letter, now_us(), "mended")
    assert done is not None
    assert [entry.event_id for entry in done.entries] == [one.event.id, child.event.id]
    assert (await stored(store, child.event.id)).state is State.QUEUED
    assert {row.step: row.begun for row in await rows_of(store, child.event)} == {"reserve": 1, "charge": 0}


async def test_a_child_that_cannot_be_replayed_keeps_its_parent(store: Store) -> None:
    one, child = await claimed(store, 2)
    released = step(child.event, "release", begun=5, recorded=6)
    await dies(store, child, *two_steps(child.event), released, ended_by=("charge",))
    call = failed(one.event, "invoice", 1, 2, kind=StepKind.CALL, other_id=child.event.id)
    letter = await dies(store, one, call, ended_by=("invoice",))
    with pytest.raises(Conflict, match=r"child.*'release'"):
        await store.replay(letter, now_us(), "mended")


async def test_bulk_replays_begin_from_there_and_pass_by_whom_they_must(store: Store) -> None:
    """Each member from its own failure; compensated ones and signals are left alone, each with its reason."""
    await put(store, [record(name, event_type="scan" if name == "signal" else "order") for name in NAMES])
    by_id = {one.event.id: one for one in (await store.claim(await store.queued_entries(10), now_us())).taken}
    plain, compensated, bare, signal = (by_id[name] for name in NAMES)
    await dies(store, plain, *two_steps(plain.event), ended_by=("charge",))
    released = step(compensated.event, "release", begun=5, recorded=6)
    await dies(store, compensated, *two_steps(compensated.event), released, ended_by=("charge",))
    await store.settle([settlement(one.event, State.DEAD_LETTERED) for one in (bare, signal)])
    order = ReplayOrder(reason="mended", selection={"filter": {}})
    wanted = EventFilter(state=State.DEAD_LETTERED)
    job, _ = await store.create_replay(order, wanted, ids=[], states=frozenset(), now_us=now_us())
    await store.move_replay(job, JobState.RUNNING, resumes_as=job.state, note="", now_us=now_us())
    done = await store.advance_replay(job.seq, 10, now_us(), {"scan"})
    assert done is not None
    assert [entry.event_id for entry in done.entries] == ["a-plain", "c-bare"]
    assert (done.skipped, (await stored(store, "b-compensated")).state) == (2, State.DEAD_LETTERED)
    found = await store.find_replay(job.seq)
    assert found is not None
    reasons = sorted(skip.reason for skip in found[1])
    assert "signal" in reasons[0]
    assert "'release'" in reasons[1]


NAMES = ("a-plain", "b-compensated", "c-bare", "signal")


async def test_a_preview_counts_what_would_happen_again(store: Store) -> None:
    (one,) = await claimed(store)
    await dies(store, one, *two_steps(one.event))
    wanted = EventFilter(state=State.DEAD_LETTERED)
    assert (await store.preview_replay(wanted, "start")).effects == 1
    assert (await store.preview_replay(wanted)).effects == 0
    assert (await store.preview_replay_of([one.event.id], frozenset({State.DEAD_LETTERED}), "reserve")).effects == 1
