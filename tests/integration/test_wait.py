"""GET /api/events/{id}?wait=: the answer comes as soon as the event has ended."""

import asyncio

import pytest

from replayforge import Context, Event, Handlers
from replayforge.web.live.hints import HUB, WAITERS_MAX
from tests.support.house import House
from tests.support.polling import persist

gate = asyncio.Event()


@pytest.fixture
def handlers() -> Handlers:
    handlers = Handlers()
    gate.clear()

    @handlers.on("test")
    async def test(event: Event, ctx: Context) -> str:
        await gate.wait()
        return "done"

    return handlers


async def waiting(house: House, count: int) -> None:
    hub = house.http.app[HUB] if house.http.app is not None else None
    assert hub is not None

    async def look() -> bool:
        return len(hub.waiters) == count

    await persist(look)


async def test_who_waits_is_answered_when_the_event_ends_or_the_time_is_over(house: House) -> None:
    sent = await house.send()
    assert (await house.get(f"/api/events/{sent}?wait=0.05"))["status"] in ("received", "queued", "processing")
    answer = asyncio.create_task(house.get(f"/api/events/{sent}?wait=60"))
    await waiting(house, 1)
    assert not answer.done()
    gate.set()
    assert (await answer)["result"] == "done"
    assert (await house.get(f"/api/events/{sent}?wait=60"))["status"] == "succeeded"
    async with house.http.get(f"/api/events/{sent}?wait=61") as response:
        assert response.status == 422
    async with house.http.get("/api/events/none?wait=60") as response:
        assert response.status == 404


async def test_nobody_waits_for_a_client_that_is_gone_and_not_too_many_wait(house: House) -> None:
    sent = await house.send()
    leaving = asyncio.create_task(house.get(f"/api/events/{sent}?wait=60"))
    await waiting(house, 1)
    leaving.cancel()
    await waiting(house, 0)
    assert house.http.app is not None
    hub = house.http.app[HUB]
    hub.waiters |= {asyncio.Queue(1) for _ in range(WAITERS_MAX)}
    async with house.http.get(f"/api/events/{sent}?wait=60") as response:
        assert response.status == 503
    hub.waiters.clear()
    gate.set()
