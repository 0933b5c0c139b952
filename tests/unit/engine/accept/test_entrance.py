"""The entrance lets in so many events at once, in the order they came, and turns away a line that is too long."""

import asyncio

import pytest

from replayforge.domain.errors import Overloaded
from replayforge.engine.accept.entrance import Entrance


async def in_line(entrance: Entrance, count: int) -> asyncio.Task[None]:
    """Have somebody stand in line."""
    task = asyncio.create_task(entrance.stand_in_line(count))
    await asyncio.sleep(0)
    return task


async def test_who_finds_it_full_comes_in_when_somebody_leaves() -> None:
    """One more than the limit waits for the first that is in the log."""
    entrance = Entrance(2, callers_max=1)
    assert entrance.enter(1)
    assert entrance.enter(1)
    assert not entrance.enter(1)
    waiting = await in_line(entrance, 1)
    assert not waiting.done()
    entrance.leave(1)
    await waiting
    assert entrance.within == 2


async def test_a_few_callers_need_no_limit() -> None:
    """Who is one of few comes in whatever they bring; each counts until all it brought is in the log."""
    entrance = Entrance(2, callers_max=3)
    assert all(entrance.enter(100) for _ in range(3))
    assert not entrance.enter(1)
    entrance.leave(150)
    assert entrance.enter(1)
    assert not entrance.enter(1)


async def test_nobody_passes_by_the_line() -> None:
    """Who comes while others stand in line stands behind them, and they come in as they came."""
    entrance, came = Entrance(1, callers_max=1), list[str]()
    assert entrance.enter(1)
    tasks = [await in_line(entrance, 1) for _ in range(3)]
    for number, task in enumerate(tasks):
        task.set_name(str(number))
        task.add_done_callback(lambda done: came.append(done.get_name()))
    assert not entrance.enter(1)
    for task in tasks:
        entrance.leave(1)
        await task
    assert came == ["0", "1", "2"]


async def test_events_that_come_together_go_in_together() -> None:
    """A hundred events of one request are let in as soon as one would be."""
    entrance = Entrance(2, callers_max=1)
    assert entrance.enter(100)
    waiting = await in_line(entrance, 100)
    entrance.leave(99)
    await waiting
    assert entrance.within == 101


async def test_a_caller_who_went_away_takes_no_place() -> None:
    """Neither one who still stood in line, nor one who had been let in and did not know yet."""
    entrance = Entrance(1, callers_max=1)
    assert entrance.enter(1)
    gone, let_in, last = [await in_line(entrance, 1) for _ in range(3)]
    gone.cancel()
    await asyncio.sleep(0)
    entrance.leave(1)
    let_in.cancel()
    await last
    assert (entrance.within, entrance.in_line) == (1, 0)


async def test_a_line_that_is_too_long_refuses() -> None:
    """Beyond its length the next is told to come again, and nothing waits for it."""
    entrance = Entrance(1, line_max=10, callers_max=1)
    assert entrance.enter(1)
    waiting = await in_line(entrance, 10)
    with pytest.raises(Overloaded):
        await entrance.stand_in_line(1)
    entrance.leave(1)
    await waiting
    assert (entrance.within, entrance.in_line) == (10, 0)


async def test_what_goes_first_waits_for_nobody() -> None:
    """What a handler has sent is let in beside whoever is within."""
    entrance = Entrance(1, callers_max=1)
    assert entrance.enter(1)
    entrance.enter_first(1)
    entrance.leave(1)
    assert not entrance.enter(1)
