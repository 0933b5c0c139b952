"""The demo's checkout: the five steps of a shop as handlers that fail now and then, and the events they work on."""

import asyncio
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replayforge.domain.event import Event
from replayforge.domain.retry import Permanent
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.registry import Handlers

APPLICATION = "checkout-demo"
# Where handlers write one line for each effect they have, so that somebody outside can count them.
EFFECTS_VARIABLE = "REPLAYFORGE_DEMO_EFFECTS"
DECLINED_SHARE = 0.02
UNDELIVERABLE_SHARE = 0.01
GOODS = (
    ("SKU-1042", "Coffee beans, 1 kg", 1890),
    ("SKU-2210", "Café filter № 4", 349),
    ("SKU-3307", "Mug „Größe L“", 1250),
)

handlers = Handlers()


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a checkout: how long it takes, how often it fails, and what it says then."""

    event_type: str
    service: str
    delay_ms_min: int
    delay_ms_max: int
    fail_share: float
    error: str


STARTED = Step("checkout.started", "storefront", 5, 20, 0.0, "")
PAYMENT = Step("payment.authorized", "payments", 20, 80, 0.15, "the payment gateway did not answer in time")
INVENTORY = Step("inventory.reserved", "inventory", 10, 40, 0.10, "the warehouse database is locked")
EMAIL = Step("email.receipt_sent", "notifications", 15, 60, 0.25, "the mail server said 421: too many connections")
SHIPMENT = Step("shipment.created", "shipping", 20, 70, 0.0, "")
STEPS = (STARTED, PAYMENT, INVENTORY, EMAIL, SHIPMENT)
ANYTHING = Step("*", "", 10, 40, 0.05, "a passing fault")


class TemporaryFault(Exception):
    """A step failed in a way that another attempt may mend."""


@handlers.on(STARTED.event_type)
async def start_checkout(event: Event, context: Context) -> dict[str, Any]:
    """Note that a customer goes to the checkout."""
    await work(event, STARTED)
    return done(event, context)


@handlers.on(PAYMENT.event_type, max_attempts=5)
async def authorize_payment(event: Event, context: Context) -> dict[str, Any]:
    """Ask the bank; a few cards are declined for good, until somebody replays the event."""
    await work(event, PAYMENT)
    if event.run == 1 and chance(event.id, "declined") < DECLINED_SHARE:
        raise Permanent("the card was declined: insufficient funds")
    return done(event, context)


@handlers.on(INVENTORY.event_type, max_attempts=5)
async def reserve_inventory(event: Event, context: Context) -> dict[str, Any]:
    """Take the goods off the shelf."""
    await work(event, INVENTORY)
    return done(event, context)


@handlers.on(EMAIL.event_type, max_attempts=3)
async def send_receipt(event: Event, context: Context) -> dict[str, Any]:
    """Send the receipt; three attempts are few enough for some to be exhausted."""
    await work(event, EMAIL)
    return done(event, context)


@handlers.on(SHIPMENT.event_type)
async def create_shipment(event: Event, context: Context) -> dict[str, Any]:
    """Order the parcel; a few addresses do not exist, until somebody replays the event."""
    await work(event, SHIPMENT)
    if event.run == 1 and chance(event.id, "undeliverable") < UNDELIVERABLE_SHARE:
        raise Permanent("the address does not exist")
    return done(event, context)


@handlers.on(ANYTHING.event_type)
async def handle_anything(event: Event, context: Context) -> dict[str, Any]:
    """Handle what is not a step of a checkout, so that any file of events can be tried."""
    await work(event, ANYTHING)
    return done(event, context)


async def work(event: Event, step: Step) -> None:
    """Take the step's time, and fail for its share of attempts: the same event and attempt always do the same."""
    luck = chance(event.id, f"{event.run}:{event.attempt}")
    spread = chance(event.id, f"delay:{event.run}:{event.attempt}")
    await asyncio.sleep((step.delay_ms_min + spread * (step.delay_ms_max - step.delay_ms_min)) / 1000)
    if luck < step.fail_share:
        raise TemporaryFault(step.error)


def done(event: Event, context: Context) -> dict[str, Any]:
    """Have the effect that the step is for, and return what it came to."""
    path = os.environ.get(EFFECTS_VARIABLE)
    if path:
        append_line(Path(path), f"{event.id} {event.run} {context.lease_token}\n")
    return {"by": event.event_type, "attempt": event.attempt}


def append_line(path: Path, line: str) -> None:
    """Append a line in one write, which a kill leaves whole or not there at all."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def chance(name: str, salt: str) -> float:
    """Return a number from 0 to 1 that looks random and is always the same for the same name and salt."""
    return int.from_bytes(hashlib.blake2b(f"{name}/{salt}".encode(), digest_size=7).digest()) / 2**56


def checkout_events(count: int, batch: str, first: int = 0) -> Iterator[dict[str, Any]]:
    """Yield `count` events from number `first` on, five to a workflow, in the body form of POST /api/events.

    The same batch and number always give the same event with the same key; another batch gives other events.
    """
    for number in range(first, first + count):
        order_number, place = divmod(number, len(STEPS))
        order = order_of(batch, order_number)
        step = STEPS[place]
        workflow_id = f"checkout_{order['order']}"
        yield {
            "application_name": APPLICATION,
            "workflow_id": workflow_id,
            "event_type": step.event_type,
            "service_name": step.service,
            "idempotency_key": f"{workflow_id}:{step.event_type}",
            "payload": order | {"step": place + 1},
            "metadata": {"source": "demo", "batch": batch},
        }


def order_of(batch: str, number: int) -> dict[str, Any]:
    """Return the order that a workflow is about."""
    order = hashlib.blake2b(f"{batch}/{number}".encode(), digest_size=6).hexdigest()
    sku, name, cents = GOODS[int(chance(order, "goods") * len(GOODS))]
    quantity = 1 + int(chance(order, "quantity") * 4)
    return {
        "order": order,
        "customer": f"customer-{int(chance(order, 'customer') * 10_000):04d}",
        "items": [{"sku": sku, "name": name, "quantity": quantity, "unit_cents": cents}],
        "total_cents": quantity * cents,
        "currency": "EUR",
    }
