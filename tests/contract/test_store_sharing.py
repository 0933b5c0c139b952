"""What several daemons may expect of one store, whichever it is: claims, leases, fencing, take-over, cursors, nodes."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from replayforge.domain.event import Entry, Lease, SeenLease
from replayforge.domain.lifecycle import Outcome, State
from replayforge.domain.reclaim import InFlight, Reclaim, after_lapse
from replayforge.domain.reports import Node
from replayforge.domain.verdict import Verdict
from replayforge.stores.projection import CursorMoved, Projection
from replayforge.stores.store import Store
from replayforge.stores.transactions import Settlement
from tests.contract.store_backends import LOG, MINUTE_US, StoreHouse, claimed, put
from tests.support.builders import now_us, record, success


def decide(left: Sequence[InFlight]) -> list[Reclaim]:
    return [after_lapse(event, hold=False) for event in left]


async def take_over(store: Store, *, beats_later: int = 0) -> list[Reclaim]:
    """Take over all that others hold, as if it had been seen with these beats for a lease."""
    seen = await store.beats(now_us())
    leases = [SeenLease(*lease, beat - beats_later) for lease, beat in seen.leases.items()]
    return await store.take_over(leases, decide, "its lease lapsed", now_us())


def report(name: str, durable_offset: int = 0, *, stopped: bool = False) -> Node:
    return Node(name, f"log of {name}", "first", "host", 1, now_us(), durable_offset=durable_offset, stopped=stopped)


async def test_opened_at_once_it_is_one_store(new_house: StoreHouse) -> None:
    """Daemons that start at the same moment on an empty store bring up one schema and read one store id."""
    await new_house.join("first")
    stores = await asyncio.gather(*(new_house.join(f"node-{number}") for number in range(4)))
    assert len({store.store_id for store in stores}) == 1


async def test_event_is_claimed_once(store: Store, other: Store) -> None:
    """Two daemons that claim the same entries at the same moment share the events, each to one of them."""
    entries = (await put(store, [record(f"event-{number:03}") for number in range(100)])).queued
    now = now_us()
    both = await asyncio.gather(
        *(one.claim(part, now) for one in (store, other) for part in (entries[::2], entries[::-1]))
    )
    taken = [one.event.id for part in both for one in part.taken]
    assert sorted(taken) == sorted(event_id for event_id, _ in entries)


async def test_claim_of_an_earlier_run_takes_nothing(store: Store) -> None:
    """An entry of another run than the row's finds nothing to claim."""
    await put(store, [record("event")])
    assert (await store.claim([Entry("event", 2)], now_us())).taken == []


async def test_each_daemon_watches_the_leases_of_the_others(store: Store, other: Store) -> None:
    """What is under a lease shows with the beat it was renewed at last, to everybody but its owner."""
    first, second = await claimed(store, 2)
    assert (await other.beats(now_us())).leases == {first.lease: 0, second.lease: 0}
    await store.beat([second.lease], now_us(), report("node-1"))
    assert (await other.beats(now_us())).leases == {first.lease: 0, second.lease: 1}
    assert (await store.beats(now_us())).leases == {}
    assert await take_over(store) == []
    await store.settle([success(second)])
    assert (await other.beats(now_us())).leases == {first.lease: 0}


async def test_lapsed_lease_is_taken_over(store: Store, other: Store) -> None:
    """A lapsed lease is taken over once, with a crashed attempt on record; it proves no death, so nobody is suspect."""
    await claimed(store, 3)
    both = await asyncio.gather(take_over(other), take_over(other))
    assert sorted(map(len, both)) == [0, 3]
    assert await take_over(store) == []
    history = await other.history("event-0")
    assert history is not None
    event, _, attempts, *_ = history
    assert (event.state, event.starts, event.attempt_count) == (State.QUEUED, 1, 0)
    assert [(attempt.outcome, attempt.owner) for attempt in attempts] == [(Outcome.CRASHED, "node-1/first")]
    assert await store.next_suspect() is None
    assert len(await other.queued_entries(10)) == 3


async def test_renewed_lease_stands(store: Store, other: Store) -> None:
    """A lease that is renewed at the last moment, after it was seen to have lapsed, is left alone; so is one that was
    given up and claimed again."""
    (one,) = await claimed(store)
    renewal = await store.beat([one.lease], now_us(), report("node-1"))
    assert renewal.renewed == renewal.held == {one.event.seq}
    assert await take_over(other, beats_later=1) == []
    await store.hand_back([one.lease], now_us())
    (again,) = (await store.claim([Entry(one.event.id, 1)], now_us())).taken
    assert await other.take_over([SeenLease(*one.lease, 0)], decide, "its lease lapsed", now_us()) == []
    assert (await other.beats(now_us())).leases == {again.lease: 0}


