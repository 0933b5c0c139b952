"""Lanes in a whole daemon: events of one key in order, of different keys side by side, and what people see of it."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replayforge import Context, Event, Handlers
from tests.support.house import open_house
from tests.support.polling import persist

STRICT = {"match": "order.*", "key": "payload.customer", "order": "strict"}


@dataclass
class Shop:
    """A handler that writes down in which order it ran the events of each customer, and how many at once."""

    handlers: Handlers = field(default_factory=Handlers)
    orders: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    running: set[str] = field(default_factory=set)
    most: int = 0
    doubled: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.handlers.on("order.*", max_attempts=3)(self.handle)

    async def handle(self, event: Event, context: Context) -> None:
        customer, number = event.payload["customer"], event.payload["number"]
        if customer in self.running:
            self.doubled.append(customer)
        self.running.add(customer)
        self.most = max(self.most, len(self.running))
        try:
            if event.payload.get("holds"):
                await self.gate.wait()
            await asyncio.sleep(0)
            if event.payload.get("fails", 0) >= event.attempt:
                raise RuntimeError("it fails at first")
        finally:
            self.running.discard(customer)
        self.orders[customer].append(number)


async def test_customers_in_order_side_by_side(tmp_path: Path) -> None:
    """Every customer's events run one after another in the order they came, whatever fails, and customers at once."""
    shop = Shop()
    async with open_house(tmp_path, shop.handlers, {"lanes": [STRICT]}) as house:
        for number in range(6):
            for customer in "abcde":
                fails = 1 if (number + ord(customer)) % 3 == 0 else 0
                await house.send("order.placed", {"customer": customer, "number": number, "fails": fails})
        await house.probe.saw("attempt.settled", 30 + 10)
    assert shop.orders == {customer: list(range(6)) for customer in "abcde"}
    assert shop.doubled == []


async def test_what_people_see_of_a_lane(tmp_path: Path) -> None:
    """An event says which one it waits for, the list says how many wait, and convergence names what is blocked."""
    shop = Shop()
    async with open_house(tmp_path, shop.handlers, {"lanes": [STRICT], "retry.max_attempts": 1}) as house:
        first = await house.send("order.placed", {"customer": "a", "number": 0, "fails": 9})
        second = await house.send("order.placed", {"customer": "a", "number": 1})
        await house.probe.saw("event.dead_lettered")

        async def waits_behind() -> Any:
            shown = await house.get(f"/api/events/{second}")
            return shown["waits_for_event"] == first and shown

        shown = await persist(waits_behind)
        assert (shown["status"], shown["blocked"]) == ("queued", True)
        assert shown["waits_for_turn"] == (
            f"It waits in its lane behind the dead letter {first}: replay or discard that, and this one goes on."
        )
        (lane,) = (await house.get("/api/lanes"))["items"]
        assert (lane["key"], lane["blocked"], lane["head_event"]) == ("a", 1, first)
        converged = await house.get("/api/convergence")
        assert (converged["converged"], converged["blocked_events"]) == (True, 1)
        for path in (f"/events/{second}", "/lanes"):
            async with house.http.get(path, headers={"Accept": "text/html"}) as page:
                text = await page.text()
            assert "behind the dead letter" in text, path
            assert f'href="/events/{first}"' in text, path
        assert "<code>payload.customer</code>" in text
        assert f'name="id" value="{first}"' in text
        status, _ = await house.post(f"/api/deadletters/{first}/discard", {"reason": "nobody misses it"})
        assert status == 200
        await house.probe.saw("attempt.settled", 3 + 1)
        assert shop.orders["a"] == [1]
