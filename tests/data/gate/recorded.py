"""The handlers that open runs were parked with."""

from typing import Any

from replayforge import Context, Event, Handlers

handlers = Handlers()
handlers.signal("scanned")


def same(value: Any) -> Any:
    return value


@handlers.on("order.*")
async def order(event: Event, ctx: Context) -> Any:
    await ctx.step("reserve", same, event.id)
    await ctx.step("charge", same, 12)
    return (await ctx.wait_for("scanned")).payload


@handlers.on("retired")
async def retired(event: Event, ctx: Context) -> Any:
    await ctx.step("reserve", same, event.id)
    return (await ctx.wait_for("scanned")).payload
