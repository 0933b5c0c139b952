"""The reader, ticked over a real store: how much it claims, what it runs alone, and what a crash of it leaves."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from replayforge.domain.admission import Admission
from replayforge.domain.errors import Unavailable
from replayforge.domain.event import Entry
from replayforge.domain.lane import LaneRule, LaneRules, Lanes
from replayforge.domain.reclaim import FormerIncarnation
from replayforge.engine.dispatch import reader as reader_module
from replayforge.engine.dispatch.incarnation import IncarnationFile, read_former
from replayforge.engine.dispatch.reader import Reader
from replayforge.engine.dispatch.releaser import Releaser
from replayforge.stores.transactions import ClaimResult
from tests.contract.store_backends import judge, put
from tests.support.builders import record, success
from tests.support.dispatch_parts import OWNER, Parts, dispatch_parts


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with dispatch_parts(tmp_path) as parts:
        yield parts


@pytest.fixture
def incarnation(parts: Parts) -> Any:
    file = IncarnationFile.create(parts.directory, OWNER, parts.clock)
    yield file
    file.close()


@pytest.fixture
def reader(parts: Parts, incarnation: IncarnationFile) -> Reader:
    return Reader(
        parts.stream,
        parts.store,
        parts.buffer,
        parts.desk,
        incarnation,
        parts.clock,
        parts.telemetry,
        solo_seconds=60,
    )


async def fill(parts: Parts, count: int) -> None:
    """Have so many events queued and on the stream."""
    parts.publisher.offer((await parts.queue(count)).queued)
    await parts.publisher.tick()


async def suspect(parts: Parts, count: int = 1) -> None:
    """Have so many events in the store that were in flight at a death of the process."""
    await parts.claim(count)
    await judge(parts.store, FormerIncarnation(parts.store.owner))
    parts.desk.look_for_suspects()


async def test_as_much_is_claimed_as_there_is_room(parts: Parts, reader: Reader) -> None:
    """Entries leave the stream with the commit of their claim; the others stay, and are what comes first."""
    await fill(parts, 6)
    assert await reader.tick() == 0.0
    assert parts.lying_ready == [f"event-{number}" for number in range(4)]
    assert (await parts.stream.depth(), (await parts.stream.stats()).pending) == (2, 0)
    assert parts.desk.backlog_first
    for _ in range(4):
        await parts.finish()
    await reader.tick()
    assert (parts.lying_ready, parts.desk.backlog_first) == (["event-4", "event-5"], False)


async def test_a_rate_is_kept_however_many_others_are_ready(parts: Parts, reader: Reader) -> None:
    """What a rate has released takes turns with the backlog, and so does what a daemon released that died."""
    lanes = Lanes([LaneRule("other", "workflow_id", LaneRules(interval_us=200_000))])
    releaser = Releaser(parts.store, lanes, parts.desk.hand_on, parts.clock, parts.telemetry)
    await fill(parts, 150)
    paced = [record(f"paced-{number}", event_type="other") for number in range(20)]
    await put(parts.store, paced, after=150, lanes=lanes)
    await parts.store.release_lanes(lanes.rules_of, parts.clock.now_us())  # a daemon released the first one, and died
    starts = others = 0
    for _ in range(30):
        await releaser.tick()
        await parts.publisher.tick()
        await reader.tick()
        while parts.lying_ready:
            if (await parts.finish()).startswith("paced"):
                starts += 1
            else:
                others += 1
        parts.clock.advance(seconds=0.1)
    assert starts in (15, 16)  # in three seconds
    assert others > starts


async def test_entries_whose_events_are_elsewhere_are_removed(parts: Parts, reader: Reader) -> None:
    """Whoever claimed an event in between has it; the entry only said that it was there."""
    await fill(parts, 2)
    await parts.store.claim([Entry("event-0", 1)], parts.clock.now_us())
    await reader.tick()
    assert (parts.lying_ready, await parts.stream.depth()) == (["event-1"], 0)


async def test_what_a_crash_left_between_read_and_ack_comes_again(
    parts: Parts, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries that were read before the reader died are handed back by the next one and claimed."""

    async def break_down(*_: object) -> ClaimResult:
        raise RuntimeError("defect")

    await fill(parts, 2)
    with monkeypatch.context() as patch:
        patch.setattr(parts.store, "claim", break_down)
        with pytest.raises(RuntimeError):
            await reader.tick()
    assert (await parts.stream.stats()).pending == 2
    assert parts.idle
    await reader.tick()
    assert (len(parts.lying_ready), await parts.stream.depth()) == (2, 0)


