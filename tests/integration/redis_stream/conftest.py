"""A private server per test, every version at hand, and the stream on it: directly or through a faulty network."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from replayforge.chaos.tcp_proxy import TcpProxy
from replayforge.streams.redis_stream import RedisStream
from replayforge.telemetry import Telemetry
from tests.support.probe import Probe
from tests.support.redis_server import MISSING, RedisServer, redis_binaries
from tests.support.slow import the_rest_slow

OpenStream = Callable[..., AbstractAsyncContextManager[RedisStream]]
PATIENCE_SECONDS, IMPATIENCE_SECONDS = 8.0, 1.0  # as shipped; and for tests of outages and limits


@pytest.fixture(params=the_rest_slow([*redis_binaries()] or ["none"]))
def binary(request: pytest.FixtureRequest) -> str:
    if not redis_binaries():
        pytest.skip(MISSING)
    return redis_binaries()[request.param]


@pytest.fixture
def server(binary: str, tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(binary, tmp_path) as server:
        yield server


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
async def probe(telemetry: Telemetry) -> Probe:
    return Probe(telemetry)


@pytest.fixture
def open_stream(telemetry: Telemetry) -> OpenStream:
    """Open a stream with short blocks."""

    @asynccontextmanager
    async def open_stream(
        url: str, node: str = "node-1", store_id: str = "store", call_seconds: float = PATIENCE_SECONDS
    ) -> AsyncIterator[RedisStream]:
        stream = RedisStream(
            url, store_id=store_id, node=node, telemetry=telemetry, block_seconds=0.3, call_seconds=call_seconds
        )
        await stream.open()
        stream.wiped.clear()
        try:
            yield stream
        finally:
            await stream.close()

    return open_stream


@pytest.fixture
async def stream(server: RedisServer, open_stream: OpenStream) -> AsyncIterator[RedisStream]:
    async with open_stream(server.url) as stream:
        yield stream


@pytest.fixture
async def proxy(server: RedisServer) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(server.port) as proxy:
        yield proxy


@pytest.fixture
async def far_stream(proxy: TcpProxy, open_stream: OpenStream) -> AsyncIterator[RedisStream]:
    """The stream as seen through the proxy: its calls give up after 1 s, its reads after 1.3 s."""
    async with open_stream(proxy.url, call_seconds=IMPATIENCE_SECONDS) as stream:
        yield stream
