"""What one daemon may expect of its store, whichever it is: projection, claims, outcomes, lists, ledger."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from functools import partial

import msgspec
import pytest
from msgspec.structs import replace

from replayforge.domain.errors import Unavailable
from replayforge.domain.event import ClaimedEvent, Entry, EventRecord, SeenLease, StoredEvent, same_event
from replayforge.domain.lifecycle import TRANSITIONS, Outcome, Reason, State
from replayforge.domain.reclaim import FormerIncarnation, InFlight, Reclaim, judge_former
from replayforge.domain.reports import EventFilter, Ledger
from replayforge.domain.verdict import Verdict
from replayforge.engine.report.convergence import compute_ledger
from replayforge.stores import lookups, retention
from replayforge.stores.batches import MovedEvent, RemovedEvent
from replayforge.stores.driver import Batch, Steps
from replayforge.stores.projection import Projection
from replayforge.stores.store import Store
from replayforge.stores.transactions import Settlement
from tests.contract.store_backends import LOG, MINUTE_US, claimed, put, stored
from tests.support.builders import now_us, record, settlement, success
from tests.support.polling import persist

ANY = EventFilter()
SOON_US = 1_000_000


async def promoted(store: Store) -> list[Entry]:
    """Queue what is due by now."""
    return (await store.promote(now_us()))[0]


async def dead(store: Store, count: int = 1, error: str = "Boom: N") -> list[StoredEvent]:
    """Return events that have become dead letters."""
    taken = await claimed(store, count)
    await store.settle(
        [settlement(one.event, State.DEAD_LETTERED, error=error, error_signature=error) for one in taken]
    )
    return [await stored(store, one.event.id) for one in taken]


async def ids(store: Store, wanted: EventFilter = ANY) -> list[str]:
    return [event.id for event, _ in (await store.list_events(wanted, before_seq=None, limit=1000)).events]


async def ledger_of(store: Store) -> Ledger:
    cursors, tallies = await store.ledger_snapshot()
    end = max((cursor.log_offset for cursor in cursors if cursor.log_id == LOG), default=0)
    return compute_ledger(LOG, end, cursors, tallies)


# Projection

BYTES = [b"{}", b"null", b'"\\u0000"', '{"é": "😀\u2028"}'.encode(), b' { "a" : 1 , "a" : 2 } ', b"7" * 4300, b"1E5"]


@pytest.mark.parametrize("payload", BYTES, ids=range(len(BYTES)))
async def test_payload_is_kept_in_its_own_bytes(store: Store, payload: bytes) -> None:
    """Payload and metadata come back byte for byte: with the row, with the claim, and in lists."""
    projected = await put(store, [record("event-1", payload)])
    ((_, content),) = (await store.events_by_ids(["event-1"])).values()
    (taken,) = (await store.claim(projected.queued, now_us())).taken
    ((event, listed),) = (await store.list_events(ANY, before_seq=None, limit=10)).events
    assert await store.list_rows(ANY, before_seq=None, limit=10) == [event]
    assert content.payload == taken.content.payload == listed.payload == payload
    assert content.metadata == b"{}"


async def test_copies_and_reused_keys_are_told_apart(store: Store) -> None:
    """A second record of an id is a copy when it means the same, else a dead letter of its own."""
    first = record("event-1", b'{"a": 1, "b": [1.0]}', idempotency_key="k")
    same = record("event-1", b'{"b":[1.00],"a":1}', idempotency_key="k")
    other = record("event-1", b'{"a": 2}', idempotency_key="k")
    projected = await put(store, [first, same, other, same, other])
    assert (projected.inserted, projected.copies, len(projected.key_reused)) == (3, 2, 2)
    assert projected.queued == [("event-1", 1)]
    letters = (await store.list_events(EventFilter(state=State.DEAD_LETTERED), before_seq=None, limit=10)).events
    assert [event.reason for event, _ in letters] == [Reason.KEY_REUSED] * 2
    assert len({event.id for event, _ in letters} | {"event-1"}) == 3
    assert all("event-1" in (event.last_error or "") for event, _ in letters)
    assert (await stored(store, "event-1")).state is State.QUEUED


async def test_a_copy_may_have_other_metadata(store: Store) -> None:
    """Workflow, type and payload make a copy, whatever else has changed; the first metadata, key and time stand."""
    first = record("event-1", b'{"a":1}', metadata=msgspec.Raw(b'{"signature":"first"}'))
    other = record("event-1", b'{"a":1}', metadata=msgspec.Raw(b'{"signature":"second"}'), service_name="s")
    projected = await put(store, [first, other])
    again = await put(store, [other, record("event-1", b'{"a":1}', workflow_id="other")], after=2)
    assert (projected.inserted, projected.copies, again.copies, len(again.key_reused)) == (1, 1, 1, 1)
    ((_, content),) = (await store.events_by_ids(["event-1"])).values()
    assert content.metadata == b'{"signature":"first"}'


async def test_copies_of_settled_events(store: Store) -> None:
    """A record that comes again in a later stretch of the log is compared with the row."""
    await put(store, [record("event-1", b'{"a":1}')])
    again = await put(store, [record("event-1", b'{"a":1}'), record("event-1", b'{"a":true}')], after=1)
    assert (again.inserted, again.copies, len(again.key_reused)) == (1, 1, 1)


async def test_events_are_claimed_as_they_are_inserted(store: Store) -> None:
    """The first due events of a stretch, as many as there is room for, are in the owner's hands with their rows."""
    now = now_us()
    first = record("event-1", b'{"a": 1}', idempotency_key="k")
    records = [
        record("later", run_at_us=now + MINUTE_US),
        first,
        record("event-1", b'{"a": 2}', idempotency_key="k"),
        first,
        record("event-2"),
        record("event-3"),
    ]
    await store.open_cursor(LOG, "incarnation", 0, now)
    numbered = list(enumerate(records, start=1))
    projected = await store.project(Projection(LOG, "incarnation", 0, 6, numbered, 0, now, claims_max=2))
    assert [one.event.id for one in projected.claimed] == ["event-1", "event-2"]
    assert projected.claimed[0].content.payload == b'{"a": 1}'
    assert projected.queued == [("event-3", 1)]
    assert (projected.inserted, projected.copies, projected.key_reused) == (5, 1, ["test"])
    for one in projected.claimed:
        row = await stored(store, one.event.id)
        assert row == one.event
        assert (row.state, row.starts, row.lease_owner, row.lease_token) == (State.PROCESSING, 1, store.owner, 1)
    assert (await stored(store, "later")).state is State.SCHEDULED
    assert (await ledger_of(store)).open == 4
    assert (await store.settle([success(one) for one in projected.claimed])).fenced == []
    assert (await ledger_of(store)).states[State.SUCCEEDED] == 2


