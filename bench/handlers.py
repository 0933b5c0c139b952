"""The handlers that are measured: they do nothing, at once, for as long as BENCH_SECONDS says, or in ten steps."""

import asyncio
import os
import time

from replayforge import Context, Event, Handlers

SECONDS = float(os.environ.get("BENCH_SECONDS", "0"))

handlers = Handlers()


@handlers.on("bench.*")
async def nothing(event: Event, context: Context) -> None:
    """Return at once, or after a while."""
    if SECONDS:
        await asyncio.sleep(SECONDS)


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
