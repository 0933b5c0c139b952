"""The deferred claimer, ticked over a real store: whose turn it is, how much is claimed, and when it looks again."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replayforge.domain.admission import Admission, Pause
from replayforge.domain.breaker import FAILURES_MAX, OPEN_SECONDS_MIN
from replayforge.domain.lifecycle import State
from replayforge.engine.dispatch.deferred_claimer import IDLE_SECONDS, DeferredClaimer
from replayforge.stores.deferred import Recalled
from tests.support.dispatch_parts import Parts, dispatch_parts


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with dispatch_parts(tmp_path) as parts:
        yield parts


@pytest.fixture
def claimer(parts: Parts) -> DeferredClaimer:
    return DeferredClaimer(parts.store, parts.buffer, parts.limits, parts.desk, parts.clock, parts.telemetry)


async def defer(parts: Parts, count: int, event_type: str = "test") -> None:
    """Have so many events wait for their handler."""
    queued = (await parts.queue(count, event_type=event_type)).queued
    given = await parts.store.claim(queued, parts.clock.now_us(), Admission({event_type: 0}, lambda of: of))
    parts.limits.note_deferred(given.deferred)


async def test_the_oldest_come_first_as_far_as_there_is_room(parts: Parts, claimer: DeferredClaimer) -> None:
    """With four workers the first four are claimed; the rest waits until one falls free."""
    await defer(parts, 6)
    assert await claimer.tick() == 0.0
    assert parts.lying_ready == [f"event-{number}" for number in range(4)]
    assert parts.limits.ready() != []
    for _ in range(4):
        await parts.finish()
    assert await claimer.tick() == IDLE_SECONDS
    assert parts.lying_ready == ["event-4", "event-5"]
    assert parts.limits.ready() == []
    assert parts.idle


async def test_a_full_buffer_is_waited_for(parts: Parts, claimer: DeferredClaimer) -> None:
    """With no room it claims nothing and tries again when a worker may have become free."""
    await defer(parts, 5)
    await claimer.tick()
    ticking = asyncio.create_task(claimer.tick())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await parts.finish()
    assert await asyncio.wait_for(ticking, 10) == 0.0
    await claimer.tick()
    assert parts.lying_ready[-1] == "event-4"


async def test_no_more_is_claimed_than_a_handler_takes(parts: Parts, claimer: DeferredClaimer) -> None:
    """A limit of two lets two through, and their end makes room for the next two."""
    parts.limits.by_pattern["test"].concurrency_max = 2
    await defer(parts, 3)
    assert await claimer.tick() == IDLE_SECONDS
    assert parts.lying_ready == ["event-0", "event-1"]
    await parts.finish()
    assert parts.limits.news.is_set()
    await claimer.tick()
    assert parts.lying_ready == ["event-1", "event-2"]


async def test_a_paused_handler_is_left_alone(parts: Parts, claimer: DeferredClaimer) -> None:
    """While it is paused nothing is claimed for it; resumed, what waited is."""
    await defer(parts, 1)
    parts.limits.see_pauses([Pause("test", "why", "ann", 1)])
    assert (await claimer.tick(), parts.lying_ready) == (IDLE_SECONDS, [])
    parts.limits.see_pauses([])
    await claimer.tick()
    assert parts.lying_ready == ["event-0"]


async def test_it_looks_again_when_a_breaker_lets_one_through(parts: Parts, claimer: DeferredClaimer) -> None:
    """With nothing to do before, the next tick is due at the moment of the probe."""
    limit = parts.limits.by_pattern["test"]
    await defer(parts, 2)
    for _ in range(FAILURES_MAX):
        limit.breaker = limit.breaker.failed(parts.clock.monotonic())
    seconds = await claimer.tick()
    assert seconds == OPEN_SECONDS_MIN
    parts.clock.advance(seconds)
    await claimer.tick()
    assert parts.lying_ready == ["event-0"]


async def test_what_began_to_wait_meanwhile_is_looked_for(
    parts: Parts, claimer: DeferredClaimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that was deferred while the store answered may not be in its answer, so the handler has news still."""
    recall = parts.store.recall

    async def defer_meanwhile(*asked: object) -> Recalled:
        recalled: Recalled = await recall(*asked)  # type: ignore[arg-type]
        parts.limits.note_deferred({"test": 1})
        return recalled

    await defer(parts, 1)
    monkeypatch.setattr(parts.store, "recall", defer_meanwhile)
    assert await claimer.tick() == 0.0
    assert [limit.pattern for limit in parts.limits.ready()] == ["test"]


async def test_events_of_another_handler_by_now_are_published(parts: Parts, claimer: DeferredClaimer) -> None:
    """What waited under a pattern that does not take it any more is queued as any other."""
    queued = (await parts.queue(1, event_type="other")).queued
    await parts.store.claim(queued, parts.clock.now_us(), Admission({"test": 0}, lambda of: "test"))
    parts.limits.note_deferred({"test": 1})
    await claimer.tick()
    assert (parts.lying_ready, parts.publisher.offered) == ([], queued)
    assert await parts.states(["event-0"]) == [State.QUEUED]


async def test_suspects_go_before_what_waits(parts: Parts, claimer: DeferredClaimer) -> None:
    """While there may be suspects nothing that waited is claimed beside them."""
    await defer(parts, 1)
    parts.desk.look_for_suspects()
    ticking = asyncio.create_task(claimer.tick())
    await asyncio.sleep(0)
    parts.limits.news.set()
    await asyncio.wait_for(ticking, 10)
    assert parts.lying_ready == []
