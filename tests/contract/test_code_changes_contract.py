"""What the gate may expect of the store: runs whose code has changed are held as they were seen, and let go."""

from msgspec.structs import replace

from replayforge.domain.admission import Admission, Preference
from replayforge.domain.code_change import CodeChange, Fate
from replayforge.domain.event import ClaimedEvent, StoredEvent
from replayforge.domain.journal import AwaitedEvent, StepState
from replayforge.domain.lifecycle import State
from replayforge.stores.code_changes import OPEN_RUNS, ChangedRun, OpenRun
from replayforge.stores.store import Store
from tests.contract.store_backends import MINUTE_US, claimed, stored
from tests.contract.test_journal_contract import commit, parked, rows_of, step
from tests.contract.test_store_contract import ledger_of
from tests.contract.test_wakes_contract import SCANNED, scan, signal
from tests.support.builders import now_us

GONE = CodeChange(Fate.VANISHED, "charge", "step", after="begins the step 'pay'")
NOBODY = CodeChange(Fate.NO_HANDLER, before="order")


async def park(store: Store, one: ClaimedEvent) -> None:
    """Park an event for a signal, with a step behind it, under the code `v1`."""
    await store.record_steps([replace(commit(one.event, step(one.event)), label="v0")])
    waits = (AwaitedEvent("scan", SCANNED),)
    await store.settle([replace(parked(one.event, scan(one.event, begun=3), waits=waits), label="v1")])


async def runs(store: Store) -> list[OpenRun]:
    return [one for state in OPEN_RUNS for one in await store.open_runs(state, 0, 10)]


async def standing(store: Store) -> dict[State, int]:
    """Return how many events stand in which states, by the counters."""
    return {state: count for state, count in (await ledger_of(store)).states.items() if count}


async def the_run(store: Store) -> OpenRun:
    (found,) = await runs(store)
    return found


async def held(store: Store, change: CodeChange = GONE) -> StoredEvent:
    """Return an event that is held, since its code has changed while it was parked."""
    (one,) = await claimed(store)
    await park(store, one)
    seen = await the_run(store)
    assert await store.hold_changed([ChangedRun(seen.event, change)], now_us()) == [one.event.id]
    return await stored(store, one.event.id)


async def test_open_runs_are_told_with_the_code_that_parked_them(store: Store) -> None:
    """Only what has a journal and is not over, in pages of its state."""
    one, other, _ = await claimed(store, 3)
    await park(store, one)
    await park(store, other)
    assert [(run.event.id, run.label, run.change) for run in await runs(store)] == [
        (one.event.id, "v1", None), (other.event.id, "v1", None),
    ]  # fmt: skip
    assert [run.event.id for run in await store.open_runs(State.WAITING, one.event.seq, 10)] == [other.event.id]


async def test_a_run_is_held_with_the_difference(store: Store) -> None:
    """Its row says it in words, its story as data, what was done as an action; the counters know it."""
    event = await held(store)
    assert (event.state, event.reason, event.last_error) == (State.HELD, "code_changed", GONE.words)
    found = await store.history(event.id, 100)
    assert found is not None
    assert (found.story.change, found.story.label) == (GONE, "v1")
    assert [(one.action, one.detail) for one in found.actions] == [("held", GONE.words)]
    seen = await the_run(store)
    assert (seen.is_held, seen.change) == (True, GONE)
    assert await standing(store) == {State.HELD: 1}
    await store.note_changes([ChangedRun(event, NOBODY)])
    assert (await the_run(store)).change == NOBODY


async def test_what_moved_since_it_was_looked_at_is_not_held(store: Store) -> None:
    """Neither what was woken, nor what has parked again since then, under another lease."""
    (one,) = await claimed(store)
    await park(store, one)
    seen = ChangedRun((await the_run(store)).event, GONE)
    await signal(store, "parcel")
    assert await store.hold_changed([seen], now_us()) == []
    queued = ChangedRun((await the_run(store)).event, GONE)
    (again,) = (await store.claim([queued.event.entry], now_us())).taken
    assert await store.hold_changed([queued], now_us()) == []
    await store.settle([parked(again.event, scan(again.event, "more", begun=5))])
    assert await store.hold_changed([seen], now_us()) == []
    assert await standing(store) == {State.WAITING: 1, State.SUCCEEDED: 1}