async def test_what_was_claimed_as_it_was_inserted_lapses_like_any_claim(store: Store) -> None:
    """It may be taken over unless it is renewed, and its owner's late outcome is fenced."""
    await store.open_cursor(LOG, "incarnation", 0, now_us())
    stretch = Projection(LOG, "incarnation", 0, 1, [(1, record("e"))], 0, now_us(), claims_max=9)
    projected = await store.project(stretch)
    leases = [SeenLease(*one.lease, 0) for one in projected.claimed]
    taken = await store.take_over(leases, reclaims, "lease lapsed", now_us())
    assert [one.event.event_id for one in taken] == ["e"]
    assert (await store.settle([success(projected.claimed[0])])).fenced != []


async def test_order_of_the_log_is_the_order_of_the_queue(store: Store) -> None:
    """Events are queued in the order of the log, across projections, and lists show the newest first."""
    names = [f"event-{number}" for number in range(20)]
    await put(store, [record(name) for name in names[:7]])
    await put(store, [record(name) for name in names[7:]], after=7)
    assert [event_id for event_id, _ in await store.queued_entries(100)] == names
    assert await ids(store) == names[::-1]


async def test_start_time_makes_it_scheduled(store: Store) -> None:
    """An event with a start time ahead is scheduled; one whose start time is past is queued."""
    late = record("late", run_at_us=now_us() + 60 * MINUTE_US)
    projected = await put(store, [late, record("past", run_at_us=1), record("now")])
    assert [event_id for event_id, _ in projected.queued] == ["past", "now"]
    assert (await stored(store, "late")).state is State.SCHEDULED
    assert (await store.promote(now_us()))[0] == []


async def test_scheduled_falls_due(store: Store) -> None:
    """A scheduled event is queued once its time has come, and once only."""
    projected = await put(store, [record("soon", run_at_us=now_us() + SOON_US)])
    # A slow machine may have taken longer than that to put it there.
    assert (projected.queued or await persist(lambda: promoted(store))) == [("soon", 1)]
    assert await promoted(store) == []


