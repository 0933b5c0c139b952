"""Claim buffer and window: who holds what, and that nothing is held twice or forgotten."""

import asyncio
from typing import Any

import pytest

from replayforge.domain.errors import Unavailable
from replayforge.domain.event import ClaimedEvent, Lease
from replayforge.engine.accept.window import Window
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from tests.support.builders import claimed_event, record
from tests.support.clock import FakeClock


def rows(*seqs: int) -> list[ClaimedEvent]:
    return [claimed_event(seq) for seq in seqs]


def seq_of(claimed: Any) -> int:
    return int(claimed.event.seq)


async def test_idle_workers_are_served_in_line() -> None:
    """Events go to the workers that have waited longest, one each, and what is left waits."""
    buffer = ClaimBuffer(FakeClock(), workers=2)
    takes = [asyncio.create_task(buffer.take(name)) for name in ("one", "two")]
    await asyncio.sleep(0)
    buffer.put(rows(1, 2, 3))
    assert [seq_of(await take) for take in takes] == [1, 2]
    assert seq_of(await buffer.take("three")) == 3
    assert [buffer.holds(Lease(seq, 1)) for seq in (1, 2, 3, 4)] == [True, True, True, False]


async def test_putting_away_makes_room() -> None:
    """Room is one for each free worker; putting an event away gives its place back."""
    buffer = ClaimBuffer(FakeClock(), workers=2)
    assert buffer.room() == 2
    buffer.put(rows(1, 2))
    assert buffer.room() == 0
    await buffer.take("one")
    waiting = asyncio.create_task(buffer.wait_for_room())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert seq_of(buffer.detach("one")) == 1
    buffer.release(Lease(1, 1))
    assert await waiting >= 1
    assert buffer.detach("one") is None
    assert not buffer.holds(Lease(1, 1))


async def test_reserved_room_is_nobody_elses() -> None:
    """What is kept for events that are about to come is not offered again, until it is given up or filled."""
    buffer = ClaimBuffer(FakeClock(), workers=3)
    assert buffer.reserve(2) == 2
    assert buffer.room() == 1
    assert buffer.reserve(5) == 1
    assert buffer.reserve(5) == 0
    waiting = asyncio.create_task(buffer.wait_until_idle())
    await asyncio.sleep(0)
    assert not waiting.done(), "events are about to come"
    buffer.unreserve(1)
    assert buffer.room() == 1
    buffer.put(rows(1, 2))
    buffer.unreserve(2)
    assert buffer.room() == 1


async def test_nothing_is_reserved_after_closing() -> None:
    """A closed buffer takes nothing."""
    buffer = ClaimBuffer(FakeClock(), workers=3)
    buffer.close()
    assert buffer.reserve(3) == 0


async def test_room_is_offered_by_halves_while_enough_waits() -> None:
    """While workers find events to begin, the next batch is worth a claim when it is half of what is fetched ahead."""
    clock = FakeClock()
    buffer = ClaimBuffer(clock, workers=1)
    buffer.prefetch.count, buffer.prefetch.started = 8, clock.monotonic()
    buffer.put(rows(*range(1, 10)))
    waiting = asyncio.create_task(buffer.wait_for_room())
    for _ in range(3):
        await buffer.take("one")
        buffer.detach("one")
        await asyncio.sleep(0)
    assert (buffer.room(), waiting.done()) == (3, False)
    await buffer.take("one")
    buffer.detach("one")
    assert await waiting == 4


async def test_an_event_handed_to_a_cancelled_worker_goes_to_the_next() -> None:
    """An event that was handed out just as the worker's wait was cancelled is not lost."""
    buffer = ClaimBuffer(FakeClock(), workers=2)
    gone = asyncio.create_task(buffer.take("gone"))
    await asyncio.sleep(0)
    buffer.put(rows(1))
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert "gone" not in buffer.running
    assert seq_of(await buffer.take("next")) == 1


