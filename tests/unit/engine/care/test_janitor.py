"""The janitor: when chores are done, that none of them stops another, and what the disk and the clock forbid."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from replayforge.domain.errors import Fatal, Unavailable
from replayforge.engine.care import janitor as janitor_module
from replayforge.engine.care.janitor import JITTER, Chore, Intervals, Janitor
from replayforge.forgelog.log import ForgeLog
from tests.contract.store_backends import MINUTE_US, put
from tests.support.builders import record, success
from tests.support.dispatch_parts import Parts, dispatch_parts


async def nothing() -> int:
    return 0


def test_chores_that_are_nearly_due_go_along() -> None:
    """Eight chores of a second are done at one waking, whatever their jitter, and each often enough."""
    rng = random.Random(1)
    chores = [Chore(f"chore {number}", 1.0, nothing) for number in range(8)]
    now, wakings, done = 0.0, 0, 0
    while now < 60:
        for chore in chores:
            if chore.is_due(now):
                chore.due_at = now + chore.interval_seconds * rng.uniform(1 - JITTER, 1 + JITTER)
                done += 1
        wakings += 1
        now = min(chore.due_at for chore in chores)
    assert wakings <= 60 / (1 - JITTER) + 1
    assert 60 * len(chores) <= done <= 60 / (1 - JITTER) * len(chores) + len(chores)


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with dispatch_parts(tmp_path) as parts:
        yield parts


@asynccontextmanager
async def tidying(
    parts: Parts, intervals: Intervals | None = None, *chores: Chore, **given: Any
) -> AsyncIterator[Janitor]:
    """Build a janitor over an empty log."""
    log = ForgeLog.open(parts.directory / "log", clock=parts.clock, telemetry=parts.telemetry)
    chosen: dict[str, Any] = {
        "projected": lambda: 0,
        "publish": parts.publisher.offer,
        "note_disk": lambda low: None,
        "store_now_us": parts.clock.now_us,
    } | given
    try:
        yield Janitor(
            log,
            parts.store,
            parts.stream,
            parts.clock,
            parts.telemetry,
            intervals=intervals or Intervals(),
            rng=random.Random(1),
            further_chores=chores,
            **chosen,
        )
    finally:
        await log.close()


async def test_a_chore_that_fails_stops_no_other(parts: Parts) -> None:
    """A defect is reported, an outage only noted; both are tried again at their next time, and what follows is done."""
    done: list[str] = []

    async def break_down() -> int:
        raise OSError(5, "Input/output error")

    async def be_away() -> int:
        raise Unavailable("away")

    async def work() -> int:
        done.append("work")
        return 1

    chores = [Chore("broken", 1.0, break_down), Chore("away", 1.0, be_away), Chore("fine", 1.0, work)]
    async with tidying(parts, None, *chores) as janitor:
        for _ in range(2):
            await janitor.tick()
            parts.clock.advance(1.2)
    assert [fields["chore"] for fields in parts.probe.fields("chore.failed")] == ["broken", "broken"]
    assert [chore.last_error for chore in chores] == ["OSError(5, 'Input/output error')", "away", None]
    assert done == ["work", "work"]


async def test_what_is_no_state_to_go_on_in_ends_the_daemon(parts: Parts) -> None:
    """A chore that raises Fatal takes the janitor along."""

    async def end() -> int:
        raise Fatal("the store's files are gone")

    async with tidying(parts, None, Chore("end", 1.0, end)) as janitor:
        with pytest.raises(Fatal):
            await janitor.tick()


async def test_a_chore_with_more_to_do_goes_on_at_once(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retention removes all that has served its time when it is due, although one step removes only so much."""
    monkeypatch.setattr(janitor_module, "RETIRED_PER_STEP_MAX", 2)
    intervals = Intervals(retention_seconds=3600, succeeded_kept_seconds=1)
    queued = (await parts.queue(5)).queued
    taken = (await parts.store.claim(queued, parts.clock.now_us())).taken
    await parts.store.settle([success(one) for one in taken])
    parts.clock.advance(10)
    async with tidying(parts, intervals) as janitor:
        for _ in range(3):
            await janitor.tick()
            parts.clock.advance(0.06)
    assert parts.probe.counts["event.retired"] == 5


async def test_by_a_clock_that_cannot_be_trusted_nothing_is_removed(parts: Parts) -> None:
    """What has served its time stays while nobody knows what time it is."""
    queued = (await parts.queue(1)).queued
    taken = (await parts.store.claim(queued, parts.clock.now_us())).taken
    await parts.store.settle([success(one) for one in taken])
    parts.clock.advance(10)
    async with tidying(parts, Intervals(succeeded_kept_seconds=1), store_now_us=lambda: None) as janitor:
        assert await janitor.retire_events() == 0
    async with tidying(parts, Intervals(succeeded_kept_seconds=1)) as janitor:
        assert await janitor.retire_events() == 1


async def test_ingest_is_told_of_a_disk_that_is_nearly_full(parts: Parts) -> None:
    """It is told at once, and soon after there is room again, long before the disk is due to be looked at."""
    told: list[bool] = []
    async with tidying(parts, Intervals(disk_free_bytes_min=1 << 62), note_disk=told.append) as janitor:
        await janitor.tick()
        assert told[-1]
        janitor.intervals = replace(janitor.intervals, disk_free_bytes_min=0)
        parts.clock.advance(1.2)
        await janitor.tick()
        assert not told[-1]
        looks = len(told)
        parts.clock.advance(1.2)
        await janitor.tick()
        assert len(told) == looks


async def test_what_falls_due_is_queued_and_published(parts: Parts) -> None:
    """An event whose time has come leaves for the stream; one whose time has not stays."""
    now_us = parts.clock.now_us()
    published: list[tuple[str, int]] = []
    records = [record(f"event-{number}", run_at_us=now_us + number * 1_000_000) for number in (1, 100)]
    await put(parts.store, records)
    async with tidying(parts, publish=published.extend) as janitor:
        assert await janitor.promote() == 0
        parts.clock.advance(2)
        assert await janitor.promote() == 1
    assert published == [("event-1", 1)]


async def test_what_is_due_before_the_next_look_is_looked_for_at_its_time(parts: Parts) -> None:
    """Nobody waits for the rest of an interval: the janitor wakes up when the next event falls due."""
    now_us = parts.clock.now_us()
    published: list[tuple[str, int]] = []
    await put(parts.store, [record(f"event-{number}", run_at_us=now_us + number * MINUTE_US) for number in (1, 2, 100)])
    waits = []
    async with tidying(parts, Intervals(promote_seconds=300.0), publish=published.extend) as janitor:
        for _ in range(3):
            await janitor.tick()
            waits.append(round(janitor.promotion.due_at - parts.clock.monotonic()))
            parts.clock.advance(60.002)
    assert published == [("event-1", 1), ("event-2", 1)]
    assert waits[:2] == [60, 60]
    assert waits[2] >= 300 * (1 - JITTER)


async def test_the_mirror_follows_the_cursor(parts: Parts) -> None:
    """The log is told how far the store has come, and not again while that stays."""
    places = iter([3, 3, 5])
    async with tidying(parts, projected=lambda: next(places)) as janitor:
        assert [await janitor.mirror() for _ in range(3)] == [1, 0, 1]
        assert janitor.log.stats().projected_offset == 5
