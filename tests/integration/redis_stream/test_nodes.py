"""Several daemons, and several installations, on one Redis."""

from replayforge.domain.event import Entry
from replayforge.streams.redis_stream import RedisStream
from tests.integration.redis_stream.conftest import OpenStream
from tests.support.redis_server import RedisServer

ENTRIES = [Entry(f"event-{number}", 1) for number in range(10)]


async def test_each_entry_goes_to_one_node(stream: RedisStream, server: RedisServer, open_stream: OpenStream) -> None:
    """Two nodes that read in turn share the entries, and each gets its own."""
    await stream.publish(ENTRIES)
    async with open_stream(server.url, node="node-2") as other:
        deliveries = await stream.read(4, 1) + await other.read(100, 1)
    assert [delivery.entry for delivery in deliveries] == ENTRIES


async def test_restarted_node_goes_on_at_once(server: RedisServer, open_stream: OpenStream) -> None:
    """What a node had read when its process died is the first thing its next process reads, without a time-out."""
    async with open_stream(server.url) as stream:
        await stream.publish(ENTRIES)
        before = await stream.read(6, 1)
    async with open_stream(server.url) as stream:
        assert await stream.read(4, 0) == before[:4]
        assert await stream.read(4, 0) == before[4:]
        assert [delivery.entry for delivery in await stream.read(100, 0)] == ENTRIES[6:]
        assert await stream.read(100, 0) == []


async def test_dead_node_is_inherited_and_removed(
    stream: RedisStream, server: RedisServer, open_stream: OpenStream
) -> None:
    """A dead node's consumer stays while entries are pending with it, and goes once they were taken over."""
    await stream.publish(ENTRIES)
    async with open_stream(server.url, node="node-2") as dead:
        await dead.read(10, 1)
    assert await stream.remove_dead_consumers(["node-1"]) == 0
    reclaimed = await stream.reclaim(0, 100)
    assert [delivery.entry for delivery in reclaimed] == ENTRIES
    assert await stream.remove_dead_consumers(["node-1"]) == 1
    consumers = server.admin.xinfo_consumers(stream.key, stream.group.name)
    assert [consumer["name"] for consumer in consumers] == ["node-1"]


async def test_installations_are_strangers(server: RedisServer, open_stream: OpenStream) -> None:
    """Two installations on one Redis, with the same node name, never see each other's entries."""
    async with (
        open_stream(server.url, store_id="mine") as mine,
        open_stream(server.url, store_id="yours") as yours,
    ):
        await mine.publish(ENTRIES)
        assert await yours.depth() == 0
        assert await yours.read(10, 0) == []
        assert await yours.reclaim(0, 10) == []
        assert len(await mine.read(10, 0)) == 10


async def test_nothing_is_left_behind(stream: RedisStream, server: RedisServer) -> None:
    """Thousands of entries, read in all sizes, leave an empty stream, nothing pending, and nothing in memory."""
    for batch in range(20):
        await stream.publish([Entry(f"event-{batch}-{number}", 1) for number in range(250)])
        while deliveries := await stream.read(batch * 7 + 1, 0):
            await stream.ack(deliveries)
    assert server.command("XLEN", stream.key) == 0
    assert server.command("XPENDING", stream.key, stream.group.name)["pending"] == 0
    assert stream.held == set()


async def test_deleted_consumer(stream: RedisStream, server: RedisServer, open_stream: OpenStream) -> None:
    """Entries whose consumer somebody deleted by hand, pending list and all, are read again after a sweep."""
    await stream.publish(ENTRIES)
    async with open_stream(server.url, node="node-2") as other:
        await other.read(10, 1)
    server.command("XGROUP", "DELCONSUMER", stream.key, stream.group.name, "node-2")
    assert await stream.read(10, 0) == []
    assert await stream.reclaim(60, 100) == []
    assert [delivery.entry for delivery in await stream.read(10, 0)] == ENTRIES


async def test_sweep_leaves_pending_entries_alone(stream: RedisStream) -> None:
    """A sweep that finds nothing idle makes no entry come twice."""
    await stream.publish(ENTRIES)
    await stream.read(4, 0)
    assert await stream.reclaim(60, 100) == []
    await stream.read(6, 0)
    assert await stream.reclaim(60, 100) == []
    assert await stream.read(10, 0) == []


async def test_strange_entries(stream: RedisStream, server: RedisServer) -> None:
    """What somebody else put on the stream is removed, and does not stop what comes after it."""
    server.command("XADD", stream.key, "*", "hello", "world")
    server.command("XADD", stream.key, "*", "id", "event", "run", "not a number")
    await stream.publish(ENTRIES)
    assert [delivery.entry for delivery in await stream.read(20, 1)] == ENTRIES
    assert await stream.depth() == 10


async def test_deleted_bodies(stream: RedisStream, server: RedisServer) -> None:
    """Pending entries whose body was deleted by hand do not stay pending for ever."""
    await stream.publish(ENTRIES)
    deliveries = await stream.read(10, 1)
    server.command("XDEL", stream.key, *(delivery.handle for delivery in deliveries[:5]))
    reclaimed = await stream.reclaim(0, 100)
    assert [delivery.entry for delivery in reclaimed] == ENTRIES[5:]
    await stream.ack(reclaimed)
    stream.start_over()
    await stream.read(10, 0)
    assert server.command("XPENDING", stream.key, stream.group.name)["pending"] == 0
