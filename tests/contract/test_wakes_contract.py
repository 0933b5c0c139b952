"""What a parked workflow may expect of the store: what it waits for wakes it once, and nothing is lost."""

import asyncio
import threading
from functools import partial
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from replayforge.domain.event import ClaimedEvent, Content, Entry, StoredEvent
from replayforge.domain.journal import AwaitedEvent, StepKind, StepRecord, StepState
from replayforge.domain.lifecycle import State
from replayforge.stores import transactions
from replayforge.stores.batches import RemovedEvent, TakenSignal
from replayforge.stores.decisions import CancelAnswer
from replayforge.stores.driver import Batch, Computation, Fetch, Steps
from replayforge.stores.journals import SignalTaken
from replayforge.stores.projection import Projected, Projection, project
from replayforge.stores.store import Store
from replayforge.stores.transactions import Settled, Settlement, settled_event
from tests.contract.store_backends import LOG, MINUTE_US, claimed, put, stored
from tests.contract.test_journal_contract import commit, parked, pending, rows_of, step, woken
from tests.contract.test_store_contract import ledger_of
from tests.support.builders import now_us, record, settlement, success
from tests.support.polling import persist

SCANNED = "parcel.scanned"


async def signal(store: Store, *ids: str, **fields: object) -> Projected:
    """Accept events that are signals."""
    await store.open_cursor(LOG, "incarnation", 0, now_us())
    cursor = await store.cursor(LOG)
    after = cursor[0] if cursor else 0
    records = [record(name, b'{"number":7}', event_type=SCANNED, **fields) for name in ids]
    numbered = list(enumerate(records, start=after + 1))
    return await store.project(
        Projection(LOG, "incarnation", after, after + len(records), numbered, 0, now_us(), signals=[SCANNED])
    )


def scan(event: StoredEvent, name: str = "scan", **fields: Any) -> StepRecord:
    return pending(event, name, StepKind.WAIT, event_type=SCANNED, **fields)


async def park(store: Store, one: ClaimedEvent, *names: str) -> Settled:
    """Park an event for signals, with one step for each name."""
    records = [scan(one.event, name) for name in names]
    waits = tuple(AwaitedEvent(name, SCANNED) for name in names)
    return await store.settle([parked(one.event, *records, waits=waits)])


async def states(store: Store, *ids: str) -> list[State]:
    return [(await stored(store, name)).state for name in ids]


async def of_step(store: Store, event: StoredEvent, name: str) -> StepRecord:
    (found,) = [one for one in await rows_of(store, event) if one.step == name]
    return found


async def promoted_with_signals(store: Store) -> list[Entry]:
    return (await store.promote(now_us(), signals=[SCANNED]))[0]


# Signals


async def test_a_signal_before_the_wait_is_kept_and_taken_by_the_park(store: Store) -> None:
    """What came before the wait is found when the event is parked: it goes on at once, with the oldest of them."""
    (one,) = await claimed(store)
    projected = await signal(store, "first", "second")
    assert (projected.queued, projected.claimed) == ([], [])
    assert await states(store, "first", "second") == [State.KEPT] * 2
    settled = await park(store, one, "scan")
    assert settled.woken == [one.event.entry]
    taken = await of_step(store, one.event, "scan")
    assert (taken.state, taken.other_id, taken.recorded) == (StepState.DONE, "first", 2)
    value = msgspec.json.decode(taken.result or b"")
    assert (value["id"], value["event_type"], value["payload"]) == ("first", SCANNED, {"number": 7})
    assert await states(store, "event-0", "first", "second") == [State.QUEUED, State.SUCCEEDED, State.KEPT]
    result = (await stored(store, "first")).result
    assert msgspec.json.decode(result or b"") == {"taken_by": "event-0", "step": "scan"}
    (again,) = (await store.claim(settled.woken, now_us())).taken
    assert (again.event.starts, (await store.read_journal(again.event, now_us())).wakes) == (1, 1)
    assert (await ledger_of(store)).lost == 0