async def test_claims_whose_answers_are_under_way_are_renewed(store: Store, other: Store) -> None:
    """A beat that is told to renews all that its owner holds beside the leases it knows, and nothing of others."""
    known, unknown, overdue = await claimed(store, 3)
    await put(other, [record("of another")], log_id="log of another")
    (another,) = (await other.claim([Entry("of another", 1)], now_us())).taken
    besides = [known.lease, overdue.lease]
    renewal = await store.beat([known.lease], now_us(), report("node-1"), besides=besides)
    assert renewal.held == {known.event.seq}
    assert renewal.complete
    assert (await other.beats(now_us())).leases == {known.lease: 1, unknown.lease: 1, overdue.lease: 0}
    assert (await store.beats(now_us())).leases == {another.lease: 0}


async def test_only_held_leases_are_renewed(store: Store, other: Store) -> None:
    """A beat says which leases still stand: not those of others, of earlier tokens, or of what has been settled."""
    first, second, third = await claimed(store, 3)
    await store.settle([success(first)])
    leases = [first.lease, second.lease, Lease(third.event.seq, third.event.lease_token - 1)]
    assert (await other.beat(leases, now_us(), report("node-2"))).held == set()
    assert (await store.beat(leases, now_us(), report("node-1"))).renewed == {second.event.seq}


async def test_result_after_a_take_over_is_fenced(store: Store, other: Store) -> None:
    """A result that comes after the take-over changes nothing and is told apart; the event has one outcome."""
    (zombie,) = await claimed(store)
    await take_over(other)
    now = now_us()
    (again,) = (await other.claim([Entry("event-0", 1)], now)).taken
    late = success(zombie)
    assert (await store.settle([late])).fenced == [late]
    assert (await other.settle([success(again)])).fenced == []
    assert (await store.settle([late])).fenced == [late]
    history = await store.history("event-0")
    assert history is not None
    assert [attempt.outcome for attempt in history[2]] == [Outcome.SUCCEEDED, Outcome.CRASHED]
    assert (await store.discrepancies()).doubled == []


async def test_outcome_committed_before_is_not_fenced(store: Store) -> None:
    """An outcome that is handed in again, because its answer was lost, is neither committed twice nor fenced."""
    settlement = success((await claimed(store))[0])
    assert (await store.settle([settlement])).fenced == []
    assert (await store.settle([settlement])).fenced == []
    history = await store.history("event-0")
    assert history is not None
    assert len(history[2]) == 1


async def test_handed_back_event_waits_again(store: Store, other: Store) -> None:
    """What its owner hands back is queued at once; what another one hands back stays where it is."""
    (one,) = await claimed(store)
    lease = [one.lease]
    assert await other.hand_back(lease, now_us()) == 0
    assert await store.hand_back(lease, now_us()) == 1
    assert await store.queued_entries(10) == [("event-0", 1)]


async def test_former_incarnation_is_known_by_its_prefix(store: Store, house: StoreHouse) -> None:
    """A daemon finds what its own former incarnation holds, and nothing of a neighbour with a similar name."""
    await claimed(store, 2)
    assert len(await (await house.join("node-1", "second")).in_flight("node-1/")) == 2
    assert await (await house.join("node_1")).in_flight("node_1/") == []


async def test_one_key_on_two_daemons_is_one_event(store: Store, other: Store) -> None:
    """Two logs that hold the same events, projected at the same moment, give one row each and copies."""
    ids = [f"event-{number:03}" for number in range(60)]
    results = await asyncio.gather(
        put(store, [record(event_id) for event_id in ids], log_id="log-a"),
        put(other, [record(event_id) for event_id in reversed(ids)], log_id="log-b"),
    )
    assert sum(result.inserted for result in results) == 60
    assert sum(result.copies for result in results) == 60
    cursors, tallies = await store.ledger_snapshot()
    assert sum(cursor.inserted + cursor.copies for cursor in cursors) == 120
    assert tallies["queued"] == 60


async def test_cursor_of_another_incarnation_stops_the_projection(store: Store) -> None:
    """A daemon whose cursor was taken over commits nothing more."""
    await store.open_cursor(LOG, "mine", 0, now_us())
    await store.open_cursor(LOG, "theirs", 0, now_us())
    with pytest.raises(CursorMoved):
        await store.project(Projection(LOG, "mine", 0, 1, [(1, record("event"))], 0, now_us()))
    assert await store.events_by_ids(["event"]) == {}
    assert await store.cursor(LOG) == (0, "theirs")


