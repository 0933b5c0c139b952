"""Which key may do what: every role and every path that is served."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from replayforge.domain.api_keys import Role, new_key
from replayforge.web.http.routes import add_routes, get
from tests.integration.conftest import echo_handlers
from tests.support.house import House, open_house

# Who may, the roles by their first letters and - for whoever shows no key: what.
TABLE = {
    "- M I R O A": """
        GET /health  GET /health/live  GET /health/ready  GET /health/backend  GET /health/backend/stats
        GET /static/{}/{}  GET /login  POST /login  POST /logout
        GET /steps/{}/{}/{}/journal  POST /steps/{}/{}/{}/checkpoint
    """,
    "M R O A": "GET /metrics",
    "I A": "POST /api/events  POST /api/events/bulk  GET /in/{}  POST /in/{}  POST /send",
    "R O A": """
        GET /api/events  GET /api/events/recent  GET /api/events/export  GET /api/events/{}  GET /api/events/{}/steps
        GET /api/events/{}/why  GET /api/indoubt  GET /in-doubt
        GET /api/workflows  GET /api/workflows/{}  GET /api/workflows/{}/timeline  GET /api/deadletters
        GET /api/replays  GET /api/replays/{}  GET /api/handlers  GET /api/lanes  GET /api/sources  GET /api/alerts
        GET /api/sources/{}/refusals  GET /api/schedules  GET /api/convergence  GET /api/workers  GET /api/supervisor
        GET /api/metrics  GET /api/insights/errors  GET /api/stream  GET /forgelog/read  GET /forgelog/health
        GET /forgelog/stats  GET /openapi.json  GET /schemas/steps.json
        GET /  GET /events  GET /events/{}  GET /events/{}/{}  GET /workflows  GET /workflows/{}  GET /dead-letters
        GET /replays  GET /replays/new  GET /replays/{}  GET /handlers  GET /handlers/pause  GET /sources
        GET /sources/pause  GET /sources/{}/refusals  GET /schedules  GET /schedules/pause  GET /lanes  GET /runtime
        GET /search  GET /lookup  GET /send  GET /confirm/{}  GET /docs  GET /guide  GET /guide/grafana.json
        GET /guide/{}  GET /shadow/new  GET /shadow/{}  POST /theme
    """,
    "O A": """
        POST /api/events/{}/replay  POST /api/events/{}/retry  POST /api/events/{}/cancel  POST /api/events/{}/resolve
        POST /api/workflows/{}/replay  POST /api/deadletters/{}/replay  POST /api/deadletters/{}/discard
        POST /api/replays  POST /api/replays/{}/pause  POST /api/replays/{}/resume  POST /api/replays/{}/cancel
        POST /api/handlers/{}/pause  POST /api/handlers/{}/resume  POST /api/sources/{}/refusals/verify
        POST /api/sources/{}/pause  POST /api/sources/{}/resume  POST /api/schedules/{}/run
        POST /api/schedules/{}/pause  POST /api/schedules/{}/resume  POST /api/alerts/{}/test
        POST /replays  POST /replays/{}/{}  POST /handlers/pause  POST /handlers/resume  POST /sources/pause
        POST /sources/resume  POST /sources/{}/refusals  POST /schedules/run  POST /schedules/pause
        POST /schedules/resume  POST /actions/replay-workflow  POST /actions/subscribers  POST /actions/edited-replay
        POST /actions/signal  POST /actions/resolve  POST /actions/decide  POST /actions/{}
        POST /api/indoubt/{}/resolve
    """,
    "A": """
        POST /forgelog/append  POST /forgelog/commit  POST /api/demo/generate-workload  POST /api/chaos/crash
        POST /api/chaos/workers/{}/crash  POST /actions/crash-worker  POST /actions/demo-load  POST /shadow
        POST /api/shadow
    """,
}
WHO = {
    operation: frozenset(who.split())
    for who, operations in TABLE.items()
    for operation in re.split(r"\s{2,}", operations.strip())
}
KEYS = {role[0].upper(): new_key(f"key-of-{role}", role) for role in Role}


@asynccontextmanager
async def keyed_house(directory: Path) -> AsyncIterator[House]:
    """Open a daemon with one key of each role."""
    settings = {"server.api_keys": [key.entry() for _, key in KEYS.values()]}
    async with open_house(directory, echo_handlers(), settings) as house:
        yield house


async def test_every_role_and_every_path(tmp_path: Path) -> None:
    """Each path lets in whom the table names and nobody else, who is told what is missing; OpenAPI says the same."""
    async with keyed_house(tmp_path) as house:
        served = {
            f"{route.method} {re.sub('{.*?}', '{}', route.resource.canonical)}"
            for route in house.http.app.router.routes()
            if route.resource and route.method != "HEAD"
        }
        assert served == WHO.keys()
        answered = {
            operation: frozenset([who for who in ("-", *KEYS) if await may(house, operation, who)]) for operation in WHO
        }
        assert answered == WHO
        paths = (await house.get("/openapi.json", headers={"X-API-Key": KEYS["R"][0]}))["paths"]
        for path, methods in paths.items():
            for method, described in methods.items():
                needed = [role for one in described["security"] for role in one.get("key", [])]
                among = WHO[f"{method.upper()} {re.sub('{.*?}', '{}', path)}"]
                assert {
                    letter for letter, (_, key) in KEYS.items() if all(map(key.may, map(Role, needed)))
                } == among - {"-"}


async def may(house: House, operation: str, who: str) -> bool:
    """Tell whether somebody is let in; a refusal names what it should."""
    method, path = operation.replace("/events/{}/{}", "/events/1/payload").replace("{}", "1").split(" ")
    headers = {"X-API-Key": KEYS[who][0]} if who in KEYS else {}
    async with house.http.request(method, path, headers=headers, allow_redirects=False) as response:
        if response.status not in (401, 403):
            return True
        problem = await response.json()
        kind = problem["type"].rpartition(":")[2]
        if kind == "role-needed":
            assert all(word in problem["detail"] for word in (KEYS[who][1].name, f"the role {KEYS[who][1].role}"))
        return kind not in ("unauthorized", "role-needed")


async def test_what_leads_nowhere_is_told_to_any_key_and_to_nobody_else(tmp_path: Path) -> None:
    """A path that does not exist is 404 with a key of whatever role, and 401 without one."""
    async with keyed_house(tmp_path) as house:
        for key, status in ((KEYS["M"][0], 404), ("wrong", 401)):
            for path in ("/nope", "/health/nope", "/static/", "/api/nope"):
                assert (await house.http.get(path, headers={"X-API-Key": key})).status == status


async def test_a_page_for_those_who_look(tmp_path: Path) -> None:
    """Who signs in with a key that may only look finds the buttons off and is refused; one that may not, no session."""
    html = {"Accept": "text/html"}
    async with keyed_house(tmp_path) as house:
        event_id = ""
        async with house.http.post(
            "/api/events", json={"workflow_id": "w", "event_type": "fails"}, headers={"X-API-Key": KEYS["I"][0]}
        ) as response:
            event_id = (await response.json())["id"]
        await house.probe.saw("event.dead_lettered")
        for letter, off in (("R", True), ("O", False)):
            form = {"key": KEYS[letter][0]}
            async with house.http.post("/login", data=form, headers=html, allow_redirects=False) as response:
                assert response.status == 303
            async with house.http.get(f"/events/{event_id}", headers=html) as response:
                text = await response.text()
            buttons = re.findall(r"<button ([^>]*)>(?:Replay|Discard)…", text)
            assert [("disabled data-locked" in button) for button in buttons] == [off, off]
            assert ("may look at everything" in text) is off
            data = {"id": event_id, "reason": "why"}
            async with house.http.post("/actions/discard", data=data, headers=html, allow_redirects=False) as response:
                assert response.status == (403 if off else 303)
        async with house.http.post("/login", data={"key": KEYS["I"][0]}, headers=html) as response:
            assert (response.status, "role read" in await response.text()) == (403, True)
            assert "Set-Cookie" not in response.headers


async def test_who_did_it(tmp_path: Path) -> None:
    """What is done to events, handlers and in bulk is told with the name of the key, to the log as well."""
    (operates, known), (administers, administrator) = KEYS["O"], KEYS["A"]
    by, by_admin = {"headers": {"X-API-Key": operates}}, {"headers": {"X-API-Key": administers}}
    async with keyed_house(tmp_path) as house:
        event = {"workflow_id": "w", "event_type": "fails"}
        ids = [(await house.post("/api/events", event, **by_admin))[1]["id"] for _ in range(2)]
        await house.probe.saw("event.dead_lettered", 2)
        assert (await house.post(f"/api/events/{ids[0]}/replay", {"reason": "why"}, **by))[0] == 202
        await house.probe.saw("event.dead_lettered", 3)
        assert (await house.post(f"/api/deadletters/{ids[0]}/discard", {"reason": "done"}, **by_admin))[0] == 200
        assert (await house.post(f"/api/deadletters/{ids[0]}/discard", {"reason": "twice"}, **by_admin))[0] == 409
        assert (await house.post("/api/replays", {"ids": ids[1:], "reason": "again"}, **by))[0] == 202
        await house.probe.saw("event.dead_lettered", 4)
        told = [(await house.get(f"/api/events/{one}", **by))["actions"] for one in ids]
        assert [[(one["action"], one["by"]) for one in actions] for actions in told] == [
            [("replayed", known.name), ("discarded", administrator.name)],
            [("replayed", known.name)],
        ]
        _, pause = await house.post("/api/handlers/fails/pause", {"reason": "why", "by": "Ann"}, **by)
        assert pause["by"] == f"Ann (key {known.name})"
        assert [(fields["key"], fields["what"]) for fields in house.probe.fields("action.taken")] == [
            (known.name, f"POST /api/events/{ids[0]}/replay"),
            (administrator.name, f"POST /api/deadletters/{ids[0]}/discard"),
            (known.name, "POST /api/replays"),
            (known.name, "POST /api/handlers/fails/pause"),
        ]
        async with house.http.get(f"/events/{ids[0]}", headers=by["headers"] | {"Accept": "text/html"}) as response:
            assert f"with the key <bdi>{known.name}</bdi>" in await response.text()


def test_no_path_without_a_role() -> None:
    """A route cannot be made without saying what it needs, and no handler needs this here and that there."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    with pytest.raises(TypeError):
        get("/path", answer)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="/two needs another role"):
        add_routes(web.Application(), [get("/one", answer, Role.READ), get("/two", answer, None)])