async def test_a_signal_after_the_wait_wakes_the_longest_parked(store: Store) -> None:
    """Of several waiters the longest parked gets the oldest signal, each signal goes to one, and the rest are kept."""
    first, second, third = await claimed(store, 3)
    for one in (second, first, third):
        assert await park(store, one, "scan") == Settled([], [])
    projected = await signal(store, "a", "b")
    assert sorted(projected.queued) == sorted([first.event.entry, second.event.entry])
    assert (await of_step(store, second.event, "scan")).other_id == "a"
    assert (await of_step(store, first.event, "scan")).other_id == "b"
    more = await signal(store, "c", "d")
    assert more.queued == [third.event.entry]
    assert await states(store, "c", "d") == [State.SUCCEEDED, State.KEPT]


async def test_one_event_takes_one_signal_at_a_time(store: Store) -> None:
    """An event that waits twice is woken by the first signal, and takes the second only by its own commit."""
    (one,) = await claimed(store)
    await park(store, one, "scan", "scan#2")
    projected = await signal(store, "a", "b")
    assert projected.queued == [one.event.entry]
    assert await states(store, "a", "b") == [State.SUCCEEDED, State.KEPT]
    assert {found.state for found in await rows_of(store, one.event)} == {StepState.DONE, StepState.PENDING}


@pytest.mark.parametrize("other", [{"workflow_id": "other"}, {"application_name": "other"}])
async def test_signals_of_other_workflows_wake_nobody(store: Store, other: dict[str, str]) -> None:
    """A workflow is an application's."""
    (one,) = await claimed(store)
    await park(store, one, "scan")
    assert (await signal(store, "elsewhere", **other)).queued == []
    assert await states(store, "elsewhere", "event-0") == [State.KEPT, State.WAITING]


async def test_only_the_waits_of_the_last_park_are_matched(store: Store) -> None:
    """What an event waited for before it was woken, or before it ended, takes no signal."""
    (one,) = await claimed(store)
    await store.settle([parked(one.event, scan(one.event), due_in_us=-1, waits=(AwaitedEvent("scan", SCANNED),))])
    again = await woken(store)
    assert (await signal(store, "while-it-runs")).queued == []
    sleep = pending(again.event, "grace", StepKind.SLEEP)
    assert (await store.settle([parked(again.event, sleep, due_in_us=MINUTE_US)])).woken == []
    assert (await signal(store, "while-it-sleeps")).queued == []
    assert await states(store, "while-it-runs", "while-it-sleeps") == [State.KEPT] * 2


async def test_a_running_event_takes_a_signal_by_its_own_commit(store: Store) -> None:
    """It gets the oldest, with what else it records; without one it is told so; a fenced one gets none."""
    (one,) = await claimed(store)
    riding = commit(one.event, step(one.event, "now"))
    taken = scan(one.event, state=StepState.DONE, recorded=5)
    assert await store.take_signal(riding, taken, None, now_us()) == SignalTaken(fenced=False, record=None)
    assert await rows_of(store, one.event) == ()
    await signal(store, "a", "b")
    answer = await store.take_signal(riding, taken, None, now_us())
    assert answer.record is not None
    assert (answer.record.state, answer.record.other_id, answer.record.recorded) == (StepState.DONE, "a", 5)
    assert set(await rows_of(store, one.event)) == {answer.record, *riding.records}
    assert await states(store, "a", "b") == [State.SUCCEEDED, State.KEPT]
    assert await store.take_signal(riding, taken, None, now_us(), again=True) == answer, "its answer was lost"
    assert await states(store, "a", "b") == [State.SUCCEEDED, State.KEPT]
    await store.hand_back([one.lease], now_us())
    assert await store.take_signal(riding, taken, None, now_us()) == answer, "its answer was lost on the way"
    late = await store.take_signal(riding, replace(taken, step="scan#2"), None, now_us())
    assert late == SignalTaken(fenced=True, record=None)
    assert await states(store, "b") == [State.KEPT]


async def test_a_wait_whose_time_is_over_is_recorded_only_without_a_signal(store: Store) -> None:
    """The failure is the step's; one that comes at the last moment is still taken."""
    (one,) = await claimed(store)
    taken = scan(one.event, state=StepState.DONE, recorded=2)
    out = replace(taken, state=StepState.FAILED, error_type="WaitTimedOut")
    assert (await store.take_signal(commit(one.event), taken, out, now_us())).record == out
    assert await rows_of(store, one.event) == (out,)
    await signal(store, "a")
    more = [replace(record, step="scan#2") for record in (taken, out)]
    answer = await store.take_signal(commit(one.event), more[0], more[1], now_us())
    assert answer.record is not None
    assert answer.record.other_id == "a"