# Attempts


async def test_claim_counts_and_marks(store: Store) -> None:
    """A claim raises token and starts, names the owner, and spends no attempt."""
    (one,) = await claimed(store)
    assert (one.event.state, one.event.lease_token, one.event.starts) == (State.PROCESSING, 1, 1)
    assert (one.event.attempt_count, one.event.lease_owner) == (0, store.owner)


async def test_commit_is_idempotent(store: Store) -> None:
    """A second commit of the same outcome changes nothing and is not called fenced."""
    (one,) = await claimed(store)
    settlement = success(one)
    assert (await store.settle([settlement])).fenced == []
    assert (await store.settle([settlement])).fenced == []
    found = await store.history(one.event.id)
    assert found is not None
    assert [attempt.outcome for attempt in found[2]] == [Outcome.SUCCEEDED]


async def test_only_one_of_two_outcomes_stands(store: Store) -> None:
    """Of two outcomes of one attempt the first stands and the second is fenced."""
    (one,) = await claimed(store)
    failed = settlement(one.event, State.DEAD_LETTERED, error="late")
    results = await asyncio.gather(store.settle([success(one)]), store.settle([failed]))
    assert sorted(len(settled.fenced) for settled in results) == [0, 1]
    found = await store.history(one.event.id)
    assert found is not None
    assert len(found[2]) == 1


async def test_retry_waits_and_comes_back(store: Store) -> None:
    """A failed attempt is recorded, the event waits, falls due, and is claimed under a higher token."""
    (one,) = await claimed(store)
    await store.settle([settlement(one.event, State.RETRYING, error="Boom", error_signature="Boom")])
    event = await stored(store, one.event.id)
    assert (event.state, event.attempt_count, event.last_error) == (State.RETRYING, 1, "Boom")
    (entry,), _ = await store.promote(now_us())
    (again,) = (await store.claim([entry], now_us())).taken
    assert (again.event.lease_token, again.event.starts) == (2, 2)
    assert again.event.due_at_us is None


async def test_a_retry_from_ahead_does_not_wait_for_its_time(store: Store) -> None:
    """A retry that was to follow at once, decided by a clock an hour ahead, does not wait for that hour; one that was
    decided lately, however late it falls due, and what was scheduled that late, wait on."""
    hour_us = 60 * MINUTE_US
    ahead, lately = await claimed(store, 2)
    await put(store, [record("scheduled", run_at_us=now_us() + 10 * hour_us)], after=2)
    for one, ended_us, delay_us in ((ahead, now_us() + hour_us, 0), (lately, now_us(), 2 * hour_us)):
        verdict = Verdict(State.RETRYING, 1, 0, due_at_us=ended_us + delay_us)
        await store.settle([Settlement(one.event, Outcome.FAILED, verdict, "worker-1", ended_us, ended_us, "Boom")])
    if not store.shared:  # one whose times are the database's has nothing to make up for
        assert await store.promote_stranded(now_us() + 2 * hour_us, 5 * MINUTE_US) == []
    entries = [*await promoted(store), *await store.promote_stranded(now_us(), 5 * MINUTE_US)]
    assert entries == [(ahead.event.id, 1)]
    assert await store.promote_stranded(now_us(), 5 * MINUTE_US) == []
    assert (await ledger_of(store)).states[State.QUEUED] == 1
    assert (await store.discrepancies()).states[State.RETRYING] == 1


async def test_what_is_due_soon(store: Store) -> None:
    """A retry counts as soon as it is due within the time that is asked for, a scheduled event once it is due."""
    soon, late = await claimed(store, 2)
    await put(store, [record("scheduled", run_at_us=now_us() + 30 * MINUTE_US)], after=2)
    for one, delay_us in ((soon, 30 * MINUTE_US), (late, 90 * MINUTE_US)):
        verdict = Verdict(State.RETRYING, 1, 0, due_at_us=now_us() + delay_us)
        await store.settle([Settlement(one.event, Outcome.FAILED, verdict, "worker-1", now_us(), now_us(), "Boom")])
    assert (await store.ledger_and_due(now_us(), 0))[2] == {}
    assert (await store.ledger_and_due(now_us(), 60 * MINUTE_US))[2] == {State.RETRYING: 1}
    assert (await store.ledger_and_due(now_us(), 120 * MINUTE_US))[2] == {State.RETRYING: 2}


