"""A run of a thousand entries with a fault in its middle: `wiped` and a sweep are enough to finish."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from replayforge.chaos.tcp_proxy import TcpProxy
from replayforge.domain.errors import Unavailable
from replayforge.domain.event import Entry
from replayforge.streams.redis_stream import RedisStream
from tests.support.polling import back_off, persist
from tests.support.redis_server import RedisServer

ENTRIES_TOTAL = 1000
ENTRIES_BEFORE_FAULT = 300


class Road:
    """The engine in small: a store of open events, a publisher that refills when told, a reader and a sweep."""

    def __init__(self, stream: RedisStream) -> None:
        self.stream = stream
        self.open = {Entry(f"event-{number}", 1): None for number in range(ENTRIES_TOTAL)}
        self.starts: Counter[Entry] = Counter()
        self.refills = 0
        self.under_way = asyncio.Event()

    async def publish(self) -> None:
        while True:
            await self.stream.wiped.wait()
            self.stream.wiped.clear()
            try:
                await self.stream.publish(list(self.open))
                self.refills += 1
            except Unavailable:
                self.stream.wiped.set()
                await back_off()

    async def read(self) -> None:
        while True:
            try:
                deliveries = await self.stream.read(7, 0.5)
                await self.settle([delivery.entry for delivery in deliveries])
                await self.stream.ack(deliveries)
            except Unavailable:
                await back_off()

    async def settle(self, entries: list[Entry]) -> None:
        for entry in entries:
            if entry in self.open:
                del self.open[entry]
                self.starts[entry] += 1
        if len(self.starts) >= ENTRIES_BEFORE_FAULT:
            self.under_way.set()

    async def sweep(self) -> None:
        while True:
            try:
                deliveries = await self.stream.reclaim(0.3, 100)
                await self.settle([delivery.entry for delivery in deliveries])
                await self.stream.ack(deliveries)
            except Unavailable:
                await back_off()
            await back_off(0.2)

    async def empty(self) -> bool:
        return not self.open and await self.stream.depth() == 0


def kill_and_restart(server: RedisServer, proxy: TcpProxy, stream: RedisStream) -> None:
    server.kill()
    server.start()


def flush_all(server: RedisServer, proxy: TcpProxy, stream: RedisStream) -> None:
    server.command("FLUSHALL")


def delete_the_stream(server: RedisServer, proxy: TcpProxy, stream: RedisStream) -> None:
    server.command("DEL", stream.key)


def destroy_the_group(server: RedisServer, proxy: TcpProxy, stream: RedisStream) -> None:
    server.command("XGROUP", "DESTROY", stream.key, stream.group.name)


def delete_the_consumer(server: RedisServer, proxy: TcpProxy, stream: RedisStream) -> None:
    server.command("XGROUP", "DELCONSUMER", stream.key, stream.group.name, stream.node)


def cut_every_client(server: RedisServer, proxy: TcpProxy, stream: RedisStream) -> None:
    server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def unblock_every_client(server: RedisServer, proxy: TcpProxy, stream: RedisStream) -> None:
    for client in server.admin.client_list():
        server.command("CLIENT", "UNBLOCK", client["id"], "ERROR")


def demote_and_promote(server: RedisServer, proxy: TcpProxy, stream: RedisStream) -> None:
    server.command("REPLICAOF", "127.0.0.1", 1)
    asyncio.get_running_loop().call_later(0.3, server.command, "REPLICAOF", "NO", "ONE")


def run_out_of_memory(server: RedisServer, proxy: TcpProxy, stream: RedisStream) -> None:
    server.command("CONFIG", "SET", "maxmemory", 1)
    stream.wiped.set()
    asyncio.get_running_loop().call_later(0.3, server.command, "CONFIG", "SET", "maxmemory", 0)


def reset_the_network(server: RedisServer, proxy: TcpProxy, stream: RedisStream) -> None:
    proxy.reset()


def partition(server: RedisServer, proxy: TcpProxy, stream: RedisStream) -> None:
    proxy.blackhole()
    asyncio.get_running_loop().call_later(1.5, proxy.heal)


def half_open(server: RedisServer, proxy: TcpProxy, stream: RedisStream) -> None:
    proxy.half_open()
    asyncio.get_running_loop().call_later(0.5, proxy.heal)


def stop_the_process(server: RedisServer, proxy: TcpProxy, stream: RedisStream) -> None:
    server.pause()
    asyncio.get_running_loop().call_later(1.5, server.resume)


FAULTS = [
    kill_and_restart,
    flush_all,
    delete_the_stream,
    destroy_the_group,
    delete_the_consumer,
    cut_every_client,
    unblock_every_client,
    demote_and_promote,
    run_out_of_memory,
    reset_the_network,
    partition,
    half_open,
    stop_the_process,
]


@pytest.fixture
async def road(far_stream: RedisStream) -> AsyncIterator[Road]:
    road = Road(far_stream)
    tasks = [asyncio.create_task(actor()) for actor in (road.publish, road.read, road.sweep)]
    yield road
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), outcomes


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_fault_mid_run(
    road: Road, server: RedisServer, proxy: TcpProxy, fault: Callable[[RedisServer, TcpProxy, RedisStream], None]
) -> None:
    """Every entry is settled and the stream is empty in the end, whatever broke on the way."""
    road.stream.wiped.set()
    async with asyncio.timeout(10):
        await road.under_way.wait()
    assert road.open
    fault(server, proxy, road.stream)
    await persist(road.empty, timeout_seconds=20)
    assert len(road.starts) == ENTRIES_TOTAL


async def test_failover_to_a_replica_that_lagged(
    road: Road, server: RedisServer, proxy: TcpProxy, binary: str, tmp_path: Path
) -> None:
    """A promoted replica with the same generation, but without the latest entries, counts as wiped."""
    (tmp_path / "replica").mkdir()
    with RedisServer(binary, tmp_path / "replica") as replica:
        replica.command("REPLICAOF", "127.0.0.1", server.port)

        async def copied() -> bool:
            return replica.command("GET", road.stream.group.generation_key) is not None

        await persist(copied)
        replica.command("REPLICAOF", "NO", "ONE")
        road.stream.wiped.set()
        async with asyncio.timeout(10):
            await road.under_way.wait()
        assert road.open
        proxy.target_port = replica.port
        proxy.reset()
        await persist(road.empty, timeout_seconds=20)
        assert road.refills == 2


async def test_failover_to_an_empty_server(
    road: Road, server: RedisServer, proxy: TcpProxy, binary: str, tmp_path: Path
) -> None:
    """A server that knows nothing is filled from the store by one refill."""
    (tmp_path / "replica").mkdir()
    with RedisServer(binary, tmp_path / "replica") as replica:
        road.stream.wiped.set()
        async with asyncio.timeout(10):
            await road.under_way.wait()
        assert road.open
        proxy.target_port = replica.port
        proxy.reset()
        await persist(road.empty, timeout_seconds=20)
        assert road.refills == 2
