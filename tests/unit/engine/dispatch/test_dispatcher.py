"""The dispatcher, ticked over a real log and store: where it goes on, what it claims, and when it must not go on."""

import asyncio
import contextlib
import sqlite3

import pytest

from replayforge.domain.errors import Fatal, Unavailable
from replayforge.domain.lifecycle import State
from replayforge.engine.dispatch.dispatcher import Dispatcher
from replayforge.engine.service_loop import UNTIL_WOKEN
from replayforge.forgelog.log import LogOptions, NewRecord
from replayforge.stores.projection import CursorMoved, Projected, Projection
from tests.support.dispatch_parts import INCARNATION, Parts, accept, catch_up, dispatching


def lose_next_answer(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the next projection committed without an answer."""
    project = parts.store.project

    async def lose_answer(projection: Projection) -> Projected:
        monkeypatch.setattr(parts.store, "project", project)
        await project(projection)
        raise Unavailable("the answer was lost")

    monkeypatch.setattr(parts.store, "project", lose_answer)


async def test_rows_and_cursor_move_together(parts: Parts, dispatcher: Dispatcher) -> None:
    """As many events as workers are free are claimed as they are inserted, and the rest is published."""
    ids = await accept(dispatcher, 5)
    await catch_up(dispatcher)
    assert await parts.store.cursor(dispatcher.log.log_id) == (5, INCARNATION)
    assert (dispatcher.projected, len(dispatcher.window)) == (5, 0)
    assert parts.lying_ready == ids[:2]
    assert parts.publisher.offered == [(event_id, 1) for event_id in ids[2:]]
    assert await parts.states(ids) == [State.PROCESSING] * 2 + [State.QUEUED] * 3
    assert parts.idle


async def test_while_suspects_may_run_alone_nothing_is_claimed(parts: Parts, dispatcher: Dispatcher) -> None:
    """What comes in beside a suspect gets its row and its entry, and is in no worker's way."""
    parts.desk.look_for_suspects()
    ids = await accept(dispatcher, 2)
    await catch_up(dispatcher)
    assert (parts.lying_ready, len(parts.publisher.offered)) == ([], 2)
    assert await parts.states(ids) == [State.QUEUED] * 2


async def test_fresh_events_queue_up_behind_a_backlog(parts: Parts, dispatcher: Dispatcher) -> None:
    """While the reader sees entries left, what comes in is published behind them, although workers are free."""
    parts.desk.note_backlog(more=True)
    ids = await accept(dispatcher, 2)
    await catch_up(dispatcher)
    assert (parts.lying_ready, parts.publisher.offered) == ([], [(event_id, 1) for event_id in ids])


async def test_a_stretch_is_no_longer_than_its_limit(
    parts: Parts, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One tick projects so many records and asks for the next tick at once."""
    parts.desk.note_others(living=True)
    monkeypatch.setattr("replayforge.engine.dispatch.dispatcher.RECORDS_MAX", 3)
    await accept(dispatcher, 5)
    assert [await dispatcher.tick() for _ in range(3)] == [0.0] * 3
    assert dispatcher.projected == 5


async def test_an_idle_dispatcher_is_woken_by_the_log(parts: Parts, dispatcher: Dispatcher) -> None:
    """With nothing to project it asks neither log nor store again until a record is durable."""
    assert await dispatcher.tick() == UNTIL_WOKEN
    assert not dispatcher.wake.is_set()
    await accept(dispatcher, 1)
    await asyncio.wait_for(dispatcher.wake.wait(), 10)
    await catch_up(dispatcher)
    assert dispatcher.projected == 1


async def test_what_waits_for_a_row_is_told(dispatcher: Dispatcher) -> None:
    """Whoever waits for an offset goes on when its row is committed."""
    await accept(dispatcher, 2)
    waiting = asyncio.create_task(dispatcher.wait_projected(2))
    await asyncio.sleep(0)
    assert not waiting.done()
    await catch_up(dispatcher)
    await asyncio.wait_for(waiting, 10)


async def test_records_that_are_gone_are_passed_over(parts: Parts) -> None:
    """Where retention was faster than the store, the cursor moves over the gap, which is told and counted."""
    options = LogOptions(segment_bytes=1, retention_bytes_max=1)
    async with dispatching(parts, options) as dispatcher:
        for _ in range(4):
            await accept(dispatcher, 1)
        await asyncio.to_thread(dispatcher.log.retain, dispatcher.log.durable_offset)
        first = dispatcher.log.first_offset
        assert first > 1
        await catch_up(dispatcher)
        assert await parts.store.cursor(dispatcher.log.log_id) == (4, INCARNATION)
        assert parts.probe.fields("log.skipped") == [{"first": 1, "last": first - 1}]
        assert parts.probe.counts["event.dispatched"] == 4 - (first - 1)


async def test_records_that_are_not_events_are_passed_over(parts: Parts, dispatcher: Dispatcher) -> None:
    """What others appended is not an event, and what should be one and cannot be read is told."""
    await dispatcher.log.append([NewRecord(b"foreign", b"", 9), NewRecord(b"garbage", b"k" * 16, 1)])
    await catch_up(dispatcher)
    assert dispatcher.projected == 2
    assert parts.probe.fields("event.unreadable") == [{"offset": 2}]
    assert parts.probe.counts["event.dispatched"] == 0


async def test_a_commit_without_an_answer_is_found_again(
    parts: Parts, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cursor says that it was committed: nothing is inserted twice, and what it claimed is handed back at once."""
    parts.desk.note_others(living=True)
    ids = await accept(dispatcher, 3)
    await dispatcher.tick()
    lose_next_answer(parts, monkeypatch)
    with pytest.raises(Unavailable):
        await dispatcher.tick()
    assert await parts.states(ids) == [State.PROCESSING] * 2 + [State.QUEUED]
    await catch_up(dispatcher)
    assert (dispatcher.projected, len(dispatcher.window)) == (3, 0)
    assert await parts.states(ids) == [State.QUEUED] * 3
    assert parts.publisher.behind
    assert parts.idle


async def test_a_commit_that_was_on_the_way_as_the_dispatcher_died_is_its_own(
    parts: Parts, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cursor that moved by an earlier try of this dispatcher is recognised, and not taken for another daemon's."""
    project, projections = parts.store.project, list[Projection]()

    async def late(projection: Projection) -> Projected:
        projections.append(projection)
        if len(projections) == 1:
            raise asyncio.CancelledError
        if len(projections) == 2:
            await project(projections[0])
        return await project(projection)

    await accept(dispatcher, 1)
    await dispatcher.tick()
    monkeypatch.setattr(parts.store, "project", late)
    with pytest.raises(asyncio.CancelledError):
        await dispatcher.tick()
    await catch_up(dispatcher)
    assert (dispatcher.projected, len(projections)) == (1, 2)


async def test_a_cursor_moved_by_somebody_else_ends_the_daemon(parts: Parts, dispatcher: Dispatcher) -> None:
    """Two daemons on one log, a store that fell back, or a cursor set by hand: each is named, and nothing goes on."""
    log, now_us = dispatcher.log, parts.clock.now_us()
    await accept(dispatcher, 2)
    await catch_up(dispatcher)
    await accept(dispatcher, 1)
    await move_cursor(parts, log.log_id, 1)
    dispatcher.certain = False
    with pytest.raises(Fatal, match="fell back from 2 to 1"):
        await dispatcher.tick()
    await move_cursor(parts, log.log_id, 9)
    with pytest.raises(Fatal, match="stands at 9, and the log ends at 3"):
        await dispatcher.tick()
    await move_cursor(parts, log.log_id, 2)
    await parts.store.open_cursor(log.log_id, "second", 0, now_us)
    with pytest.raises(Fatal, match="belongs to another daemon"):
        await dispatcher.tick()


async def test_a_cursor_that_moves_meanwhile_ends_the_daemon(parts: Parts, dispatcher: Dispatcher) -> None:
    """A stretch whose beginning is not where the cursor is any more is not projected."""
    await accept(dispatcher, 2)
    await dispatcher.tick()
    await move_cursor(parts, dispatcher.log.log_id, 0, incarnation="second")
    with pytest.raises((CursorMoved, Fatal)):
        await dispatcher.tick()
    assert await parts.store.queued_entries(10) == []


async def move_cursor(parts: Parts, log_id: str, offset: int, incarnation: str = INCARNATION) -> None:
    """Set the store's cursor by hand."""
    with contextlib.closing(sqlite3.connect(parts.directory / "store.db", isolation_level=None)) as connection:
        row = (offset, incarnation, log_id)
        connection.execute("UPDATE cursors SET log_offset = ?, incarnation = ? WHERE log_id = ?", row)


async def test_a_store_that_is_away_makes_it_uncertain(
    parts: Parts, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage the place is looked up before anything is projected."""
    await accept(dispatcher, 1)
    await dispatcher.tick()
    assert dispatcher.certain
    cursor, asked = parts.store.cursor, list[str]()

    async def away(projection: Projection) -> Projected:
        raise Unavailable("away")

    async def look(log_id: str) -> tuple[int, str] | None:
        asked.append(log_id)
        return await cursor(log_id)

    with monkeypatch.context() as patch:
        patch.setattr(parts.store, "project", away)
        with pytest.raises(Unavailable):
            await dispatcher.tick()
    monkeypatch.setattr(parts.store, "cursor", look)
    await catch_up(dispatcher)
    assert (asked, dispatcher.projected) == ([dispatcher.log.log_id], 1)


async def test_the_end_of_the_log(parts: Parts) -> None:
    """A closed log leaves nothing to do; one that could not be written ends the daemon with the remedy."""
    async with dispatching(parts) as dispatcher:
        await dispatcher.log.close()
        assert await dispatcher.tick() == UNTIL_WOKEN
        dispatcher.log.committer.poisoned = OSError(5, "Input/output error")
        with pytest.raises(Fatal, match="Restart the daemon"):
            await dispatcher.tick()