def reclaims(left: Sequence[InFlight], hold: bool = False) -> list[Reclaim]:
    return judge_former(left, FormerIncarnation(), (), "node-1", lambda _: hold)


async def test_suspects_are_kept_apart(store: Store) -> None:
    """Events of a crash are no longer offered or claimed with others, but alone, one after the other."""
    taken = await claimed(store, 3)
    left = await store.in_flight("")
    assert len(await store.reclaim(reclaims(left), "the process died", now_us())) == 3
    assert await store.queued_entries(10) == []
    assert (await store.claim([Entry(one.event.id, 1) for one in taken], now_us())).taken == []
    solo: list[str] = []
    while await store.next_suspect() is not None:
        (one,) = (await store.claim_suspect(now_us())).taken
        solo.append(one.event.id)
        await store.settle([success(one)])
    assert sorted(solo) == sorted(one.event.id for one in taken)
    assert (await store.claim_suspect(now_us())).taken == []


async def test_likeliest_suspect_comes_first(store: Store) -> None:
    """The suspect that was started last runs first; one that was in flight at more deaths runs before all others."""
    names = ["early", "late", "last"]
    await put(store, [record(name) for name in names])
    for step, name in enumerate(names):
        at_us = now_us() + step * 1000
        await store.claim([Entry(name, 1)], at_us)
    await store.reclaim(reclaims(await store.in_flight("")), "the process died", now_us())
    (first,) = (await store.claim_suspect(now_us())).taken
    assert first.event.id == "last"
    await store.reclaim(reclaims(await store.in_flight("")), "the process died", now_us() - MINUTE_US)
    (again,) = (await store.claim_suspect(now_us())).taken
    assert (again.event.id, again.event.crashes) == ("last", 0)
    suspect = await store.suspicion("last")
    assert suspect is not None
    assert suspect.known.deaths == 2


async def test_held_events_wait_for_a_person(store: Store) -> None:
    """An event held after a crash is neither queued nor a suspect."""
    await claimed(store)
    (taken,) = await store.reclaim(reclaims(await store.in_flight(""), hold=True), "the process died", now_us())
    assert taken.verdict.state is State.HELD
    assert await store.queued_entries(10) == []
    assert await store.next_suspect() is None


@pytest.mark.parametrize("target", sorted(TRANSITIONS[State.HELD]))
async def test_a_held_event_is_decided_about_once(store: Store, target: State) -> None:
    """It becomes what a person says, with the decision among its actions; a second decision comes too late."""
    await claimed(store)
    (taken,) = await store.reclaim(reclaims(await store.in_flight(""), hold=True), "the process died", now_us())
    held = await stored(store, taken.event.event_id)
    assert await store.move(held, target, "decided", "I looked", now_us()) == []
    assert await store.move(held, target, "decided", "I looked, too", now_us()) is None
    history = await store.history(held.id)
    assert history is not None
    event, _, _, actions, *_ = history
    assert (event.state, event.run) == (target, held.run)
    assert [(action.action, action.detail) for action in actions] == [("decided", "I looked")]
    assert (await store.queued_entries(10) == [(held.id, held.run)]) is (target is State.QUEUED)
    assert (event.reason == "given_up") is (target is State.DEAD_LETTERED)
    assert (await ledger_of(store)).states[target] == 1
    assert (await ledger_of(store)).states[State.HELD] == 0


async def test_reclaim_after_settlement_takes_nothing(store: Store) -> None:
    """An event that was settled meanwhile is not taken back."""
    (one,) = await claimed(store)
    left = await store.in_flight("")
    await store.settle([success(one)])
    assert await store.reclaim(reclaims(left), "the process died", now_us()) == []
    assert (await stored(store, one.event.id)).state is State.SUCCEEDED


# What people do


async def test_replay_happens_once(store: Store) -> None:
    """Of simultaneous replays of one run exactly one wins; the run is new and its budget fresh."""
    (letter,) = await dead(store)
    results = await asyncio.gather(*(store.replay(letter, now_us(), "again", f"k{n}") for n in range(10)))
    assert [await store.run_of_request(letter, f"k{n}") for n in range(10)] == [2 if won else None for won in results]
    assert sum(won is not None for won in results) == 1
    event = await stored(store, letter.id)
    assert (event.state, event.run, event.attempt_count, event.crashes) == (State.QUEUED, 2, 0, 0)
    assert event.lease_token == letter.lease_token
    found = await store.history(letter.id)
    assert found is not None
    assert [(action.action, action.detail) for action in found[3]] == [("replayed", "again")]


