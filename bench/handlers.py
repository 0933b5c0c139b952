"""The handler that is measured: it does nothing, for as long as BENCH_SECONDS says."""

import asyncio
import os

from replayforge import Context, Event, Handlers

SECONDS = float(os.environ.get("BENCH_SECONDS", "0"))

handlers = Handlers()


@handlers.on("bench.*")
async def nothing(event: Event, context: Context) -> None:
    """Return at once, or after a while."""
    if SECONDS:
        await asyncio.sleep(SECONDS)
