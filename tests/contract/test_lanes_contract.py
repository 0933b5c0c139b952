"""What one may expect of any store about lanes: whose turn it is, whatever happens to those before."""

import msgspec
import pytest

from replayforge.domain.lane import LaneRules, Lanes, parsed_name
from replayforge.domain.lifecycle import State
from replayforge.domain.reclaim import FormerIncarnation
from replayforge.domain.reports import EventFilter
from replayforge.stores import lanes
from replayforge.stores.driver import Fetch, Steps
from replayforge.stores.store import Store
from tests.contract.lane_yard import SKIPPING, STRICT, Yard, by_payload, by_workflow
from tests.contract.store_backends import MINUTE_US, judge
from tests.support.builders import now_us, record

OPEN_STATES = [State.QUEUED, State.PROCESSING, State.RETRYING, State.WAITING, State.HELD]
ENDED_STATES = [State.SUCCEEDED, State.DISCARDED, State.CANCELLED]


@pytest.fixture
def yard(store: Store) -> Yard:
    return Yard(store, by_workflow(STRICT))


async def test_one_after_another(yard: Yard) -> None:
    """In strict order the first may run, then the next; another key is not concerned."""
    await yard.arrive("a", "b", "c")
    await yard.arrive("x", workflow_id="other")
    assert await yard.ready() == ["a", "x"]
    await yard.run("a")
    assert await yard.ready() == ["b", "x"]
    await yard.run("x")
    await yard.run("b")
    assert await yard.ready() == ["c"]


@pytest.mark.parametrize("state", [*OPEN_STATES, *ENDED_STATES, State.DEAD_LETTERED])
@pytest.mark.parametrize("on_dead", ["block", "skip"])
async def test_who_blocks_the_next(store: Store, state: State, on_dead: str) -> None:
    """An open predecessor blocks, wherever it stands, a dead letter where that is wanted, nothing that has ended."""
    yard = Yard(store, by_workflow(STRICT if on_dead == "block" else SKIPPING))
    await yard.arrive("a", "b")
    await yard.bring("a", state)
    blocks = state in OPEN_STATES or (state is State.DEAD_LETTERED and on_dead == "block")
    assert ("b" in await yard.ready()) is not blocks


@pytest.mark.parametrize("state", [State.RETRYING, State.WAITING, State.HELD])
async def test_what_goes_on_goes_before_those_behind(yard: Yard, state: State) -> None:
    """An event that waited, for whatever it was, has kept its place and runs again before the next."""
    await yard.arrive("a", "b")
    await yard.bring("a", state)
    await yard.move("a", State.QUEUED)
    assert await yard.ready() == ["a"]
    await yard.run("a")
    assert await yard.ready() == ["b"]


async def test_what_waits_is_counted_by_the_pattern(store: Store) -> None:
    """All lanes of a pattern together, those who run left out, and none of a pattern that only begins like it."""
    yard = Yard(store, by_workflow(STRICT))
    await yard.arrive("a", "b", "c")
    await yard.arrive("x", "y", workflow_id="other")
    await yard.ready()
    (match,) = yard.lanes.by_match
    assert await store.blocked_by([match, f"{match}.*", ""]) == {match: 3, f"{match}.*": 0, "": 0}


async def test_what_is_handed_back_goes_before_those_behind(yard: Yard) -> None:
    """A claim that came to nothing changes nothing of the order."""
    await yard.arrive("a", "b")
    event = await yard.start("a")
    await yard.store.hand_back([event.lease], now_us())
    assert await yard.ready() == ["a"]


async def test_a_scheduled_event_takes_its_place_when_it_is_due(yard: Yard) -> None:
    """Until then it blocks nobody, and then it stands behind those who came first."""
    await yard.arrive("a", run_at_us=now_us() + MINUTE_US)
    await yard.arrive("b", "c")
    assert await yard.ready() == ["b"]
    await yard.move("a", State.QUEUED)
    await yard.run("b")
    await yard.run("c")
    assert await yard.ready() == ["a"]


