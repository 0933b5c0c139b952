"""The status page as a server sends it: templates that fit their views, regions, sessions, hints, the described API."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jinja2.meta
import pytest

from replayforge.domain.api_keys import Role, new_key
from replayforge.domain.errors import Unavailable
from replayforge.stores import lookups
from replayforge.web.api.openapi import api_routes
from replayforge.web.api.shapes import CONSTANTS, LEGACY_NAMES, SAID_TWICE, RowShape
from replayforge.web.http.sessions import Sessions
from replayforge.web.live.hints import ALL_TOPICS, HINT_SECONDS, happened
from replayforge.web.pages import (
    api_page,
    guide,
    in_doubt_page,
    lane_pages,
    rendering,
    schedule_pages,
    source_pages,
    views,
)
from tests.integration.conftest import echo_handlers
from tests.support.house import House, open_house
from tests.support.polling import persist

TEMPLATES = Path(rendering.__file__).parents[1] / "templates"
HTML = {"Accept": "text/html"}
KEYS = {"server.api_keys": ["secret-1", "secret-2"]}
VIEW_OF: dict[str, Any] = {
    "overview.html": views.OverviewView,
    "events.html": views.EventsView,
    "event.html": views.EventView,
    "workflows.html": views.WorkflowsView,
    "workflow.html": views.WorkflowView,
    "dead_letters.html": views.DeadLettersView,
    "replays.html": views.ReplaysView,
    "replay.html": views.ReplayView,
    "new_replay.html": views.NewReplayView,
    "handlers.html": views.HandlersView,
    "pause.html": views.PauseView,
    "sources.html": source_pages.SourcesView,
    "refusals.html": source_pages.RefusalsView,
    "schedules.html": schedule_pages.SchedulesView,
    "lanes.html": lane_pages.LanesView,
    "in_doubt.html": in_doubt_page.InDoubtView,
    "runtime.html": views.RuntimeView,
    "confirm.html": views.ConfirmView,
    "new_shadow.html": views.NewShadowView,
    "shadow.html": views.ShadowView,
    "send.html": views.SendView,
    "login.html": views.LoginView,
    "error.html": views.ErrorView,
    "docs.html": api_page.DocsView,
    "guide.html": guide.ContentsView,
    "guide_document.html": guide.GuideView,
}
FRAME = {"layout.html", "bare.html", "head.html", "parts.html"}


async def page(house: House, path: str, **options: Any) -> tuple[int, str]:
    """Return status and text of a page as a browser gets it, redirects not followed."""
    headers = HTML | options.pop("headers", {})
    async with house.http.get(path, headers=headers, allow_redirects=False, **options) as response:
        return response.status, await response.text()


async def regions(house: House, path: str, *names: str, tag: str = "") -> tuple[int, dict[str, str], str]:
    """Return status, the asked regions of a page, and their tag."""
    headers = HTML | {"X-Live-Regions": ",".join(names), "If-None-Match": tag}
    async with house.http.get(path, headers=headers) as response:
        body = await response.read()
        return response.status, json.loads(body)["regions"] if body else {}, response.headers["ETag"]


# Templates


def test_each_template_uses_its_view_and_nothing_else() -> None:
    """The names in a template are the fields of its view, no more and no less."""
    environment = rendering.build_environment()
    known = {"shell", rendering.PARTS, *environment.globals}
    assert {path.name for path in TEMPLATES.iterdir()} == VIEW_OF.keys() | FRAME
    for name, view in VIEW_OF.items():
        source = (TEMPLATES / name).read_text()
        used = jinja2.meta.find_undeclared_variables(environment.parse(source)) - known
        assert used == {field.name for field in fields(view)}, name


@pytest.mark.parametrize("name", sorted(VIEW_OF.keys() | FRAME))
def test_templates_hold_nothing_that_runs_and_nothing_unescaped(name: str) -> None:
    """No inline script, no inline style, no handler attribute, no `safe`; and every template compiles."""
    source = (TEMPLATES / name).read_text()
    assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?![^>]*\ssrc=)|\|\s*safe|javascript:|https?://", source)
    assert rendering.build_environment().get_template(name)


def test_every_live_region_can_be_rendered_and_hears_of_something() -> None:
    """Each data-live names a block of its template, and each topic is one that the hub speaks of."""
    environment = rendering.build_environment()
    for name in VIEW_OF.keys() | {"layout.html"}:
        source = (TEMPLATES / name).read_text()
        blocks = environment.get_template(name).blocks
        live_regions = re.findall(r'data-live="(\w+)" data-topics="([\w ]+)"', source)
        assert len(live_regions) == source.count("data-live=")
        for region, topics in live_regions:
            assert region in blocks, (name, region)
            assert set(topics.split()) <= ALL_TOPICS, (name, region)


# Pages


async def test_every_page_says_what_it_may_load_and_is_kept_by_nobody(house: House) -> None:
    """Pages carry the strict policy and no-store; static files are kept for ever under the hash of their content."""
    await house.reaches(await house.send("fails"), "dead_lettered")
    for path in (
        "/",
        "/events",
        "/workflows",
        "/workflows/workflow",
        "/dead-letters",
        "/runtime",
        "/docs",
        "/guide",
        "/send",
    ):
        async with house.http.get(path, headers=HTML) as response:
            text = await response.text()
            assert response.status == 200, path
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
            assert response.headers["Cache-Control"] == "no-store"
    assets = re.findall(r'(?:href|src)="(/static/[^"]+)"', text)
    assert len(assets) == 5
    for path in [*assets, assets[0].rpartition("/")[0] + "/js/live.js"]:
        async with house.http.get(path) as response:
            assert (response.status, response.headers["Cache-Control"]) == (200, "public, max-age=31536000, immutable")
    older = re.sub(r"/static/\w+", "/static/0000", assets[1])
    async with house.http.get(older) as response:
        assert (response.status, response.headers["Cache-Control"]) == (200, "no-cache")
    assert (await page(house, "/static/0000/../../../etc/passwd"))[0] == 404


async def test_regions_are_parts_of_the_page_and_cost_nothing_when_unchanged(house: House) -> None:
    """Only the named blocks come; with their tag a 304 comes; unknown names are passed over; no message is used up."""
    await house.reaches(await house.send("shop.step"), "succeeded")
    status, parts, tag = await regions(house, "/events", "list", "badge", "nothing")
    assert (status, set(parts)) == (200, {"list", "badge"})
    assert "shop.step" in parts["list"]
    assert "<html" not in parts["list"]
    assert (await regions(house, "/events", "list", "badge", tag=tag))[0] == 304
    await house.reaches(await house.send("shop.next"), "succeeded")
    assert (await regions(house, "/events", "list", "badge", tag=tag))[0] == 200


async def test_a_problem_is_a_page_for_people_and_json_for_programs(house: House) -> None:
    """Errors on pages are HTML with a way on; the API and clients that ask for no HTML get a problem."""
    status, text = await page(house, "/events/nothing")
    assert (status, "There is no event nothing" in text, "<main" in text) == (404, True, True)
    status, text = await page(house, "/events?status=nonsense")
    assert (status, "give received, scheduled" in text) == (422, True)
    for path, headers in (("/api/events/nothing", HTML), ("/events/nothing", {"Accept": "*/*"})):
        async with house.http.get(path, headers=headers) as response:
            assert response.content_type == "application/problem+json"


async def test_pages_say_so_while_the_store_is_away(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its store the daemon still shows a page that names the cause."""

    async def away(*_: object) -> None:
        raise Unavailable("The store does not answer.")

    for name in ("standing", "ping", "list_events"):
        monkeypatch.setattr(house.daemon.store, name, away)
    status, text = await page(house, "/")
    assert status == 503
    assert re.search(r"Attention</strong>: <bdi>the store", text)


