"""What any open event waits for: each cause planted once, named exactly, and taken away, and the event runs."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from replayforge import Context, Event, Handlers, Permanent
from replayforge.domain.errors import Unavailable
from tests.support.house import House, open_house
from tests.support.polling import persist

WORKERS = 2
ENDED = {"cause": "ended", "event_id": None, "handler": None, "until": None}


class Door:
    """Attempts wait before it until it is open."""

    def __init__(self) -> None:
        self.open = asyncio.Event()


@pytest.fixture
def door() -> Door:
    return Door()


def handlers_with(door: Door) -> Handlers:
    handlers = Handlers()

    @handlers.on("held.*")
    async def wait(event: Event, ctx: Context) -> None:
        await door.open.wait()

    @handlers.on("one.*", concurrency_max=1)
    async def wait_alone(event: Event, ctx: Context) -> None:
        await door.open.wait()

    @handlers.on("later.*", max_attempts=2)
    async def fail_once(event: Event, ctx: Context) -> None:
        if event.attempt == 1:
            raise RuntimeError("not yet")

    @handlers.on("steps.*")
    async def steps(event: Event, ctx: Context) -> None:
        if event.event_type == "steps.sleep":
            await ctx.sleep("nap", 3600)
        elif event.event_type == "steps.call":
            await ctx.call("held.child", {})
        else:
            await ctx.wait_for("confirmed", timeout_seconds=3600)

    @handlers.on("lane.dead")
    async def die(event: Event, ctx: Context) -> None:
        raise Permanent("declined")

    @handlers.on("*")
    async def end(event: Event, ctx: Context) -> None:
        pass

    handlers.signal("confirmed")
    return handlers


@pytest.fixture
async def house(tmp_path: Path, door: Door) -> AsyncIterator[House]:
    lanes = [{"match": "lane.*", "key": "workflow_id", "order": "strict"}]
    settings = {"workers.count": WORKERS, "retry.base_seconds": 300, "lanes": lanes}
    async with open_house(tmp_path, handlers_with(door), settings) as house:
        yield house
        door.open.set()


async def why(house: House, event_id: str) -> dict[str, Any]:
    """Return what the API says of an event, which the first line of its page says as well."""
    said: dict[str, Any] = await house.get(f"/api/events/{event_id}/why")
    assert said.pop("id") == event_id
    return said


async def becomes(house: House, event_id: str, cause: str) -> dict[str, Any]:
    """Return what is said of an event once it waits for a kind of thing."""

    async def look() -> dict[str, Any] | None:
        said = await why(house, event_id)
        return said if said["cause"] == cause else None

    found = await persist(look)
    assert found is not None
    return found


async def test_a_time(house: House) -> None:
    """An event that is due later names the time, and so does one that is tried again; it runs when it is hurried."""
    later = await house.send("x", run_at="2100-01-01T00:00:00Z")
    said = await becomes(house, later, "due")
    assert said["sentence"] == "It is due at 2100-01-01T00:00:00.000000Z."
    assert said["until"] == "2100-01-01T00:00:00.000000Z"
    again = await house.send("later.x")
    said = await becomes(house, again, "due")
    assert said["sentence"] == f"Its next attempt is due at {said['until']}: attempt 1 has failed."
    assert (await house.post(f"/api/events/{again}/retry"))[0] == 202
    assert (await becomes(house, again, "ended"))["sentence"] == "It has ended: succeeded."


async def test_no_free_worker(house: House, door: Door) -> None:
    """The event that has run longest is named; when it ends the other runs."""
    first = await house.send("held.1")
    said = await becomes(house, first, "running")
    assert said["sentence"].startswith("It runs in worker-")
    second = await house.send("held.2")
    await becomes(house, second, "running")
    waits = await house.send("x")
    said = await becomes(house, waits, "no_free_worker")
    assert said["event_id"] == first
    assert f"No worker is free: 2 of 2 are busy, the longest for 0 s with event {first}." == said["sentence"]
    page = await (await house.http.get(f"/events/{waits}")).text()
    assert f'No worker is free: 2 of 2 are busy, the longest for 0 s with event <a href="/events/{first}">' in page
    door.open.set()
    assert await becomes(house, waits, "ended") == ENDED | {"sentence": "It has ended: succeeded."}


async def test_a_pause(house: House) -> None:
    """Who paused its handler is named, and why; or that everything is paused."""
    for pattern, words in (("later.*", "Its handler later.* is"), ("*", "Everything is")):
        assert (await house.post(f"/api/handlers/{pattern}/pause", {"reason": "the bank is away"}))[0] == 200
        event_id = await house.send("later.y")
        said = await becomes(house, event_id, "paused")
        assert said["sentence"].startswith(f"{words} paused by ")
        assert said["sentence"].endswith(": the bank is away.")
        assert said["handler"] == pattern
        assert (await house.post(f"/api/handlers/{pattern}/resume"))[0] == 200
        await becomes(house, event_id, "due")


async def test_the_limit_of_its_handler(house: House, door: Door) -> None:
    first, second = await house.send("one.1"), await house.send("one.2")
    await becomes(house, first, "running")
    said = await becomes(house, second, "limit")
    assert said["sentence"] == "Its handler one.* runs at most 1 at once in this daemon, and so many run."
    door.open.set()
    await becomes(house, second, "ended")


async def test_what_it_is_parked_for(house: House, door: Door) -> None:
    """A signal, a child or a time is named, and what was named ends the wait."""
    parked = await house.send("steps.wait", workflow_id="w")
    said = await becomes(house, parked, "signal")
    assert said["sentence"].startswith("It is parked for the signal confirmed since ")
    await house.send("confirmed", workflow_id="w")
    await becomes(house, parked, "ended")
    parent = await house.send("steps.call")
    said = await becomes(house, parent, "child")
    child = said["event_id"]
    assert said["sentence"].startswith(f"It waits for the end of its child {child}, which is ")
    assert (await becomes(house, child, "running"))["event_id"] is None
    door.open.set()
    await becomes(house, parent, "ended")
    sleeper = await house.send("steps.sleep")
    said = await becomes(house, sleeper, "sleep")
    assert said["sentence"] == f"It sleeps (nap) until {said['until']}."
    kept = await house.send("confirmed", workflow_id="nobody")
    said = await becomes(house, kept, "no_wait")
    assert "until a handler of its workflow waits for confirmed" in said["sentence"]


async def test_a_lane(house: House) -> None:
    """The dead letter that blocks it is named; once that is discarded it runs."""
    dead = await house.send("lane.dead")
    await house.reaches(dead, "dead_lettered")
    behind = await house.send("lane.next")
    said = await becomes(house, behind, "lane")
    assert said["event_id"] == dead
    assert said["sentence"].startswith(f"It waits in its lane behind the dead letter {dead}: ")
    assert (await house.post(f"/api/deadletters/{dead}/discard", {"reason": "no use"}))[0] == 200
    await becomes(house, behind, "ended")


async def test_a_store_that_is_away(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is only in the log says since when the store does not answer; it runs once the store is back."""
    store = house.daemon.store

    async def refuse(*_: Any, **__: Any) -> Any:
        raise Unavailable("the store does not answer")

    with monkeypatch.context() as patch:
        for name in ("history", "put", "project"):
            if hasattr(store, name):
                patch.setattr(store, name, refuse)
        event_id = await house.send("x")
        said = await becomes(house, event_id, "store_away")
        assert said["sentence"].startswith("It waits in the log, since the store has not answered since ")
    await becomes(house, event_id, "ended")
