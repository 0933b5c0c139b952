"""Handlers for crash tests: each start and each end of a handler is a line in a file of the test's own.

A line is: word, event id, run, attempt, lease token, seconds since the epoch, payload in base64. It is written with one
call, so a process that dies leaves whole lines only.
"""

import asyncio
import base64
import os
import time

from replayforge import Context, Event, Handlers

handlers = Handlers()
sink = os.open("sink.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(word: str, event: Event, context: Context) -> None:
    payload = base64.b64encode(event.payload_bytes).decode()
    parts = (word, event.id, event.run, event.attempt, context.lease_token, time.time(), payload)
    os.write(sink, ("\t".join(map(str, parts)) + "\n").encode())


@handlers.on("*")
async def quick(event: Event, context: Context) -> str:
    note("started", event, context)
    note("ended", event, context)
    return event.id


@handlers.on("slow.*", max_attempts=50)
async def slow(event: Event, context: Context) -> str:
    note("started", event, context)
    await asyncio.sleep(event.payload.get("seconds", 0.2))
    note("ended", event, context)
    return event.id


@handlers.on("deadly.*")
async def deadly(event: Event, context: Context) -> None:
    note("started", event, context)
    await asyncio.sleep(event.payload.get("seconds", 0))
    os._exit(137)


@handlers.on("narrow.*", concurrency_max=2)
async def narrow(event: Event, context: Context) -> str:
    note("started", event, context)
    await asyncio.sleep(event.payload.get("seconds", 0.1))
    note("ended", event, context)
    return event.id


@handlers.on("flaky.*", max_attempts=50)
async def flaky(event: Event, context: Context) -> str:
    note("started", event, context)
    if event.attempt <= event.payload.get("failures", 1):
        raise RuntimeError("it fails at first")
    note("ended", event, context)
    return event.id


@handlers.on("blocking.*")
def blocking(event: Event, context: Context) -> str:
    note("started", event, context)
    time.sleep(event.payload.get("seconds", 0.05))
    note("ended", event, context)
    return event.id


@handlers.on("stalling.*")
async def stalling(event: Event, context: Context) -> str:
    note("started", event, context)
    time.sleep(event.payload["seconds"])  # noqa: ASYNC251 - it holds the whole event loop, which is what it is for
    note("ended", event, context)
    return event.id


@handlers.on("doomed.*", max_attempts=1)
async def doomed(event: Event, context: Context) -> None:
    note("started", event, context)
    raise RuntimeError("it always fails")


@handlers.on("gated.*")
async def gated(event: Event, context: Context) -> str:
    while not os.path.exists("gate"):  # noqa: ASYNC110, ASYNC240 - the gate is opened from outside the process
        await asyncio.sleep(0.05)
    note("started", event, context)
    note("ended", event, context)
    return event.id