async def test_a_list_that_was_not_looked_through_says_so_and_goes_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no index tells what passes a filter, an empty page is not the end: page and API lead to the next one."""
    monkeypatch.setattr(lookups, "LOOKED_AT_MAX", 3)
    await house.post("/api/events", {"workflow_id": "w", "event_type": "test", "service_name": "rare"})
    await house.send_many(5)
    await house.converges()
    answer = await house.get("/api/events?service_name=rare")
    assert (answer["items"], answer["has_more"]) == ([], True)
    path = "/events?service=rare"
    async with house.http.get(path, headers=HTML) as response:
        text = await response.text()
    assert "None of the events looked at passes these filters" in text
    link = f"{path}&amp;cursor={answer['next_cursor']}"
    assert f'href="{link}"' in text
    async with house.http.get(link.replace("&amp;", "&"), headers=HTML) as response:
        text = await response.text()
    assert "looked at" not in text
    assert len((await house.get(f"/api/events?service_name=rare&cursor={answer['next_cursor']}"))["items"]) == 1


async def test_forms_go_back_only_to_pages_of_ours(house: House) -> None:
    """A target outside is replaced by a page of ours; a body that is not a form is refused."""
    event_id = await house.send("fails")
    await house.reaches(event_id, "dead_lettered")
    for back, target in (("//evil.example/", "/events"), ("https://evil.example", "/events"), ("/runtime", "/runtime")):
        form = {"id": event_id, "reason": "because", "back": back}
        async with house.http.post("/actions/discard", data=form, allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (303, target)
    assert (await house.post("/actions/discard", {"id": event_id}))[0] == 415
    async with house.http.post("/actions/explode", data={"id": event_id}) as response:
        assert response.status == 404


async def test_crash_buttons_need_simulated_crashes(house: House) -> None:
    """Without --simulate-crashes there are no such buttons and no such actions."""
    assert "Crash it" not in (await page(house, "/runtime"))[1]
    for action in ("crash-worker", "demo-load"):
        async with house.http.post(f"/actions/{action}", data={"worker": "worker-1"}) as response:
            assert response.status == 403


async def test_a_held_event_is_decided_on_its_page(tmp_path: Path) -> None:
    """What was held after a crash is queued, succeeded or failed by a person's word."""
    handlers = echo_handlers()

    @handlers.on("held", on_crash="hold")
    async def held(event: Any, context: Any) -> None:
        raise SystemExit

    async with open_house(tmp_path / "data", handlers) as house:
        event_id = await house.send("held")
        await house.reaches(event_id, "held")
        assert "It had succeeded" in (await page(house, f"/events/{event_id}"))[1]
        assert "1 event is held and waits" in (await page(house, "/"))[1]
        for status, expected in (("exploded", "held"), ("succeeded", "succeeded"), ("queued", "succeeded")):
            form = {"id": event_id, "status": status, "reason": "looked it up"}
            async with house.http.post("/actions/resolve", data=form, allow_redirects=False) as response:
                assert response.status == 303
            assert (await house.event(event_id))["status"] == expected


