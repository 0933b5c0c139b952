"""What a workflow may expect of the store that remembers for it: steps under the lease, parks, wakes, retention."""

from typing import Any

from msgspec.structs import replace

from replayforge.domain.event import ClaimedEvent, StoredEvent
from replayforge.domain.journal import AwaitedEvent, StepKind, StepRecord, StepState
from replayforge.domain.lifecycle import Outcome, State
from replayforge.domain.verdict import Verdict
from replayforge.stores.journals import StepCommit
from replayforge.stores.store import Store
from replayforge.stores.stories import UNTOLD, StoredHistory
from replayforge.stores.transactions import Settled, Settlement
from tests.contract.store_backends import MINUTE_US, claimed, stored
from tests.contract.test_store_contract import ledger_of, promoted
from tests.support.builders import now_us, settlement, success


def step(event: StoredEvent, name: str = "charge", **fields: Any) -> StepRecord:
    """Return a step that this event's handler has taken, recorded with a result."""
    given = {"kind": StepKind.STEP, "state": StepState.DONE, "begun": 1, "recorded": 2, "result": b"1"} | fields
    return StepRecord(step=name, token=event.lease_token, run=event.run, started_at_us=now_us(), **given)  # type: ignore[arg-type]


def pending(event: StoredEvent, name: str, kind: StepKind, **fields: Any) -> StepRecord:
    """Return a step that waits."""
    given: dict[str, Any] = {"state": StepState.PENDING, "recorded": 0, "result": None}
    return step(event, name, kind=kind, **given | fields)


def commit(event: StoredEvent, *records: StepRecord, **fields: Any) -> StepCommit:
    return StepCommit(event, 1, records, run_started_at_us=1_000, **fields)


def parked(
    event: StoredEvent,
    *records: StepRecord,
    due_in_us: int | None = None,
    waits: tuple[AwaitedEvent, ...] = (),
    state: State = State.WAITING,
) -> Settlement:
    """Return the end of a stretch of an event that is parked."""
    at_us = now_us()
    due_at_us = None if due_in_us is None else at_us + due_in_us
    verdict = Verdict(state, 0, 0, due_at_us=due_at_us)
    return Settlement(
        event, Outcome.SUCCEEDED, verdict, "worker-1", at_us, at_us,
        journal=1, records=records, parked=True, waits=waits,
    )  # fmt: skip


async def rows_of(store: Store, event: StoredEvent) -> tuple[StepRecord, ...]:
    return (await store.read_journal(event, now_us())).records


async def woken(store: Store) -> ClaimedEvent:
    """Claim the one event whose time has come."""
    (entry,) = await promoted(store)
    (one,) = (await store.claim([entry], now_us())).taken
    return one


async def test_a_journal_begins_empty(store: Store) -> None:
    """An event that has recorded nothing has its first journal, whose run began with its first attempt."""
    (one,) = await claimed(store)
    at_us = now_us()
    journal = await store.read_journal(one.event, at_us)
    assert (journal.number, journal.wakes, journal.cancel_requested, journal.payload) == (1, 0, False, None)
    assert (journal.records, journal.run_started_at_us) == ((), one.event.updated_at_us)
    assert abs(journal.now_us - at_us) < MINUTE_US
    await store.settle([replace(settlement(one.event, State.RETRYING), started_at_us=77)])
    assert (await store.read_journal(one.event, at_us)).run_started_at_us == 77


async def test_the_texts_of_a_step_may_hold_anything(store: Store) -> None:
    """Only NUL may be shown as its picture, where a database has no place for it; what looks like one stays."""
    (one,) = await claimed(store)
    lookalike = '"\\u0000" \'\\\\u0000\\\\'
    odd = step(one.event, error=f"\0 {lookalike}", arguments=lookalike, result=lookalike.encode(), trace="é\x1f😀")
    await store.record_steps([commit(one.event, odd), commit(one.event, step(one.event, "plain"))])
    kept, plain = await rows_of(store, one.event)
    assert plain.step == "plain"
    assert kept in (odd, replace(odd, error=f"\u2400 {lookalike}"))


