"""Other handlers for the same events; what each effect is at is said by its line."""

import asyncio
import ctypes
import os
import random
import socket
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from recorded import doubled, whole  # type: ignore[import-not-found]

from replayforge import Context, Event, Handlers

handlers = Handlers()
handlers.signal("never")
handlers.signal("paid")
handlers.on("whole")(whole)


@handlers.on("plain")
def plain(event: Event, ctx: Context) -> Any:
    time.sleep(20)
    try:
        return [ctx.step("double", doubled, number, key=str(number)) for number in (2, 1, 3)]
    finally:
        os.mkdir("on the way out")


@handlers.on("order")
async def order(event: Event, ctx: Context) -> Any:
    await ctx.step("charge", doubled, number=3)
    await ctx.send("child", {"number": 7})
    return {"done": True}


@handlers.on("group")
async def group(event: Event, ctx: Context) -> Any:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(ctx.step("sibling", doubled, 1))
        tasks.create_task(ctx.step("refuse", doubled, attempts=1))


@handlers.on("simple")
async def simple(event: Event, ctx: Context) -> Any:
    start = time.monotonic()
    await asyncio.sleep(20)
    await asyncio.to_thread(time.sleep, 5)
    now = datetime.now(UTC)
    assert abs(now.timestamp() - time.time()) < 1, "two clocks"
    assert date.today().year == now.year == time.gmtime().tm_year, "two dates"
    assert round(time.monotonic() - start) == 25, "time that was waited for has not passed"
    return {"at": now.timestamp(), "chance": random.random(), "order": list({"a", "b", "c", "d", "e", "f"})}


@handlers.on("parked.same")
async def parked_same(event: Event, ctx: Context) -> Any:
    await ctx.step("double", doubled, 1)
    await ctx.now()
    try:
        await ctx.wait_for("never")
    finally:
        os.mkdir("on the way out")


@handlers.on("parked.inserted")
async def parked_inserted(event: Event, ctx: Context) -> Any:
    await ctx.step("double", doubled, 1)
    await asyncio.gather(ctx.wait_for("never"), ctx.step("more", doubled, 5, number=6))


@handlers.on("parked.vanished")
async def parked_vanished(event: Event, ctx: Context) -> Any:
    await ctx.wait_for("never")


@handlers.on("parked.arguments")
async def parked_arguments(event: Event, ctx: Context) -> Any:
    await ctx.step("double", doubled, 2)
    await ctx.wait_for("never")


@handlers.on("parked.kind")
async def parked_kind(event: Event, ctx: Context) -> Any:
    await ctx.call("double", {})
    await ctx.wait_for("never")


@handlers.on("parked.raises")
async def parked_raises(event: Event, ctx: Context) -> Any:
    raise LookupError(await ctx.step("double", doubled, 1))


@handlers.on("effect.connect")
async def connect(event: Event, ctx: Context) -> Any:
    with socket.socket() as one:
        one.connect(("127.0.0.1", event.payload["port"]))


@handlers.on("effect.stream")
async def stream(event: Event, ctx: Context) -> Any:
    await asyncio.open_connection("127.0.0.1", event.payload["port"])


@handlers.on("effect.name")
async def name(event: Event, ctx: Context) -> Any:
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)


@handlers.on("effect.thread")
def thread(event: Event, ctx: Context) -> Any:
    try:
        Path("made").write_text("x")
    except Exception:
        return "as if nothing had been"


@handlers.on("effect.remove")
async def remove(event: Event, ctx: Context) -> Any:
    os.unlink(__file__)


@handlers.on("effect.process")
async def process(event: Event, ctx: Context) -> Any:
    subprocess.run([sys.executable, "-V"])  # noqa: ASYNC221 - refused


@handlers.on("effect.database")
async def database(event: Event, ctx: Context) -> Any:
    sqlite3.connect(":memory:")


@handlers.on("effect.library")
async def library(event: Event, ctx: Context) -> Any:
    ctypes.CDLL(None).getpid()


@handlers.on("deadly")
async def deadly(event: Event, ctx: Context) -> Any:
    os._exit(3)
