"""WorkerWait: fresh events wait in the log for workers that are soon free, and for nothing else."""

import asyncio
import math
from collections.abc import Callable

import pytest

from replayforge.domain.errors import Unavailable
from replayforge.domain.lifecycle import State
from replayforge.engine.dispatch import saturation, worker_wait
from replayforge.engine.dispatch.dispatcher import Dispatcher
from tests.support.builders import record
from tests.support.dispatch_parts import Parts, accept, catch_up

NEVER_SECONDS = 60.0


@pytest.fixture
async def dispatcher(dispatcher: Dispatcher) -> Dispatcher:
    """One that has found its place."""
    await dispatcher.tick()
    return dispatcher


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing wait in vain while a test lasts."""
    monkeypatch.setattr(worker_wait, "WAIT_SECONDS_MAX", NEVER_SECONDS)


async def begun(dispatcher: Dispatcher) -> "asyncio.Task[None]":
    """Have events projected until all are, as far as that goes without a worker."""
    work = asyncio.create_task(catch_up(dispatcher))
    await until(lambda: work.done() or bool(dispatcher.desk.buffer.seeking))
    return work


async def until(condition: Callable[[], bool]) -> None:
    """Return once something is so."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # nobody says so
            await asyncio.sleep(0)


@pytest.mark.usefixtures("patient")
async def test_fresh_events_wait_for_workers_and_are_claimed_with_their_rows(
    parts: Parts, dispatcher: Dispatcher
) -> None:
    """None of them is ever queued or published, and none overtakes another."""
    ids = await accept(dispatcher, 5)
    work = await begun(dispatcher)
    assert (parts.lying_ready, dispatcher.projected) == (ids[:2], 2)
    done = [await parts.finish() for _ in range(2)]
    await until(lambda: bool(parts.lying_ready))
    while len(done) < 5:
        await until(lambda: bool(parts.lying_ready))
        done.append(await parts.finish())
    await work
    assert (done, parts.publisher.offered) == (ids, [])
    assert await parts.states(ids) == [State.PROCESSING] * 5