async def test_move_needs_the_state_that_was_seen(store: Store) -> None:
    """A move by hand takes place from the state and run that the caller saw, and from no other."""
    (letter,) = await dead(store)
    assert await store.move(letter, State.DISCARDED, "discarded", "old", now_us()) == []
    assert await store.move(letter, State.DISCARDED, "discarded", "old", now_us()) is None
    assert not await store.replay(letter, now_us(), "again")
    assert (await stored(store, letter.id)).reason == "old"


# Lists


async def test_pages_lose_and_double_nothing(store: Store) -> None:
    """Page after page shows each event once, also while new ones come in."""
    await put(store, [record(f"event-{number}") for number in range(25)])
    seen: list[str] = []
    before: int | None = None
    after = 25
    while page := (await store.list_events(ANY, before_seq=before, limit=7)).events:
        seen += [event.id for event, _ in page]
        before = page[-1][0].seq
        await put(store, [record(f"new-{after}")], after=after)
        after += 1
    assert seen == [f"event-{number}" for number in range(24, -1, -1)]


async def test_the_beginning_of_a_name_finds_a_few_of_each_kind(store: Store) -> None:
    """Whoever types sees events whose id, workflow or key begins so, newest first, however many there are."""
    many = [record(f"event-{number}", workflow_id="order-1") for number in range(30)]
    await put(store, [*many, record("order-x"), record("k", idempotency_key="order-9")])
    found = [event.id for event in await store.look_up("order-", 4)]
    assert found[:2] == ["k", "order-x"]
    assert len(found) == 6
    assert {event.workflow_id for event in await store.look_up("order-1", 4)} == {"order-1"}
    assert await store.look_up("nothing", 4) == []


async def test_the_newest_events_are_counted(store: Store) -> None:
    """A count obeys the filter and looks at no more than the newest events."""
    await put(store, [record(f"event-{number}", event_type="ab"[number % 2]) for number in range(9)])
    assert await store.count_newest(EventFilter(event_type="a"), 100) == 5
    assert await store.count_newest(EventFilter(event_type="a"), 4) == 2
    assert await store.count_newest(EventFilter(event_type="a", text="event-8"), 100) == 1


async def test_filters(store: Store) -> None:
    """Each filter finds what it names and nothing else, and filters add up."""
    await put(
        store,
        [
            record("a", event_type="pay.done", workflow_id="w1", service_name="s1"),
            record("b", event_type="pay.failed", workflow_id="w1", idempotency_key="key-b"),
            record("c", event_type="pay_done", workflow_id="w2", application_name="other"),
            record("d", event_type="x", workflow_id="w%"),
        ],
    )
    wanted = {
        "type": (EventFilter(event_type="pay.done"), ["a"]),
        "pattern": (EventFilter(event_type="pay.*"), ["b", "a"]),
        "pattern of like": (EventFilter(event_type="pay_*"), ["c"]),
        "percent": (EventFilter(event_type="%"), []),
        "workflow": (EventFilter(workflow_id="w1"), ["b", "a"]),
        "service": (EventFilter(service_name="s1"), ["a"]),
        "application": (EventFilter(application_name="other"), ["c"]),
        "state": (EventFilter(state=State.SUCCEEDED), []),
        "both": (EventFilter(workflow_id="w1", event_type="pay.failed"), ["b"]),
        "id": (EventFilter(text="c"), ["c"]),
        "key": (EventFilter(text="key-b"), ["b"]),
        "key alone": (EventFilter(idempotency_key="key-b"), ["b"]),
        "a key is whole": (EventFilter(idempotency_key="key"), []),
        "beginning of a key": (EventFilter(text="key"), ["b"]),
        "beginning of a workflow": (EventFilter(text="w"), ["d", "c", "b", "a"]),
        "text with percent": (EventFilter(text="w%"), ["d"]),
        "quote": (EventFilter(text="' OR 1=1 --"), []),
        "until": (EventFilter(until_us=1), []),
        "since": (EventFilter(since_us=1), ["d", "c", "b", "a"]),
    }
    found = {name: await ids(store, one) for name, (one, _) in wanted.items()}
    assert found == {name: expected for name, (_, expected) in wanted.items()}


