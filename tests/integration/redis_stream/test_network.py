"""What a network can do to the stream: nothing is lost, nothing is sent twice, nothing hangs."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from replayforge.chaos.tcp_proxy import TcpProxy
from replayforge.domain.errors import Unavailable
from replayforge.domain.event import Entry
from replayforge.streams.redis_stream import RedisStream
from tests.integration.redis_stream.conftest import IMPATIENCE_SECONDS, OpenStream
from tests.support.polling import persist
from tests.support.probe import Probe
from tests.support.redis_server import RedisServer

ENTRIES = [Entry(f"event-{number}", 1) for number in range(10)]


async def test_black_hole(far_stream: RedisStream, proxy: TcpProxy, probe: Probe) -> None:
    """A read into a black hole ends when its block and one call are over, and reading works again once it is healed."""
    await far_stream.read(1, 0)
    reading = asyncio.create_task(far_stream.read(1, 60))
    await asyncio.sleep(0)
    proxy.blackhole()
    async with asyncio.timeout(20):
        with pytest.raises(Unavailable):
            await reading
    proxy.heal()
    await far_stream.publish(ENTRIES)
    assert len(await far_stream.read(10, 5)) == 10
    assert probe.counts["stream.recovered"] == probe.counts["stream.failed"] > 0


async def test_watchdog(far_stream: RedisStream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader whose client hangs where no socket time-out reaches is thrown away when its time is over."""

    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    hung_client = far_stream.reader.client
    monkeypatch.setattr(hung_client.connection_pool, "get_connection", hang)
    async with asyncio.timeout(20):
        with pytest.raises(Unavailable, match=r"1\.3 s"):
            await far_stream.read(1, 60)
    assert far_stream.reader.client is not hung_client
    await far_stream.publish(ENTRIES)
    assert len(await far_stream.read(10, 5)) == 10


async def test_swallowed_answer_to_a_read(far_stream: RedisStream, server: RedisServer, proxy: TcpProxy) -> None:
    """Entries whose delivery the network swallowed come with the next read, at once."""
    await far_stream.read(1, 0)
    await far_stream.publish(ENTRIES)
    proxy.swallow_answers()
    with pytest.raises(Unavailable):
        await far_stream.read(10, 1)
    assert server.command("XPENDING", far_stream.key, far_stream.group.name)["pending"] == 10
    proxy.reset()
    proxy.heal()
    deliveries = await persist(lambda: far_stream.read(10, 0))
    assert [delivery.entry for delivery in deliveries] == ENTRIES


async def test_swallowed_answer_to_a_publish(far_stream: RedisStream, server: RedisServer, proxy: TcpProxy) -> None:
    """A publish whose answer does not come is Unavailable, and is never sent a second time by itself."""
    await far_stream.publish(ENTRIES)
    proxy.swallow_answers()
    with pytest.raises(Unavailable):
        await far_stream.publish(ENTRIES)
    proxy.reset()
    proxy.heal()
    await persist(far_stream.depth)
    assert server.calls_of("xadd") == 20


async def test_swallowed_answer_to_an_ack(far_stream: RedisStream, proxy: TcpProxy) -> None:
    """An ack whose answer does not come may simply be made again."""
    await far_stream.publish(ENTRIES)
    deliveries = await far_stream.read(10, 1)
    proxy.swallow_answers()
    with pytest.raises(Unavailable):
        await far_stream.ack(deliveries)
    proxy.reset()
    proxy.heal()
    await persist(far_stream.stats)
    await far_stream.ack(deliveries)
    assert await far_stream.depth() == 0
    assert await far_stream.read(10, 0) == []


async def test_ack_that_never_arrived(far_stream: RedisStream, proxy: TcpProxy) -> None:
    """Entries whose ack failed on its way come again, to be found settled and acked then."""
    await far_stream.publish(ENTRIES)
    deliveries = await far_stream.read(10, 1)
    proxy.blackhole()
    with pytest.raises(Unavailable):
        await far_stream.ack(deliveries)
    proxy.reset()
    proxy.heal()
    assert await persist(lambda: far_stream.read(10, 0)) == deliveries


@pytest.fixture
def broken_writer(stream: RedisStream, monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """Break the connection for everything but reads, for the length of a block."""

    async def refuse(*_: object) -> None:
        raise OSError("broken")

    @contextmanager
    def broken() -> Iterator[None]:
        with monkeypatch.context() as patched:
            patched.setattr(stream.writer.client.connection_pool, "get_connection", refuse)
            yield

    return broken


async def test_ack_that_fails_beside_a_read(
    stream: RedisStream, broken_writer: Callable[[], AbstractContextManager[None]]
) -> None:
    """A read that ends well does not make the stream forget that an ack failed meanwhile."""
    await stream.publish(ENTRIES)
    deliveries = await stream.read(10, 1)
    reading = asyncio.create_task(stream.read(10, 0.2))
    await asyncio.sleep(0)
    with broken_writer(), pytest.raises(Unavailable):
        await stream.ack(deliveries)
    assert await reading == []
    assert await stream.read(10, 0) == deliveries


async def test_read_that_cannot_clean_up(
    stream: RedisStream, server: RedisServer, broken_writer: Callable[[], AbstractContextManager[None]]
) -> None:
    """When an unusable entry cannot be removed the good ones beside it come with the next read."""
    server.command("XADD", stream.key, "*", "hello", "world")
    await stream.publish(ENTRIES)
    with broken_writer(), pytest.raises(Unavailable):
        await stream.read(20, 1)
    assert [delivery.entry for delivery in await stream.read(20, 0)] == ENTRIES
    assert await stream.depth() == 10


async def test_half_open_connection(far_stream: RedisStream, proxy: TcpProxy) -> None:
    """A connection that only this side still believes in costs one time-out, and no entry."""
    await far_stream.publish(ENTRIES)
    await far_stream.read(5, 1)
    proxy.half_open()
    with pytest.raises(Unavailable):
        await far_stream.read(5, 1)
    proxy.heal()
    deliveries = await persist(lambda: far_stream.read(10, 0))
    assert [delivery.entry for delivery in deliveries] == ENTRIES[5:]


async def test_reset_connections(far_stream: RedisStream, proxy: TcpProxy) -> None:
    """After every connection was reset the next calls connect anew."""
    await far_stream.publish(ENTRIES)
    reading = asyncio.create_task(far_stream.read(100, 0.2))
    await reading
    proxy.reset()
    await persist(far_stream.depth)
    await far_stream.publish(ENTRIES)
    assert len(await persist(lambda: far_stream.read(100, 0))) == 10


async def test_slow_network(proxy: TcpProxy, open_stream: OpenStream, probe: Probe) -> None:
    """Round trips of a quarter of a call's time, as 2 s are with the time-outs as shipped, only make it slower."""
    proxy.latency_seconds = 0.125
    async with open_stream(proxy.url, call_seconds=IMPATIENCE_SECONDS) as stream:
        reading = asyncio.create_task(stream.read(10, 20))
        await stream.publish(ENTRIES)
        deliveries = await reading
        assert [delivery.entry for delivery in deliveries] == ENTRIES
        await stream.ack(deliveries)
        assert await stream.depth() == 0
    assert probe.counts["stream.failed"] == 0
