"""A workflow with everything in it, for crash tests: each effect of a step is a line in a file of the test's own.

A line is: event id, name of the effect. It is written with one call, so a process that dies leaves whole lines only.
EFFECTS says where the file is, EFFECT_SECONDS how long an effect takes, and WORKFLOW which version of the code this is.
"""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from replayforge import Context, Event, Handlers, Permanent, StepFailed

# The steps that a version of the code begins with; the others are edits of the first one.
PREPARED = {
    "first": ("prepare-0", "prepare-1", "prepare-2"),
    "inserted": ("measure", "prepare-0", "prepare-1", "weigh", "prepare-2"),
    "moved": ("prepare-2", "prepare-0", "prepare-1"),
    "removed": ("prepare-0", "prepare-2"),
}
EDITED = {"measure", "weigh", "check again", "prepare-1"}
LABELS = {"moved": ("2", "0", "1")}

handlers = Handlers()
handlers.signal("confirmed")
handlers.signal("revoked")


def note(event: Event, name: str) -> int:
    """Have an effect outside, and return how often that had happened before."""
    path = Path(os.environ.get("EFFECTS", "effects.txt"))
    line = f"{event.id}\t{name}\n"
    earlier = path.read_text().count(line) if name == "shaky" and path.exists() else 0
    sink = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(sink, line.encode())
    os.close(sink)
    return earlier


def seconds() -> float:
    return float(os.environ.get("EFFECT_SECONDS", "0"))


async def act(ctx: Context, name: str, value: Any = None) -> Any:
    """An effect that somebody outside counts."""
    note(ctx.event, name)
    await asyncio.sleep(seconds())
    return {"did": name, "value": value}


def act_in_thread(ctx: Context, name: str) -> Any:
    note(ctx.event, name)
    time.sleep(seconds())
    return {"did": name}


async def decline(ctx: Context, name: str) -> None:
    await act(ctx, name)
    raise Permanent(f"{name} is declined")


async def shaky(ctx: Context) -> str:
    if note(ctx.event, "shaky") == 0:
        raise RuntimeError("it fails at first")
    return "done at last"


@handlers.on("order", timeout_seconds=30)
async def order(event: Event, ctx: Context) -> Any:
    """Take twenty steps: side by side, compensated, asleep, awaiting, tried again, with children."""
    version, given = os.environ.get("WORKFLOW", "first"), event.payload
    did = {name: await ctx.step(name, act, ctx, name) for name in PREPARED[version]}
    async with asyncio.TaskGroup() as group:
        labels = {
            n: group.create_task(ctx.step("label", act, ctx, f"label[{n}]", await ctx.random(f"label {n}"), key=n))
            for n in LABELS.get(version, ("0", "1", "2"))
        }
    did |= {f"label[{n}]": label.result() for n, label in labels.items()}
    try:
        await ctx.step("charge", decline, ctx, "charge")
    except StepFailed as error:
        did["refund"] = await ctx.step("refund", act, ctx, "refund", error.message)
    await ctx.sleep("grace", given.get("grace_seconds", 3600))
    did["after the sleep"] = await ctx.step("after the sleep", act, ctx, "after the sleep")
    confirmed = await ctx.wait_for("confirmed", timeout_seconds=86_400)
    did["confirmed"] = await ctx.step("confirmed", act, ctx, "confirmed", confirmed.payload)
    if version == "inserted":
        await ctx.step("check again", act, ctx, "check again")
    did["shaky"] = await ctx.step("shaky", shaky, ctx)
    late = ctx.sleep("late", given.get("late_seconds", 60))
    did["first"] = await ctx.first(revoked=ctx.wait_for("revoked"), late=late)
    await ctx.now()
    if version == "moved":
        did["archive"] = await ctx.step("archive", act_in_thread, ctx, "archive")
    await ctx.send("mail", {"template": "thanks"})
    late_seconds = given.get("late_seconds", 60)  # for which its parent is parked
    did["bill"] = await ctx.call("bill", {"order": given["n"], "late_seconds": late_seconds})
    if version != "moved":
        did["archive"] = await ctx.step("archive", act_in_thread, ctx, "archive")
    return did


@handlers.on("mail")
async def mail(event: Event, ctx: Context) -> Any:
    return await ctx.step("deliver", act, ctx, "deliver")


@handlers.on("bill")
async def bill(event: Event, ctx: Context) -> Any:
    await ctx.sleep("paper", event.payload["late_seconds"])
    return await ctx.step("print", act, ctx, "print", event.payload)