async def test_an_outage_of_the_store_is_told_once(
    parts: Parts, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream answers, so it is the store that is away; its return is told too."""

    async def away(*_: object) -> ClaimResult:
        raise Unavailable("away")

    await fill(parts, 1)
    with monkeypatch.context() as patch:
        patch.setattr(parts.store, "claim", away)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await reader.tick()
    await reader.tick()
    assert (parts.probe.counts["store.failed"], parts.probe.counts["store.recovered"]) == (1, 1)


async def test_a_claim_that_has_begun_is_finished(
    parts: Parts, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that is told to stop while the store works on its claim ends with what it took in the buffer."""
    claim, asked, answer, stopping = parts.store.claim, asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def take_long(entries: Sequence[Entry], now_us: int, admission: Admission, _: object) -> ClaimResult:
        asked.set()
        await answer.wait()
        return await claim(entries, now_us, admission)

    monkeypatch.setattr(parts.store, "claim", take_long)
    await fill(parts, 1)
    running = asyncio.create_task(reader.run(stopping))
    await asked.wait()
    stopping.set()
    await asyncio.sleep(0)
    answer.set()
    await asyncio.wait_for(running, 10)
    assert parts.lying_ready == ["event-0"]
    assert parts.idle


async def test_a_reader_that_waits_ends_at_once(parts: Parts, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an empty stream nor a full buffer holds up the end."""
    monkeypatch.setattr(reader_module, "READ_WAIT_SECONDS", 3600)
    stopping = asyncio.Event()
    running = asyncio.create_task(reader.run(stopping))
    await asyncio.sleep(0)
    stopping.set()
    await asyncio.wait_for(running, 10)


async def test_suspects_run_first_and_alone(parts: Parts, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """One suspect after another is claimed with nothing beside it, which is noted; only then comes everything else."""
    monkeypatch.setattr(reader_module, "READ_WAIT_SECONDS", 0)
    await suspect(parts, 2)
    reading = asyncio.create_task(reader.tick())
    for number in range(2):
        ready = await asyncio.wait_for(parts.buffer.take("worker-1"), 10)
        assert ready is not None
        assert (ready.event.id, parts.lying_ready) == (f"event-{number}", [])
        assert read_former(parts.directory).alone == ready.lease
        assert parts.desk.claim_fresh(1, ["test"]).count == 0
        parts.buffer.detach("worker-1")
        await parts.store.settle([success(ready)])
        parts.buffer.release(ready.lease)
    await asyncio.wait_for(reading, 10)
    assert not parts.desk.suspects_first
    assert read_former(parts.directory).alone is None


async def test_others_go_on_when_a_suspect_takes_longer_than_its_time(
    parts: Parts, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suspect that runs on has company after its time alone, and the reader looks for the next one later."""
    reader.solo_seconds = 0.001
    await suspect(parts)
    taking = asyncio.create_task(parts.buffer.take("worker-1"))
    monkeypatch.setattr(reader_module, "READ_WAIT_SECONDS", 0)
    await asyncio.wait_for(reader.tick(), 10)
    running = await taking
    assert running is not None
    assert read_former(parts.directory).alone is None
    assert parts.desk.suspects_first


async def test_a_suspect_is_not_alone_where_others_run(parts: Parts, reader: Reader) -> None:
    """A function that runs on past its time-out has company of the suspect, whose time alone is then not noted."""
    reader.solo_seconds = 0.001
    await suspect(parts)
    parts.buffer.note_stuck(1)
    assert await reader.run_suspect() is False
    assert parts.lying_ready == ["event-0"]
    former = read_former(parts.directory)
    assert (former.alone, former.outlived) == (None, frozenset())
