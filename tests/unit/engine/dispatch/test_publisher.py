"""The publisher, ticked over a real store: the stream is never fuller than it may be, and refilled in order."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replayforge.domain.errors import Unavailable
from replayforge.domain.event import Entry
from replayforge.engine.service_loop import UNTIL_WOKEN
from tests.support.dispatch_parts import Parts, dispatch_parts


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    """Parts with room for ten entries, which run low with one."""
    async with dispatch_parts(tmp_path, entries_max=10) as parts:
        yield parts


def entries(count: int, first: int = 0) -> list[Entry]:
    return [Entry(f"event-{number}", 1) for number in range(first, first + count)]


async def take(parts: Parts, count: int) -> list[str]:
    """Read entries off the stream for good; returns the ids."""
    deliveries = await parts.stream.read(count, 0)
    await parts.stream.ack(deliveries)
    parts.publisher.running_low()
    return [delivery.entry.event_id for delivery in deliveries]


async def test_what_is_offered_is_published(parts: Parts) -> None:
    """Entries of rows that were just queued go onto the stream without a look into the store."""
    parts.publisher.offer(entries(3))
    assert parts.publisher.wake.is_set()
    assert await parts.publisher.tick() == UNTIL_WOKEN
    assert await parts.stream.depth() == 3
    assert not parts.publisher.behind


async def test_what_finds_no_room_is_left_to_the_refill(parts: Parts) -> None:
    """The stream takes what it may hold; from then on nothing overtakes what waits in the store."""
    await parts.queue(30)
    parts.publisher.offer(entries(8))
    await parts.publisher.tick()
    parts.publisher.offer(entries(4, first=8))
    await parts.publisher.tick()
    assert (await parts.stream.depth(), parts.publisher.behind) == (10, True)
    parts.publisher.offer(entries(1, first=29))
    assert parts.publisher.offered == []


async def test_the_stream_is_refilled_in_order_when_it_runs_low(parts: Parts) -> None:
    """Not before the low-water mark, then up to the high-water mark, until the store has no more: each entry once."""
    await parts.queue(15)
    parts.publisher.fall_behind()
    read: list[str] = []
    for depth, taken in ((10, 8), (2, 1), (6, 6)):
        await parts.publisher.tick()
        assert await parts.stream.depth() == depth
        ids = await take(parts, taken)
        await parts.store.claim([Entry(event_id, 1) for event_id in ids], parts.clock.now_us())
        read += ids
    assert read == [f"event-{number}" for number in range(15)]
    assert not parts.publisher.behind


async def test_more_is_offered_at_once_than_the_stream_may_hold(parts: Parts) -> None:
    """A batch that cannot fit is not kept in memory."""
    parts.publisher.offer(entries(11))
    assert (parts.publisher.offered, parts.publisher.behind) == ([], True)


async def test_a_wiped_stream_is_refilled(parts: Parts) -> None:
    """When entries may have been lost the store is asked for all of them, once."""
    await parts.queue(3)
    parts.stream.wiped.set()
    await parts.publisher.tick()
    assert await parts.stream.depth() == 3
    assert not parts.stream.wiped.is_set()


async def test_after_an_outage_the_store_is_asked(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was offered while the stream was away is found by the refill."""

    async def away(entries: list[Entry]) -> int:
        raise Unavailable("away")

    queued = (await parts.queue(2)).queued
    with monkeypatch.context() as patch:
        patch.setattr(parts.stream, "publish", away)
        parts.publisher.offer(queued)
        with pytest.raises(Unavailable):
            await parts.publisher.tick()
    await parts.publisher.tick()
    assert await parts.stream.depth() == 2


async def test_queued_rows_without_an_entry_are_found(parts: Parts) -> None:
    """While the stream is low the store is asked for rows that nobody has published."""
    assert await parts.publisher.refill_if_low() == 0
    await parts.queue(2)
    assert (await parts.publisher.refill_if_low(), parts.publisher.behind) == (1, True)
    await parts.publisher.tick()
    assert await parts.publisher.refill_if_low() == 0
