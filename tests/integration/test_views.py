"""Lists, the ledger, health, and ForgeLog over HTTP."""

import asyncio
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from msgspec import structs

import replayforge
from replayforge import Context, Event, Handlers
from replayforge.domain.lifecycle import Outcome, State
from replayforge.domain.reports import EventFilter
from replayforge.domain.verdict import Verdict
from replayforge.stores.transactions import Settlement
from tests.integration.conftest import echo_handlers
from tests.support.house import House, open_house
from tests.support.polling import persist

METRICS = Path(replayforge.__file__).parent / "docs" / "metrics.md"

# Lists


@pytest.mark.parametrize("limit", [1, 7, 200])
async def test_pages_lose_and_double_nothing(house: House, limit: int) -> None:
    """Page after page shows every event once, newest first, also while new ones come in."""
    ids = await house.send_many(40)
    await house.converges()
    seen: list[str] = []
    query = {"limit": str(limit)}
    while True:
        page = await house.get("/api/events", params=query)
        seen += [item["id"] for item in page["items"]]
        assert len(page["items"]) <= limit
        assert page["has_more"] == (page["next_cursor"] is not None)
        if not page["has_more"]:
            break
        query["cursor"] = page["next_cursor"]
        if len(seen) < 100:
            await house.send("newer")
    assert seen == ids[::-1]


async def test_a_page_of_large_payloads_ends_early(house: House) -> None:
    """Pages are cut by bytes too: an answer stays below 10 MiB, and page after page shows every event once."""
    ids = [await house.send("fails", {"x": "x" * 1_000_000}) for _ in range(11)]
    await house.converges()
    seen: list[str] = []
    query = {"limit": "200"}
    while True:
        async with house.http.get("/api/events", params=query) as response:
            body = await response.read()
        page = json.loads(body)
        assert len(body) < 10 << 20
        seen += [item["id"] for item in page["items"]]
        if not page["has_more"]:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == ids[::-1]


async def test_an_answer_that_takes_too_long_is_given_up(house: House) -> None:
    """503 says what happened and what to do, readiness stays ok, and keys are looked up all the while."""
    driver = house.daemon.store.driver
    slow = (
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT count(*) FROM n"
    )
    driver.book = {**driver.book, "seq_behind": slow}  # type: ignore[attr-defined]
    driver.look_seconds = 2.0
    asked = [asyncio.ensure_future(house.http.get("/api/workflows")) for _ in range(6)]
    await house.send(idempotency_key="k", payload={"a": 1})
    status, problem = await house.post(
        "/api/events", {"workflow_id": "workflow", "event_type": "test", "payload": {"a": 2}, "idempotency_key": "k"}
    )
    assert (status, problem["type"]) == (422, "urn:replayforge:idempotency-key-reused")
    assert (await house.get("/health/ready"))["status"] == "ok"
    for answer in await asyncio.gather(*asked):
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "5"
        assert (await answer.json())["type"] == "urn:replayforge:too-slow"
    async with house.http.get("/metrics") as figures:
        assert "replayforge_store_wal_bytes" in await figures.text()


async def test_filters(house: House) -> None:
    """Filters of the query find what they name, and add up."""
    a = await house.send("pay.done", workflow_id="w1", service_name="s1", idempotency_key="key-a")
    b = await house.send("fails", workflow_id="w1", payload={"b": 1})
    c = await house.send("pay.void", workflow_id="w2", application_name="other")
    await house.converges()
    wanted: dict[str, list[str]] = {
        "event_type=pay.*": [c, a],
        "event_type=pay.done": [a],
        "workflow_id=w1": [b, a],
        "service_name=s1": [a],
        "application_name=other": [c],
        "status=dead_lettered": [b],
        "status=succeeded&workflow_id=w1": [a],
        f"q={b}": [b],
        "q=key-a": [a],
        "q=w": [c, b, a],
        "q=%25": [],
        "contains=%22b%22": [b],
        "contains=%22b%22&workflow_id=w2": [],
        "contains=": [c, b, a],
        "until=2001-01-01T00:00:00Z": [],
        "since=2001-01-01T00:00:00Z": [c, b, a],
        "since=2001-01-01T00:00:00%2B01:00": [c, b, a],
    }
    found = {query: [item["id"] for item in (await house.get(f"/api/events?{query}"))["items"]] for query in wanted}
    assert found == wanted


