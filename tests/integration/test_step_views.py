"""What people see of a handler that takes steps: in the API, on pages, in lists, and in figures."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from replayforge import Context, Event, Handlers, StepFailed
from tests.support.house import House, open_house


async def reserve(item: dict[str, Any]) -> dict[str, Any]:
    return {"hold": 7, "password": "hidden-result", "item": item["sku"]}


async def charge() -> None:
    raise ValueError("card declined")


def order_handlers() -> Handlers:
    """Handlers of an order: it waits for a parcel, has a child, and one of its kind fails and is compensated."""
    handlers = Handlers()
    handlers.version = "v7"
    handlers.signal("parcel.scanned")

    @handlers.on("order.placed")
    async def order(event: Event, ctx: Context) -> Any:
        await ctx.step("reserve", reserve, {"sku": "a", "api_key": "hidden-argument"})
        await ctx.send("mail.wanted", {"to": "b"})
        parcel = await ctx.wait_for("parcel.scanned", timeout_seconds=3600)
        return {"parcel": parcel.payload}

    @handlers.on("order.unpaid")
    async def unpaid(event: Event, ctx: Context) -> Any:
        try:
            await ctx.step("charge", charge, attempts=1)
        except StepFailed:
            await ctx.step("release", asyncio.sleep, 0)
        return {"ended": "not paid"}

    @handlers.on("mail.*")
    async def mail(event: Event, ctx: Context) -> Any:
        return None

    return handlers


@pytest.fixture
async def house(tmp_path: Path) -> Any:
    async with open_house(tmp_path / "data", order_handlers(), {"workers.count": 2}) as house:
        yield house


async def test_a_parked_event_names_its_steps_and_what_it_waits_for(house: House) -> None:
    """The event's JSON names steps, child and wait; the child names its parent; the list of steps says all of each."""
    order = await house.send("order.placed")
    event = await house.reaches(order, "waiting")
    steps = [("reserve", "step", "done"), ("mail.wanted", "send", "done"), ("parcel.scanned", "wait_for", "pending")]
    assert [(one["name"], one["kind"], one["state"]) for one in event["steps"]] == steps
    (awaited,) = event["awaits"]
    assert (awaited["name"], awaited["event_type"]) == ("parcel.scanned", "parcel.scanned")
    assert awaited["until"] > event["updated_at"]
    assert (event["journal"], event["wakes"], event["cancel_requested"], event["origin"]) == (1, 0, False, None)
    (child,) = event["children"]
    assert (child["event_type"], child["step"]) == ("mail.wanted", "mail.wanted")
    mail = await house.reaches(child["id"], "succeeded")
    assert mail["parent"] == {"id": order, "event_type": "order.placed", "status": "waiting"}
    assert (mail["origin"], mail["awaits"], "steps" in mail) == (order, [], False)
    found = await house.get(f"/api/events/{order}/steps")
    assert (found["journal"], found["earlier_steps"], found["has_more"]) == (1, 0, False)
    first = found["items"][0]
    assert first["result"] == {"hold": 7, "password": "hidden-result", "item": "a"}
    assert first["arguments"] == [{"sku": "a", "api_key": "hidden-argument"}]
    assert (first["label"], first["tries"], first["generation"], first["error"]) == ("v7", 1, 0, None)
    assert [(one["name"], one["kind"], one["state"]) for one in found["items"]] == steps


async def test_steps_come_in_pages(house: House) -> None:
    """A page goes on where the one before it ended; an event without steps, and one that is unknown, are told apart."""
    order = await house.send("order.placed")
    await house.reaches(order, "waiting")
    names, cursor = [], "0"
    while cursor is not None:
        page = await house.get(f"/api/events/{order}/steps?limit=2&cursor={cursor}")
        names += [one["name"] for one in page["items"]]
        cursor = page["next_cursor"]
    assert names == ["reserve", "mail.wanted", "parcel.scanned"]
    mail = await house.send("mail.plain")
    assert (await house.get(f"/api/events/{mail}/steps"))["items"] == []
    async with house.http.get("/api/events/none/steps") as answer:
        assert answer.status == 404


async def test_a_failure_that_was_caught_is_told(house: House) -> None:
    """A step that failed says why, and the event its result."""
    event = await house.reaches(await house.send("order.unpaid"), "succeeded")
    assert event["result"] == {"ended": "not paid"}
    failed, released = (await house.get(f"/api/events/{event['id']}/steps"))["items"]
    assert (failed["state"], failed["error"]["type"], failed["error"]["message"]) == (
        "failed", "ValueError", "card declined",
    )  # fmt: skip
    assert (released["name"], released["state"]) == ("release", "done")
