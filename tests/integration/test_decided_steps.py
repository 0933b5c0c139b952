"""What people decide about steps: whether one in doubt has ended, and that another try need not be waited for."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from replayforge import Context, Event, Handlers
from replayforge.cli import main
from tests.support.house import House, open_house
from tests.support.polling import persist

calls: Counter[str] = Counter()


async def hangs_at_first(name: str) -> str:
    """An effect of which nobody sees the end when it happens first."""
    calls[name] += 1
    if calls[name] == 1:
        await asyncio.sleep(60)
    return f"{name} {calls[name]}"


async def fails_at_first(name: str) -> str:
    """An effect that fails when it is tried first."""
    calls[name] += 1
    if calls[name] == 1:
        raise RuntimeError("not yet")
    return f"{name} {calls[name]}"


def handlers() -> Handlers:
    handlers = Handlers()

    @handlers.on("pays", timeout_seconds=0.1)
    async def pays(event: Event, ctx: Context) -> Any:
        return await ctx.step("charge", hangs_at_first, event.id, once=True)

    @handlers.on("flaky")
    async def flaky(event: Event, ctx: Context) -> Any:
        async with asyncio.TaskGroup() as group:
            tried = group.create_task(ctx.step("tried", fails_at_first, event.id))
            if event.payload.get("sleeps"):
                group.create_task(ctx.sleep("long", 3600))
        return tried.result()

    @handlers.on("sleeps")
    async def sleeps(event: Event, ctx: Context) -> Any:
        await ctx.sleep("long", 3600)

    return handlers


async def in_doubt(house: House) -> tuple[str, str]:
    """Return the id of an event that is held for a step in doubt, and the path that decides about it."""
    event_id = await house.send("pays")
    await house.reaches(event_id, "held")
    return event_id, f"/api/events/{event_id}/resolve"


async def test_a_step_in_doubt_is_decided_about_by_its_name(tmp_path: Path) -> None:
    """With a result it has ended with that, without one it is done again; as a dead letter it has failed."""
    async with open_house(tmp_path / "data", handlers()) as house:
        event_id, path = await in_doubt(house)
        for refused in (
            {"to": "queued"},
            {"status": "queued"},
            {"to": "queued", "step": "ship"},
            {"to": "succeeded", "step": "charge"},
        ):
            status, problem = await house.post(path, refused)
            assert (status, "charge" in problem["detail"] or "leave the step" in problem["detail"]) == (409, True)
        assert (await house.post(path, {"to": "dead_lettered", "step": "charge", "result": 1}))[0] == 422
        assert (await house.post(path, {"reason": "none"}))[0] == 422
        assert (await house.post(path, {"to": "queued", "step": "charge", "result": {"paid": 7}}))[0] == 200
        event = await house.reaches(event_id, "succeeded")
        assert (event["result"], calls[event_id]) == ({"paid": 7}, 1)

        event_id, path = await in_doubt(house)
        arguments = [
            "events",
            "resolve",
            event_id,
            "--as",
            "queued",
            "--step",
            "charge",
            "--url",
            str(house.http.make_url("")),
        ]
        assert await asyncio.to_thread(main.run, arguments) == 0
        event = await house.reaches(event_id, "succeeded")
        assert event["result"] == f"{event_id} 2"

        event_id, path = await in_doubt(house)
        assert (await house.post(path, {"to": "dead_lettered", "step": "charge", "reason": "not paid"}))[0] == 200
        status, answer = await house.post(f"/api/events/{event_id}/replay", {})
        assert (status, answer["cleared"]) == (202, [{"kind": "step", "name": "charge"}])
        assert (await house.reaches(event_id, "succeeded"))["result"] == f"{event_id} 2"


async def as_awaitable(value: bool) -> bool:
    return value


@pytest.mark.parametrize(("payload", "stands"), [({}, "retrying"), ({"sleeps": True}, "waiting")])
async def test_a_retry_makes_every_step_due_that_is_to_be_tried_again(
    tmp_path: Path, payload: dict[str, bool], stands: str
) -> None:
    """Whether its event is retrying, or parked for something else besides; what only waits is not hurried."""
    settings = {"retry.base_seconds": 3600, "retry.max_seconds": 3600, "workers.count": 1}
    async with open_house(tmp_path / "data", handlers(), settings) as house:
        event_id = await house.send("flaky", payload)
        await house.reaches(event_id, stands)
        assert (await house.post(f"/api/events/{event_id}/retry"))[0] == 202
        assert await persist(lambda: as_awaitable(calls[event_id] == 2))
        if stands == "waiting":
            sleeper = await house.send("sleeps")
            await house.reaches(sleeper, "waiting")
            status, problem = await house.post(f"/api/events/{sleeper}/retry")
            assert (status, "none of its steps" in problem["detail"]) == (409, True)