async def test_the_page_finds_what_holds_a_text(house: House) -> None:
    """The list of events can be narrowed to a text in payload or metadata, and says among how many it was sought."""
    found = await house.send("t", {"mail": "ada@example.com"})
    other = await house.send("t", {"mail": "bob@example.com"})
    await house.converges()
    async with house.http.get("/events?contains=ada@example.com") as response:
        page = await response.text()
    assert (found in page, other in page) == (True, False)
    assert "1 event among 2 events looked at" in page
    assert "/replays/new" not in page.partition("<h1>Events</h1>")[2]  # it would take more than what is listed


async def test_workflows(house: House) -> None:
    """Workflows are listed once each, newest first, with the original's totals."""
    for workflow in ("w1", "w2", "w1", "w3"):
        await house.send("fails" if workflow == "w2" else "t", workflow_id=workflow)
    await house.converges()
    listed = (await house.get("/api/workflows"))["items"]
    assert [one["workflow_id"] for one in listed] == ["w3", "w1", "w2"]
    two = await house.get("/api/workflows/w2")
    assert (two["total_events"], two["succeeded"], two["dead_lettered"], two["has_failures"]) == (1, 0, 1, True)
    assert two["in_flight"] == 0


async def test_dead_letters_are_gathered(house: House) -> None:
    """Dead letters can be listed, and gathered by error, type, service and reason."""
    for _ in range(3):
        await house.send("fails", service_name="billing")
    await house.converges()
    assert len((await house.get("/api/deadletters"))["items"]) == 3
    for group_by, name in (("type", "fails"), ("service", "billing"), ("reason", "attempts_exhausted")):
        (group,) = (await house.get(f"/api/deadletters?group_by={group_by}"))["items"]
        assert (group["group"], group["count"]) == (name, 3)
    (insight,) = (await house.get("/api/insights/errors"))["items"]
    assert insight["count"] == 3


# The ledger and health


async def test_ledger(house: House) -> None:
    """The ledger adds up, and converged is said only when nothing that is due waits or runs."""
    await house.reaches(await house.send("t", idempotency_key="k"), "succeeded")
    await house.send("t", idempotency_key="k")
    await house.reaches(await house.send("fails"), "dead_lettered")
    await house.reaches(await house.send("waits"), "processing")
    report = await house.get("/api/convergence")
    assert (report["converged"], report["convergence_state"], report["processing_events"]) == (False, "recovering", 1)
    ledger = await house.converges()
    assert ledger["accepted"] == 3 == ledger["succeeded"] + ledger["dead_lettered"]
    assert (ledger["lost"], ledger["open"]) == (0, 0)
    report = await house.get("/api/convergence")
    assert any("dead letter" in issue for issue in report["issues"])
    metrics = await house.get("/api/metrics")
    assert (metrics["succeeded"], metrics["dead_lettered"]) == (2, 1)


async def test_a_lost_row_is_seen(house: House) -> None:
    """A row that vanishes from the store makes the ledger say lost, and never converged."""
    event_id = await house.send("t")
    await house.converges()
    await delete_row(house, event_id)
    report = await house.get("/api/convergence")
    assert (report["ledger"]["lost"], report["converged"], report["convergence_state"]) == (1, False, "degraded")
    assert any("check" in issue for issue in report["issues"])


