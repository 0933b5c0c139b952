"""The handlers that are measured: they do nothing, at once or after BENCH_SECONDS, slowly, in ten steps, or parked.

Where BENCH_STARTS names a file, each start of one of "bench.*" is a line in it: the event, and when.
"""

import asyncio
import os
import time
from contextlib import suppress

from replayforge import Context, Event, Handlers, WaitTimedOut

SECONDS = float(os.environ.get("BENCH_SECONDS", "0"))
STARTS = os.environ.get("BENCH_STARTS", "")
SLOW_SECONDS = 2.0

starts = os.open(STARTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if STARTS else None
handlers = Handlers()
handlers.signal("wake")


@handlers.on("bench.*")
async def nothing(event: Event, context: Context) -> None:
    """Return at once, or after a while."""
    if starts is not None:
        os.write(starts, f"{event.id} {time.monotonic()}\n".encode())
    if SECONDS:
        await asyncio.sleep(SECONDS)


@handlers.on("slow.*")
async def slow(event: Event, ctx: Context) -> None:
    """Hold a worker for long."""
    await asyncio.sleep(SLOW_SECONDS)


async def no_effect() -> None:
    """Return at once."""


@handlers.on("steps.*")
async def steps(event: Event, ctx: Context) -> dict[str, list[float]]:
    """Take ten steps that do nothing, and say how many milliseconds each took."""
    took = []
    for number in range(10):
        begun = time.perf_counter()
        await ctx.step(f"step-{number}", no_effect)
        took.append((time.perf_counter() - begun) * 1000)
    return {"milliseconds": took}


@handlers.on("busy.*")
async def busy(event: Event, ctx: Context) -> None:
    """Hold a worker for a while."""
    await asyncio.sleep(0.2)


@handlers.on("parked.*")
async def parked(event: Event, ctx: Context) -> dict[str, float]:
    """Wait for a signal or for its time, and say when that came and when the code went on."""
    due_at = (await ctx.now()).timestamp() + event.payload["seconds"]
    with suppress(WaitTimedOut):
        due_at = (await ctx.wait_for("wake", timeout_seconds=event.payload["seconds"])).payload["sent_at"]
    return {"due_at": due_at, "woken_at": time.time()}
