"""The handlers that history was recorded with."""

from typing import Any

from replayforge import Context, Event, Handlers, StepFailed

handlers = Handlers()
for signal in ("paid", "never"):
    handlers.signal(signal)


def doubled(number: int) -> int:
    return 2 * number


def refuse() -> None:
    raise ValueError("no")


@handlers.on("child")
async def child(event: Event, ctx: Context) -> Any:
    return event.payload["number"]


@handlers.on("whole")
async def whole(event: Event, ctx: Context) -> Any:
    times = [(await ctx.now()).isoformat(), await ctx.random(), str(await ctx.uuid())]
    try:
        await ctx.step("refuse", refuse, attempts=1)
    except StepFailed as error:
        times.append(error.type)
    sent = await ctx.send("child", {"number": 1})
    called = await ctx.call("child", {"number": 2}, key="called")
    won, _ = await ctx.first(late=ctx.sleep("late", 3600), paid=ctx.wait_for("paid"))
    await ctx.sleep("night", 8 * 3600)
    return [await ctx.step("double", doubled, 21), sent, called, won, times]


@handlers.on("plain")
def plain(event: Event, ctx: Context) -> Any:
    return [ctx.step("double", doubled, number, key=str(number)) for number in (1, 2)]


@handlers.on("order")
async def order(event: Event, ctx: Context) -> Any:
    await ctx.step("reserve", doubled, 1)
    await ctx.now("not asked for any more")
    await ctx.step("charge", doubled, number=2)
    await ctx.send("child", {"number": 1})
    return "done"


@handlers.on("group")
async def group(event: Event, ctx: Context) -> Any:
    await ctx.step("refuse", refuse, attempts=1)


@handlers.on("parked.*")
async def parked(event: Event, ctx: Context) -> Any:
    await ctx.step("double", doubled, 1)
    await ctx.wait_for("never")


@handlers.on("effect.*")
async def effect(event: Event, ctx: Context) -> Any:
    return "done"


@handlers.on("simple")
async def simple(event: Event, ctx: Context) -> Any:
    return "done"


@handlers.on("removed")
async def removed(event: Event, ctx: Context) -> Any:
    return "done"


@handlers.on("deadly")
async def deadly(event: Event, ctx: Context) -> Any:
    return "done"
