"""What one daemon may expect of its store where handlers take no more: events wait, and are called when they are."""

import asyncio

from replayforge.domain.admission import EVERYTHING, Admission, PatternOf, Pause
from replayforge.domain.event import Entry, EventRecord
from replayforge.domain.lifecycle import Reason, State
from replayforge.domain.reclaim import FormerIncarnation, InFlight, Reclaim, judge_former
from replayforge.domain.reports import EventFilter
from replayforge.stores.deferred import Recalled
from replayforge.stores.lookups import Discrepancies
from replayforge.stores.projection import Projected, Projection
from replayforge.stores.store import Store
from tests.contract.store_backends import LOG, StoreHouse, put
from tests.support.builders import now_us, record, settlement, success


def room(**left: int) -> Admission:
    """Return an admission in which each type is its own handler."""
    return Admission(left, lambda event_type: event_type)


async def project(store: Store, records: list[EventRecord], admission: Admission, claims_max: int = 0) -> Projected:
    """Project records as a dispatcher does that asks for admission."""
    await store.open_cursor(LOG, "incarnation", 0, now_us())
    numbered = list(enumerate(records, start=1))
    stretch = Projection(LOG, "incarnation", 0, len(records), numbered, 0, now_us(), 0, claims_max, admission)
    return await store.project(stretch)


async def recall(store: Store, pattern: str, count: int = 100, pattern_of: PatternOf = str) -> Recalled:
    now = now_us()
    return await store.recall(pattern, pattern_of, count, now)


async def waiting(store: Store) -> dict[str, int]:
    """Return how many events wait for each handler, and see that rows and counters say the same."""
    counted = (await store.pauses_and_deferred())[1]
    found: Discrepancies = await store.discrepancies()
    assert found.deferred == counted
    _, tallies = await store.ledger_snapshot()
    assert {state: tallies.get(state, 0) for state in found.states} == found.states
    return counted


async def stands(store: Store, event_id: str) -> tuple[State, str | None]:
    event, _ = (await store.events_by_ids([event_id]))[event_id]
    return event.state, event.waits_for


def kinds(*event_types: str) -> list[EventRecord]:
    """Return one event of each of these types, in their order."""
    return [record(f"event-{number}", event_type=kind) for number, kind in enumerate(event_types)]


async def test_claim_takes_what_has_admission_and_lets_the_rest_wait(store: Store) -> None:
    """Of the events of a handler with room for one, one is claimed; the others are queued still, and wait."""
    entries = (await put(store, kinds("a", "b", "a", "a"))).queued
    claim = await store.claim(entries, now_us(), room(a=1))
    assert [one.event.id for one in claim.taken] == ["event-0", "event-1"]
    assert claim.deferred == {"a": 2}
    assert await stands(store, "event-2") == (State.QUEUED, "a")
    assert await waiting(store) == {"a": 2}


async def test_what_waits_is_out_of_the_way(store: Store) -> None:
    """Neither a refill nor a claim nor the oldest queued event sees what waits; lists of queued events do."""
    entries = (await put(store, kinds("a", "b"))).queued
    await store.claim([Entry("event-0", 1)], now_us(), room(a=0))
    assert await store.queued_entries(10) == [("event-1", 1)]
    again = await store.claim(entries, now_us())
    assert [one.event.id for one in again.taken] == ["event-1"]
    assert (await store.standing(now_us(), 0)).oldest_queued_us is None
    listed = (await store.list_events(EventFilter(state=State.QUEUED), before_seq=None, limit=10)).events
    assert [event.id for event, _ in listed] == ["event-0"]


async def test_projection_claims_and_lets_wait(store: Store) -> None:
    """New events of a handler without room wait from the start; those that find room are claimed, up to the limit."""
    records = kinds("a", "a", "b", "c")
    projected = await project(store, records, room(a=1, c=0), claims_max=10)
    assert [one.event.id for one in projected.claimed] == ["event-0", "event-2"]
    assert projected.queued == []
    assert projected.deferred == {"a": 1, "c": 1}
    assert await waiting(store) == {"a": 1, "c": 1}


async def test_projection_without_free_workers_publishes_what_has_room(store: Store) -> None:
    """Where nothing can be claimed at once, events with admission are queued as ever."""
    projected = await project(store, kinds("a", "b"), room(a=5, b=0))
    assert projected.queued == [("event-0", 1)]
    assert await waiting(store) == {"b": 1}


async def test_recall_claims_the_oldest_first(store: Store) -> None:
    """What waits is claimed in its order, with contents and token, and its outcome is taken."""
    await project(store, kinds(*"aaab"), room(a=0, b=0))
    recalled = await recall(store, "a", 2)
    assert [one.event.id for one in recalled.taken] == ["event-0", "event-1"]
    assert [one.content.payload for one in recalled.taken] == [b"{}", b"{}"]
    assert await waiting(store) == {"a": 1, "b": 1}
    assert (await store.settle([success(one) for one in recalled.taken])).fenced == []
    assert await stands(store, "event-0") == (State.SUCCEEDED, None)
    assert (await recall(store, "a", 2)).found == 1
    assert (await recall(store, "a", 2)).found == 0


async def test_recall_lets_go_what_is_another_handlers_by_now(store: Store) -> None:
    """An event whose type has another handler since is queued as any other, not claimed for the old one."""
    await project(store, kinds("a", "b"), Admission({"old": 0}, lambda event_type: "old"))
    recalled = await recall(store, "old", 10, {"a": "old", "b": "new"}.__getitem__)
    assert [one.event.id for one in recalled.taken] == ["event-0"]
    assert recalled.entries == [("event-1", 1)]
    assert await store.queued_entries(10) == [("event-1", 1)]
    assert await waiting(store) == {}