async def delete_row(house: House, event_id: str) -> None:
    """Let a row and its count vanish together, as a store that fell back to an older state would."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(Path(house.daemon.config.data_dir) / "store.db", timeout=10)) as store:
        store.execute("DELETE FROM events WHERE id = ?", (event_id,))
        store.execute("UPDATE tallies SET amount = amount - 1 WHERE name = 'succeeded'")
        store.commit()


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/health/backend"])
async def test_health(house: House, path: str) -> None:
    """A daemon at peace says so on every health path."""
    assert (await house.get(path))["status"] == "ok"


async def test_what_is_not_due_does_not_keep_it_from_converging(house: House) -> None:
    """A retry in an hour, and what is scheduled, are named apart; a retry in a few seconds is on its way."""
    await house.reaches(await house.send("postponed"), "retrying")
    await house.reaches(await house.send("t", run_at="2100-01-01T00:00:00Z"), "scheduled")
    report = await house.get("/api/convergence")
    assert (report["converged"], report["convergence_state"], report["ledger"]["open"]) == (True, "converged", 2)
    named = ("retrying_later_events", "scheduled_events", "pending_events")
    assert [report[name] for name in named] == [1, 1, 0]
    await house.reaches(await house.send("postponed", {"seconds": 5}), "retrying")
    report = await house.get("/api/convergence")
    assert (report["converged"], report["retrying_later_events"], report["pending_events"]) == (False, 1, 1)


async def test_late_results_are_told_apart(house: House) -> None:
    """A result that is dropped is fenced; only a handler that had succeeded may have done its work twice."""
    names = ("fenced_results", "duplicate_side_effects")
    await house.reaches(await house.send("t"), "succeeded")
    (row,) = await house.daemon.store.list_rows(EventFilter(), before_seq=None, limit=1)
    for outcome in (Outcome.FAILED, Outcome.SUCCEEDED):
        late = Settlement(structs.replace(row, lease_token=99), outcome, Verdict(State.SUCCEEDED, 0, 0), "w", 1, 2)
        await house.daemon.workers[0].settler.commit([late])
        report = await house.get("/api/convergence")
        assert [report[name] for name in names] == [1 + (outcome is Outcome.SUCCEEDED), outcome is Outcome.SUCCEEDED]


async def test_readiness_follows_ingest(house: House) -> None:
    """While events cannot be accepted readiness is 503 with the reason, and so is every post, with Retry-After."""
    house.daemon.intake.draining, house.daemon.intake.accepting = True, False
    async with house.http.get("/health/ready") as response:
        assert response.status == 503
        assert "draining" in await response.text()
    async with house.http.post("/api/events", json={"workflow_id": "w", "event_type": "t"}) as response:
        assert (response.status, response.content_type) == (503, "application/problem+json")
        assert int(response.headers["Retry-After"]) >= 1
    async with house.http.get("/health/live") as response:
        assert response.status == 200
    assert (await house.get("/forgelog/stats"))["last_offset"] == 0


async def test_a_disk_that_is_nearly_full_closes_ingest(house: House) -> None:
    """While too little of the disk is free, readiness is 503 and posts are 507; both end soon after there is room."""
    janitor = house.daemon.janitor
    janitor.intervals, enough = replace(janitor.intervals, disk_free_bytes_min=1 << 62), janitor.intervals
    await janitor.look_at_disk()
    async with house.http.get("/health/ready") as response:
        assert response.status == 503
        assert (await response.json())["detail"] == "the disk is nearly full"
    assert "\nreplayforge_log_writable 0.0\n" in await (await house.http.get("/metrics")).text()
    for path, body in (("/api/events", {"workflow_id": "w", "event_type": "t"}), ("/forgelog/append", {})):
        async with house.http.post(path, json=body) as response:
            assert response.status == 507, path
            assert int(response.headers["Retry-After"]) >= 1
    assert "nearly full" in await (await house.http.get("/")).text()
    janitor.intervals = enough

    async def is_ready() -> bool:
        async with house.http.get("/health/ready") as response:
            return response.status == 200

    await persist(is_ready)
    await house.send()


async def test_a_service_that_is_down_is_degraded(house: House) -> None:
    """A service that is being restarted makes the daemon degraded, by name, never unready."""
    guard = house.daemon.supervisor.guards["janitor"]
    guard.state = "restarting"
    body = await house.get("/health/ready")
    assert body["status"] == "degraded"
    assert "janitor" in json.dumps(body)


async def test_workers_are_shown(tmp_path: Path) -> None:
    """Every worker is listed with what it holds."""
    async with open_house(tmp_path, echo_handlers(), {"workers.count": 3}) as house:
        event_id = await house.send("waits")
        await house.reaches(event_id, "processing")
        items = (await house.get("/api/workers"))["items"]
        assert [item["worker_name"] for item in items] == ["worker-1", "worker-2", "worker-3"]
        (busy,) = [item for item in items if item["status"] == "busy"]
        assert busy["current_event_id"] == event_id


async def test_progress_is_shown_while_a_handler_runs(tmp_path: Path) -> None:
    """What a handler says of itself stands in the answers and on the page of its event until it has ended."""
    handlers, go_on = Handlers(), asyncio.Event()

    @handlers.on("import")
    async def bring_in(event: Event, context: Context) -> None:
        context.heartbeat(rows=1200, of="<all>")
        context.heartbeat(rows=1300)
        await go_on.wait()

    async with open_house(tmp_path, handlers) as house:
        event_id = await house.send("import")

        async def progress() -> Any:
            return (await house.get(f"/api/events/{event_id}"))["details"]

        async def is_told() -> bool:
            return bool(await progress() == {"rows": 1300, "of": "<all>"})

        await persist(is_told)
        page = await (await house.http.get(f"/events/{event_id}", headers={"Accept": "text/html"})).text()
        assert re.search(
            r"Progress.*rows</dt>\s*<dd><bdi>1300</bdi>.*of</dt>\s*<dd><bdi>&lt;all&gt;</bdi>", page, re.DOTALL
        )
        go_on.set()
        await house.reaches(event_id, "succeeded")
        assert await progress() == {}
        page = await (await house.http.get(f"/events/{event_id}", headers={"Accept": "text/html"})).text()
        assert "told-title" not in page


async def test_prometheus_counts(house: House) -> None:
    """The Prometheus page counts what happened, by what tells it apart, and shows series before they happen."""
    await house.send_many(5)
    await house.send("fails")
    await house.converges()
    text = await prometheus_text(house)
    for line in (
        "replayforge_events_accepted_total 6.0",
        "replayforge_attempts_started_total 6.0",
        'replayforge_attempts_failed_total{outcome="failed"} 1.0',
        'replayforge_attempts_failed_total{outcome="timed_out"} 0.0',
        'replayforge_events_dead_lettered_total{reason="attempts_exhausted"} 1.0',
        'replayforge_events_dead_lettered_total{reason="poison"} 0.0',
        'replayforge_events{state="succeeded"} 5.0',
        'replayforge_handler_duration_seconds_count{event_type="test",outcome="succeeded"} 5.0',
        'replayforge_handler_duration_seconds_count{event_type="fails",outcome="failed"} 1.0',
        'replayforge_latency_seconds_bucket{event_type="test",le="+Inf",outcome="succeeded"} 5.0',
        'replayforge_latency_seconds_count{event_type="fails",outcome="dead_lettered"} 1.0',
        "replayforge_oldest_queued_seconds 0.0",
    ):
        assert line in text.splitlines()


async def test_prometheus_metrics_are_those_of_the_documentation(house: House) -> None:
    """docs/metrics.md lists every metric with its kind and meaning, and no other; names keep Prometheus' rules."""
    text = await prometheus_text(house)
    kinds = dict(re.findall(r"^# TYPE (\S+) (.+)$", text, re.MULTILINE))
    words = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.MULTILINE))
    written = METRICS.read_text()
    rows = re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \| ([\w, ]*?) ?\| (.+) \|$", written, re.MULTILINE)
    assert {name: (kind, meaning) for name, kind, _, meaning in rows} == {
        name: (kind, words[name]) for name, kind in kinds.items()
    }
    assert len(rows) == len(kinds)
    labels = {name: {one for one in named.split(", ") if one} for name, _, named, _ in rows}
    for name, found in re.findall(r"^(\w+?)(?:_bucket)?{(.+)} \S+$", text, re.MULTILINE):
        assert set(re.findall(r'(\w+)="', found)) - {"le"} == labels[name], name
    assert [name for name, kind in kinds.items() if name.endswith("_total") != (kind == "counter")] == []
    assert [name for name in kinds if re.search(r"_(ms|minutes|kb|mb|counter|gauge|count|sum|bucket)(_|$)", name)] == []
    named = set(re.findall(r"replayforge_\w+", written.partition("## All")[0])) - {"replayforge_"}
    assert {name.removesuffix("_bucket") for name in named} <= set(kinds)