async def test_what_failed_lately_is_found_whenever_it_was_accepted(store: Store) -> None:
    """By the time of its last failure; events that have not failed are not meant, however new they are."""
    (letter,) = await dead(store)
    await put(store, [record("new")], after=1)
    since = EventFilter(failed_since_us=letter.updated_at_us)
    assert await ids(store, since) == [letter.id]
    assert await ids(store, EventFilter(failed_since_us=letter.updated_at_us + 1)) == []
    assert await store.count_newest(since, 10) == 1


async def test_workflows(store: Store) -> None:
    """A workflow's totals count its events by state; the list shows each workflow once, the newest first."""
    await put(store, [record(f"event-{number}", workflow_id=f"w{number % 3}") for number in range(9)])
    workflows = (await store.list_workflows(before_seq=None, limit=10)).workflows
    assert [one.workflow_id for one in workflows] == ["w2", "w1", "w0"]
    assert [one.totals for one in workflows] == [{State.QUEUED: 3}] * 3
    first = await store.list_workflows(before_seq=None, limit=1)
    rest = await store.list_workflows(before_seq=first.next_seq, limit=10)
    assert [one.workflow_id for one in rest.workflows] == ["w1", "w0"]
    assert rest.next_seq is None
    assert await store.workflow("nope") is None


async def test_groups_of_dead_letters(store: Store) -> None:
    """Dead letters are gathered by their error, and the same error counts once."""
    await dead(store, 5, "Boom: N")
    (group,) = await store.dead_letter_groups("error")
    assert (group.name, group.count, group.event_types) == ("Boom: N", 5, 1)
    assert [one.name for one in await store.dead_letter_groups("type")] == ["test"]


# The ledger


