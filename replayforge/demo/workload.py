"""The demo's workload: checkouts, whose stages are handlers that fail now and then, and orders; and their events."""

import hashlib
from collections.abc import Iterator
from typing import Any

from replayforge.demo import orders
from replayforge.demo.orders import PLACED, SCANNED
from replayforge.demo.simulated_work import Work, chance, note_effect
from replayforge.domain.event import Event
from replayforge.domain.retry import Permanent
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.registry import Handlers

APPLICATION = "checkout-demo"
DECLINED_SHARE = 0.02
UNDELIVERABLE_SHARE = 0.01
GOODS = (
    ("SKU-1042", "Coffee beans, 1 kg", 1890),
    ("SKU-2210", "Café filter № 4", 349),
    ("SKU-3307", "Mug „Größe L“", 1250),
)
CUSTOMERS = 20
# How many orders come in before the parcel of the first of them is scanned.
ORDERS_AHEAD = 10

handlers = Handlers()
handlers.include(orders.handlers)

STARTED = Work("checkout.started", "storefront", 5, 20)
PAYMENT = Work("payment.authorized", "payments", 20, 80, 0.15, "the payment gateway did not answer in time")
INVENTORY = Work("inventory.reserved", "inventory", 10, 40, 0.10, "the warehouse database is locked")
EMAIL = Work("email.receipt_sent", "notifications", 15, 60, 0.25, "the mail server said 421: too many connections")
SHIPMENT = Work("shipment.created", "shipping", 20, 70)
STAGES = (STARTED, PAYMENT, INVENTORY, EMAIL, SHIPMENT)
ANYTHING = Work("*", "", 10, 40, 0.05, "a passing fault")
# Whoever wants to know of a webhook has an event of its own, which fails without the other.
WEBHOOKS = "github.*"
BUILD = Work("build", "builds", 30, 90, 0.30, "the build server said 503: no machine is free")
CHAT = Work("chat", "notifications", 5, 20)
# What a schedule makes, for those who watch.
COUNT = "stock.count"
# A checkout's stages, the order that comes of it, and the parcel that this one waits for.
EVENTS_PER_CHECKOUT = len(STAGES) + 2


@handlers.on(STARTED.name)
async def start_checkout(event: Event, context: Context) -> dict[str, Any]:
    """Note that a customer goes to the checkout."""
    await work(event, STARTED)
    return done(event, context)


@handlers.on(PAYMENT.name, max_attempts=5)
async def authorize_payment(event: Event, context: Context) -> dict[str, Any]:
    """Ask the bank; a few cards are declined for good, until somebody replays the event."""
    await work(event, PAYMENT)
    if event.run == 1 and chance(event.id, "declined") < DECLINED_SHARE:
        raise Permanent("the card was declined: insufficient funds")
    return done(event, context)


@handlers.on(INVENTORY.name, max_attempts=5)
async def reserve_inventory(event: Event, context: Context) -> dict[str, Any]:
    """Take the goods off the shelf."""
    await work(event, INVENTORY)
    return done(event, context)


@handlers.on(EMAIL.name, max_attempts=3)
async def send_receipt(event: Event, context: Context) -> dict[str, Any]:
    """Send the receipt; three attempts are few enough for some to be exhausted."""
    await work(event, EMAIL)
    return done(event, context)


@handlers.on(SHIPMENT.name)
async def create_shipment(event: Event, context: Context) -> dict[str, Any]:
    """Order the parcel; a few addresses do not exist, until somebody replays the event."""
    await work(event, SHIPMENT)
    if event.run == 1 and chance(event.id, "undeliverable") < UNDELIVERABLE_SHARE:
        raise Permanent("the address does not exist")
    return done(event, context)


@handlers.subscribe(WEBHOOKS, name=BUILD.name)
async def build(event: Event, context: Context) -> dict[str, Any]:
    """Build what a webhook tells of."""
    await work(event, BUILD)
    return done(event, context)