async def test_what_has_waited_in_vain_is_queued_and_the_next_do_not_wait(
    parts: Parts, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow handlers hold no row up for longer than the one wait."""
    ids = await accept(dispatcher, 5)
    await catch_up(dispatcher)
    assert await parts.states(ids) == [State.PROCESSING] * 2 + [State.QUEUED] * 3
    monkeypatch.setattr(worker_wait, "WAIT_SECONDS_MAX", NEVER_SECONDS)
    later = await accept(dispatcher, 2)
    await asyncio.wait_for(catch_up(dispatcher), 20)
    assert await parts.states(later) == [State.QUEUED] * 2


@pytest.mark.usefixtures("patient")
async def test_who_waits_for_a_row_does_not_wait_for_a_worker(parts: Parts, dispatcher: Dispatcher) -> None:
    """A handler that has sent a child may hold the very worker that is waited for."""
    await accept(dispatcher, 3)
    work = await begun(dispatcher)
    assert dispatcher.projected == 2
    await asyncio.wait_for(dispatcher.wait_projected(3), 20)
    await work
    assert len(parts.publisher.offered) == 1


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("why", ["suspects", "backlog", "others", "closed", "behind"])
async def test_where_something_else_goes_first_none_waits(
    parts: Parts, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Rows are made at once, whoever will run them."""
    reasons: dict[str, Callable[[], object]] = {
        "suspects": parts.desk.look_for_suspects,
        "backlog": lambda: parts.desk.note_backlog(more=True),
        "others": lambda: parts.desk.note_others(living=True),
        "closed": parts.buffer.close,
        "behind": lambda: monkeypatch.setattr(worker_wait, "BEHIND_SECONDS_MAX", -1.0),
    }
    monkeypatch.setattr(saturation, "MEASURED_SECONDS", math.inf)
    monkeypatch.setattr(worker_wait, "CAUGHT_UP_EVENTS", 0)
    await accept(dispatcher, 5)
    work = await begun(dispatcher) if why != "behind" else None
    assert why == "behind" or dispatcher.projected == 2
    reasons[why]()
    parts.buffer.look_again()
    await asyncio.wait_for(work or catch_up(dispatcher), 20)
    assert dispatcher.projected == 5


@pytest.fixture
def behind(dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> Dispatcher:
    """One whose rows have been behind the log for long, where one event a second is much; nothing is measured."""
    monkeypatch.setattr(worker_wait, "CAUGHT_UP_EVENTS", 0)
    monkeypatch.setattr(worker_wait, "EVENTS_PER_PROCESSOR_SECOND_MIN", 1.0)
    monkeypatch.setattr(worker_wait, "WINDOW_EVENTS_MIN", 2)
    monkeypatch.setattr(saturation, "MEASURED_SECONDS", math.inf)
    dispatcher.worker_wait.behind_since = -math.inf
    return dispatcher


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("is_saturated", "events_per_processor_second", "projected"),
    [(False, 1.0, 5), (True, 1.0, 2), pytest.param(True, 0.5, 5, id="handlers-take-the-time")],
)
async def test_rows_stay_behind_while_the_process_is_out_of_processor_time(
    parts: Parts, behind: Dispatcher, is_saturated: bool, events_per_processor_second: float, projected: int
) -> None:
    """However long; ingest lets in what gets its row in time, and as much as ever once that is over."""
    behind.worker_wait.saturation.is_there = is_saturated
    behind.worker_wait.saturation.events_per_processor_second = events_per_processor_second
    await accept(behind, 5)
    work = await begun(behind)
    assert (behind.projected, behind.window.has_room(1)) == (projected, projected == 5)
    for _ in range(5 - projected):
        await parts.finish()
    await asyncio.wait_for(work, 20)
    assert (behind.projected, behind.window.has_room(1_000)) == (5, True)


@pytest.mark.usefixtures("patient")
async def test_while_the_store_is_away_the_log_takes_what_it_can(parts: Parts, behind: Dispatcher) -> None:
    """Also where it goes away while ingest refuses what would wait for too long."""
    behind.worker_wait.saturation.is_there = True
    behind.worker_wait.saturation.events_per_processor_second = 1.0
    await accept(behind, 5)
    work = await begun(behind)
    assert not behind.window.has_room(1)
    await parts.store.close()
    await parts.finish()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(work, 20)
    assert behind.window.has_room(900)


@pytest.mark.usefixtures("patient")
async def test_what_waits_to_be_let_into_the_log_has_no_row_that_is_behind(
    behind: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many clients at once are no backlog of the log."""
    monkeypatch.setattr(worker_wait, "CAUGHT_UP_EVENTS", 5)
    for number in range(10):
        behind.window.reserve(record(f"queued-{number}"))
    await accept(behind, 5)
    work = await begun(behind)
    assert (behind.projected, behind.worker_wait.behind_since) == (2, None)
    behind.desk.buffer.close()
    await asyncio.wait_for(work, 20)


@pytest.mark.usefixtures("patient")
async def test_what_no_worker_may_have_comes_in_stretches_as_long_as_ever(parts: Parts, dispatcher: Dispatcher) -> None:
    """Each stretch is a commit. What follows waits again, as soon as workers are seen to take it."""
    dispatcher.signals = {"test"}
    await accept(dispatcher, 9)
    await catch_up(dispatcher)
    dispatcher.signals = ()
    await accept(dispatcher, 1)
    await catch_up(dispatcher)
    await accept(dispatcher, 3)
    work = await begun(dispatcher)
    assert [count for name, count, _ in parts.probe.telemetry_events if name == "event.dispatched"] == [2, 7, 1, 1]
    await parts.finish()
    await until(lambda: dispatcher.projected == 12)
    await parts.finish()
    await work


@pytest.mark.usefixtures("patient")
async def test_a_reader_that_waits_for_room_goes_first(parts: Parts, dispatcher: Dispatcher) -> None:
    """Else a steady stream of fresh events would keep from it what lies on the stream."""
    await accept(dispatcher, 5)
    work = await begun(dispatcher)
    reading = asyncio.create_task(parts.buffer.wait_for_room())
    await until(lambda: len(parts.buffer.seeking) == 2)
    await parts.finish()
    await until(reading.done)
    assert (await reading, parts.buffer.reserved) == (1, 0)
    await until(lambda: dispatcher.projected == 3)
    await parts.finish()
    await until(lambda: dispatcher.projected == 4)
    await parts.finish()
    await work