@pytest.mark.parametrize("state", ENDED_STATES)
async def test_a_replay_goes_to_the_end(yard: Yard, state: State) -> None:
    """An event that has ended and is to run again waits for those who came meanwhile."""
    await yard.arrive("a", "b")
    await yard.bring("a", state)
    assert await yard.ready() == ["b"]
    await yard.replay("a")
    assert await yard.ready() == ["b"]
    await yard.run("b")
    assert await yard.ready() == ["a"]


async def test_a_dead_letter_that_blocks_keeps_its_place(yard: Yard) -> None:
    """Replayed it runs before those whom it blocked; discarded it lets them go on."""
    await yard.arrive("a", "b", "c")
    await yard.run("a", State.DEAD_LETTERED)
    assert await yard.ready() == []
    await yard.replay("a")
    assert await yard.ready() == ["a"]
    await yard.run("a", State.DEAD_LETTERED)
    await yard.move("a", State.DISCARDED)
    assert await yard.ready() == ["b"]


async def test_a_dead_letter_that_was_passed_goes_to_the_end(store: Store) -> None:
    """One that blocked nobody has no place any more."""
    yard = Yard(store, by_workflow(SKIPPING))
    await yard.arrive("a", "b", "c")
    await yard.run("a", State.DEAD_LETTERED)
    await yard.replay("a")
    assert await yard.ready() == ["b"]
    await yard.run("b")
    assert await yard.ready() == ["c"]
    await yard.run("c")
    assert await yard.ready() == ["a"]


async def test_cancelling_one_in_the_middle_changes_nothing_else(yard: Yard) -> None:
    """Who waits for its turn can be cancelled, and those around it keep theirs."""
    await yard.arrive("a", "b", "c")
    await yard.ready()
    await yard.move("b", State.CANCELLED)
    assert await yard.ready() == ["a"]
    await yard.run("a")
    assert await yard.ready() == ["c"]


async def test_an_edited_replay_takes_the_place_of_what_it_replaces(yard: Yard) -> None:
    """It runs before those whom the dead letter blocked, which itself blocks no longer."""
    await yard.arrive("a", "b")
    await yard.run("a", State.DEAD_LETTERED)
    await yard.arrive("edited", replay_of="a")
    assert await yard.ready() == ["edited"]
    await yard.run("edited")
    assert await yard.ready() == ["b"]
    await yard.replay("a")
    assert await yard.ready() == ["b"]


async def test_an_edited_replay_in_another_lane_lets_the_first_one_go_on(yard: Yard) -> None:
    """What it replaces blocks no longer, wherever the replay itself has gone."""
    await yard.arrive("a", "b")
    await yard.run("a", State.DEAD_LETTERED)
    await yard.arrive("edited", replay_of="a", workflow_id="other")
    assert await yard.ready() == ["b", "edited"]


@pytest.mark.parametrize("place", ["the parent", "a descendant"])
async def test_a_child_is_not_blocked_by_its_open_ancestor(yard: Yard, place: str) -> None:
    """It runs beside it, before those who came between; else each would wait for the other."""
    await yard.arrive("parent", "between")
    await yard.bring("parent", State.WAITING)
    await yard.arrive("child", origin="parent")
    assert await yard.ready() == ["child"]
    if place == "a descendant":
        await yard.run("child")
        await yard.arrive("grandchild", origin="child")
        assert await yard.ready() == ["grandchild"]
        await yard.run("grandchild")
    else:
        await yard.run("child")
    assert await yard.ready() == []
    await yard.move("parent", State.QUEUED)
    await yard.run("parent")
    assert await yard.ready() == ["between"]