@handlers.subscribe(WEBHOOKS, name=CHAT.name)
async def chat(event: Event, context: Context) -> dict[str, Any]:
    """Tell people of it."""
    await work(event, CHAT)
    return done(event, context)


@handlers.on(ANYTHING.name)
async def handle_anything(event: Event, context: Context) -> dict[str, Any]:
    """Handle what belongs to no checkout, so that any file of events can be tried."""
    await work(event, ANYTHING)
    return done(event, context)


async def work(event: Event, what: Work) -> None:
    """Take the work's time, and fail for its share: the same event and attempt always do the same."""
    luck = chance(event.id, f"{event.run}:{event.attempt}")
    await what.take(luck, chance(event.id, f"delay:{event.run}:{event.attempt}"))


def done(event: Event, context: Context) -> dict[str, Any]:
    """Have the effect that the handler is for, and return what it came to."""
    note_effect(context)
    return {"by": event.event_type, "attempt": event.attempt}


def checkout_events(count: int, batch: str) -> Iterator[dict[str, Any]]:
    """Yield `count` events in the body form of POST /api/events: checkouts, and the order that each leads to.

    The parcel of an order is scanned some orders later, and none is ordered whose parcel is not scanned before the end.
    The same batch and count always give the same events with the same keys; another batch gives other events.
    """
    whole, rest = divmod(count, EVENTS_PER_CHECKOUT)
    for number in range(whole):
        order = order_of(batch, number)
        yield from (staged(batch, order, place) for place in range(len(STAGES)))
        yield order_event(batch, order, PLACED, "storefront", order)
        if number >= ORDERS_AHEAD:
            yield scan_of(batch, number - ORDERS_AHEAD)
    yield from (scan_of(batch, number) for number in range(max(0, whole - ORDERS_AHEAD), whole))
    for place in range(rest):
        number, stage = divmod(place, len(STAGES))
        yield staged(batch, order_of(batch, whole + number), stage)


def staged(batch: str, order: dict[str, Any], place: int) -> dict[str, Any]:
    """Return the event of a stage of an order's checkout."""
    stage = STAGES[place]
    workflow_id = f"checkout_{order['order']}"
    return event_of(batch, workflow_id, stage.name, stage.service, order | {"step": place + 1})


def scan_of(batch: str, number: int) -> dict[str, Any]:
    """Return the signal that an order waits for."""
    order = order_of(batch, number)
    parcel = {"order": order["order"], "parcel": f"parcel-{order['order'][:6]}", "depot": "Leipzig"}
    return order_event(batch, order, SCANNED, "shipping", parcel)


def order_event(
    batch: str, order: dict[str, Any], event_type: str, service: str, payload: dict[str, Any]
) -> dict[str, Any]:
    """Return an event of an order's own workflow."""
    return event_of(batch, f"order_{order['order']}", event_type, service, payload)


def event_of(batch: str, workflow_id: str, event_type: str, service: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Return the body of an event, whose key says what it is."""
    return {
        "application_name": APPLICATION,
        "workflow_id": workflow_id,
        "event_type": event_type,
        "service_name": service,
        "idempotency_key": f"{workflow_id}:{event_type}",
        "payload": payload,
        "metadata": {"source": "demo", "batch": batch},
    }


def order_of(batch: str, number: int) -> dict[str, Any]:
    """Return the order that a workflow is about."""
    order = hashlib.blake2b(f"{batch}/{number}".encode(), digest_size=6).hexdigest()
    sku, name, cents = GOODS[int(chance(order, "goods") * len(GOODS))]
    quantity = 1 + int(chance(order, "quantity") * 4)
    return {
        "order": order,
        "customer": f"customer-{int(chance(order, 'customer') * CUSTOMERS):02d}",
        "items": [{"sku": sku, "name": name, "quantity": quantity, "unit_cents": cents}],
        "total_cents": quantity * cents,
        "currency": "EUR",
    }