# Sessions and base path


@pytest.fixture
async def locked(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "data", echo_handlers(), KEYS) as house:
        yield house


async def test_a_key_opens_a_session_for_the_pages(locked: House) -> None:
    """Without a key a page leads to the login and back; the session cookie is out of reach; signing out ends it."""
    async with locked.http.get("/runtime?x=1", headers=HTML, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (303, "/login?next=%2Fruntime%3Fx%3D1")
    for closed in ("/api/events", "/api/events/export"):
        assert (await locked.http.get(closed, headers=HTML)).status == 401
    assert (await locked.http.get("/lookup?q=ab")).status == 401
    status, text = await page(locked, "/login?next=/runtime")
    assert (status, "accepted" in text, 'name="key"' in text) == (200, False, True)
    async with locked.http.post("/login", data={"key": "wrong", "next": "/runtime"}, headers=HTML) as response:
        assert (response.status, "Set-Cookie" in response.headers) == (401, False)
    form = {"key": "secret-2", "next": "/runtime"}
    async with locked.http.post("/login", data=form, headers=HTML, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (303, "/runtime")
        cookie = response.headers["Set-Cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=Strict", "Path=/"))
    status, text = await page(locked, "/runtime")
    assert (status, 'data-keyed="yes"' in text) == (200, True)
    assert (await locked.http.get("/lookup?q=ab")).status == 200
    async with locked.http.post("/logout", headers=HTML, allow_redirects=False) as response:
        assert response.headers["Location"] == "/login"
    assert (await page(locked, "/runtime"))[0] == 303


async def sign_in(house: House, key: str = "secret-1", **headers: str) -> str:
    """Sign in and return the token of the session."""
    options: dict[str, Any] = {"headers": HTML | headers, "allow_redirects": False}
    async with house.http.post("/login", data={"key": key}, **options) as response:
        assert response.status == 303
        token = response.cookies["replayforge_session"].value
    house.http.session.cookie_jar.clear()
    return str(token)


async def status_with(house: House, token: str) -> int:
    """Return what the API says to the token of a session."""
    async with house.http.get("/api/events", headers={"Cookie": f"replayforge_session={token}"}) as response:
        return response.status


async def test_a_session_is_a_random_token_that_can_be_taken_back(locked: House) -> None:
    """The cookie holds no key and no two are alike; it ends where it was taken, or when somebody signs in anew."""
    first, second = await sign_in(locked), await sign_in(locked)
    assert first != second
    assert len(first) >= 43
    assert "secret" not in first
    assert [await status_with(locked, token) for token in (first, second, "secret-1", "", "x" * 43)] == [
        200, 200, 401, 401, 401,
    ]  # fmt: skip
    cookie = {"Cookie": f"replayforge_session={first}"}
    async with locked.http.post("/logout", headers=HTML | cookie, allow_redirects=False):
        pass
    assert [await status_with(locked, token) for token in (first, second)] == [401, 200]
    third = await sign_in(locked, Cookie=f"replayforge_session={second}")
    assert third not in (first, second)
    assert [await status_with(locked, token) for token in (second, third)] == [401, 200]


async def test_nobody_is_told_to_be_signed_out_who_is_not(locked: House) -> None:
    """While the store takes no sign-out it is refused and the session goes on; a new one can begin all the same."""
    token, driver = await sign_in(locked), locked.daemon.store.driver
    cookie = {"Cookie": f"replayforge_session={token}"}
    await driver.run_script("ALTER TABLE ended_sessions RENAME TO hidden;")
    async with locked.http.post("/logout", headers=HTML | cookie, allow_redirects=False) as response:
        assert (response.status, "Set-Cookie" in response.headers) == (503, False)
        assert "Retry-After" in response.headers
    assert await status_with(locked, await sign_in(locked, **cookie)) == await status_with(locked, token) == 200
    await driver.run_script("ALTER TABLE hidden RENAME TO ended_sessions;")
    async with locked.http.post("/logout", headers=HTML | cookie, allow_redirects=False) as response:
        assert response.status == 303
    assert await status_with(locked, token) == 401


async def test_a_session_planted_by_somebody_else_is_not_taken_up(locked: House) -> None:
    """Signing in begins a session of its own, whatever cookie came along."""
    planted = "p" * 43
    token = await sign_in(locked, Cookie=f"replayforge_session={planted}")
    assert [token == planted, await status_with(locked, planted)] == [False, 401]


async def test_sessions_end_with_their_key(locked: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session holds on every daemon of a store, as long as its key is configured, at the longest for its time."""
    one, other = new_key("one", Role.READ)[1], new_key("other", Role.READ)[1]
    replaced, promoted = replace(one, digest=other.digest), replace(one, role=Role.ADMIN)
    store = locked.daemon.store
    sessions, later = Sessions(b"store", store), Sessions(b"store", store)
    token = sessions.begin(one)
    lists = ((one, other), (promoted,), (replaced,), (other,), ())
    assert [sessions.key_of(token, keys) for keys in lists] == [one, promoted, None, None, None]
    assert (later.key_of(token, (one,)), Sessions(b"another store", store).key_of(token, (one,))) == (one, None)
    name, ends_at, value, signature = token.split(".")
    for forged in (
        f"other.{ends_at}.{value}.{signature}",
        f"{name}.{int(ends_at) + 1}.{value}.{signature}",
        "one",
        "...",
    ):
        assert sessions.key_of(forged, (one, other)) is None
    monkeypatch.setattr("replayforge.web.http.sessions.SESSION_SECONDS", 0)
    assert sessions.key_of(sessions.begin(one), (one,)) is None


async def test_the_login_sends_nobody_elsewhere(locked: House) -> None:
    """A foreign target after signing in is dropped."""
    for target in ("https://evil.example/", "//evil.example/", "/\\evil.example/", "javascript:alert(1)"):
        form = {"key": "secret-1", "next": target}
        async with locked.http.post("/login", data=form, headers=HTML, allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (303, "/")


async def test_a_session_does_not_excuse_another_site(locked: House) -> None:
    """With the cookie alone, a request that another site caused changes nothing."""
    async with locked.http.post("/login", data={"key": "secret-1"}, headers=HTML, allow_redirects=False):
        pass
    foreign = HTML | {"Sec-Fetch-Site": "cross-site"}
    async with locked.http.post("/theme", data={"theme": "dark"}, headers=foreign) as response:
        assert response.status == 403


async def test_below_a_base_path_every_link_begins_with_it(tmp_path: Path) -> None:
    """Behind a proxy, no link, form or file of any page leaves the base path."""
    async with open_house(tmp_path / "data", echo_handlers(), {"server.base_path": "/rf"}) as house:
        body = {"workflow_id": "w", "event_type": "fails", "payload": {}}
        async with house.http.post("/rf/api/events", json=body) as response:
            event_id = (await response.json())["id"]

        async def dead() -> bool:
            return bool((await house.get(f"/rf/api/events/{event_id}"))["status"] == "dead_lettered")

        await persist(dead)
        for path in ("/", "/events", f"/events/{event_id}", "/workflows", "/workflows/w", "/dead-letters", "/runtime"):
            status, text = await page(house, f"/rf{path}")
            targets = re.findall(r'(?:href|src|action|formaction)="([^"#]+)"', text)
            assert (status, [target for target in targets if not target.startswith("/rf/")]) == (200, []), path
        async with house.http.get("/rf/openapi.json") as response:
            described = await response.json()
        assert described["servers"] == [{"url": "/rf"}]
        assert "/api/events" in described["paths"]


# Hints


class Hints:
    """One open stream."""

    def __init__(self, response: Any) -> None:
        self.response = response

    async def next(self) -> tuple[str, list[str]]:
        """Return the name and the topics of the next hint; heartbeats are ("hb", [])."""
        async with asyncio.timeout(10):
            while True:
                block = (await self.response.content.readuntil(b"\n\n")).decode()
                if block.startswith(": hb"):
                    return "hb", []
                if found := re.search(r"event: (\w+)\ndata: (.*)", block):
                    return found[1], json.loads(found[2]).get("topics", [])


async def test_a_stream_tells_what_changed(house: House) -> None:
    """Hints name topics, only those that were asked for, and come at most twice a second."""
    async with house.http.get("/api/stream?topics=dead,workers") as response:
        assert response.content_type == "text/event-stream"
        assert response.headers["X-Accel-Buffering"] == "no"
        hints, loop = Hints(response), asyncio.get_running_loop()
        await house.reaches(await house.send("fails"), "dead_lettered")
        seen: set[str] = set()
        while "dead" not in seen:
            name, topics = await hints.next()
            assert name == "changed"
            seen |= set(topics)
        assert seen <= {"dead", "workers"}
        times = []
        for _ in range(4):
            await house.reaches(await house.send("fails"), "dead_lettered")
            await hints.next()
            times.append(loop.time())
        assert times[3] - times[0] >= 2.5 * HINT_SECONDS


async def test_a_page_that_missed_something_hears_resync(house: House) -> None:
    """A stream begins with resync when the page saw less than has happened, or comes back after a break."""
    hub = house.daemon.telemetry
    await house.reaches(await house.send("shop.step"), "succeeded")
    for query, headers in (("?seen=1", {}), ("", {"Last-Event-ID": "1"})):
        async with house.http.get(f"/api/stream{query}", headers=headers) as response:
            assert (await Hints(response).next())[0] == "resync"
    async with house.http.get(f"/api/stream?seen={happened(hub)}") as response:
        await house.send("shop.step")
        assert (await Hints(response).next())[0] == "changed"


async def test_a_quiet_stream_gives_a_sign_of_life(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing happens, a heartbeat comes."""
    monkeypatch.setattr("replayforge.web.live.hints.HEARTBEAT_SECONDS", 0.05)
    async with house.http.get("/api/stream?topics=parts") as response:
        assert (await Hints(response).next())[0] == "hb"


async def test_streams_have_a_limit_and_give_their_place_back(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """One client too many is told when to come again; a place that became free is given again."""
    monkeypatch.setattr("replayforge.web.live.hints.CLIENTS_MAX", 2)
    monkeypatch.setattr("replayforge.web.live.hints.HEARTBEAT_SECONDS", 0.05)
    async with house.http.get("/api/stream") as first, house.http.get("/api/stream"):
        async with house.http.get("/api/stream") as refused:
            assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        first.close()

        async def free() -> bool:
            async with house.http.get("/api/stream") as response:
                return response.status == 200

        await persist(free)


# The API described


async def test_the_described_api_is_the_served_one(house: House) -> None:
    """Every route of the API is described, with a summary, and every reference resolves."""
    async with house.http.get("/openapi.json") as response:
        text = await response.text()
    described = json.loads(text)
    assert house.http.server is not None
    served = {(method.lower(), path) for method, path, _ in api_routes(house.http.app, "")}
    written = {(method, path) for path, methods in described["paths"].items() for method in methods}
    assert served == written
    assert len(served) > 35
    resolve = described["paths"]["/api/events/{id}/resolve"]["post"]
    body = resolve["requestBody"]["content"]["application/json"]["schema"]["allOf"][0]["$ref"].rpartition("/")[2]
    assert described["components"]["schemas"][body]["properties"].keys() == {
        "to", "status", "reason", "step", "result", "from",
    }  # fmt: skip
    assert all(word in described["info"]["description"] for word in ("count_capped", "too-slow", "429", "session"))
    schemas = described["components"]["schemas"]
    assert {name.rpartition("/")[2] for name in re.findall(r'"\$ref":"([^"]+)"', text)} <= schemas.keys()
    for methods in described["paths"].values():
        assert all(len(operation["summary"]) > 10 for operation in methods.values())
    assert schemas["Envelope"]["required"] == ["workflow_id", "event_type"]


async def test_legacy_names_and_constants_are_deprecated(house: House) -> None:
    """What a legacy name says again is marked in OpenAPI and names ours; so is what never changes, and nothing else."""
    schemas = (await house.get("/openapi.json"))["components"]["schemas"]
    marked = {
        kind: {name for name, shape in schema.get("properties", {}).items() if shape.get("deprecated")}
        for kind, schema in schemas.items()
    }
    assert {kind: names for kind, names in marked.items() if names} == {
        kind: LEGACY_NAMES[said].keys() | (CONSTANTS.keys() if said == "Convergence" else set())
        for kind, said in SAID_TWICE.items()
    }
    for kind, names in ((kind, LEGACY_NAMES[said]) for kind, said in SAID_TWICE.items()):
        assert all(f" {ours}," in schemas[kind]["properties"][name]["description"] for name, ours in names.items())
        assert not {ours for ours in names.values() if schemas[kind]["properties"][ours].get("deprecated")}


async def test_one_thing_goes_by_one_name_wherever_it_is_shown(house: House) -> None:
    """An event, an attempt, a step and a worker have the same members in lists, timelines, and by themselves."""
    schemas = (await house.get("/openapi.json"))["components"]["schemas"]
    members = {kind: schema.get("properties", {}) for kind, schema in schemas.items()}
    row = {name: members["EventShape"][name] for name in RowShape.__struct_fields__}
    for kind in ("ShownEvent", "EventHistory", "RetiredShape", "TimelineEvent"):
        assert row.items() <= members[kind].items(), kind
    assert members["DeadLetter"].keys() - row.keys() == {"event_id", "replayed_at", "replay_status"}
    listed = [(name, shape["items"]) for of in members.values() for name, shape in of.items() if "items" in shape]
    assert all(of["$ref"].endswith("/AttemptShape") for name, of in listed if name == "attempts")
    assert members["ClearedStep"].items() <= members["StepShape"].items()
    assert not {"worker", "worker_id"} & {name for of in members.values() for name in of}


async def test_the_page_of_the_api_names_every_path(house: House) -> None:
    """/docs shows what /openapi.json says."""
    described = await house.get("/openapi.json")
    _, text = await page(house, "/docs")
    assert [path for path in described["paths"] if f"<code>{path}</code>" not in text] == []