async def test_a_child_of_an_ended_parent_waits_for_its_turn(yard: Yard) -> None:
    """Nobody waits for it, so it comes after those who came before it."""
    await yard.arrive("parent", "between")
    await yard.run("parent")
    await yard.arrive("child", origin="parent")
    assert await yard.ready() == ["between"]


async def test_a_dead_child_that_is_replayed_stands_with_its_open_parent(store: Store) -> None:
    """The parent still waits for it, so it is not put behind it."""
    yard = Yard(store, by_workflow(SKIPPING))
    await yard.arrive("parent", "between")
    await yard.bring("parent", State.WAITING)
    await yard.arrive("child", origin="parent")
    await yard.run("child", State.DEAD_LETTERED)
    await yard.replay("child")
    assert await yard.ready() == ["child"]


async def test_who_is_in_no_lane(store: Store) -> None:
    """A type that no lane names, a signal, and a key that was used with other content are in none."""
    yard = Yard(store, Lanes(by_workflow(STRICT).by_specificity))
    await yard.arrive("a")
    await yard.project([record("a", b'{"other": 1}', workflow_id="w", idempotency_key="key")])
    reused = next(one for one in await store.list_rows(EventFilter(), before_seq=None, limit=10) if one.id != "a")
    assert (reused.state, reused.lane) == (State.DEAD_LETTERED, None)


async def test_a_start_in_a_dead_daemon_is_taken_back_in_order(yard: Yard) -> None:
    """What a crash left in processing blocks its key until it has been taken back, and then runs first."""
    await yard.arrive("a", "b")
    await yard.start("a")
    assert await yard.ready() == []
    await judge(yard.store, FormerIncarnation(yard.store.owner))
    assert await yard.ready() == []  # it is a suspect, and is to run alone
    suspect = await yard.store.claim_suspect(now_us())
    assert [one.event.id for one in suspect.taken] == ["a"]


# Limits


async def test_no_more_run_at_once_than_may(store: Store) -> None:
    """Those that are released and those that run are counted together, whatever order they end in."""
    yard = Yard(store, by_workflow(LaneRules(width=2, counts_running=True)))
    await yard.arrive("a", "b", "c", "d")
    assert await yard.ready() == ["a", "b"]
    first, _ = await yard.claim("a", "b")
    assert await yard.ready() == []
    await yard.end(first.event, State.RETRYING)
    assert await yard.ready() == ["c"]
    await yard.move("a", State.QUEUED)
    assert await yard.ready() == ["c"]
    await yard.run("c")
    assert await yard.ready() == ["a"]


async def test_keys_take_turns(store: Store) -> None:
    """However many of one key came first, only a few of them stand before those of another."""
    yard = Yard(store, by_workflow(LaneRules(width=4)))
    await yard.arrive(*(f"a{number}" for number in range(50)))
    await yard.arrive("b", workflow_id="other")
    assert await yard.ready() == ["a0", "a1", "a2", "a3", "b"]
    await yard.claim("a0", "a1")
    assert await yard.ready() == ["a2", "a3", "a4", "a5", "b"]


async def test_starts_are_as_far_apart_as_the_rate_says(store: Store) -> None:
    """One is released, and the next only when its time has come, which the lane says; a retry is a start like any."""
    yard = Yard(store, by_workflow(LaneRules(interval_us=MINUTE_US)))
    await yard.arrive("a", "b")
    assert await yard.ready() == ["a"]
    await yard.run("a", State.RETRYING)
    await yard.move("a", State.QUEUED)
    assert await yard.ready() == []
    _, wake_us = await store.lane_news(now_us())
    assert MINUTE_US - 10_000_000 < (wake_us or 0) <= MINUTE_US


async def test_a_rate_outlives_the_last_event_of_its_lane(store: Store) -> None:
    """Who comes to an empty lane waits for the time that the last start has left behind."""
    yard = Yard(store, by_workflow(LaneRules(interval_us=MINUTE_US)))
    await yard.arrive("a")
    await yard.run("a")
    assert await yard.ready() == []
    await yard.arrive("b")
    assert await yard.ready() == []