async def test_a_scheduled_signal_is_matched_when_it_is_due(store: Store) -> None:
    """One with a start time is kept, or taken, at that time; it is never queued."""
    (one,) = await claimed(store)
    at_us = now_us() + 500_000
    await signal(store, "soon", "sooner", run_at_us=at_us)
    assert await states(store, "soon") == [State.SCHEDULED]
    await park(store, one, "scan")
    entries = await persist(lambda: promoted_with_signals(store))
    assert entries == [one.event.entry]
    assert sorted(await states(store, "soon", "sooner")) == [State.KEPT, State.SUCCEEDED]
    ledger = await ledger_of(store)
    assert (ledger.states[State.KEPT], ledger.states[State.SCHEDULED], ledger.lost) == (1, 0, 0)


def noting(steps: Steps[Any], names: set[str], noted: threading.Event) -> Steps[Any]:
    """Carry out a transaction and note when it comes to one of these statements, or to its end."""
    rows = None
    try:
        while True:
            statement = next(steps) if rows is None else steps.send(rows)
            if isinstance(statement, Fetch) and statement.name in names:
                noted.set()
            rows = yield statement
    except StopIteration as end:
        noted.set()
        return end.value


def held_open(steps: Steps[Any], until: threading.Event) -> Steps[Any]:
    """Carry out a transaction, and commit it only once something else has happened."""
    value = yield from steps
    yield Computation(partial(until.wait, 10.0), 1 << 30)
    return value


@pytest.mark.parametrize("first", ["signal", "park"])
async def test_a_signal_and_a_park_that_do_not_see_each_other_wait_for_each_other(store: Store, first: str) -> None:
    """While one of them is not committed the other does not look: whichever is first, the event is woken."""
    (one,) = await claimed(store)
    come = record("late", event_type=SCANNED)
    stretch = Projection(LOG, "incarnation", 1, 2, [(2, come)], 0, now_us(), signals=[SCANNED])
    waits = parked(one.event, scan(one.event), waits=(AwaitedEvent("scan", SCANNED),))
    projection = partial(project, store.node, store.owner, stretch)
    parking = partial(transactions.settle_all, store.node, store.owner, [waits])
    before, after = (projection, parking) if first == "signal" else (parking, projection)
    second_waits = threading.Event()
    if not store.shared:  # there the second begins when the first has ended
        second_waits.set()
    both = await asyncio.gather(
        store.driver.write(lambda: held_open(before(), second_waits)),
        store.driver.write(lambda: noting(after(), {"lock_workflows"}, second_waits)),
    )
    entries = [entry for value in both for entry in (value.woken if isinstance(value, Settled) else value.queued)]
    assert entries == [one.event.entry]
    assert await states(store, "event-0", "late") == [State.QUEUED, State.SUCCEEDED]


async def test_kept_signals_are_discarded_when_nobody_can_take_them(store: Store) -> None:
    """After its time a signal goes, unless an event of its workflow is open that may yet ask for it."""
    (one,) = await claimed(store)
    await signal(store, "a", "b")
    await signal(store, "elsewhere", workflow_id="other")
    later = now_us() + MINUTE_US
    assert await store.discard_unclaimed(now_us() - MINUTE_US, now_us()) == 0
    assert await store.discard_unclaimed(later, now_us()) == 1
    await store.settle([success(one)])
    assert await store.discard_unclaimed(later, now_us()) == 2
    gone = await stored(store, "a")
    assert (gone.state, gone.reason) == (State.DISCARDED, "unclaimed")
    assert (await ledger_of(store)).states[State.DISCARDED] == 3


# Children


async def family(store: Store, kind: StepKind = StepKind.CALL) -> tuple[ClaimedEvent, ClaimedEvent]:
    """Return a parent, whose step has made a child and is pending, and that child, both running."""
    (parent,) = await claimed(store)
    projected = await put(store, [record("child", origin=parent.event.id)], after=1)
    (child,) = (await store.claim(projected.queued, now_us())).taken
    assert child.event.origin == (await stored(store, "child")).origin == parent.event.id
    call = pending(parent.event, "bill", kind, other_id="child")
    await store.record_steps([commit(parent.event, call)])
    return parent, child


