"""Handlers with a bug: amounts are texts now and then, and some are missing."""

import random
import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from replayforge import Context, Event, Handlers

handlers = Handlers()


def reserve(number: int) -> dict[str, int]:
    return {"reserved": number}


@handlers.on("order")
async def order(event: Event, ctx: Context) -> Any:
    held = await ctx.step("reserve", reserve, event.payload["number"])
    return {"fee": 2.5, "country": event.payload["country"], **held}


def check(event: Event) -> None:
    if event.payload.get("amount") == "many":
        raise ValueError("too many")


@handlers.on("invoice")
async def invoice(event: Event, ctx: Context) -> Any:
    check(event)
    await ctx.step("reserve", reserve, 1)
    return {"cents": 100 * int(event.payload["amount"])}


@handlers.on("unsteady.clock")
async def clock(event: Event, ctx: Context) -> Any:
    return {"at": time.time(), "day": datetime.now(UTC).date().isoformat(), "fixed": 1}


@handlers.on("unsteady.chance")
async def chance(event: Event, ctx: Context) -> Any:
    return {"coin": random.choice(["heads", "tails"]), "id": str(uuid4()), "many": [random.random()] * 3}


@handlers.on("unsteady.sets")
async def sets(event: Event, ctx: Context) -> Any:
    some = {f"{letter}{event.payload['number']}" for letter in event.payload["letters"]}
    return {"list": list(some), "first": next(iter(some)), "text": ",".join(some)}


@handlers.on("unsteady.dicts")
async def dicts(event: Event, ctx: Context) -> Any:
    names = {"a", "b", "c"}
    counted = await ctx.step("count", reserve, number=1)
    return {**dict.fromkeys(names, 1), "now": (await ctx.now()).isoformat(), **counted}


@handlers.on("unsteady.plain")
def plain(event: Event, ctx: Context) -> Any:
    return [sorted({"b", "a"}), ctx.step("reserve", reserve, event.payload["number"]), time.monotonic() > 0]
