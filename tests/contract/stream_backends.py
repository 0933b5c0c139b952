"""Every stream backend at hand, opened the same way; the only place in the contract tests that knows their names."""

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from replayforge.streams.embedded_stream import EmbeddedStream
from replayforge.streams.redis_stream import RedisStream
from replayforge.streams.stream import Stream
from replayforge.telemetry import Telemetry
from tests.support.redis_server import MISSING, RedisServer, redis_binaries

BACKENDS = ["embedded", *(f"redis-{origin}" for origin in redis_binaries())] + ([] if redis_binaries() else ["redis"])


class StreamHouse:
    """One store's stream, as seen by any number of nodes."""

    def __init__(self, server: RedisServer | None, telemetry: Telemetry) -> None:
        self.server = server
        self.telemetry = telemetry
        self.store_id = uuid.uuid4().hex
        self.opened: list[Stream] = []

    async def join(self, node: str) -> Stream:
        """Open the stream as `node`; where there is only one process, every node is that process."""
        stream = self.build(node)
        await stream.open()
        if stream not in self.opened:
            self.opened.append(stream)
        return stream

    def build(self, node: str) -> Stream:
        if self.server:
            return RedisStream(self.server.url, store_id=self.store_id, node=node, telemetry=self.telemetry)
        return self.opened[0] if self.opened else EmbeddedStream(self.telemetry)


@asynccontextmanager
async def stream_house(server: RedisServer | None, telemetry: Telemetry) -> AsyncIterator[StreamHouse]:
    house = StreamHouse(server, telemetry)
    try:
        yield house
    finally:
        for stream in house.opened:
            await stream.close()


def backend_server(backend: str, directory: Path) -> Iterator[RedisServer | None]:
    """Start the server a backend needs, for as long as the generator lives."""
    if backend == "embedded":
        yield None
        return
    if backend == "redis":
        pytest.skip(MISSING)
    server = RedisServer(redis_binaries()[backend.removeprefix("redis-")], directory).start()
    yield server
    server.kill()