async def test_a_child_that_ends_wakes_its_parent_with_its_result(store: Store) -> None:
    """The step has the child's result, and the parent is queued in the same transaction."""
    parent, child = await family(store)
    assert (await store.settle([parked(parent.event)])).woken == []
    settled = await store.settle([replace(success(child), result=b'{"bill":1}')])
    assert settled.woken == [parent.event.entry]
    call = await of_step(store, parent.event, "bill")
    assert (call.state, call.result, call.recorded) == (StepState.DONE, b'{"bill":1}', 2)
    assert (await stored(store, parent.event.id)).state is State.QUEUED


@pytest.mark.parametrize("recorded", [True, False], ids=["call known", "call not yet known"])
async def test_a_child_that_ends_while_its_parent_runs_is_seen_by_the_park(store: Store, *, recorded: bool) -> None:
    """Whether or not the step was in the store by then, a parent that is parked after that goes on at once."""
    (parent,) = await claimed(store)
    projected = await put(store, [record("child", origin=parent.event.id)], after=1)
    (child,) = (await store.claim(projected.queued, now_us())).taken
    call = pending(parent.event, "bill", StepKind.CALL, other_id="child")
    if recorded:
        await store.record_steps([commit(parent.event, call)])
    assert (await store.settle([success(child)])).woken == []
    settled = await store.settle([parked(parent.event, call)])
    assert settled.woken == [parent.event.entry]
    assert (await of_step(store, parent.event, "bill")).result == b"null"


async def test_a_child_that_ends_does_not_hasten_a_retry(store: Store) -> None:
    """A parent whose handler has failed waits for its next try, not for the child: the answer lies ready for it."""
    parent, child = await family(store)
    failed = settlement(parent.event, State.RETRYING)
    later = replace(failed.verdict, due_at_us=now_us() + MINUTE_US)
    await store.settle([replace(failed, verdict=later, journal=1)])
    assert (await store.settle([success(child)])).woken == []
    assert (await of_step(store, parent.event, "bill")).state is StepState.DONE
    assert (await stored(store, parent.event.id)).state is State.RETRYING


@pytest.mark.parametrize("end", [State.DISCARDED, State.CANCELLED])
async def test_a_child_that_people_end_fails_the_step(store: Store, end: State) -> None:
    """A dead child leaves its parent waiting, for it may be replayed; discarding or cancelling it does not."""
    parent, child = await family(store)
    await store.settle([parked(parent.event)])
    state = State.DEAD_LETTERED if end is State.DISCARDED else State.RETRYING
    assert (await store.settle([settlement(child.event, state)])).woken == []
    assert (await of_step(store, parent.event, "bill")).state is StepState.PENDING
    assert await store.move(await stored(store, "child"), end, str(end), "no use", now_us()) == [parent.event.entry]
    call = await of_step(store, parent.event, "bill")
    assert (call.state, call.error_type, call.other_id) == (StepState.FAILED, "StepFailed", "child")


async def test_a_child_that_was_only_sent_answers_nobody(store: Store) -> None:
    """Its parent does not wait for it, and is not woken."""
    parent, child = await family(store, StepKind.SEND)
    await store.settle([parked(parent.event)])
    assert (await store.settle([success(child)])).woken == []
    assert (await of_step(store, parent.event, "bill")).state is StepState.PENDING


async def test_children_and_their_parents_settle_at_once(store: Store, other: Store) -> None:
    """Parents are parked and their children end at the same moment: each is woken exactly once, whoever was first."""
    parents = await claimed(store, 12)
    records = [record(f"child-{number}", origin=one.event.id) for number, one in enumerate(parents)]
    projected = await put(store, records, after=len(parents))
    children = (await other.claim(projected.queued, now_us())).taken
    parks = [
        store.settle([parked(one.event, pending(one.event, "bill", StepKind.CALL, other_id=f"child-{number}"))])
        for number, one in enumerate(parents)
    ]
    ends = [other.settle([success(one)]) for one in children]
    settled = await asyncio.gather(*(each for pair in zip(parks, ends, strict=True) for each in pair))
    entries = [entry for one in settled for entry in one.woken]
    assert sorted(entries) == sorted(one.event.entry for one in parents)
    assert {(await of_step(store, one.event, "bill")).state for one in parents} == {StepState.DONE}