async def test_release_queues_a_piece(store: Store) -> None:
    """What waits for a handler that is gone is queued as any other, oldest first and up to a number."""
    await project(store, kinds(*"aaa"), room(a=0))
    assert (await store.release("a", 2)).entries == [("event-0", 1), ("event-1", 1)]
    assert await waiting(store) == {"a": 1}


async def test_queue_is_sorted_out_in_pieces(store: Store) -> None:
    """Step by step, everything queued for a shut handler begins to wait, and nothing else does."""
    await put(store, kinds(*"abab"))
    first = await store.sort_out(room(a=0), 0, 3)
    assert (first.deferred, first.next_seq) == ({"a": 2}, 3)
    assert await store.sort_out(room(a=0), 3, 3) == await store.sort_out(room(a=0), 99, 3)
    assert await store.queued_entries(10) == [("event-1", 1), ("event-3", 1)]
    assert await waiting(store) == {"a": 2}


def suspects(left: list[InFlight]) -> list[Reclaim]:
    return judge_former(left, FormerIncarnation(), (), "node-1", lambda event_type: False)


async def test_suspect_without_admission_waits_and_comes_back_as_one(store: Store) -> None:
    """A suspect of a paused handler waits, one of another runs; once recalled it runs alone as it should have."""
    entries = (await put(store, kinds("a", "b"))).queued
    await store.claim(entries, now_us())
    await store.reclaim(suspects(await store.in_flight("")), "the process died", now_us())
    claim = await store.claim_suspect(now_us(), room(a=0))
    assert [one.event.id for one in claim.taken] == ["event-1"]
    assert (await store.claim_suspect(now_us(), room(a=0))).taken == []
    assert await store.next_suspect() is None
    assert await waiting(store) == {"a": 1}
    recalled = await recall(store, "a")
    assert (recalled.taken, recalled.entries, recalled.suspects) == ([], [], 1)
    assert await store.next_suspect() is not None
    assert await store.queued_entries(10) == []
    (alone,) = (await store.claim_suspect(now_us())).taken
    assert alone.event.id == "event-0"


async def test_cancel_and_replay_of_what_waits(store: Store) -> None:
    """An event that waits can be cancelled, is counted no more then, and a replay queues it as any other."""
    await project(store, kinds("a", "a"), room(a=0))
    event, _ = (await store.events_by_ids(["event-0"]))["event-0"]
    assert await store.move(event, State.CANCELLED, "cancelled", "why not", now_us()) == []
    assert await stands(store, "event-0") == (State.CANCELLED, None)
    assert await waiting(store) == {"a": 1}
    event, _ = (await store.events_by_ids(["event-0"]))["event-0"]
    assert await store.replay(event, now_us(), "again")
    assert await store.queued_entries(10) == [("event-0", 2)]
    assert await waiting(store) == {"a": 1}


async def test_event_that_began_to_wait_after_it_was_looked_at_is_cancelled_and_counted(store: Store) -> None:
    """A cancel decided on an older look finds what the event waits for by now."""
    await put(store, kinds("a"))
    seen, _ = (await store.events_by_ids(["event-0"]))["event-0"]
    await store.claim([Entry("event-0", 1)], now_us(), room(a=0))
    assert await store.move(seen, State.CANCELLED, "cancelled", "why not", now_us()) == []
    assert await waiting(store) == {}


async def test_several_daemons_share_what_waits(house: StoreHouse, store: Store) -> None:
    """Recalls at the same moment take each event once."""
    await project(store, kinds(*"a" * 60), room(a=0))
    others = [store, await house.join("node-2"), await house.join("node-3")]
    taken: list[str] = []
    while len(taken) < 60:
        parts = await asyncio.gather(*(recall(one, "a", 7) for one in others for _ in range(2)))
        taken += [one.event.id for part in parts for one in part.taken]
    assert len(set(taken)) == 60
    assert await waiting(store) == {}


async def test_pauses_are_kept_and_lifted(house: StoreHouse, store: Store) -> None:
    """A pause is seen by every daemon, the first of two for one handler stands, and it is lifted once."""
    first, everything = Pause("a", "the bank is down", "ann", 1), Pause(EVERYTHING, "maintenance", "bob", 2)
    await store.pause(first)
    await store.pause(Pause("a", "another reason", "carl", 3))
    await store.pause(everything)
    other = await house.join("node-2")
    assert (await other.pauses_and_deferred())[0] == [everything, first]
    assert await other.resume("a")
    assert not await store.resume("a")
    assert (await store.pauses_and_deferred())[0] == [everything]


async def test_dead_letters_without_a_handler_are_gathered_by_type(store: Store) -> None:
    """Only dead letters that found no handler are counted, by their type."""
    entries = (await put(store, kinds("a", "b", "a", "c"))).queued
    claim = await store.claim(entries, now_us())
    reasons = [Reason.NO_HANDLER, Reason.NO_HANDLER, Reason.NO_HANDLER, Reason.PERMANENT]
    await store.settle(
        [
            settlement(one.event, State.DEAD_LETTERED, reason=reason)
            for one, reason in zip(claim.taken, reasons, strict=True)
        ]
    )
    assert [(group.name, group.count) for group in await store.handlerless()] == [("a", 2), ("b", 1)]
