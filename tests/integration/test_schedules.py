"""Schedules in a daemon: their events and handlers, a death before their place moves, and what people see and do."""

from typing import Any

import aiohttp
import pytest

from replayforge.domain.errors import Refused
from replayforge.domain.event import Event
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.registry import Handlers
from replayforge.testing import Crashed, Forge

NIGHTLY = {"name": "nightly", "cron": "0 2 * * *", "timezone": "Europe/Berlin", "event_type": "report.wanted"}


def reporting() -> Handlers:
    handlers = Handlers()

    @handlers.every("@hourly", overlap="skip", max_attempts=1)
    async def tidy(event: Event, context: Context) -> Any:
        await context.sleep("long", 5400)
        return event.metadata["schedule"]

    @handlers.on("report.wanted")
    async def report(event: Event, context: Context) -> Any:
        return [event.workflow_id, event.payload, event.metadata["schedule"]["slot"]]

    return handlers


async def test_a_death_before_the_place_moves_costs_no_slot_and_doubles_none() -> None:
    """The event is durable, the daemon dies, and the next one makes the same event once more, which is a copy."""
    async with Forge(reporting(), settings={"schedules": [NIGHTLY | {"payload": {"pages": 2}}]}) as forge:
        forge.crash_at("schedule.appended")
        with pytest.raises(Crashed):
            await forge.advance(days=2)
        await forge.restart()
        await forge.advance(days=2)
        found = await forge.events("report.wanted")
        slots = [event.result[2] for event in found]
        assert len(set(slots)) == len(slots) >= 2
        assert found[0].result[:2] == ["nightly", {"pages": 2}]
        assert all(slot.endswith("T01:00:00Z") for slot in slots)


async def test_an_event_is_cancelled_while_the_one_before_it_is_open() -> None:
    """Each takes an hour and a half, so every second one is cancelled, and says why."""
    async with Forge(reporting()) as forge:
        await forge.advance(hours=5)  # whatever the minute is now, the third has ended then
        found = await forge.events("schedule.tidy")
        assert [event.status for event in found[:4]] == ["succeeded", "cancelled", "succeeded", "cancelled"]
        assert found[1].reason == "overlap"
        assert found[0].result["name"] == "tidy"


async def test_what_people_see_of_schedules_and_may_do_to_them() -> None:
    """Listed with their next times here and in UTC, run by hand, paused, resumed; pages show it."""
    forge = Forge(reporting(), settings={"schedules": [NIGHTLY]}, serve=True)
    async with forge, aiohttp.ClientSession(forge.url) as http:

        async def post(path: str, **body: str) -> tuple[int, Any]:
            async with http.post(f"/api/schedules/{path}", json=body or None) as answer:
                return answer.status, await answer.json()

        async def shown(name: str) -> Any:
            async with http.get("/api/schedules") as answer:
                return {one["name"]: one for one in (await answer.json())["items"]}[name]

        async def page(path: str) -> str:
            async with http.get(path) as answer:
                assert answer.status == 200
                return await answer.text()

        nightly = await shown("nightly")
        assert (nightly["status"], nightly["cron"], len(nightly["next"])) == ("ready", "0 2 * * *", 5)
        assert nightly["next"][0]["at"].endswith("T01:00:00.000000Z")
        assert nightly["next"][0]["local"].endswith("T02:00:00+01:00")
        status, made = await post("nightly/run")
        assert status == 200
        await forge.settled()
        assert forge.event(made["event_id"]).status == "succeeded"
        assert (await shown("nightly"))["last"]["status"] == "succeeded"
        status, paused = await post("tidy/pause", reason="moving", by="me")
        assert (status, paused["reason"]) == (200, "moving")
        await forge.advance(hours=3)
        assert await forge.events("schedule.tidy") == []
        text = await page("/schedules")
        assert "moving" in text
        assert "Europe/Berlin" in text
        assert (await post("tidy/resume"))[0] == 200
        assert (await post("tidy/resume"))[0] == 404
        assert (await post("nobody/run"))[0] == 404
        assert [note["why"] for note in (await shown("tidy"))["notes"]] == ["paused", "new"]
        await forge.advance(hours=2)
        found = await forge.events("schedule.tidy")
        assert "was still open" in await page(f"/events/{found[1].id}")


@pytest.mark.parametrize(
    ("when", "options"),
    [("0 25 * * *", {}), (0, {}), (True, {}), (30, {"name": "No Name"}), (30, {"timezone": "Mars/Phobos"})],
)
def test_a_schedule_that_cannot_be_meant_is_refused_where_it_is_written(when: Any, options: Any) -> None:
    handlers = Handlers()
    with pytest.raises(Refused, match="cannot be used"):

        @handlers.every(when, **options)
        async def tidy(event: Event, context: Context) -> None: ...