async def test_children_stay_until_their_parents_have_ended(store: Store) -> None:
    """Retention leaves the child of an open parent alone."""
    parent, child = await family(store)
    await store.settle([success(child)])
    later = now_us() + MINUTE_US
    assert await store.retire(State.SUCCEEDED, later) == 0
    await store.settle([success(parent)])
    assert await store.retire(State.SUCCEEDED, later) == 2


async def test_a_child_that_comes_again_is_the_one_that_is_there(store: Store) -> None:
    """A record of a child with other content is a copy, and no key is reused."""
    await family(store)
    again = await put(store, [record("child", b"[2]", origin="event-0")], after=2)
    assert (again.inserted, again.copies, again.key_reused) == (0, 1, [])


# Cancel


async def test_a_parked_event_is_cancelled_at_once(store: Store) -> None:
    """It waits for nothing any more: a signal is kept."""
    (one,) = await claimed(store)
    await park(store, one, "scan")
    cancelled = await store.request_cancel(await stored(store, "event-0"), "why not", now_us())
    assert (cancelled.answer, cancelled.woken) == (CancelAnswer.CANCELLED, [])
    await signal(store, "a")
    assert await states(store, "event-0", "a") == [State.CANCELLED, State.KEPT]


async def test_a_parked_event_that_compensates_is_woken_to_be_told(store: Store) -> None:
    """Its handler finds the request in its journal."""
    (one,) = await claimed(store)
    await park(store, one, "scan")
    cancelled = await store.request_cancel(await stored(store, "event-0"), "why not", now_us(), compensates=True)
    assert (cancelled.answer, cancelled.woken) == (CancelAnswer.REQUESTED, [one.event.entry])
    assert (await store.read_journal(one.event, now_us())).cancel_requested


async def test_a_running_event_is_asked_to_end_if_it_can_be_told(store: Store) -> None:
    """One that has recorded nothing is refused; one that has is told at its next commit, and is not parked for long."""
    first, second = await claimed(store, 2)
    assert (await store.request_cancel(first.event, "", now_us())).answer is CancelAnswer.REFUSED
    await store.record_steps([commit(second.event, step(second.event))])
    assert (await store.request_cancel(second.event, "", now_us())).answer is CancelAnswer.REQUESTED
    (told,) = await store.record_steps([commit(second.event, step(second.event, "ship"))])
    assert told.cancel_requested
    await store.settle([parked(second.event, due_in_us=60 * MINUTE_US)])
    assert (await woken(store)).event.id == second.event.id
    history = await store.history(second.event.id)
    assert history is not None
    assert [action.action for action in history[3]] == ["cancel_requested"]


async def test_an_event_whose_code_was_told_of_a_cancel_is_parked_for_as_long_as_it_likes(store: Store) -> None:
    """To wake it at once would be to wake it again and again; one that a replay has to be told anew is woken."""
    told, again = await claimed(store, 2)
    for one in (told, again):
        await store.record_steps([commit(one.event, scan_failed(one.event))])
        assert (await store.request_cancel(one.event, "", now_us())).answer is CancelAnswer.REQUESTED
    anew = replace(scan_failed(again.event), generation=1, error_type=None, state=StepState.DONE)
    await store.record_steps([commit(again.event, anew)])
    await store.settle([parked(one.event, due_in_us=60 * MINUTE_US) for one in (told, again)])
    assert (await woken(store)).event.id == again.event.id


def scan_failed(event: StoredEvent) -> StepRecord:
    """Return the wait at which an event's handler was told that it is cancelled."""
    return step(
        event, "scan", kind=StepKind.WAIT, state=StepState.FAILED, result=None, error_type="Cancelled", error=""
    )


async def test_an_event_that_moved_is_not_cancelled(store: Store) -> None:
    """Whoever decides on what is no longer so is told; what nobody runs and nothing remembers is cancelled as ever."""
    (one,) = await claimed(store)
    await store.settle([settlement(one.event, State.RETRYING)])
    assert (await store.request_cancel(one.event, "", now_us())).answer is CancelAnswer.MOVED
    retrying = await stored(store, one.event.id)
    assert (await store.request_cancel(retrying, "", now_us())).answer is CancelAnswer.CANCELLED