async def test_closing_takes_back_what_nobody_began() -> None:
    """Closing returns what waits, sends idle workers home, and leaves what is in hands."""
    buffer = ClaimBuffer(FakeClock(), workers=1)
    buffer.put(rows(1, 2, 3))
    await buffer.take("one")
    idle = asyncio.create_task(buffer.take("idle"))
    assert seq_of(await idle) == 2
    waiting = [asyncio.create_task(buffer.take(name)) for name in ("a", "b")]
    await asyncio.sleep(0)
    assert [seq_of(await task) if task.done() and task.result() else None for task in waiting[:1]] == [3]
    assert buffer.close() == []
    assert await waiting[1] is None
    assert await buffer.take("late") is None
    assert [buffer.holds(Lease(seq, 1)) for seq in (1, 2, 3)] == [True, True, True]


async def test_closing_with_work_waiting() -> None:
    """What waited is withdrawn at the close and no longer held."""
    buffer = ClaimBuffer(FakeClock(), workers=1)
    buffer.put(rows(1, 2, 3))
    await buffer.take("one")
    assert [seq_of(one) for one in buffer.close()] == [2, 3]
    assert [buffer.holds(Lease(seq, 1)) for seq in (1, 2, 3)] == [True, False, False]


async def test_waiting_for_idleness_and_for_one_event() -> None:
    """The waits for one event and for an empty buffer end when these are released."""
    buffer = ClaimBuffer(FakeClock(), workers=2)
    buffer.put(rows(1, 2))
    done = asyncio.create_task(buffer.wait_until_done(Lease(1, 1)))
    idle = asyncio.create_task(buffer.wait_until_idle())
    await buffer.take("one")
    await buffer.take("two")
    buffer.release(Lease(1, 1))
    await asyncio.wait_for(done, 10)
    assert not idle.done()
    buffer.release(Lease(2, 1))
    await asyncio.wait_for(idle, 10)


async def test_a_change_is_told_to_all_who_watch() -> None:
    """Once: who watches again waits for the next one. One that gave up watching keeps nobody from hearing."""
    buffer = ClaimBuffer(FakeClock(), workers=1)
    gave_up, first, second = buffer.next_change(), buffer.next_change(), buffer.next_change()
    gave_up.cancel()
    buffer.note_stuck(1)
    assert first.done()
    assert second.done()
    again = buffer.next_change()
    assert not again.done()
    buffer.put(rows(1))
    assert seq_of(await buffer.take("one")) == 1
    buffer.detach("one")
    assert again.done()
    later = buffer.next_change()
    buffer.release(Lease(1, 1))
    assert later.done()
    for _ in range(100):
        buffer.next_change().cancel()
    assert len(buffer.watching) <= 2, "those that gave up are forgotten without a change"


async def test_window_holds_from_the_reservation_to_the_row() -> None:
    """An event is found from its reservation until the cursor has passed its offset."""
    window = Window(10)
    window.reserve(record("a"))
    window.reserve(record("b"))
    window.became_durable("b", 1)
    window.became_durable("a", 2)
    window.release_through(1)
    assert (window.find("b"), window.find("a") is not None, len(window)) == (None, True, 1)
    window.release_through(2)
    assert len(window) == 0


async def test_window_forgets_what_was_not_accepted() -> None:
    """An abandoned event is gone, and whoever waits for it is told why."""
    window = Window(10)
    place = window.reserve(record("a"))
    window.abandon("a", Unavailable("away"))
    with pytest.raises(Unavailable, match="away"):
        await place.offset
    assert window.find("a") is None
    window.release_through(100)


async def test_window_is_bounded() -> None:
    """There is room for so many events and no more."""
    window = Window(2)
    assert window.has_room(2)
    assert not window.has_room(3)
    window.reserve(record("a"))
    assert not window.has_room(2)


async def test_window_is_rebuilt_from_the_log() -> None:
    """Events found behind the cursor are entered once, as durable at their first offset."""
    window = Window(10)
    for offset, event_id in ((5, "a"), (6, "b"), (7, "a")):
        window.rebuild(event_id, offset)
    place = window.find("a")
    assert place is not None
    assert await place.offset == 5
    window.release_through(6)
    assert len(window) == 0
