"""The short way of single events answers as the long one does."""

from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from replayforge.web.http.shortcut import SHORT_WAYS
from tests.support.house import House

EVENT = {"workflow_id": "w", "event_type": "t", "payload": {"a": 1}, "idempotency_key": "k"}
REQUESTS: dict[str, dict[str, Any]] = {
    "an event": {"json": EVENT},
    "rubbish": {"data": b"{", "headers": {"Content-Type": "application/json"}},
    "another type": {"data": b"a=1", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
    "a doubled header": {"json": EVENT, "headers": [("Idempotency-Key", "k"), ("Idempotency-Key", "l")]},
    "an unknown parameter": {"json": EVENT, "params": {"a": "1"}},
    "a foreign origin": {"json": EVENT, "headers": {"Origin": "https://other.example", "Sec-Fetch-Site": "cross-site"}},
    "a browser": {"data": b"{", "headers": {"Content-Type": "application/json", "Accept": "text/html"}},
    "leave asked for": {"json": EVENT, "expect100": True},
}  # fmt: skip
VARY = {"Date", "X-Request-ID"}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS.keys())
async def test_both_ways_answer_alike(house: House, monkeypatch: pytest.MonkeyPatch, request_: dict[str, Any]) -> None:
    """Status, headers and body are the same, whichever way a request goes."""
    _, sent = await house.post("/api/events", EVENT)
    await house.get(f"/api/events/{sent['id']}?wait=20")  # what has ended is answered alike each time
    short = await answer(house.http, request_)
    monkeypatch.delitem(house.http.app[SHORT_WAYS], "/api/events")
    assert await answer(house.http, request_) == short


async def test_a_route_is_looked_for_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """All requests for a path share what was found for the first one."""
    looked: list[str] = []
    resolve = web.UrlDispatcher.resolve

    async def counted(router: web.UrlDispatcher, request: web.Request) -> web.UrlMappingMatchInfo:
        looked.append(request.path)
        return await resolve(router, request)

    monkeypatch.setattr(web.UrlDispatcher, "resolve", counted)
    for _ in range(3):
        await house.post("/api/events", {"workflow_id": "w", "event_type": "t"})
    assert len(looked) == 1


async def answer(client: TestClient[Any, Any], request: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
    """Return what is answered, without what differs from answer to answer."""
    async with client.post("/api/events", **request) as response:
        body = await response.json()
        body.pop("request_id", None)
        return response.status, {name: value for name, value in response.headers.items() if name not in VARY}, body
