"""The loop of a service: when ticks follow each other, what ends a wait, and that nothing is left behind."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from replayforge.domain.errors import Unavailable
from replayforge.engine import service_loop
from replayforge.engine.service_loop import UNTIL_WOKEN, Outage, cancelled_by, run_until
from replayforge.telemetry import Telemetry
from tests.support.probe import Probe


def ticking(
    delays: Iterable[float | Exception], stopping: asyncio.Event
) -> tuple[Callable[[], Awaitable[float]], list[int]]:
    """Return a tick that comes to these delays or errors one after another and then ends the loop, and its count."""
    left, count = iter(delays), [0]

    async def tick() -> float:
        count[0] += 1
        delay = next(left, None)
        if delay is None:
            stopping.set()
            return UNTIL_WOKEN
        if isinstance(delay, Exception):
            raise delay
        return delay

    return tick, count


async def test_ticks_follow_at_once_or_after_their_delay() -> None:
    """A tick of 0 is followed by the next one, and so is one with a delay, without anybody's doing."""
    stopping = asyncio.Event()
    tick, count = ticking([0.0, 0.0, 0.001], stopping)
    await run_until(stopping, tick)
    assert count == [4]


async def test_a_loop_that_waits_to_be_woken() -> None:
    """Nothing but a wake ends the wait, one that comes while a tick runs is not lost, and stopping ends the loop."""
    stopping, wake, ticks = asyncio.Event(), asyncio.Event(), [0]

    async def tick() -> float:
        ticks[0] += 1
        if ticks[0] == 2:
            wake.set()
        return UNTIL_WOKEN

    running = asyncio.create_task(run_until(stopping, tick, wake=wake))
    for _ in range(5):
        await asyncio.sleep(0)
    assert ticks == [1]
    wake.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert ticks == [3]
    stopping.set()
    await asyncio.wait_for(running, 10)
    assert ticks == [3]


async def test_a_wake_ends_a_delay() -> None:
    """Whoever has news need not wait until the delay is over."""
    stopping, wake = asyncio.Event(), asyncio.Event()
    tick, count = ticking([3600.0], stopping)
    running = asyncio.create_task(run_until(stopping, tick, wake=wake))
    await asyncio.sleep(0)
    wake.set()
    await asyncio.wait_for(running, 10)
    assert count == [2]


async def test_what_is_away_is_tried_again_and_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a tick meets it, an outage is reported once, and its end; the next outage is told of anew."""
    monkeypatch.setattr(service_loop, "FIRST_SECONDS", 0.0)
    telemetry, stopping = Telemetry(), asyncio.Event()
    probe = Probe(telemetry)
    tick, count = ticking([Unavailable("away"), Unavailable("away"), 0.0, Unavailable("again")], stopping)
    await run_until(stopping, tick, outage=Outage(telemetry))
    assert count == [5]
    assert [fields["error"] for fields in probe.fields("store.failed")] == ["away", "again"]
    assert probe.counts["store.recovered"] == 2


async def test_the_back_off_grows_and_begins_anew() -> None:
    """Each try waits twice as long as the one before, up to a limit, until the dependency has answered."""
    outage, stopping, seconds = Outage(), asyncio.Event(), []
    stopping.set()
    for _ in range(7):
        await outage.wait(Unavailable("away"), stopping)
        seconds.append(outage.delay_seconds)
    assert seconds == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    outage.over()
    await outage.wait(Unavailable("away"), stopping)
    assert outage.delay_seconds == 0.1


async def test_a_tick_that_has_begun_is_finished() -> None:
    """Stopping in the middle of a tick lets it come to its end, and no other one begins."""
    stopping, ended = asyncio.Event(), []

    async def tick() -> float:
        stopping.set()
        await asyncio.sleep(0)
        ended.append("tick")
        return 0.0

    await run_until(stopping, tick)
    assert ended == ["tick"]


async def test_an_error_ends_the_loop_and_leaves_no_task() -> None:
    """Whatever is not an outage goes to the supervisor, and nothing waits on behind it."""
    before, stopping = asyncio.all_tasks(), asyncio.Event()
    tick, _ = ticking([0.0, RuntimeError("defect")], stopping)
    with pytest.raises(RuntimeError, match="defect"):
        await run_until(stopping, tick)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_ticks_make_no_tasks() -> None:
    """However many ticks there are, with and without a wait, the loop makes one task."""
    made, loop, stopping = [0], asyncio.get_running_loop(), asyncio.Event()

    def counting(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        made[0] += 1
        return asyncio.Task(coroutine, loop=loop, **options)

    tick, _ = ticking([0.0] * 100 + [1e-6] * 10, stopping)
    loop.set_task_factory(counting)
    try:
        await run_until(stopping, tick)
    finally:
        loop.set_task_factory(None)
    assert made == [1]


async def test_work_that_waits_by_itself_is_cancelled() -> None:
    """Once told to stop it is cancelled where it waits, and an error of its own comes out."""
    stopping, ended = asyncio.Event(), asyncio.Event()

    async def wait_for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fail() -> None:
        raise RuntimeError("defect")

    running = asyncio.create_task(cancelled_by(stopping, wait_for_ever()))
    await asyncio.sleep(0)
    stopping.set()
    await asyncio.wait_for(running, 10)
    await asyncio.wait_for(ended.wait(), 10)
    with pytest.raises(RuntimeError, match="defect"):
        await cancelled_by(asyncio.Event(), fail())