async def test_what_is_recorded_is_read_back(store: Store) -> None:
    """Every field of a step comes back as it was written; the newest generation of each stands."""
    (one,) = await claimed(store)
    whole = step(
        one.event, "label[é]#2", kind=StepKind.CALL, state=StepState.FAILED, generation=1, tries=3, ended_at_us=5,
        due_at_us=6, arguments="[1]", result=b"\x00{}", error_type="StepFailed", error="no", trace="line 1",
        event_type="invoice.make", other_id="other", label="v1",
    )  # fmt: skip
    older = replace(whole, generation=0, label="v0")
    (committed,) = await store.record_steps([commit(one.event, whole, older)])
    assert (committed.fenced, committed.cancel_requested) == (False, False)
    journal = await store.read_journal(one.event, now_us())
    assert journal.records == (whole,)
    assert (journal.number, journal.run_started_at_us) == (1, 1_000)


async def test_a_step_moves_from_pending_to_its_result_and_never_back(store: Store) -> None:
    """A step's row is written over until it is recorded; what is recorded stays, whoever says it is pending."""
    (one,) = await claimed(store)
    waits = pending(one.event, "scan", StepKind.WAIT)
    done = replace(waits, state=StepState.DONE, recorded=3, result=b"{}")
    for record in (waits, done, waits):
        await store.record_steps([commit(one.event, record)])
    assert await rows_of(store, one.event) == (done,)
    await store.record_steps([commit(one.event, replace(done, step="a")), commit(one.event, step(one.event))])
    assert {record.step for record in await rows_of(store, one.event)} == {"scan", "a", "charge"}


async def test_progress_pays_the_debt(store: Store) -> None:
    """A commit that resets has the event owe nothing for earlier failures; its budget is whole again."""
    (one,) = await claimed(store)
    await store.settle([settlement(one.event, State.RETRYING)])
    again = await woken(store)
    assert again.event.attempt_count == 1
    await store.record_steps([commit(again.event, step(again.event))])
    assert (await stored(store, one.event.id)).attempt_count == 1
    await store.record_steps([commit(again.event, step(again.event, "ship"), reset=True)])
    assert (await stored(store, one.event.id)).attempt_count == 0


async def test_a_fenced_holder_records_nothing(store: Store) -> None:
    """Steps that come after the lease was lost are dropped; those of a commit whose answer was lost are ours."""
    first, second = await claimed(store, 2)
    ours = commit(first.event, step(first.event))
    await store.record_steps([ours])
    await store.hand_back([first.lease, second.lease], now_us())
    late = [
        ours,
        commit(first.event, step(first.event), step(first.event, "ship")),
        commit(first.event),
        commit(second.event, step(second.event)),
    ]
    assert [one.fenced for one in await store.record_steps(late)] == [False, True, True, True]
    assert len(await rows_of(store, first.event)) == 1
    assert await rows_of(store, second.event) == ()


async def test_a_restart_begins_a_journal_with_a_payload(store: Store) -> None:
    """The next journal is empty and goes on with what was left for it; the run's time goes on."""
    (one,) = await claimed(store)
    await store.record_steps([commit(one.event, step(one.event))])
    restart = StepCommit(one.event, 2, (), run_started_at_us=9_000, payload=b"[2]")
    await store.record_steps([restart])
    await store.record_steps([StepCommit(one.event, 2, (step(one.event, "again"),), 9_000)])
    journal = await store.read_journal(one.event, now_us())
    assert (journal.number, journal.payload, journal.run_started_at_us) == (2, b"[2]", 1_000)
    assert [record.step for record in journal.records] == ["again"]