async def test_promoted_once(store: Store, other: Store) -> None:
    """Events that fell due are queued once, however many daemons promote at the same moment."""
    failed = [
        Settlement(one.event, Outcome.FAILED, Verdict(State.RETRYING, 1, 0, now_us()), "worker-1", 1, now_us(), "Boom")
        for one in await claimed(store, 40)
    ]
    await store.settle(failed)
    results = await asyncio.gather(*(one.promote(now_us()) for one in (store, other, store, other)))
    entries = [entry for promoted, _ in results for entry in promoted]
    assert sorted(entries) == sorted((f"event-{number}", 1) for number in range(40))


async def test_nodes_know_of_each_other(store: Store, other: Store) -> None:
    """Each daemon's last report is there for all: alive, stopped, and what its log holds beyond the cursor."""
    await store.beat([], now_us(), report("node-1", 5))
    await other.beat([], now_us(), report("node-2", 9, stopped=True))
    await put(other, [record(f"event-{number}") for number in range(3)], log_id="log of node-2", durable=12)
    first, second = await store.nodes(now_us())
    assert (first.name, first.unprojected, first.alive(MINUTE_US)) == ("node-1", 5, True)
    assert (second.name, second.unprojected, second.alive(MINUTE_US)) == ("node-2", 9, False)
    assert not first.alive(-1)


async def test_each_report_of_a_daemon_is_counted(store: Store, other: Store) -> None:
    """Everybody sees at which beat of which incarnation a daemon reported last, whatever the time is."""
    await store.register_node(report("node-1"))
    assert (await other.beats(now_us())).nodes == {"log of node-1": ("first", 0)}
    await store.beat([], now_us(), replace(report("node-1"), beat=7))
    await other.beat([], now_us(), replace(report("node-2"), beat=2))
    assert (await other.beats(now_us())).nodes == {"log of node-1": ("first", 7), "log of node-2": ("first", 2)}


async def test_a_node_has_one_log_and_keeps_the_rows_of_those_it_gave_up(store: Store) -> None:
    """A node that registers with another log is known by that one; what waits in the former one stays named."""
    await store.register_node(report("node-1", 5))
    await store.register_node(replace(report("node-1", 0), log_id="another"))
    known = {
        node.log_id: (node.given_up, node.unprojected, node.alive(MINUTE_US)) for node in await store.nodes(now_us())
    }
    assert known == {"log of node-1": (True, 5, False), "another": (False, 0, True)}


async def test_draining_is_remembered_until_what_it_left_was_taken_back(store: Store, other: Store) -> None:
    """Whoever was told to stop is known to all as the owner of its leases; a successor forgets its own forerunners."""
    for one in (store, other, store):
        await one.mark_draining(now_us())
    assert await other.draining() == {store.owner, other.owner}
    await other.forget_draining("node-1/", now_us())
    await other.forget_draining("node-2/", now_us())
    assert await store.draining() == {other.owner}, "an incarnation does not forget itself"


async def test_a_wrong_clock_forgets_no_draining_that_still_matters(store: Store, other: Store) -> None:
    """However late the clock of whoever starts says it is, an incarnation that left events is known to have drained."""
    (left,) = await claimed(other)
    await other.mark_draining(now_us())
    await store.forget_draining("node-1/", now_us() + 5_000_000 * MINUTE_US)
    assert await store.draining() == {other.owner}
    await other.hand_back([left.lease], now_us())
    await store.forget_draining("node-1/", now_us() + 5_000_000 * MINUTE_US)
    assert await store.draining() == set()


async def test_only_empty_nodes_are_forgotten(store: Store, other: Store) -> None:
    """A daemon that is gone is forgotten when nothing waits on its disk, and remembered while something does."""
    await put(store, [record("event")], log_id="log of node-1")
    await put(other, [record("another")], log_id="log of node-2", durable=2)
    await store.beat([], now_us(), report("node-1", 1))
    await other.beat([], now_us(), report("node-2", 1))
    logs = ["log of node-1", "log of node-2"]
    assert await store.forget_nodes(logs, MINUTE_US, now_us()) == 0
    assert await store.forget_nodes(logs[1:], -MINUTE_US, now_us()) == 0
    assert await store.forget_nodes(logs, -MINUTE_US, now_us()) == 1
    assert [node.name for node in await store.nodes(now_us())] == ["node-2"]


async def test_tallies_agree_with_the_rows(store: Store, other: Store) -> None:
    """However daemons take turns, what they counted on the way is what a count of the rows finds."""
    first, second, *rest = await claimed(store, 10)
    await store.settle([success(first)])
    await store.hand_back([second.lease], now_us())
    await asyncio.gather(take_over(other), take_over(store), store.settle([success(one) for one in rest[:4]]))
    counted = (await store.discrepancies()).states
    _, tallies = await other.ledger_snapshot()
    assert {state: count for state in State if (count := tallies.get(state, 0))} == counted
    assert sum(counted.values()) == 10
