"""Handlers of which each run of an event fails for good until the run that mends it; each start is a line of a file.

The payload's `mended` is the first run that succeeds. A line is: event id, run, lease token; it is written with one
call, so a process that dies leaves whole lines only.
"""

import asyncio
import os

from replayforge import Context, Event, Handlers, Permanent

handlers = Handlers()
sink = os.open("runs.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


@handlers.on("*")
async def mending(event: Event, context: Context) -> None:
    os.write(sink, f"{event.id}\t{event.run}\t{context.lease_token}\n".encode())
    if event.run < event.payload.get("mended", 2):
        raise Permanent("it is not mended yet")
    await asyncio.sleep(event.payload.get("seconds", 0))
