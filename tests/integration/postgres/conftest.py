"""A private PostgreSQL for tests that do it harm, a network that fails on demand, and a whole daemon on them."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from replayforge.domain.event import Event
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.registry import Handlers
from tests.integration.postgres.network import CommitBreaker
from tests.support.house import House, open_house
from tests.support.postgres_server import PostgresServer, require_postgres

OpenHouse = Callable[..., AbstractAsyncContextManager[House]]
CALL_SECONDS = 1.0


@pytest.fixture(scope="module")
def private_server() -> Iterator[PostgresServer]:
    require_postgres()
    with PostgresServer() as server:
        yield server


@pytest.fixture
def server(private_server: PostgresServer) -> PostgresServer:
    """The server of this file's tests, running again whatever the last test did to it."""
    return private_server.start()


@pytest.fixture
def url(server: PostgresServer) -> str:
    """An empty store."""
    return server.new_schema()


@pytest.fixture
def impatient_url(url: str) -> str:
    """The same store, whose calls are given up after a second: for outages and limits only.

    A process that a busy machine holds up for longer in the middle of a transaction is taken for one that hangs.
    """
    return f"{url}&call_seconds={CALL_SECONDS}"


@pytest.fixture
async def proxy(server: PostgresServer) -> AsyncIterator[CommitBreaker]:
    async with CommitBreaker(server.port) as proxy:
        yield proxy


@pytest.fixture
def far_url(url: str, server: PostgresServer, proxy: CommitBreaker) -> str:
    """The same store as seen through the proxy."""
    return url.replace(f":{server.port}/", f":{proxy.port}/")


@pytest.fixture
def impatient_far_url(far_url: str) -> str:
    """The store as seen through the proxy, whose calls are given up after a second."""
    return f"{far_url}&call_seconds={CALL_SECONDS}"


@pytest.fixture
def effects() -> Counter[str]:
    """How often the handler was called for each event."""
    return Counter()


@pytest.fixture
def handlers(effects: Counter[str]) -> Handlers:
    handlers = Handlers()

    @handlers.on("*")
    async def count(event: Event, context: Context) -> dict[str, Any]:
        effects[event.id] += 1
        return {"run": event.run}

    return handlers


@pytest.fixture
def open_daemon(tmp_path: Path, handlers: Handlers) -> OpenHouse:
    """Open a daemon with short leases on a store URL."""

    def open_daemon(url: str, **settings: Any) -> AbstractAsyncContextManager[House]:
        quick = {
            "store.url": url,
            "workers.lease_seconds": 3,
            "workers.heartbeat_seconds": 0.5,
            "janitor.sweep_seconds": 0.3,
        }
        return open_house(tmp_path / "data", handlers, quick | settings)

    return open_daemon