async def test_ledger_balances_through_random_histories(store: Store) -> None:
    """Whatever is done in whatever order, rows and tallies agree and nothing is lost."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201
    rng = random.Random(seed)
    end = 0
    hands: list[ClaimedEvent] = []
    for _ in range(120):
        step = rng.randrange(7)
        if step == 0:
            names = [f"event-{rng.randrange(60)}" for _ in range(rng.randrange(1, 8))]
            await put(store, [record(name, rng.choice([b"{}", b"1"])) for name in names], after=end)
            end += len(names)
        elif step == 1:
            entries = await store.queued_entries(rng.randrange(1, 10))
            hands += (await store.claim(entries, now_us())).taken
        elif step == 2 and hands:
            states = (State.SUCCEEDED, State.RETRYING, State.DEAD_LETTERED, State.QUEUED)
            picked = [hands.pop(rng.randrange(len(hands))) for _ in range(min(len(hands), rng.randrange(1, 6)))]
            await store.settle([settled(one, rng.choice(states)) for one in picked])
        elif step == 3:
            await store.promote(now_us())
        elif step == 4:
            letters = (await store.list_events(EventFilter(state=State.DEAD_LETTERED), before_seq=None, limit=3)).events
            for event, _ in letters:
                await store.replay(event, now_us(), "")
        elif step == 5 and hands:
            one = hands.pop()
            await store.hand_back([one.lease], now_us())
        elif step == 6 and rng.random() < 0.3:
            await store.reclaim(reclaims(await store.in_flight("")), "the process died", now_us())
            hands = []
    found = (await store.list_events(ANY, before_seq=None, limit=1000)).events
    sums = await ledger_of(store)
    assert {state: count for state, count in sums.states.items() if count} == Counter(e.state for e, _ in found)
    assert (sums.lost, sums.records) == (0, end)
    assert sums.inserted == len(found)


async def test_a_recount_sees_what_was_done_past_the_ledger(store: Store) -> None:
    """It finds nothing while every change goes through the ledger, and else by how many rows each state differs."""
    letter, other = await dead(store, 2)
    assert await store.replay(letter, now_us(), "again")
    assert (await store.recount(), await store.recount(few=True)) == ({}, {})

    def steps() -> Steps[None]:
        yield Batch("delete_events", [RemovedEvent(seq=letter.seq), RemovedEvent(seq=other.seq)])

    await store.driver.write(steps)
    found = {State.QUEUED: -1, State.DEAD_LETTERED: -1}
    assert (await store.recount(), await store.recount(few=True)) == (found, found)


def settled(one: ClaimedEvent, state: State) -> Settlement:
    if state is State.SUCCEEDED:
        return success(one)
    return settlement(one.event, state, Outcome.INTERRUPTED if state is State.QUEUED else Outcome.FAILED, error="Boom")


async def retired(store: Store, *records: EventRecord) -> list[str]:
    """Let events succeed and retention remove them; returns what it removed."""
    await put(store, records)
    entries = await store.queued_entries(100)
    taken = (await store.claim(entries, now_us())).taken
    await store.settle([success(one) for one in taken])
    assert await store.retire(State.SUCCEEDED, now_us() + MINUTE_US, now_us=now_us()) == len(records)
    return [one.id for one in records]


async def test_the_key_of_a_removed_event_is_remembered(store: Store) -> None:
    """Removed with its row, a key is known by id and digest; an event without a key leaves nothing."""
    await retired(store, record("keyed", b'{"a":1}', idempotency_key="k"), record("keyless"))
    keys = await store.retired_keys(["keyed", "keyless", "never"])
    assert list(keys) == ["keyed"]
    key = keys["keyed"]
    assert (key.state, key.log_id, key.log_offset) == (State.SUCCEEDED, LOG, 1)
    assert same_event(key.digest, ("workflow", "test", b'{ "a": 1.0 }'))
    assert not same_event(key.digest, ("workflow", "test", b'{"a":2}'))
    assert not same_event(key.digest, ("workflow", "other", b'{"a":1}'))
    assert (await store.count_retired_keys(), (await ledger_of(store)).retired) == (1, 2)


async def test_a_removed_event_that_comes_again_is_a_copy(store: Store) -> None:
    """What was accepted while the store was away: the same content is counted, other content is a dead letter."""
    await retired(store, record("keyed", b'{"a":1}', idempotency_key="k"))
    again = record("keyed", b'{"a":1.0}', idempotency_key="k", metadata=msgspec.Raw(b'{"n":2}'))
    other = record("keyed", b'{"a":2}', idempotency_key="k")
    projected = await put(store, [again, other], after=1)
    assert (projected.inserted, projected.copies, projected.key_reused) == (1, 1, ["test"])
    assert projected.queued == []
    (letter,) = await store.list_rows(EventFilter(state=State.DEAD_LETTERED), before_seq=None, limit=10)
    assert (letter.reason, letter.id != "keyed") == (Reason.KEY_REUSED, True)
    ledger = await ledger_of(store)
    assert (ledger.copies, ledger.retired, ledger.lost) == (1, 1, 0)


async def test_a_key_is_forgotten_in_the_end(store: Store) -> None:
    """Keys are forgotten in pieces, the oldest first; from then on such a record is a new event."""
    await retired(store, *(record(f"e{number}", idempotency_key=str(number)) for number in range(5)))
    assert await store.forget_keys(now_us() - MINUTE_US, 3) == 0
    assert [await store.forget_keys(now_us() + MINUTE_US, 3) for _ in range(3)] == [3, 2, 0]
    assert await store.count_retired_keys() == 0
    projected = await put(store, [record("e1", b'{"new":1}', idempotency_key="1")], after=5)
    assert (projected.queued, projected.copies) == ([("e1", 1)], 0)
    ledger = await ledger_of(store)
    assert (ledger.accepted, ledger.open, ledger.retired, ledger.lost) == (6, 1, 5, 0)


async def test_an_event_that_runs_once_more_is_not_removed(store: Store) -> None:
    """What was replayed between the look and the removal stays, and no key is remembered for it."""
    await put(store, [record("keyed", idempotency_key="k")])
    (one,) = (await store.claim([Entry("keyed", 1)], now_us())).taken
    await store.settle([success(one)])
    rows, payloads = await store.driver.read(lambda: retention.retirable(State.SUCCEEDED, now_us() + MINUTE_US, 10))
    keys = retention.keys_of(rows, payloads, State.SUCCEEDED, now_us())
    assert await store.replay(await stored(store, "keyed"), now_us(), "again")
    late = now_us() + MINUTE_US
    steps = partial(retention.retire, store.node, State.SUCCEEDED, late, [row[0] for row in rows], keys)
    assert await store.driver.write(steps) == 0
    assert (await stored(store, "keyed")).state is State.QUEUED
    assert await store.count_retired_keys() == 0


async def test_large_contents_are_removed_in_small_steps(store: Store) -> None:
    """One call removes as many as it may, however large their contents are."""
    large = b'"%s"' % (b"x" * (retention.DIGESTED_BYTES_MAX // 2))
    await retired(store, *(record(f"e{number}", large, idempotency_key=str(number)) for number in range(7)))
    assert await store.count_retired_keys() == 7


async def test_retirement_is_counted(store: Store) -> None:
    """What retention removes is gone from the lists and stays in the ledger."""
    await dead(store, 5)
    assert await store.retire(State.DEAD_LETTERED, now_us() + MINUTE_US, limit=3) == 3
    assert await store.retire(State.DEAD_LETTERED, now_us() + MINUTE_US, limit=3) == 2
    assert await store.retire(State.DEAD_LETTERED, now_us() + MINUTE_US, limit=3) == 0
    sums = await ledger_of(store)
    assert (sums.retired, sums.lost, sums.states[State.DEAD_LETTERED]) == (5, 0, 0)
    assert await ids(store) == []


WAYS = {
    State.QUEUED: [],
    State.SCHEDULED: [],
    State.PROCESSING: [State.PROCESSING],
    State.RETRYING: [State.PROCESSING, State.RETRYING],
    State.HELD: [State.PROCESSING, State.HELD],
    State.SUCCEEDED: [State.PROCESSING, State.SUCCEEDED],
    State.DEAD_LETTERED: [State.DEAD_LETTERED],
    State.DISCARDED: [State.DEAD_LETTERED, State.DISCARDED],
    State.CANCELLED: [State.CANCELLED],
}


@pytest.mark.parametrize("source", WAYS)
async def test_no_way_around_the_lifecycle(store: Store, source: State) -> None:
    """The store itself takes every transition of the lifecycle and refuses every other."""
    later = now_us() + 60 * MINUTE_US if source is State.SCHEDULED else None
    await put(store, [record(target, run_at_us=later) for target in State])
    for target in State:
        for state in WAYS[source]:
            await force(store, target, state)
        assert (await stored(store, target)).state is source
        if target in TRANSITIONS[source]:
            await force(store, target, target)
            assert (await stored(store, target)).state is target
        else:
            with pytest.raises(Exception, match=r"(?i)lifecycle|constraint"):
                await force(store, target, target)
            assert (await stored(store, target)).state is source


async def force(store: Store, event_id: str, target: State) -> None:
    """Move the event with nothing in the way but the store's own constraint."""
    event = await stored(store, event_id)

    def steps() -> Steps[None]:
        moved = MovedEvent(
            seq=event.seq,
            run=event.run,
            state=event.state,
            target=target,
            reason=None,
            due_at_us=None,
            at_us=now_us(),
        )
        yield Batch("move_event", [moved])

    await store.driver.write(steps)


