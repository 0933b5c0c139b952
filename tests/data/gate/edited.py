"""The same handlers after edits: some that open runs go on with, and some that they do not."""

import random
from typing import Any

from replayforge import Context, Event, Handlers

handlers = Handlers()
handlers.signal("scanned")


def same(value: Any) -> Any:
    return value


@handlers.on("order.*")
async def order(event: Event, ctx: Context) -> Any:
    """Do what it did, but for waits in other places: `audit` comes before what is recorded, `weigh` behind it."""
    if event.event_type == "order.audited":
        await ctx.step("audit", same, random.random())
    await ctx.step("reserve", same, event.id)
    await ctx.step("charge", same, 12)
    scanned = (await ctx.wait_for("scanned")).payload
    await ctx.step("weigh", same, 1)
    return scanned


@handlers.on("order.renamed")
async def renamed(event: Event, ctx: Context) -> Any:
    await ctx.step("hold", same, event.id)
    await ctx.step("charge", same, 12)
    return (await ctx.wait_for("scanned")).payload


@handlers.on("order.gone")
async def gone(event: Event, ctx: Context) -> Any:
    await ctx.step("charge", same, 12)
    return (await ctx.wait_for("scanned")).payload


@handlers.on("order.ended")
async def ended(event: Event, ctx: Context) -> Any:
    await ctx.step("reserve", same, event.id)
    return await ctx.step("charge", same, 12)


@handlers.on("order.dearer")
async def dearer(event: Event, ctx: Context) -> Any:
    await ctx.step("reserve", same, event.id)
    await ctx.step("charge", same, 13)
    return (await ctx.wait_for("scanned")).payload


@handlers.on("order.random")
async def by_chance(event: Event, ctx: Context) -> Any:
    await ctx.step("reserve", same, random.random())
    await ctx.step("charge", same, 12)
    return (await ctx.wait_for("scanned")).payload


@handlers.on("order.slept")
async def slept(event: Event, ctx: Context) -> Any:
    await ctx.step("reserve", same, event.id)
    await ctx.sleep("charge", 12)
    return (await ctx.wait_for("scanned")).payload


@handlers.on("order.raises")
async def raises(event: Event, ctx: Context) -> Any:
    await ctx.step("reserve", same, event.id)
    return event.payload["missing"]


@handlers.on("order.connects")
async def connects(event: Event, ctx: Context) -> Any:
    import socket

    with socket.create_connection(("127.0.0.1", 9)):
        return await ctx.step("reserve", same, event.id)