async def test_promtool_finds_nothing_to_say_of_the_metrics(tmp_path: Path) -> None:
    """The linter of Prometheus takes the page of a daemon that has sources, lanes, steps and more types than labels."""
    if not which("promtool"):
        pytest.skip("promtool is not here: /metrics was not looked at by it")
    handlers = echo_handlers()

    @handlers.on("stepping")
    async def stepping(event: Event, ctx: Context) -> None:
        await ctx.step("one", asyncio.sleep, 0)

    settings = {
        "lanes": [{"match": "ordered.*", "key": "workflow_id", "order": "strict"}],
        "sources": [{"name": "shop", "preset": "none"}],
    }
    async with open_house(tmp_path, handlers, settings) as house:
        await asyncio.gather(*(house.send(f"type {number}") for number in range(60)))
        for event_type in ("fails", "stepping", "ordered.one", 'quo"ted\\'):
            await house.send(event_type)
        await house.post("/in/shop", {"id": 1})
        await house.converges()
        text = await prometheus_text(house)
    assert 'replayforge_lane_events_blocked{match="ordered.*"} 0.0' in text.splitlines()
    assert 'replayforge_deliveries_accepted_total{source="shop"} 1.0' in text.splitlines()
    assert 'event_type="other"' in text
    assert lint(text) == (0, "")