async def test_a_page_of_large_events_ends_early(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page counts payloads, metadata and results; whoever goes from page to page sees each event once."""
    monkeypatch.setattr(lookups, "PAGE_BYTES_MAX", 100_000)
    taken = await claimed(store, 6, payload=b'"' + b"x" * 30_000 + b'"')
    result = b'"' + b"r" * 60_000 + b'"'
    await store.settle([replace(success(one), result=result) for one in taken[:3]])
    seen: list[StoredEvent] = []
    before: int | None = None
    sizes: list[int] = []
    while not sizes or before is not None:
        page = await store.list_events(ANY, before_seq=before, limit=200)
        seen += [event for event, _ in page.events]
        before = page.next_seq
        sizes.append(len(page.events))
    assert sizes == [3, 1, 1, 1]
    assert [event.id for event in seen] == [f"event-{number}" for number in reversed(range(6))]
    assert [event.result for event in seen] == [None] * 3 + [result] * 3
    assert (await store.list_events(ANY, before_seq=None, limit=2)).next_seq is not None
    assert (await store.list_events(EventFilter(text="nobody"), before_seq=None, limit=2)).next_seq is None


async def test_only_a_write_that_changed_something_shows_that_the_store_can_be_written(store: Store) -> None:
    """After a write that failed, one that found nothing to do says nothing of the next; one that wrote does."""
    store.driver.writes.note(Unavailable("read-only"))
    await store.driver.write(lambda: lookups.cursor(LOG))
    await store.settle([])
    assert store.write_error == "read-only"
    await put(store, [record("event-1")])
    assert store.write_error is None