async def test_a_parked_event_waits_for_its_time_and_is_woken(store: Store) -> None:
    """A park leaves no attempt; a due event is woken, which is counted as a wake and not as a start."""
    (one,) = await claimed(store)
    sleep = pending(one.event, "grace", StepKind.SLEEP, due_at_us=now_us())
    assert await store.settle([parked(one.event, sleep, due_in_us=-1)]) == Settled([], [])
    event = await stored(store, one.event.id)
    assert (event.state, event.lease_owner, event.starts) == (State.WAITING, None, 1)
    assert (await ledger_of(store)).states[State.WAITING] == 1
    again = await woken(store)
    assert again.event == await stored(store, one.event.id)
    assert (again.event.starts, again.event.lease_token) == (1, 2)
    journal = await store.read_journal(again.event, now_us())
    assert (journal.wakes, journal.records) == (1, (sleep,))
    await store.settle([success(again)])
    history = await store.history(one.event.id)
    assert history is not None
    assert [attempt.token for attempt in history[2]] == [2]
    assert (await ledger_of(store)).lost == 0


async def test_a_park_that_is_not_due_waits(store: Store) -> None:
    """Neither an event that sleeps on nor one that waits for another event is promoted."""
    first, second = await claimed(store, 2)
    waits = (AwaitedEvent("scan", "parcel.scanned"),)
    await store.settle([parked(first.event, due_in_us=60 * MINUTE_US), parked(second.event, waits=waits)])
    assert await promoted(store) == []
    assert (await stored(store, second.event.id)).due_at_us is None


async def test_a_step_that_is_tried_again_later_is_a_retry(store: Store) -> None:
    """Parked as retrying the event comes back as any retry does, which is a further start."""
    (one,) = await claimed(store)
    charge = pending(one.event, "charge", StepKind.STEP, tries=1, due_at_us=now_us())
    await store.settle([parked(one.event, charge, due_in_us=-1, state=State.RETRYING)])
    again = await woken(store)
    assert (again.event.starts, (await store.read_journal(again.event, now_us())).wakes) == (2, 0)


async def test_a_park_is_committed_once_and_only_under_its_lease(store: Store) -> None:
    """A park that comes again is not fenced, and changes nothing; one whose lease was lost is."""
    first, second = await claimed(store, 2)
    park = parked(first.event, due_in_us=-1)
    await store.settle([park])
    assert (await store.settle([park])).fenced == []
    await woken(store)
    assert (await store.settle([park])).fenced == []
    assert (await stored(store, first.event.id)).state is State.PROCESSING
    await store.hand_back([second.lease], now_us())
    late = parked(second.event)
    assert (await store.settle([late])).fenced == [late]


async def test_an_outcome_records_its_steps(store: Store) -> None:
    """Steps that come with the outcome are there with it."""
    (one,) = await claimed(store)
    await store.settle([parked(one.event, due_in_us=-1, waits=(AwaitedEvent("scan", "parcel.scanned"),))])
    again = await woken(store)
    last = step(again.event, "last")
    await store.settle([replace(success(again), journal=1, records=(last,))])
    assert await rows_of(store, again.event) == (last,)
    assert (await stored(store, one.event.id)).state is State.SUCCEEDED


async def test_the_answers_of_an_endpoint_are_counted_through_restarts(store: Store) -> None:
    """The count is committed with steps or without, and neither another journal nor an older commit lowers it."""
    (one,) = await claimed(store)
    (committed,) = await store.record_steps([commit(one.event, activation=2)])
    assert not committed.fenced
    await store.record_steps([replace(commit(one.event, step(one.event)), journal=2, activation=1)])
    journal = await store.read_journal(one.event, now_us())
    assert (journal.number, journal.activation) == (2, 2)