def lint(text: str) -> tuple[int, str]:
    """Return how promtool ends, and what it says."""
    command = ["promtool", "check", "metrics"]
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout


async def prometheus_text(house: House) -> str:
    async with house.http.get("/metrics") as response:
        assert response.status == 200
        return await response.text()


# Under a base path


async def test_base_path(tmp_path: Path) -> None:
    """Under a base path everything lies below it, Location too."""
    async with open_house(tmp_path, echo_handlers(), {"server.base_path": "/forge"}) as house:
        async with house.http.post("/forge/api/events", json={"workflow_id": "w", "event_type": "t"}) as response:
            assert response.status == 201
            location = response.headers["Location"]
        assert location.startswith("/forge/api/events/")
        await house.get(location)
        async with house.http.get("/forge/nope") as response:
            assert (response.status, response.content_type) == (404, "application/problem+json")


async def test_beside_the_base_path(tmp_path: Path) -> None:
    """What lies beside the base path is a problem like any other."""
    async with (
        open_house(tmp_path, echo_handlers(), {"server.base_path": "/forge"}) as house,
        house.http.get("/api/events") as response,
    ):
        assert (response.status, response.content_type) == (404, "application/problem+json")


# ForgeLog over HTTP


async def append(house: House, document: Any) -> int:
    status, answer = await house.post("/forgelog/append", document)
    assert (status, answer["event"]) == (201, document)
    return int(answer["offset"])


async def test_append_and_read(house: House) -> None:
    """What is appended gets the next offset, comes back as it was, and is not an event."""
    documents = [{"a": 1}, [1, 2], "text", 5, {"workflow_id": "w", "event_type": "t"}]
    offsets = [await append(house, document) for document in documents]
    assert offsets == [1, 2, 3, 4, 5]
    page = await house.get("/forgelog/read?offset=0")
    assert [(one["offset"], one["event"]) for one in page["events"]] == list(enumerate(documents, start=1))
    assert page["next_offset"] == 5
    rest = await house.get("/forgelog/read?offset=3&limit=1")
    assert [one["event"] for one in rest["events"]] == [5]
    assert rest["next_offset"] == 4
    ledger = await house.converges()
    assert (ledger["accepted"], ledger["lost"]) == (0, 0)


