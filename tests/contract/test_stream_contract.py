"""What every stream promises, whatever it is built on."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from replayforge.domain.event import Entry
from replayforge.streams.stream import Delivery, Stream
from replayforge.telemetry import Telemetry
from tests.contract.stream_backends import BACKENDS, StreamHouse, backend_server, stream_house
from tests.support.probe import Probe
from tests.support.redis_server import RedisServer

# Less than the two seconds of a block, at whose end a reader that missed its call would look again.
SOON_SECONDS = 1.9
ENTRIES = [Entry(f"event-{number}", 1) for number in range(10)]


@pytest.fixture(scope="session", params=BACKENDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer | None]:
    directory: Path = tmp_path_factory.mktemp("stream")
    yield from backend_server(request.param, directory)


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
async def probe(telemetry: Telemetry) -> Probe:
    return Probe(telemetry)


@pytest.fixture
async def house(server: RedisServer | None, telemetry: Telemetry) -> AsyncIterator[StreamHouse]:
    async with stream_house(server, telemetry) as house:
        yield house


@pytest.fixture
async def stream(house: StreamHouse) -> Stream:
    return await house.join("node-1")


def entries_in(deliveries: list[Delivery]) -> list[Entry]:
    return [delivery.entry for delivery in deliveries]


async def test_open_says_wiped(stream: Stream) -> None:
    """After open the publisher is told to refill, for it cannot know what is still there."""
    assert stream.wiped.is_set()


async def test_entries_come_in_order(stream: Stream) -> None:
    """Entries are read once each, in the order they were published."""
    await stream.publish(ENTRIES[:6])
    await stream.publish(ENTRIES[6:])
    first = await stream.read(4, 1)
    rest = await stream.read(100, 1)
    assert entries_in(first) == ENTRIES[:4]
    assert entries_in(rest) == ENTRIES[4:]
    assert await stream.read(1, 0) == []


async def test_large_batch_arrives_whole(stream: Stream) -> None:
    """A batch longer than any internal piece arrives whole and in order, and can be acked as one."""
    entries = [Entry(f"many-{number}", number) for number in range(2500)]
    await stream.publish(entries)
    deliveries = await stream.read(5000, 1)
    assert entries_in(deliveries) == entries
    await stream.ack(deliveries)
    assert await stream.depth() == 0


async def test_never_beyond_its_limit(stream: Stream, house: StreamHouse) -> None:
    """However many publish at once, the stream holds no more than `entries_max`; what found no room is not counted."""
    other = await house.join("node-2")
    stream.entries_max = other.entries_max = 25
    batches = [[Entry(f"event-{batch}-{number}", 1) for number in range(10)] for batch in range(4)]
    published = await asyncio.gather(
        *(one.publish(batch) for one, batch in zip([stream, other] * 2, batches, strict=True))
    )
    assert sum(published) == await stream.depth() == 25
    deliveries = await stream.read(100, 0)
    for batch, count in zip(batches, published, strict=True):
        assert [entry for entry in entries_in(deliveries) if entry in batch] == batch[:count]
    assert await stream.publish(batches[3]) == 0
    await stream.ack(deliveries[:5])
    assert await stream.publish(batches[3]) == 5


async def test_empty_calls_do_nothing(stream: Stream) -> None:
    """Publishing, acking and handing back nothing is allowed."""
    await stream.publish([])
    await stream.ack([])
    await stream.hand_back([])
    assert await stream.depth() == 0


async def test_read_returns_nothing_after_the_wait(stream: Stream) -> None:
    """A read of an empty stream ends after wait_seconds, not before and not at the end of a longer block."""
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    assert await stream.read(1, 0.2) == []
    assert 0.19 <= loop.time() - started_at < SOON_SECONDS


async def test_waiting_reader_wakes(stream: Stream) -> None:
    """A reader that waits gets an entry as soon as it is published."""
    reading = asyncio.create_task(stream.read(1, 20))
    await asyncio.sleep(0)
    await stream.publish(ENTRIES[:1])
    async with asyncio.timeout(SOON_SECONDS):
        assert entries_in(await reading) == ENTRIES[:1]


async def test_waiting_longer_than_one_block(stream: Stream) -> None:
    """A wait longer than the backend's own blocking time is waited for in full."""
    reading = asyncio.create_task(stream.read(1, 2.3))
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    assert await reading == []
    assert loop.time() - started_at >= 2.29


async def test_cancelled_read_loses_nothing(stream: Stream) -> None:
    """Whatever a cancelled read may have taken comes with a later read."""
    for number in range(20):
        reading = asyncio.create_task(stream.read(1, 5))
        for _ in range(number):
            await asyncio.sleep(0)
        await stream.publish([Entry(f"cancelled-{number}", 1)])
        reading.cancel()
        try:
            taken = await reading
        except asyncio.CancelledError:
            taken = await stream.read(1, 5)
        assert entries_in(taken) == [Entry(f"cancelled-{number}", 1)]
        await stream.ack(taken)
    assert await stream.depth() == 0