async def test_journals_go_with_their_events(store: Store) -> None:
    """Retention leaves nothing of what a removed event remembered."""
    (one,) = await claimed(store)
    await store.settle([replace(success(one), journal=1, records=(step(one.event),))])
    assert await store.retire(State.SUCCEEDED, now_us() + MINUTE_US) == 1
    journal = await store.read_journal(one.event, now_us())
    assert (journal.records, journal.run_started_at_us) == ((), one.event.updated_at_us)


async def test_the_story_of_an_event(store: Store) -> None:
    """People see its steps in order with the beginnings of results, what the last park waits for, and its child."""
    one, child = await claimed(store, 2)
    large = step(one.event, result=b"[" + b"1," * 50_000 + b"1]", begun=1)
    lost = pending(one.event, "late", StepKind.SLEEP, begun=2)
    made = step(one.event, "mail", kind=StepKind.SEND, begun=3, recorded=4, other_id=child.event.id)
    again = replace(large, generation=1, state=StepState.PENDING, begun=0, recorded=0, result=None, tries=0)
    waits = pending(one.event, "scan", StepKind.WAIT, event_type="scan", begun=5)
    await store.record_steps([commit(one.event, replace(lost, token=0), made, again, large)])
    await store.settle([parked(one.event, waits, waits=(AwaitedEvent("scan", "scan"),))])
    event, *_, story, _ = await found(store, one.event.id, 10)
    assert [(shown.record.step, shown.record.generation) for shown in story.steps] == [
        ("charge", 0), ("late", 0), ("mail", 0), ("scan", 0), ("charge", 1),
    ]  # fmt: skip
    assert (story.steps[0].record.result, story.steps[0].result_bytes) == (b"[1,1,1,1,1", 100_003)
    assert [record.step for record in story.awaited(event)] == ["scan"]
    assert [(record.step, relative and relative.id) for record, relative in story.children] == [
        ("mail", child.event.id)
    ]
    assert (story.journal, story.steps_count, story.earlier_steps, story.wakes) == (1, 5, 0, 0)
    assert (await found(store, child.event.id, 10))[4] == UNTOLD


async def test_pages_of_steps(store: Store) -> None:
    """Steps come in the order they began, whole, those to be done again at the end."""
    (one,) = await claimed(store)
    records = [step(one.event, f"step-{number}", begun=number, recorded=number) for number in (3, 1, 2)]
    again = replace(records[0], generation=1, state=StepState.PENDING, begun=0, recorded=0)
    await store.record_steps([commit(one.event, again, *records)])
    first = await store.steps_page(one.event, 0, 3)
    rest = await store.steps_page(one.event, 3, 3)
    assert (*first.steps, *rest.steps) == (records[1], records[2], records[0], again)
    assert (first.next_place, rest.next_place) == (3, None)


async def found(store: Store, event_id: str, step_bytes: int) -> StoredHistory:
    history = await store.history(event_id, step_bytes)
    assert history is not None
    return history


async def test_a_restart_goes_on_with_the_next_journal_and_its_payload(store: Store) -> None:
    """It is queued at once, as one that was woken; its claims hand the payload over, and what it came with stays."""
    (one,) = await claimed(store)
    end = replace(parked(one.event, step(one.event)), restart=b'{"again":1}')
    settled = await store.settle([end])
    assert [entry.event_id for entry in settled.woken] == [one.event.id]
    assert (await store.settle([end])).fenced == []
    journal = await store.read_journal(await stored(store, one.event.id), now_us())
    assert (journal.number, journal.records, journal.payload, journal.wakes) == (2, (), b'{"again":1}', 1)
    (again,) = (await store.claim(settled.woken, now_us())).taken
    assert (again.content.payload, again.content.metadata) == (b'{"again":1}', one.content.metadata)
    assert (again.event.starts, again.event.lease_token) == (1, 2)
    await store.settle([settlement(again.event, State.RETRYING)])
    assert (await woken(store)).content.payload == b'{"again":1}'
    found = await store.history(one.event.id)
    assert found is not None
    assert found.content == one.content
