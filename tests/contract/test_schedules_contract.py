"""What stores keep of schedules: one place each, whoever moves it, and no two open events of one that skips."""

import asyncio

from replayforge.domain.admission import Pause
from replayforge.domain.lifecycle import Reason, State
from replayforge.domain.schedule import Why
from replayforge.stores.batches import AdvancedSchedule, KnownSchedule, ResumedSchedule, ScheduleNote
from replayforge.stores.projection import Projected, Projection
from replayforge.stores.store import Store
from tests.contract.store_backends import LOG, stored
from tests.contract.test_store_contract import ledger_of
from tests.support.builders import now_us, record, success

KEPT = 3
NIGHTLY = "schedule:nightly"


def known(name: str = "nightly", timing: str = "0 2 * * * UTC", place_us: int = 100) -> KnownSchedule:
    return KnownSchedule(name=name, timing=timing, place_us=place_us)


def advanced(before_us: int, place_us: int, timing: str = "0 2 * * * UTC") -> AdvancedSchedule:
    return AdvancedSchedule(
        name="nightly", timing=timing, before_us=before_us, place_us=place_us, slot_us=place_us, event_id="event"
    )


def note(why: Why, at_us: int) -> ScheduleNote:
    return ScheduleNote(schedule="nightly", at_us=at_us, why=why, from_us=1, through_us=2, slots=3, is_capped=1)


async def test_a_place_is_moved_once_from_where_it_was_seen(store: Store, other: Store) -> None:
    """By one of two daemons, whose timing is the one in force; what is noted then is noted once."""
    await store.enter_schedules([known(), known("other")], KEPT)
    await other.enter_schedules([known(place_us=500)], KEPT)
    assert {one.place_us for one in (await store.schedules()).values()} == {100}
    tries = [one.advance_schedule(advanced(100, 200), note(Why.MISSED, 200), KEPT) for one in (store, other)]
    assert sorted(await asyncio.gather(*tries)) == [False, True]
    assert not await store.advance_schedule(advanced(200, 300, "another"), None, KEPT)
    found = (await other.schedules())["nightly"]
    assert (found.place_us, found.last_slot_us, found.last_event_id, found.pause) == (200, 200, "event", None)
    assert (await store.schedule_notes())["nightly"][0] == note(Why.MISSED, 200)
    assert len((await store.schedule_notes())["nightly"]) == 2


async def test_another_timing_begins_anew_and_the_newest_notes_are_kept(store: Store) -> None:
    """A schedule that is entered again as it was stays where it is."""
    await store.enter_schedules([known()], KEPT)
    await store.enter_schedules([known(place_us=300)], KEPT)
    assert (await store.schedules())["nightly"].place_us == 100
    await store.enter_schedules([known(timing="every 30 s", place_us=400)], KEPT)
    found = (await store.schedules())["nightly"]
    assert (found.place_us, found.timing) == (400, "every 30 s")
    for place_us in range(401, 404):
        moved = advanced(place_us - 1, place_us, "every 30 s")
        assert await store.advance_schedule(moved, note(Why.MISSED, place_us), KEPT)
    assert [one.at_us for one in (await store.schedule_notes())["nightly"]] == [403, 402, 401]


async def test_a_pause_of_a_schedule_stands_until_it_is_resumed_at_its_place(store: Store) -> None:
    await store.enter_schedules([known()], KEPT)
    pause = Pause("nightly", "moving", "me", 7)
    await store.pause_schedule(pause)
    await store.pause_schedule(Pause("nightly", "again", "you", 8))
    assert (await store.schedules())["nightly"].pause == pause
    assert not await store.resume_schedule(ResumedSchedule(name="nightly", before_us=99, place_us=300), None, KEPT)
    resumed = ResumedSchedule(name="nightly", before_us=100, place_us=300)
    assert await store.resume_schedule(resumed, note(Why.PAUSED, 300), KEPT)
    assert not await store.resume_schedule(resumed, None, KEPT)
    found = (await store.schedules())["nightly"]
    assert (found.place_us, found.pause) == (300, None)


async def dispatched(store: Store, *ids: str, log_id: str = LOG, origin: str | None = NIGHTLY) -> Projected:
    """Dispatch events of a schedule that skips."""
    await store.open_cursor(log_id, "incarnation", 0, now_us())
    cursor = await store.cursor(log_id)
    after = cursor[0] if cursor else 0
    records = [record(event_id, origin=origin) for event_id in ids]
    numbered = list(enumerate(records, start=after + 1))
    return await store.project(
        Projection(log_id, "incarnation", after, after + len(ids), numbered, 0, now_us(), exclusive={origin or NIGHTLY})
    )


async def test_an_event_is_cancelled_while_an_earlier_one_of_its_schedule_is_open(store: Store) -> None:
    """Also within one stretch; others and other schedules do not matter, nor one that has ended."""
    first = await dispatched(store, "first", "second")
    assert first.overlapping == 1
    skipped = await stored(store, "second")
    assert (skipped.state, skipped.reason, skipped.error_signature) == (State.CANCELLED, Reason.OVERLAP, None)
    assert "first" in (skipped.last_error or "")
    assert (await dispatched(store, "third")).overlapping == 1
    assert (await dispatched(store, "else", origin="schedule:else")).overlapping == 0
    assert (await dispatched(store, "parent", origin=None)).overlapping == 0
    (mine,) = (await store.claim([entry for entry in first.queued if entry.event_id == "first"], now_us())).taken
    await store.settle([success(mine)])
    assert (await dispatched(store, "fourth")).overlapping == 0
    await ledger_of(store)


async def test_two_daemons_do_not_both_let_an_event_in(store: Store, other: Store) -> None:
    """However their transactions meet, one of the two finds the other's event open."""
    for number in range(10):
        origin = f"{NIGHTLY}-{number}"
        done = await asyncio.gather(
            dispatched(store, f"mine-{number}", origin=origin),
            dispatched(other, f"yours-{number}", log_id="log-2", origin=origin),
        )
        assert sum(one.overlapping for one in done) == 1
