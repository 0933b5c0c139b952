"""The demo's orders: a workflow that remembers its steps, waits for its parcel, and undoes what it did for nothing."""

import random
from dataclasses import dataclass
from typing import Any

from replayforge.demo.simulated_work import Work, chance, note_effect
from replayforge.domain.event import Event
from replayforge.domain.retry import Permanent
from replayforge.domain.step_errors import StepFailed
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.registry import Handlers

PLACED = "order.placed"
SCANNED = "parcel.scanned"
DECLINED_SHARE = 0.06
UNDELIVERABLE_SHARE = 0.04
PATIENCE_SECONDS = 3 * 86_400
DEADLINE_SECONDS = 90 * 86_400

RESERVE = Work("reserve", "inventory", 10, 40)
LABEL = Work("label", "shipping", 5, 20)
CHARGE = Work("charge", "payments", 20, 80, 0.15, "the payment gateway did not answer in time")
SHIP = Work("ship", "shipping", 20, 70, 0.10, "the carrier said 503: come back later")
REFUND = Work("refund", "payments", 20, 60)
RELEASE = Work("release", "inventory", 10, 30)

handlers = Handlers()
handlers.signal(SCANNED)


@handlers.on(PLACED, deadline_seconds=DEADLINE_SECONDS)
async def fulfil_order(event: Event, ctx: Context) -> dict[str, Any]:
    """Reserve, wait until the parcel is packed, charge and ship; what was done for nothing is undone."""
    shop, order = Shop(ctx), event.payload["order"]
    await ctx.step("reserve", shop.reserve, order)
    await ctx.step("label", shop.label, order)
    parcel = await ctx.wait_for(SCANNED, timeout_seconds=PATIENCE_SECONDS)
    try:
        await ctx.step("charge", shop.charge, order, event.payload["total_cents"])
    except StepFailed as failure:
        await ctx.step("release", shop.release, order)
        return {"ended": "not paid", "why": failure.message}
    try:
        await ctx.step("ship", shop.ship, order)
    except StepFailed as failure:
        await ctx.step("refund", shop.refund, order)
        await ctx.step("release", shop.release, order)
        return {"ended": "not shipped", "why": failure.message}
    return {"ended": "shipped", "scanned_at": parcel.created_at}


@dataclass(frozen=True, slots=True)
class Shop:
    """What the steps of an order do outside."""

    ctx: Context

    async def reserve(self, order: str) -> dict[str, Any]:
        """Put the goods aside."""
        return await self.done(RESERVE, order)

    async def label(self, order: str) -> dict[str, Any]:
        """Print what the parcel is known by."""
        return await self.done(LABEL, order)

    async def charge(self, order: str, cents: int) -> dict[str, Any]:
        """Ask the bank, which is slow now and then and declines a few cards for good."""
        if chance(order, "card") < DECLINED_SHARE:
            raise Permanent("the card was declined: insufficient funds")
        return {"cents": cents, **await self.done(CHARGE, order)}

    async def ship(self, order: str) -> dict[str, Any]:
        """Hand the parcel to the carrier; a few addresses do not exist."""
        if chance(order, "address") < UNDELIVERABLE_SHARE:
            raise Permanent("the address does not exist")
        return await self.done(SHIP, order)

    async def refund(self, order: str) -> dict[str, Any]:
        """Give the money back."""
        return await self.done(REFUND, order)

    async def release(self, order: str) -> dict[str, Any]:
        """Put the goods back on the shelf."""
        return await self.done(RELEASE, order)

    async def done(self, work: Work, order: str) -> dict[str, Any]:
        """Take the work's time and have its effect; who counts effects knows this one by the step's key."""
        await work.take(random.random(), random.random())
        note_effect(self.ctx, work.name)
        return {"by": work.service, "order": order, "key": self.ctx.step_key}
