"""The handlers of the daemon behind the pages under test."""

import asyncio
import threading
from pathlib import Path

from replayforge import Context, Event, Handlers, StepFailed

handlers = Handlers()
handlers.signal("parcel.scanned")
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


@handlers.on("parcel.sent")
async def wait_for_parcel(event: Event, context: Context) -> object:
    """Take steps, one of which fails, make a child, and wait for an event or for long."""
    try:
        await context.step("weigh", fail, event, context, attempts=1)
    except StepFailed:
        await context.step("guess", succeed, event, context)
    await context.send("shop.mail", {})
    name, _ = await context.first(scanned=context.wait_for("parcel.scanned"), late=context.sleep("patience", 86_400))
    return {"came first": name}


@handlers.on("slow.*")
async def take_long(event: Event, context: Context) -> None:
    """Run until cancelled."""
    await asyncio.Event().wait()


@handlers.on("holds.*", max_attempts=1)
async def holds_the_event_loop_and_has_a_name_that_is_far_too_long_for_a_small_screen(
    event: Event, context: Context
) -> None:
    """Hold the loop until somebody has noticed, then fail with one long word."""
    context.heartbeat(details="d" * 500)
    threading.Event().wait(0.6)
    raise type("Of" + "Long" * 60, (Exception,), {})("e" * 5_000)
