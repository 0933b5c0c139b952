"""Handlers that come to every crash point: each effect is a line in a file of the test's own, event id and name.

A line is written with one call, so a process that dies leaves whole lines only.
"""

import asyncio
import os
from typing import Any

from replayforge import Context, Event, Handlers

handlers = Handlers()
handlers.signal("go")
sink = os.open("effects.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(event: Event, name: str) -> None:
    os.write(sink, f"{event.id}\t{name}\n".encode())


@handlers.on("plain.*")
async def plain(event: Event, context: Context) -> None:
    note(event, "done")


@handlers.on("slow.*")
async def slow(event: Event, context: Context) -> None:
    """Take long when it is started first."""
    if context.lease_token == 1:
        await asyncio.sleep(event.payload["seconds"])
    note(event, "done")


@handlers.on("narrow.*", concurrency_max=2)
async def narrow(event: Event, context: Context) -> None:
    await asyncio.sleep(0.05)
    note(event, "done")


@handlers.on("flaky.*", max_attempts=50)
async def flaky(event: Event, context: Context) -> None:
    if event.attempt == 1:
        raise RuntimeError("it fails at first")
    note(event, "done")


@handlers.on("doomed.*", max_attempts=1)
async def doomed(event: Event, context: Context) -> None:
    raise RuntimeError("it always fails")


@handlers.on("flow.*")
async def flow(event: Event, context: Context) -> Any:
    """Take a step, wait for a signal, and for a child."""
    await context.step("first", asyncio.to_thread, note, event, "first")
    await context.wait_for("go")
    billed = await context.call("bill", {})
    note(event, "done")
    return billed


@handlers.on("bill")
async def bill(event: Event, context: Context) -> str:
    note(event, "done")
    return "billed"


@handlers.subscribe("fan.*", name="crm")
async def crm(event: Event, context: Context) -> None:
    note(event, "done")


@handlers.subscribe("fan.*", name="mail")
async def mail(event: Event, context: Context) -> None:
    note(event, "done")
