"""The order pipeline as a new user would write it: reserve, charge, wait for the confirmation, ship; or undo it all."""

import json
import os
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from replayforge import Context, Event, Handlers, Permanent, StepFailed

handlers = Handlers()
handlers.signal("order.confirmed")


def bank(what: str, order: str, ctx: Context) -> Any:
    request = Request(f"{os.environ['BANK']}/{what}/{order}", method="POST", headers={"Idempotency-Key": ctx.step_key})
    try:
        with urlopen(request, timeout=10) as answer:
            return json.load(answer)
    except HTTPError as error:
        raise (Permanent if error.code == 402 else RuntimeError)(f"{what}: {error.code}") from None


@handlers.on("order.placed", deadline_seconds=90 * 86_400)
async def fulfil(event: Event, ctx: Context) -> Any:
    order = event.payload["order"]
    await ctx.step("reserve", bank, "reserve", order, ctx)
    try:
        await ctx.step("charge", bank, "charge", order, ctx)
        await ctx.wait_for("order.confirmed", timeout_seconds=event.payload["patience_seconds"])
        return await ctx.step("ship", bank, "ship", order, ctx)
    except StepFailed as error:
        if error.step != "charge":
            await ctx.step("refund", bank, "refund", order, ctx, attempts=100)
        await ctx.step("release", bank, "release", order, ctx, attempts=100)
        return {"ended": error.step}