async def test_signals_that_come_meanwhile_are_kept(store: Store) -> None:
    """Held, an event is not woken; queued again it takes what has come."""
    event = await held(store)
    await signal(store, "parcel")
    assert (await stored(store, "parcel")).state is State.KEPT
    (entry,) = await store.release_changed([event], "mended", now_us())
    (one,) = (await store.claim([entry], now_us())).taken
    (waiting,) = [record for record in await rows_of(store, one.event) if record.step == "scan"]
    ended = replace(waiting, recorded=4, state=StepState.DONE)
    taken = await store.take_signal(commit(one.event), ended, None, now_us())
    assert taken.record is not None
    assert (await stored(store, "parcel")).state is State.SUCCEEDED


async def test_released_because_its_code_continues_it_nothing_is_noted_any_more(store: Store) -> None:
    """A second daemon that finds the same releases nobody."""
    event = await held(store)
    assert [entry.event_id for entry in await store.release_changed([event], "mended", now_us())] == [event.id]
    assert await store.release_changed([event], "mended", now_us()) == []
    seen = await the_run(store)
    assert (seen.event.state, seen.event.reason, seen.change) == (State.QUEUED, None, None)
    assert await standing(store) == {State.QUEUED: 1}


async def test_let_pass_as_it_is_the_difference_stays_noted(store: Store) -> None:
    """So that the gate knows at the next start that somebody has decided about this very difference."""
    event = await held(store)
    assert await store.move(event, State.QUEUED, "decided", "it is right so", now_us()) == []
    seen = await the_run(store)
    assert (seen.event.state, seen.change) == (State.QUEUED, GONE)


async def test_it_goes_on_from_its_start_or_a_step(store: Store) -> None:
    """As a replay does: a new run whose journal, or whose steps, begin anew; the difference is gone with them."""
    event = await held(store)
    done = await store.replay(event, now_us(), "anew", begins_from="charge")
    assert done is not None
    (again,) = [one for one in await rows_of(store, event) if one.step == "charge"]
    assert (again.generation, again.recorded) == (1, 0)
    seen = await the_run(store)
    assert (seen.event.state, seen.event.run, seen.change) == (State.QUEUED, 2, None)


async def test_one_that_waits_for_its_handler_waits_for_it_no_more(store: Store) -> None:
    """What is held counts with what is held alone."""
    (one,) = await claimed(store)
    await park(store, one)
    await signal(store, "parcel")
    queued = (await the_run(store)).event
    paused = Admission({"*": 0}, lambda _: "*")
    assert (await store.claim([queued.entry], now_us(), paused)).deferred == {"*": 1}
    seen = (await the_run(store)).event
    assert seen.waits_for == "*"
    assert await store.hold_changed([ChangedRun(seen, GONE)], now_us()) == [queued.id]
    assert await store.pauses_and_deferred() == ([], {})


async def test_what_was_parked_by_code_that_others_run_is_left_to_them_for_a_while(store: Store) -> None:
    """Its entry comes back, untouched; other labels, and what was woken long ago, are taken by anyone."""
    one, other = await claimed(store, 2)
    await park(store, one)
    await signal(store, "parcel")
    entry = one.event.entry
    others = Preference(frozenset({"v1"}), prefer_us=MINUTE_US)
    left = await store.claim([entry], now_us(), preference=others)
    assert (left.taken, left.preferred) == ([], [entry])
    assert (await stored(store, one.event.id)).state is State.QUEUED
    late = await store.claim([entry], now_us() + 2 * MINUTE_US, preference=others)
    assert [claim.event.id for claim in late.taken] == [one.event.id]
    await park(store, other)
    await signal(store, "another")
    taken = await store.claim([other.event.entry], now_us(), preference=Preference(frozenset({"v2"}), MINUTE_US))
    assert [claim.event.id for claim in taken.taken] == [other.event.id]
