"""The handlers of the daemon behind the pages under test."""

import asyncio
from pathlib import Path

from replayforge import Context, Event, Handlers

handlers = Handlers()
MENDED = Path("mended")


@handlers.on("*")
async def succeed(event: Event, context: Context) -> object:
    """Give the payload back."""
    return event.payload


@handlers.on("bad.*", max_attempts=1)
async def fail(event: Event, context: Context) -> None:
    """Fail for good, unless a file with this name says that the trouble is over."""
    if not MENDED.exists():  # noqa: ASYNC240 - one stat, in a test
        raise TimeoutError(f"timeout from gateway-{event.payload.get('n', 1)}")


@handlers.on("loud.*", max_attempts=1)
async def fail_at_length(event: Event, context: Context) -> None:
    """Fail for good, with ten thousand lines to say about it."""
    raise ValueError("\n".join(f"line {number} of {event.payload}" for number in range(10_000)))


@handlers.on("later.*")
async def fail_for_now(event: Event, context: Context) -> None:
    """Fail, so that the event waits for another attempt."""
    raise ConnectionError("nobody answers")


@handlers.on("slow.*")
async def take_long(event: Event, context: Context) -> None:
    """Run until cancelled."""
    await asyncio.Event().wait()
