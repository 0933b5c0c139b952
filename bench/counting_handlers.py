"""A handler beside those that are measured, in a daemon that counts how often it comes to crash points."""

from replayforge import Context, Event, Handlers, crashpoints

handlers = Handlers()
passes = 0
reach = crashpoints.reach


def counted(point: str, times: int = 1) -> None:
    """Pass a point, and count that."""
    global passes
    passes += 1
    reach(point, times)


crashpoints.reach = counted


@handlers.on("passes")
async def told(event: Event, context: Context) -> int:
    """Say how many it were so far."""
    return passes
