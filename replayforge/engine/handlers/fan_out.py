"""The built-in handler of events that have subscribers: each subscriber gets a child event of its own."""

from asyncio import gather
from typing import Any

from replayforge import crashpoints
from replayforge.domain.event import Event
from replayforge.engine.handlers.context import ChildEvent, Context


async def fan_out(event: Event, context: Context) -> Any:
    """Send one child event a subscriber, however often this runs; gives their ids by the subscribers' names."""
    names = await context.calls.subscribers()
    await crashpoints.reach_within("fanout.begun")
    ids = await gather(*[context.calls.send(child_for(event, name)) for name in names])
    await crashpoints.reach_within("fanout.sent")
    return {"children": dict(zip(names, ids, strict=True))}


def child_for(event: Event, subscriber: str) -> ChildEvent:
    """Return the event as one subscriber gets it: the same bytes."""
    return ChildEvent(
        event.event_type, event.payload_bytes, name=subscriber, subscriber=subscriber, metadata=event.metadata_bytes
    )
