"""A Redis that answers, but with a refusal: each becomes Unavailable, costs nothing, and passes by itself."""

from pathlib import Path

import pytest

from replayforge.domain.errors import Refused, Unavailable
from replayforge.domain.event import Entry
from replayforge.streams.redis_stream import RedisStream
from replayforge.telemetry import Telemetry
from tests.integration.redis_stream.conftest import OpenStream
from tests.support.polling import persist
from tests.support.probe import Probe
from tests.support.redis_server import RedisServer

ENTRIES = [Entry(f"event-{number}", 1) for number in range(10)]


async def test_no_memory(stream: RedisStream, server: RedisServer, probe: Probe) -> None:
    """Out of memory a publish is Unavailable, while the stream can still be read empty; then publishing recovers."""
    await stream.publish(ENTRIES)
    server.command("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(Unavailable, match="maxmemory"):
        await stream.publish(ENTRIES)
    deliveries = await stream.read(10, 1)
    await stream.ack(deliveries)
    assert await stream.depth() == 0
    server.command("CONFIG", "SET", "maxmemory", 0)
    await stream.publish(ENTRIES)
    assert await stream.depth() == 10
    assert probe.fields("stream.failed")[0]["operation"] == "publish"
    assert probe.counts["stream.failed"] == probe.counts["stream.recovered"] == 1


async def test_opening_without_memory(server: RedisServer, open_stream: OpenStream) -> None:
    """A daemon that starts while Redis is out of memory can read what is on the stream."""
    async with open_stream(server.url) as stream:
        await stream.publish(ENTRIES)
    server.command("CONFIG", "SET", "maxmemory", 1)
    async with open_stream(server.url) as stream:
        assert len(await stream.read(10, 1)) == 10


async def test_handing_back_without_memory(stream: RedisStream, server: RedisServer) -> None:
    """A hand-back that fails leaves the entries pending, and they come again with a later read."""
    await stream.publish(ENTRIES)
    deliveries = await stream.read(10, 1)
    server.command("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(Unavailable):
        await stream.hand_back(deliveries)
    assert await stream.depth() == 10
    assert await stream.read(10, 1) == deliveries


async def test_read_only(stream: RedisStream, server: RedisServer, probe: Probe) -> None:
    """A server made a replica is Unavailable, reported once an operation, until it is a primary again."""
    await stream.publish(ENTRIES)
    server.command("REPLICAOF", "127.0.0.1", 1)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await stream.publish(ENTRIES)
        with pytest.raises(Unavailable):
            await stream.read(1, 0)
    server.command("REPLICAOF", "NO", "ONE")
    assert len(await stream.read(20, 1)) == 10
    await stream.publish(ENTRIES)
    assert probe.counts["stream.recovered"] == probe.counts["stream.failed"] == 2


async def test_loading(binary: str, tmp_path: Path, open_stream: OpenStream) -> None:
    """A server that is still loading is Unavailable, and the stream opens by itself once it has loaded."""
    slow_to_load = ("--key-load-delay", "5000", "--rdbcompression", "no")
    with RedisServer(binary, tmp_path, *slow_to_load) as server:
        server.admin.mset({f"key-{number}": "x" * 100_000 for number in range(300)})
        async with open_stream(server.url) as stream:
            await stream.publish(ENTRIES)
            server.command("SAVE")
            server.kill()
            server.start()
            with pytest.raises(Unavailable, match="closed"):
                await stream.publish(ENTRIES)
            with pytest.raises(Unavailable, match="loading"):
                await stream.publish(ENTRIES)
            deliveries = await persist(lambda: stream.read(10, 0.1))
            assert [delivery.entry for delivery in deliveries] == ENTRIES


async def test_down_at_start(server: RedisServer, telemetry: Telemetry, probe: Probe) -> None:
    """A stream whose Redis is down can be opened later by using it, and says so in its stats meanwhile."""
    server.kill()
    stream = RedisStream(server.url, store_id="store", node="node-1", telemetry=telemetry)
    with pytest.raises(Unavailable):
        await stream.open()
    stats = await stream.stats()
    assert not stats.up
    assert str(server.port) in stats.warnings[0]
    server.start()
    await stream.publish(ENTRIES)
    assert len(await stream.read(10, 1)) == 10
    assert probe.counts["stream.recovered"] == 1
    await stream.close()


async def test_eviction_policy_is_named(stream: RedisStream, server: RedisServer) -> None:
    """A policy under which Redis may evict the stream is a warning in the stats, in words."""
    server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    assert "maxmemory-policy is allkeys-lru" in (await stream.stats()).warnings[0]


async def test_wrong_password(binary: str, tmp_path: Path, telemetry: Telemetry) -> None:
    """A refused password is Unavailable, and no message carries it."""
    with RedisServer(binary, tmp_path, "--requirepass", "right") as server:
        url = server.url.replace("redis://", "redis://:wrong-secret@")
        stream = RedisStream(url, store_id="store", node="node-1", telemetry=telemetry)
        with pytest.raises(Unavailable) as caught:
            await stream.open()
        assert "password" in str(caught.value)
        assert "secret" not in str(caught.value)
        await stream.close()


async def test_too_old_a_server(stream: RedisStream) -> None:
    """A server older than 6.2 is refused by version, and one of the other family is shown by its own name."""
    with pytest.raises(Refused, match=r"5\.0\.14"):
        stream.group.check_version({"redis_version": "5.0.14"})
    stream.group.check_version({"redis_version": "7.2.4", "valkey_version": "8.0.1"})
    assert stream.group.server_version == "valkey 8.0.1"


@pytest.mark.parametrize("url", ["http://127.0.0.1", "redis://127.0.0.1:port", "redis+sentinel://127.0.0.1", ""])
def test_unreadable_url(url: str, telemetry: Telemetry) -> None:
    """A URL that names no Redis is refused at once."""
    with pytest.raises(Refused):
        RedisStream(url, store_id="store", node="node-1", telemetry=telemetry)