async def test_events_and_other_records_share_the_log(house: House) -> None:
    """The dispatcher passes over records that are no events; events can be read back beside them."""
    await append(house, {"other": 1})
    event_id = await house.send("t", {"x": 1})
    await append(house, {"other": 2})
    assert (await house.reaches(event_id, "succeeded"))["log_offset"] == 2
    events = (await house.get("/forgelog/read"))["events"]
    assert [one["event"].get("id") for one in events] == [None, event_id, None]


async def test_long_poll(house: House) -> None:
    """A read at the end waits for the next record, or for its time."""
    offset = await append(house, 1)
    reading = asyncio.create_task(house.get(f"/forgelog/read?offset={offset}&wait_seconds=10"))
    await asyncio.sleep(0)
    assert not reading.done()
    await append(house, 2)
    assert [one["event"] for one in (await asyncio.wait_for(reading, 5))["events"]] == [2]
    assert await house.get("/forgelog/read?offset=2&wait_seconds=0.05") == {"events": [], "next_offset": 2}
    assert await house.get("/forgelog/read?offset=999") == {"events": [], "next_offset": 999}


async def test_consumers_commit(house: House) -> None:
    """A consumer's commit is remembered; one beyond the end, or under a name that could be a path, is refused."""
    for number in range(3):
        await append(house, number)
    assert (await house.post("/forgelog/commit", {"consumer": "billing", "offset": 2}))[0] == 200
    stats = await house.get("/forgelog/stats")
    assert (stats["consumers"], stats["committed_offset"], stats["last_offset"]) == ({"billing": 2}, 2, 3)
    for body in (
        {"consumer": "billing", "offset": 4},
        {"consumer": "billing", "offset": -1},
        {"consumer": "../etc", "offset": 1},
        {"consumer": "", "offset": 1},
        {"consumer": "billing"},
        {"consumer": "billing", "offset": "1"},
    ):
        status, problem = await house.post("/forgelog/commit", body)
        assert 400 <= status < 500, body
        assert problem["detail"]
    assert (await house.get("/forgelog/stats"))["consumers"] == {"billing": 2}


@pytest.mark.parametrize(("body", "status"), [(b"NaN", 400), (b"{", 400), (b"1e999", 422), (b'"\\ud800"', 422)])
async def test_append_obeys_ingest(house: House, body: bytes, status: int) -> None:
    """Records that are appended here obey the same rules as payloads."""
    async with house.http.post("/forgelog/append", data=body, headers={"Content-Type": "application/json"}) as response:
        assert response.status == status
    assert (await house.get("/forgelog/stats"))["last_offset"] == 0


async def test_log_health(house: House) -> None:
    """The log says that it can be written, and its figures carry their legacy names."""
    assert (await house.get("/forgelog/health"))["status"] == "ok"
    stats = await house.get("/forgelog/stats")
    assert stats["raft_state"] == "standalone"
    assert {"wal_size", "segment_count", "durable_offset", "leader_id"} <= stats.keys()


async def test_clients_that_append_at_once_get_offsets_of_their_own(house: House) -> None:
    """Fifty appends at the same moment get fifty offsets without a hole, and each offset reads what was put there."""
    before = (await house.get("/forgelog/stats"))["durable_offset"]
    offsets = await asyncio.gather(*(append(house, {"client": number}) for number in range(50)))
    assert sorted(offsets) == list(range(before + 1, before + 51))
    page = await house.get(f"/forgelog/read?offset={before}&limit=100")
    read = {event["offset"]: event["event"]["client"] for event in page["events"]}
    assert read == {offset: number for number, offset in enumerate(offsets)}
