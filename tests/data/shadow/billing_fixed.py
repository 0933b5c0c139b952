"""The same with the bug cured, as far as it can be, and with another fee for one country."""

from typing import Any

from billing import chance, check, clock, dicts, plain, reserve, sets  # type: ignore[import-not-found]

from replayforge import Context, Event, Handlers, Permanent

handlers = Handlers()
for name, function in {"clock": clock, "chance": chance, "sets": sets, "dicts": dicts, "plain": plain}.items():
    handlers.on(f"unsteady.{name}")(function)


@handlers.on("order")
async def order(event: Event, ctx: Context) -> Any:
    held = await ctx.step("reserve", reserve, event.payload["number"])
    return {**held, "country": event.payload["country"], "fee": 3 if event.payload["country"] == "CH" else 2.50}


@handlers.on("invoice")
async def invoice(event: Event, ctx: Context) -> Any:
    check(event)
    await ctx.step("reserve", reserve, 1)
    if "amount" not in event.payload:
        raise Permanent("there is no amount")
    return {"cents": round(100 * float(event.payload["amount"]))}
