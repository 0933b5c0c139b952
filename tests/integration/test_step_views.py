"""What people see of a handler that takes steps: in the API, on pages, in lists, and in figures."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from replayforge import Context, Event, Handlers, StepFailed
from tests.integration.test_pages import page
from tests.support.house import House, open_house


async def reserve(item: dict[str, Any]) -> dict[str, Any]:
    return {"hold": 7, "password": "hidden-result", "item": item["sku"]}


async def charge() -> None:
    raise ValueError("card declined")


async def hang() -> None:
    await asyncio.Event().wait()


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

    @handlers.on("order.once", timeout_seconds=0.1)
    async def once(event: Event, ctx: Context) -> Any:
        return [await ctx.step("pay", hang, once=True)]

    @handlers.on("order.looked.at")
    async def looked_at(event: Event, ctx: Context) -> Any:
        await ctx.now()
        if "seconds" in event.payload:
            await ctx.sleep("rest", event.payload["seconds"])
        if "takes" in event.payload:
            await ctx.wait_for(event.payload["takes"])

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


async def test_lists_find_who_waits_for_what(house: House) -> None:
    """`awaits` names the type that parked events wait for; the overview counts them, and signals that are kept."""
    order = await house.send("order.placed")
    await house.reaches(order, "waiting")
    kept = await house.send("parcel.scanned", workflow_id="nobody")
    await house.reaches(kept, "kept")
    for query, ids in {
        "awaits=parcel.scanned": [order],
        "awaits=parcel": [],
        "awaits=parcel.scanned&workflow_id=other": [],
        "status=waiting": [order],
        "status=kept": [kept],
    }.items():
        assert [item["id"] for item in (await house.get(f"/api/events?{query}"))["items"]] == ids, query
        _, html = await page(house, f"/events?{query}")
        assert html.count('class="tick"><input') == len(ids)
    _, overview = await page(house, "/")
    assert "1 event parked, 1 signal kept" in overview
    assert 'href="/events?status=waiting"' in overview
    await house.send("parcel.scanned")
    await house.reaches(order, "succeeded")
    assert (await house.get("/api/events?awaits=parcel.scanned"))["items"] == []


async def test_steps_are_measured(house: House) -> None:
    """How long steps took is counted once for each step whose function ran, and not for waits."""
    await house.reaches(await house.send("order.unpaid"), "succeeded")
    await house.reaches(await house.send("order.placed"), "waiting")
    async with house.http.get("/metrics") as answer:
        figures = (await answer.text()).splitlines()
    assert "replayforge_step_latency_seconds_count 3.0" in figures
    assert 'replayforge_events{state="waiting"} 1.0' in figures
    assert 'replayforge_steps_total{outcome="failed"} 1.0' in figures


async def test_steps_are_counted_that_ride_with_something_else(house: House) -> None:
    """What rides with an outcome, with a park or with a signal that is taken becomes durable there, and counts once."""
    kept = await house.send("parcel.scanned")
    await house.reaches(kept, "kept")
    await house.reaches(await house.send("order.looked.at"), "succeeded")
    await house.reaches(await house.send("order.looked.at", {"seconds": 3600}), "waiting")
    await house.reaches(await house.send("order.looked.at", {"takes": "parcel.scanned"}), "succeeded")
    async with house.http.get("/metrics") as answer:
        assert 'replayforge_steps_total{outcome="done"} 4.0' in (await answer.text()).splitlines()


async def test_pages_hide_secrets_of_steps(house: House) -> None:
    """The page of an event hides in its steps what it hides in payloads, and shows it when asked."""
    order = await house.send("order.placed")
    await house.reaches(order, "waiting")
    _, hidden = await page(house, f"/events/{order}")
    assert "hidden-" not in hidden
    assert "Show 2 hidden values" in hidden
    _, shown = await page(house, f"/events/{order}?secrets=shown")
    assert "hidden-result" in shown
    assert "hidden-argument" in shown


async def test_the_timeline_names_steps_and_parents(house: House) -> None:
    """A workflow's page has the steps below their event, with links from child to parent and back."""
    order = await house.send("order.placed")
    child = (await house.reaches(order, "waiting"))["children"][0]["id"]
    await house.reaches(child, "succeeded")
    _, html = await page(house, "/workflows/workflow")
    assert "reserve" in html
    assert f'a child of <a href="/events/{order}">' in re.sub(r"\s+", " ", html)
    events = (await house.get("/api/workflows/workflow/timeline"))["events"]
    assert [(one["origin"], [step["name"] for step in one["steps"]]) for one in events] == [
        (None, ["reserve", "mail.wanted", "parcel.scanned"]),
        (order, []),
    ]


async def test_a_step_in_doubt_is_decided_about_on_the_page(house: House) -> None:
    """The page names the step; a result that is no JSON is refused, and with one the event goes on."""
    event_id = await house.send("order.once")
    await house.reaches(event_id, "held")
    _, html = await page(house, f"/events/{event_id}")
    assert '<input type="hidden" name="step" value="pay">' in html
    form = {"id": event_id, "step": "pay", "status": "queued", "result": "{"}
    async with house.http.post("/actions/resolve", data=form, allow_redirects=False) as answer:
        assert answer.status == 303
    assert (await house.event(event_id))["status"] == "held"
    async with house.http.post("/actions/resolve", data=form | {"result": "7"}, allow_redirects=False) as answer:
        assert answer.status == 303
    assert (await house.reaches(event_id, "succeeded"))["result"] == [7]


async def test_workflows_of_one_name_are_kept_apart(house: House) -> None:
    """Two applications may name a workflow alike: each is listed, counted and shown by itself where that is asked."""
    ids = {name: await house.send("mail.plain", application_name=name) for name in ("shop", "post")}
    for event_id in ids.values():
        await house.reaches(event_id, "succeeded")
    await house.reaches(await house.send("mail.plain", application_name="post", workflow_id="other"), "succeeded")
    listed = {
        name: [(one["workflow_id"], one["total_events"]) for one in (await house.get(f"/api/workflows{name}"))["items"]]
        for name in ("", "?application=shop", "?application=post", "?application=none")
    }
    assert listed == {
        "": [("other", 1), ("workflow", 2)],
        "?application=shop": [("workflow", 1)],
        "?application=post": [("other", 1), ("workflow", 1)],
        "?application=none": [],
    }
    assert (await house.get("/api/workflows/workflow?application=shop"))["total_events"] == 1
    timeline = await house.get("/api/workflows/workflow/timeline?application=post")
    assert [one["id"] for one in timeline["events"]] == [ids["post"]]
    _, html = await page(house, "/workflows/workflow")
    assert "Several applications have a workflow of this name" in html
    _, html = await page(house, "/workflows/workflow?application=shop")
    assert ids["shop"] in html
    assert ids["post"] not in html
