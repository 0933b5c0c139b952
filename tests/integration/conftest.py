"""A daemon with a handler for everything, for tests that ask what comes in and what is answered."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from replayforge.domain.event import Event
from replayforge.domain.retry import Retry
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.registry import Handlers
from tests.support.house import House, open_house


def echo_handlers() -> Handlers:
    """Return handlers that give every payload back as it was decoded, but for events of types that say otherwise."""
    handlers = Handlers()

    @handlers.on("*")
    async def echo(event: Event, context: Context) -> object:
        return event.payload

    @handlers.on("fails", max_attempts=1)
    async def fails(event: Event, context: Context) -> None:
        raise RuntimeError("it fails")

    @handlers.on("fails.later", max_attempts=100)
    async def fails_later(event: Event, context: Context) -> None:
        raise RuntimeError("it fails")

    @handlers.on("postponed")
    async def postponed(event: Event, context: Context) -> None:
        raise Retry("it fails for now", after=event.payload.get("seconds", 3600))

    @handlers.on("waits")
    async def waits(event: Event, context: Context) -> None:
        await asyncio.sleep(1)

    return handlers


@pytest.fixture
def handlers() -> Handlers:
    """What `house` runs; a file whose subject they are has handlers of its own."""
    return echo_handlers()


@pytest.fixture
def settings() -> dict[str, Any]:
    """What `house` is configured with beyond what every test is."""
    return {}


@pytest.fixture
async def house(tmp_path: Path, handlers: Handlers, settings: dict[str, Any]) -> AsyncIterator[House]:
    async with open_house(tmp_path / "data", handlers, settings) as house:
        yield house


# Tests of what is refused at once ask next to nothing of a daemon, and share one for each file.
shares_a_house = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house_of_the_file(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(tmp_path_factory.mktemp("house") / "data", echo_handlers()) as house:
        yield house


@pytest_asyncio.fixture(loop_scope="module")
async def shared_house(house_of_the_file: House) -> House:
    """A daemon that other tests have spoken to; nothing of that is counted. Its tests are marked `shares_a_house`."""
    return await house_of_the_file.begin()