# Check


async def inconsistent(store: Store) -> list[tuple[str, int, str]]:
    """Return what the check finds: what is wrong, of which row, with which step."""
    return sorted((what, seq, name) for what, seq, _, name in (await store.discrepancies()).inconsistent)


async def test_what_was_missed_is_named_and_mended(store: Store) -> None:
    """A signal that is kept beside a matching wait and a child whose end nobody heard of are found, and wake."""
    (waiter,) = await claimed(store)
    await put(store, [record("parent"), record("child", origin="parent")], after=1)
    (parent, _) = (await store.claim([Entry("parent", 1), Entry("child", 1)], now_us())).taken
    await park(store, waiter, "scan")
    await store.settle([parked(parent.event, pending(parent.event, "bill", StepKind.CALL, other_id="child"))])
    await signal(store, "late", run_at_us=now_us() + MINUTE_US)
    assert (await inconsistent(store), await store.mend(now_us())) == ([], [])
    late, child = await stored(store, "late"), await stored(store, "child")
    ended = msgspec.structs.astuple(success(ClaimedEvent.of(child, Content(b"", b""))))

    def behind_the_back() -> Steps[None]:
        yield Fetch("keep_signals", {"seqs": [late.seq], "now_us": now_us()})
        yield Batch("settle_events", [settled_event(Settlement(*ended), store.owner)])

    await store.driver.write(behind_the_back)
    missed = [("unanswered", parent.event.seq, "bill"), ("unmatched", waiter.event.seq, "scan")]
    assert await inconsistent(store) == missed
    assert sorted(await store.mend(now_us())) == sorted([waiter.event.entry, parent.event.entry])
    assert (await inconsistent(store), await store.mend(now_us())) == ([], [])
    assert (await of_step(store, waiter.event, "scan")).other_id == "late"


async def test_a_signal_taken_twice_or_by_nobody_is_named(store: Store) -> None:
    """Each signal goes to one wait, and stays with it; one that a replay has cleared has none."""
    first, second = await claimed(store, 2)
    await signal(store, "one", "two")
    settled = await park(store, first, "scan", "scan#2")
    assert (settled.woken, await inconsistent(store)) == ([first.event.entry], [])
    stolen = scan(second.event, state=StepState.DONE, recorded=2, other_id="one")
    cleared = scan(second.event, "again", state=StepState.DONE, recorded=3, other_id="one")
    waits_again = scan(second.event, "again", generation=1)
    await store.record_steps([commit(second.event, stolen, cleared, waits_again)])
    seq = (await stored(store, "two")).seq

    def behind_the_back() -> Steps[None]:
        yield Batch("take_signals", [TakenSignal(seq=seq, result=b'{"taken_by":"event-0","step":"scan"}', at_us=1)])

    await store.driver.write(behind_the_back)
    assert await inconsistent(store) == [
        ("taken by nobody", seq, SCANNED),
        ("taken twice", first.event.seq, "scan"),
        ("taken twice", second.event.seq, "scan"),
    ]


async def test_who_is_parked_for_what_has_come_is_named(store: Store) -> None:
    """A parked event whose journal has already what it waits for would stand for ever, and the check says so."""
    (one,) = await claimed(store)
    await signal(store, "a")
    await store.take_signal(commit(one.event), scan(one.event, state=StepState.DONE, recorded=5), None, now_us())
    assert await inconsistent(store) == []
    await park(store, one, "scan")
    assert await inconsistent(store) == [("waits for what has come", one.event.seq, "scan")]


async def test_what_is_remembered_for_nobody_is_named(store: Store) -> None:
    """Steps, journals and waits whose event is gone, and a step whose child never had a row."""
    (one,) = await claimed(store)
    await store.record_steps([commit(one.event, pending(one.event, "bill", StepKind.CALL, other_id="none"))])
    seq = one.event.seq
    assert await inconsistent(store) == [("without child", seq, "bill")]
    await park(store, one, "scan")

    def remove() -> Steps[None]:
        yield Batch("delete_events", [RemovedEvent(seq=seq)])

    await store.driver.write(remove)
    found = await inconsistent(store)
    assert found == [("without event", seq, name) for name in ("", "bill", "scan", "scan")]
