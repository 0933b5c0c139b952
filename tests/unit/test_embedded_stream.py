"""What only the stream inside the process promises."""

import asyncio

from replayforge.domain.event import Entry
from replayforge.streams.embedded_stream import EmbeddedStream
from replayforge.telemetry import Telemetry

ENTRIES = [Entry(f"event-{number}", 1) for number in range(4)]


async def test_queued_entry_is_not_queued_twice() -> None:
    """An entry published again while it is queued keeps its place and comes once; another run is another entry."""
    stream = EmbeddedStream(Telemetry())
    await stream.publish(ENTRIES)
    await stream.publish([ENTRIES[2], Entry("event-2", 2), ENTRIES[0]])
    deliveries = await stream.read(10, 0)
    assert [delivery.entry for delivery in deliveries] == [*ENTRIES, Entry("event-2", 2)]


async def test_pending_entry_can_be_queued_again() -> None:
    """An entry that was read may be published again, for its event may have become due again meanwhile."""
    stream = EmbeddedStream(Telemetry())
    await stream.publish(ENTRIES[:1])
    first = await stream.read(1, 0)
    await stream.publish(ENTRIES[:1])
    assert await stream.depth() == 2
    second = await stream.read(1, 0)
    await stream.ack(first)
    assert await stream.depth() == 1
    await stream.ack(second)
    assert await stream.depth() == 0


async def test_handed_back_entries_go_to_the_front() -> None:
    """Entries that are handed back come before those that were still queued, in their old order."""
    stream = EmbeddedStream(Telemetry())
    await stream.publish(ENTRIES)
    await stream.hand_back(await stream.read(2, 0))
    assert [delivery.entry for delivery in await stream.read(4, 0)] == ENTRIES


async def test_waiting_reader_is_woken_not_polling() -> None:
    """A read that waits ends within the next turns of the event loop after a publish, without any time passing."""
    stream = EmbeddedStream(Telemetry())
    reading = asyncio.create_task(stream.read(1, 60))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not reading.done()
    await stream.publish(ENTRIES[:1])
    for _ in range(3):
        await asyncio.sleep(0)
    assert reading.done()