async def test_depth_counts_pending(stream: Stream) -> None:
    """The depth falls when an entry is acked, not when it is read."""
    await stream.publish(ENTRIES)
    deliveries = await stream.read(4, 1)
    assert await stream.depth() == 10
    await stream.ack(deliveries)
    assert await stream.depth() == 6


async def test_ack_twice_does_no_harm(stream: Stream) -> None:
    """A second ack of the same deliveries changes nothing."""
    await stream.publish(ENTRIES)
    deliveries = await stream.read(3, 1)
    await stream.ack(deliveries)
    await stream.ack(deliveries)
    assert await stream.depth() == 7
    assert entries_in(await stream.read(10, 1)) == ENTRIES[3:]


async def test_acked_entries_never_come_back(house: StreamHouse, stream: Stream) -> None:
    """Acked entries are neither read nor reclaimed again, not by another node either."""
    await stream.publish(ENTRIES)
    await stream.ack(await stream.read(10, 1))
    other = await house.join("node-2")
    assert await other.read(10, 0) == []
    assert await other.reclaim(0, 10) == []


async def test_handed_back_entries_are_available_at_once(house: StreamHouse, stream: Stream) -> None:
    """What is handed back is read again by whoever reads next, and counted once."""
    await stream.publish(ENTRIES[:3])
    await stream.hand_back(await stream.read(3, 1))
    assert await stream.depth() == 3
    other = await house.join("node-2")
    deliveries = await other.read(10, 1)
    assert entries_in(deliveries) == ENTRIES[:3]
    await other.ack(deliveries)
    assert await stream.depth() == 0


async def test_handing_back_wakes_a_reader(stream: Stream) -> None:
    """A waiting reader gets an entry as soon as it is handed back."""
    await stream.publish(ENTRIES[:1])
    deliveries = await stream.read(1, 1)
    reading = asyncio.create_task(stream.read(1, 20))
    await asyncio.sleep(0)
    await stream.hand_back(deliveries)
    async with asyncio.timeout(SOON_SECONDS):
        assert entries_in(await reading) == ENTRIES[:1]


async def test_reclaim_takes_what_is_idle(stream: Stream) -> None:
    """Pending entries are taken over once they have been idle long enough, not before, and are pending again."""
    await stream.publish(ENTRIES)
    await stream.read(10, 1)
    assert await stream.reclaim(60, 10) == []
    reclaimed = await stream.reclaim(0, 10)
    assert sorted(entries_in(reclaimed), key=str) == sorted(ENTRIES, key=str)
    assert await stream.depth() == 10
    await stream.ack(reclaimed)
    assert await stream.depth() == 0


async def test_reclaim_gets_round_to_every_entry(stream: Stream) -> None:
    """Repeated calls with a small count reach every pending entry."""
    entries = [Entry(f"pending-{number}", 1) for number in range(95)]
    await stream.publish(entries)
    await stream.read(95, 1)
    seen: set[Entry] = set()
    for _ in range(10):
        reclaimed = await stream.reclaim(0, 10)
        assert len(reclaimed) <= 10
        seen.update(entries_in(reclaimed))
    assert seen == set(entries)


async def test_reclaim_leaves_unread_entries(stream: Stream) -> None:
    """Reclaiming touches pending entries only."""
    await stream.publish(ENTRIES)
    assert await stream.reclaim(0, 10) == []
    assert entries_in(await stream.read(10, 1)) == ENTRIES


async def test_no_living_consumer_is_removed(house: StreamHouse, stream: Stream) -> None:
    """Nodes that are alive keep their consumers, and so does the node that asks."""
    other = await house.join("node-2")
    await other.read(1, 0)
    await stream.read(1, 0)
    assert await stream.remove_dead_consumers({"node-2"}) == 0


async def test_stats_describe_the_stream(stream: Stream) -> None:
    """The figures add up: what is pending and what is not read yet make the depth."""
    await stream.publish(ENTRIES)
    await stream.read(4, 1)
    stats = await stream.stats()
    assert stats.up
    assert stats.backend == stream.name
    assert (stats.depth, stats.pending, stats.lag) == (10, 4, 6)
    assert stats.consumers == 1
    assert 0 <= stats.oldest_idle_seconds < 5
    assert stats.warnings == ()


async def test_publishing_and_reclaiming_are_reported(stream: Stream, probe: Probe) -> None:
    """Telemetry counts the entries that were published and reclaimed."""
    await stream.publish(ENTRIES)
    await stream.read(10, 1)
    await stream.reclaim(0, 10)
    assert probe.counts["entry.published"] == 10
    assert probe.counts["entry.reclaimed"] == 10


async def test_close_twice_and_before_open(house: StreamHouse) -> None:
    """Closing is safe twice, and without having opened."""
    stream = house.build("node-1")
    await stream.close()
    await stream.open()
    await stream.close()
    await stream.close()
