"""The limiter admits so many events at once, in the order they came, and refuses what its queue cannot hold."""

import asyncio

import pytest

from replayforge.domain.errors import Overloaded
from replayforge.engine.accept.ingest_limiter import IngestLimiter


async def queued(limiter: IngestLimiter, count: int) -> asyncio.Task[None]:
    """Have somebody queued."""
    task = asyncio.create_task(limiter.wait_turn(count))
    await asyncio.sleep(0)
    return task


async def test_who_finds_it_full_is_admitted_when_others_are_done() -> None:
    """One more than the limit waits for the first that is in the log."""
    limiter = IngestLimiter(2, callers_max=1)
    assert limiter.admit(1)
    assert limiter.admit(1)
    assert not limiter.admit(1)
    waiting = await queued(limiter, 1)
    assert not waiting.done()
    limiter.release(1)
    await waiting
    assert limiter.in_flight == 2


async def test_a_few_callers_need_no_limit() -> None:
    """Who is one of few comes in whatever they bring; each counts until all it brought is in the log."""
    limiter = IngestLimiter(2, callers_max=3)
    assert all(limiter.admit(100) for _ in range(3))
    assert not limiter.admit(1)
    limiter.release(150)
    assert limiter.admit(1)
    assert not limiter.admit(1)


async def test_nobody_overtakes_the_queue() -> None:
    """Who comes while others are queued is queued behind them, and they are admitted as they came."""
    limiter, came = IngestLimiter(1, callers_max=1), list[str]()
    assert limiter.admit(1)
    tasks = [await queued(limiter, 1) for _ in range(3)]
    for number, task in enumerate(tasks):
        task.set_name(str(number))
        task.add_done_callback(lambda done: came.append(done.get_name()))
    assert not limiter.admit(1)
    for task in tasks:
        limiter.release(1)
        await task
    assert came == ["0", "1", "2"]


async def test_events_that_come_together_are_admitted_together() -> None:
    """A hundred events of one request are admitted as soon as one would be."""
    limiter = IngestLimiter(2, callers_max=1)
    assert limiter.admit(100)
    waiting = await queued(limiter, 100)
    limiter.release(99)
    await waiting
    assert limiter.in_flight == 101


async def test_a_caller_who_went_away_takes_no_place() -> None:
    """Neither one who was still queued, nor one who had been admitted and did not know yet."""
    limiter = IngestLimiter(1, callers_max=1)
    assert limiter.admit(1)
    gone, let_in, last = [await queued(limiter, 1) for _ in range(3)]
    gone.cancel()
    await asyncio.sleep(0)
    limiter.release(1)
    let_in.cancel()
    await last
    assert (limiter.in_flight, limiter.queued_events) == (1, 0)


async def test_a_full_queue_refuses() -> None:
    """The next is told to come again, and nothing waits for it."""
    limiter = IngestLimiter(1, queued_max=10, callers_max=1)
    assert limiter.admit(1)
    waiting = await queued(limiter, 10)
    with pytest.raises(Overloaded):
        await limiter.wait_turn(1)
    limiter.release(1)
    await waiting
    assert (limiter.in_flight, limiter.queued_events) == (10, 0)


async def test_what_goes_first_waits_for_nobody() -> None:
    """What a handler has sent is admitted beside whoever is in flight."""
    limiter = IngestLimiter(1, callers_max=1)
    assert limiter.admit(1)
    limiter.admit_first(1)
    limiter.release(1)
    assert not limiter.admit(1)