async def test_what_is_released_in_part_is_released_in_full(store: Store) -> None:
    """More than one step can take comes in several, none is left behind, and the order is kept."""
    yard = Yard(store, by_workflow(LaneRules(width=2000)))
    names = [f"e{number:04}" for number in range(1_150)]
    await yard.arrive(*names)
    assert await yard.ready() == names
    other = Yard(store, by_workflow(STRICT))
    other.offset = yard.offset
    await other.arrive(*(f"s{number:04}" for number in range(1_150)), workflow_id="strict")
    assert (await other.ready())[1_150:] == ["s0000"]


# The configuration


async def test_a_changed_configuration_sorts_open_events_anew(yard: Yard) -> None:
    """Those that were in no lane are in one now, in the order of their dispatch, those that run included; and back."""
    store = yard.store
    yard.lanes = Lanes()
    await yard.arrive("a", "b", "c")
    running = await yard.start("b")
    assert await yard.ready() == ["a", "c"]
    yard.lanes = by_workflow(STRICT)
    assert await store.sort_lanes(yard.lanes) == 3
    assert await yard.ready() == ["a"]
    await yard.run("a")
    assert await yard.ready() == []
    await yard.end(running)
    assert await yard.ready() == ["c"]
    assert await store.sort_lanes(yard.lanes) == 0
    await yard.arrive("d")
    yard.lanes = Lanes()
    assert await store.sort_lanes(yard.lanes) == 2
    assert await yard.ready() == ["c", "d"]


async def test_dead_letters_block_no_more_where_they_are_not_to(yard: Yard) -> None:
    """A lane that skips dead letters from now on goes on."""
    await yard.arrive("a", "b")
    await yard.store.sort_lanes(yard.lanes)
    await yard.run("a", State.DEAD_LETTERED)
    assert await yard.ready() == []
    yard.lanes = by_workflow(SKIPPING)
    await yard.store.sort_lanes(yard.lanes)
    assert await yard.ready() == ["b"]


async def test_an_event_of_a_lane_that_is_configured_no_more_is_free(yard: Yard) -> None:
    """It may run as if it were in no lane, also a dead letter that is replayed later."""
    await yard.arrive("a", "b")
    await yard.store.sort_lanes(yard.lanes)
    await yard.run("a", State.DEAD_LETTERED)
    yard.lanes = Lanes()
    await yard.store.sort_lanes(yard.lanes)
    await yard.replay("a")
    assert await yard.ready() == ["a", "b"]


async def test_sorting_goes_by_payloads_however_large(store: Store) -> None:
    """A key in the payload is read from what came with the events."""
    yard = Yard(store, Lanes())
    for name, customer in (("a", "c-1"), ("b", "c-1"), ("c", "c-2")):
        payload = msgspec.json.encode({"customer": customer, "filler": "x" * 20_000})
        await yard.project([record(name, payload)])
    yard.lanes = by_payload("payload.customer")
    await store.sort_lanes(yard.lanes)
    assert await yard.ready() == ["a", "c"]


# What people see


async def test_lanes_are_listed_by_how_many_wait(yard: Yard) -> None:
    """The longest backlog first, one that nobody waits in last, and no more than are asked for."""
    await yard.arrive("a")
    for workflow_id, count in (("b", 3), ("c", 5), ("d", 4)):
        await yard.arrive(*(f"{workflow_id}{number}" for number in range(count)), workflow_id=workflow_id)
    await yard.release()
    found = await yard.store.list_lanes(now_us(), 10)
    assert [(parsed_name(one.lane).key, one.blocked) for one in found] == [("c", 4), ("d", 3), ("b", 2), ("w", 0)]
    first = await yard.store.list_lanes(now_us(), 2)
    assert [one.lane for one in first] == [one.lane for one in found[:2]]


