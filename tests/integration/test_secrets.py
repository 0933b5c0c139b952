"""Secrets in what users send: hidden on the page until somebody asks, never changed on the way."""

import json
from urllib.parse import quote

import pytest

from replayforge import Context, Event, Handlers, Permanent
from tests.integration.conftest import echo_handlers
from tests.support.house import House

HTML = {"Accept": "text/html"}
PAYLOAD = '{"user": "ada", "Pass-Word": "hunter2", "auth":{"accessToken":["t0psecret",{"a":1}]},"n": 9007199254740993}'
METADATA = '{"authorization": "Bearer t0psecret"}'
WORDS = ("hunter2", "t0psecret")


@pytest.fixture
def handlers() -> Handlers:
    handlers = echo_handlers()

    @handlers.on("refused")
    async def refused(event: Event, context: Context) -> None:
        raise Permanent(f"refused, password={event.payload['password']}, user=ada")

    return handlers


async def sent(house: House) -> str:
    """Send an event that is full of secrets and return its id."""
    body = f'{{"workflow_id": "w", "event_type": "echo", "payload": {PAYLOAD}, "metadata": {METADATA}}}'
    async with house.http.post("/api/events", data=body, headers={"Content-Type": "application/json"}) as response:
        event_id = str((await response.json())["id"])
    await house.reaches(event_id, "succeeded")
    return event_id


async def text_of(house: House, path: str, **headers: str) -> str:
    async with house.http.get(path, headers=HTML | headers) as response:
        assert response.status == 200
        return await response.text()


async def test_the_page_does_not_hold_what_it_hides(house: House) -> None:
    """Nothing secret is anywhere in the page or its regions; what is not secret is shown to the last digit."""
    event_id = await sent(house)
    for path in (f"/events/{event_id}", f"/events/{event_id}?layout=indented", "/events", "/", "/workflows/w"):
        text = await text_of(house, path)
        assert [word for word in WORDS if word in text] == [], path
    text = await text_of(house, f"/events/{event_id}")
    assert "9007199254740993" in text
    assert "2 values hidden" in text
    region = await text_of(house, f"/events/{event_id}", **{"X-Live-Regions": "result"})
    assert [word for word in WORDS if word in region] == []
    assert "hidden" in region


async def test_lists_hide_what_the_page_of_an_event_hides(house: House) -> None:
    """The last error, and the error that groups of dead letters are named after: those that differ in nothing else are
    one group."""
    for word in WORDS:
        event_id = await house.send("refused", {"password": word}, workflow_id="w")
        await house.reaches(event_id, "dead_lettered")
    group = 'Permanent: refused, password="•••", user=ada'
    letters = f"/dead-letters?group_by=error&group={quote(group)}"
    lists = ("/events", "/", "/dead-letters", letters, "/workflows/w", "/replays/new?status=dead_lettered")
    for path in (*lists, f"/events/{event_id}", f"/confirm/replay?id={event_id}"):
        text = await text_of(house, path)
        assert [word for word in WORDS if word in text] == [], path
        assert "user=ada" in text or path.startswith("/confirm"), path
    text = await text_of(house, letters)
    assert (text.count('data-label="Error"'), text.count('data-label="Last error"')) == (1, 2)


async def test_who_asks_is_shown(house: House) -> None:
    """The page says how many values it hides; its link shows them, and they can be hidden again."""
    event_id = await sent(house)
    assert "Show 5 hidden values" in await text_of(house, f"/events/{event_id}")
    text = await text_of(house, f"/events/{event_id}?secrets=shown")
    assert [word for word in WORDS if word not in text] == []
    assert "Hide secrets" in text


async def test_the_bytes_stay_as_they_were_sent(house: House) -> None:
    """Plain text, the download and the API give every byte; the download has a name."""
    event_id = await sent(house)
    async with house.http.get(f"/events/{event_id}/payload?download") as response:
        assert (await response.text(), response.content_type) == (PAYLOAD, "text/plain")
        assert response.headers["Content-Disposition"] == 'attachment; filename="payload.json"'
    assert json.dumps((await house.event(event_id))["payload"]) == json.dumps(json.loads(PAYLOAD))
