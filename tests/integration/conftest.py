"""A daemon with a handler for everything, for tests that ask what comes in and what is answered."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replayforge.domain.event import Event
from replayforge.domain.retry import Retry
from replayforge.engine.handlers.handlers import Context, Handlers
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
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "data", echo_handlers()) as house:
        yield house