async def test_a_long_backlog_is_counted_up_to_a_number(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a list costs the same however many wait, and finds those who wait whatever else is in lanes."""
    monkeypatch.setattr(lanes, "BACKLOG_COUNTED_MAX", 2)
    monkeypatch.setattr(lanes, "LANES_LOOKED_AT_MAX", 1)
    await yard.arrive("x", workflow_id="a")
    await yard.arrive("a", "b", "c", "d")
    await yard.release()
    found = await yard.store.list_lanes(now_us(), 10)
    assert [(parsed_name(one.lane).key, one.blocked) for one in found] == [("w", 2), ("a", 0)]


# What is left


async def test_a_lane_that_nobody_is_in_leaves_nothing_behind(yard: Yard) -> None:
    """Neither a row nor news: a key that comes once costs nothing for ever."""
    await yard.arrive("a")
    await yard.run("a")
    assert await yard.ready() == []
    assert await yard.store.lane_news(now_us()) == (False, None)
    assert await yard.store.list_lanes(now_us(), 10) == []


async def test_a_dead_letter_that_is_removed_blocks_no_more(yard: Yard) -> None:
    """When retention takes it, those behind it go on."""
    await yard.arrive("a", "b")
    await yard.run("a", State.DEAD_LETTERED)
    assert await yard.ready() == []
    assert await yard.store.retire(State.DEAD_LETTERED, now_us() + MINUTE_US, 10, now_us=now_us()) == 1
    assert await yard.ready() == ["b"]


# What must not be, is found


async def test_a_missed_release_is_found_and_mended(yard: Yard) -> None:
    """Who waits although nobody stands before it, and nobody is told of it, goes on after a look."""
    store = yard.store
    await yard.arrive("a", "b", "c")
    await yard.run("a")
    assert (await store.discrepancies()).lanes == []  # there is news
    (lane,) = {one.lane for one in await store.list_rows(EventFilter(), before_seq=None, limit=10)}
    await store.driver.write(lambda: lost_news([str(lane)]))
    assert (await store.discrepancies()).lanes == [("blocked while free", lane)]
    assert await store.mend_lanes() == 1
    assert await yard.ready() == ["b"]
    assert await store.mend_lanes() == 0


def lost_news(lanes: list[str]) -> Steps[None]:
    """Lose what has happened in lanes, as no code of ours does."""
    yield Fetch("take_lane_news", {"lanes": lanes, "count": 1000})


async def test_more_than_may_run_are_found(store: Store) -> None:
    """A lane says so when more of it run than its limit is by now."""
    yard = Yard(store, by_workflow(LaneRules(width=3, counts_running=True)))
    await yard.arrive("a", "b", "c")
    await yard.ready()
    await yard.claim("a", "b", "c")
    yard.lanes = by_workflow(LaneRules(width=2, counts_running=True))
    await yard.ready()
    assert [finding for finding, _ in (await store.discrepancies()).lanes] == ["over its limit"]


async def test_who_runs_before_its_turn_is_found(store: Store) -> None:
    """A strict lane says so when somebody runs while another stands before it."""
    yard = Yard(store, by_workflow(LaneRules(width=2)))
    await yard.arrive("a", "b")
    await yard.ready()
    await yard.claim("b")
    yard.lanes = by_workflow(STRICT)
    await yard.arrive("c")
    await yard.ready()
    assert [finding for finding, _ in (await store.discrepancies()).lanes] == ["out of order"]


@pytest.mark.parametrize("state", [State.HELD, State.WAITING, State.DEAD_LETTERED])
async def test_what_is_stuck_is_counted_by_its_head(yard: Yard, state: State) -> None:
    """Convergence is told how many wait behind what does not go on by itself."""
    await yard.arrive("a", "b", "c")
    await yard.bring("a", state)
    await yard.ready()
    assert (await yard.store.standing(now_us(), 0)).behind == [(state, None, False, 2)]
