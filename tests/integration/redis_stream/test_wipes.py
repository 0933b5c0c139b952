"""A stream that lost its entries is noticed, made anew and refilled, however it was lost."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from replayforge.domain.event import Entry
from replayforge.streams.redis_stream import RedisStream
from tests.integration.redis_stream.conftest import OpenStream
from tests.support.polling import persist
from tests.support.probe import Probe
from tests.support.redis_server import RedisServer

ENTRIES = [Entry(f"event-{number}", 1) for number in range(10)]


async def read_entries(stream: RedisStream, count: int = 100) -> list[Entry]:
    return [delivery.entry for delivery in await stream.read(count, 1)]


async def test_wipe_under_a_waiting_reader(stream: RedisStream, server: RedisServer, probe: Probe) -> None:
    """After FLUSHALL a waiting reader makes the group anew, says wiped, and gets what is published then."""
    reading = asyncio.create_task(stream.read(1, 20))
    await asyncio.sleep(0)
    server.command("FLUSHALL")
    async with asyncio.timeout(15):
        await stream.wiped.wait()
    await stream.publish(ENTRIES[:1])
    async with asyncio.timeout(15):
        assert [delivery.entry for delivery in await reading] == ENTRIES[:1]
    assert probe.counts["stream.wiped"] == 1


async def test_wipe_before_a_publish(stream: RedisStream, server: RedisServer) -> None:
    """A publish after FLUSHALL makes the stream together with its group, and says wiped."""
    server.command("FLUSHALL")
    await stream.publish(ENTRIES)
    assert stream.wiped.is_set()
    assert await read_entries(stream) == ENTRIES


async def test_wipe_healed_by_another_node(stream: RedisStream, server: RedisServer, open_stream: OpenStream) -> None:
    """A wipe that another node has already healed is noticed by the next publish or read all the same."""
    async with open_stream(server.url, node="node-2") as other:
        server.command("FLUSHALL")
        await other.publish(ENTRIES[:1])
        assert other.wiped.is_set()
        await stream.publish(ENTRIES[1:2])
        await stream.depth()
        assert stream.wiped.is_set()
        assert await read_entries(stream) == ENTRIES[:2]


async def test_restart_from_an_old_snapshot(stream: RedisStream, server: RedisServer) -> None:
    """A server that comes back with an old stream, group and generation counts as wiped."""
    server.command("SAVE")
    await stream.publish(ENTRIES)
    server.kill()
    server.start()
    await persist(stream.stats)
    await stream.depth()
    assert stream.wiped.is_set()
    assert await stream.depth() == 0


async def test_evicted_generation(stream: RedisStream, server: RedisServer) -> None:
    """When the generation key is gone other keys may be gone too, so the stream counts as wiped, once."""
    server.command("DEL", stream.group.generation_key)
    await stream.publish(ENTRIES)
    await stream.depth()
    assert stream.wiped.is_set()
    stream.wiped.clear()
    await stream.publish(ENTRIES)
    await stream.depth()
    assert not stream.wiped.is_set()


async def test_deleted_group(stream: RedisStream, server: RedisServer, probe: Probe) -> None:
    """A group that was deleted by hand is made anew at 0: what had been read and not acked is read again."""
    await stream.publish(ENTRIES)
    await stream.read(5, 1)
    server.command("XGROUP", "DESTROY", stream.key, stream.group.name)
    assert await read_entries(stream) == ENTRIES
    assert stream.wiped.is_set()
    assert probe.counts["stream.wiped"] == 1


@pytest.mark.parametrize("first", range(4))
async def test_chores_after_a_wipe(stream: RedisStream, server: RedisServer, first: int) -> None:
    """Each chore, called first after a wipe, works again within a few tries."""
    chores: list[Callable[[], Awaitable[object]]] = [
        lambda: stream.reclaim(0, 1),
        lambda: stream.remove_dead_consumers(()),
        stream.stats,
        stream.depth,
    ]

    async def try_each() -> list[object]:
        return [await chore() for chore in chores[first:] + chores[:first]]

    server.command("FLUSHALL")
    await persist(try_each)
    assert (await stream.stats()).up
