"""Handlers that are paused, at their limit or behind an open breaker: what waits, who goes on, and who comes first."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from replayforge import Context, Event, Handlers
from replayforge.domain.breaker import FAILURES_MAX, OPEN_SECONDS_MIN, BreakerState
from replayforge.domain.errors import Refused
from replayforge.engine.report.why import Cause
from replayforge.testing import Forge
from tests.support.house import House, open_house
from tests.support.polling import persist

MANY = 3_000
REASON = {"reason": "the bank is down"}


@dataclass
class Scene:
    """Handlers that write down what they do. `narrow.*` runs three at a time, `slow.*` as long as the gate is shut, and
    so does every event that says it holds."""

    handlers: Handlers = field(default_factory=Handlers)
    ended: Counter[str] = field(default_factory=Counter)
    running: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        for pattern, limit in (("quick", None), ("slow.*", None), ("narrow.*", 3)):
            self.handlers.on(pattern, concurrency_max=limit, max_attempts=20)(self.handler(pattern))

    def handler(self, pattern: str) -> Callable[[Event, Context], Awaitable[None]]:
        async def handle(event: Event, context: Context) -> None:
            self.running[pattern] += 1
            self.most[pattern] = max(self.most[pattern], self.running[pattern])
            try:
                if pattern == "slow.*" or event.payload.get("holds"):
                    await self.gate.wait()
                await asyncio.sleep(event.payload.get("seconds", 0))
                if event.attempt <= event.payload.get("failures", 0):
                    raise RuntimeError("it fails at first")
            finally:
                self.running[pattern] -= 1
            self.ended[event.id] += 1

        return handle


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
def handlers(scene: Scene) -> Handlers:
    scene.gate.set()
    return scene.handlers


@pytest.fixture
def settings() -> dict[str, Any]:
    return {"workers.count": 50}


async def handler_of(house: House, pattern: str) -> dict[str, Any]:
    report = await house.get("/api/handlers")
    return next(item for item in report["items"] if item["pattern"] == pattern)


async def waits(house: House, pattern: str, count: int) -> None:
    """Return once so many events wait for a handler."""

    async def look() -> bool:
        return bool((await handler_of(house, pattern))["waiting"] == count)

    await persist(look)


async def pause(house: House, pattern: str) -> None:
    status, answer = await house.post(f"/api/handlers/{pattern}/pause", REASON)
    assert status == 200, answer


async def resume(house: House, pattern: str) -> None:
    status, answer = await house.post(f"/api/handlers/{pattern}/resume")
    assert status == 200, answer


# Pauses


async def test_paused_backlog_delays_nobody_and_ends_once_resumed(house: House, scene: Scene) -> None:
    """Three thousand events wait for a paused handler; another's ends at once; resumed, each ends exactly once."""
    await pause(house, "slow.*")
    ids = []
    for _ in range(MANY // 1000):
        ids += await house.send_many(1000, "slow.one")
    await waits(house, "slow.*", MANY)
    reads = house.probe.counts["event.claimed"]
    quick = await house.send("quick")
    await house.reaches(quick, "succeeded")
    assert house.probe.counts["event.claimed"] == reads + 1
    assert set(scene.ended) == {quick}
    await resume(house, "slow.*")
    ledger = await house.converges(60)
    assert (ledger["succeeded"], ledger["lost"]) == (MANY + 1, 0)
    assert scene.ended == dict.fromkeys([*ids, quick], 1)


async def test_paused_events_are_named_apart(house: House) -> None:
    """The ledger is converged while only paused events are left, and names them, and so do the event and the page."""
    await pause(house, "slow.*")
    event_id = await house.send("slow.one")
    await waits(house, "slow.*", 1)
    event = await house.event(event_id)
    assert (event["status"], event["waits_for"], event["starts"]) == ("queued", "slow.*", 0)
    report = await house.get("/api/convergence")
    assert (report["converged"], report["paused_events"], report["queued_events"]) == (True, 1, 1)
    assert report["pauses"][0] | {"since": ""} == {"pattern": "slow.*", "since": "", "by": "the API", **REASON}
    assert "The handler slow.* is paused by the API (the bank is down): 1 events wait for it." in report["issues"]
    async with house.http.get("/") as page:
        text = await page.text()
    assert "the handler slow.* paused" in text
    assert "by the API: the bank is down" in text


async def test_pause_of_everything(house: House, scene: Scene) -> None:
    """With everything paused no handler runs, and an event without a handler is not a dead letter yet."""
    await pause(house, "*")
    ids = [await house.send(kind) for kind in ("quick", "slow.one", "nobody")]
    await waits(house, "quick", 1)
    await waits(house, "slow.*", 1)
    await persist(lambda: standing(house, ids[2], ""))
    assert scene.ended == {}
    await resume(house, "*")
    await house.reaches(ids[2], "dead_lettered")
    ledger = await house.converges()
    assert (ledger["succeeded"], ledger["dead_lettered"]) == (2, 1)
    report = await house.get("/api/handlers")
    assert [(one["event_type"], one["dead_letters"]) for one in report["without_handler"]] == [("nobody", 1)]


async def standing(house: House, event_id: str, waits_for: str) -> bool:
    return bool((await house.event(event_id)).get("waits_for") == waits_for)


async def test_pause_clears_the_queue_behind_busy_workers(tmp_path: Path, scene: Scene) -> None:
    """What is queued already for a handler begins to wait when it is paused, though no worker is free to look at it."""
    async with open_house(tmp_path / "data", scene.handlers, {"workers.count": 2}) as house:
        running = [await house.send("slow.one") for _ in range(2)]
        await persist(lambda: is_running(house, 2))
        await house.send_many(300, "narrow.one")
        await house.send_many(50, "quick")
        await pause(house, "narrow.*")
        await waits(house, "narrow.*", 300)
        scene.gate.set()
        for event_id in running:
            await house.reaches(event_id, "succeeded")
        await persist(lambda: has_ended(house, 52))
        await resume(house, "narrow.*")
        assert (await house.converges(60))["succeeded"] == 352


async def is_running(house: House, count: int) -> bool:
    return bool((await handler_of(house, "slow.*"))["running"] == count)


async def has_ended(house: House, count: int) -> bool:
    report = await house.get("/api/convergence")
    return bool(report["ledger"]["succeeded"] == count)


async def test_pause_outlives_the_daemon(tmp_path: Path, scene: Scene) -> None:
    """A handler paused before a restart is paused after it, and what waited runs once it is resumed."""
    async with open_house(tmp_path / "data", scene.handlers) as house:
        await pause(house, "narrow.*")
        event_id = await house.send("narrow.one")
        await waits(house, "narrow.*", 1)
    async with open_house(tmp_path / "data", scene.handlers) as house:
        another = await house.send("narrow.one")
        await waits(house, "narrow.*", 2)
        assert (await handler_of(house, "narrow.*"))["paused"]["reason"] == REASON["reason"]
        await resume(house, "narrow.*")
        await house.converges()
    assert scene.ended == {event_id: 1, another: 1}


async def test_events_of_a_handler_that_is_gone_are_not_stranded(tmp_path: Path, scene: Scene) -> None:
    """What waited for a handler that the next daemon does not have goes to whoever takes its type now."""
    async with open_house(tmp_path / "data", scene.handlers) as house:
        await pause(house, "narrow.*")
        event_id = await house.send("narrow.one")
        await waits(house, "narrow.*", 1)
    others = Handlers()
    others.on("*")(scene.handler("quick"))
    async with open_house(tmp_path / "data", others) as house:
        report = await house.get("/api/handlers")
        assert [pause["pattern"] for pause in report["pauses"]] == ["narrow.*"]
        assert (await house.event(event_id))["status"] == "queued"
        await resume(house, "narrow.*")
        await house.reaches(event_id, "succeeded")


async def test_waiting_events_are_cancelled_and_replayed(house: House, scene: Scene) -> None:
    """An event that waits for a paused handler can be cancelled, and its replay waits again."""
    await pause(house, "narrow.*")
    event_id = await house.send("narrow.one")
    await waits(house, "narrow.*", 1)
    status, _ = await house.post(f"/api/events/{event_id}/cancel", {"reason": "no longer"})
    assert status == 200
    await waits(house, "narrow.*", 0)
    status, _ = await house.post(f"/api/events/{event_id}/replay", {"reason": "after all"})
    assert status == 202
    await waits(house, "narrow.*", 1)
    await resume(house, "narrow.*")
    assert (await house.reaches(event_id, "succeeded"))["run"] == 2
    assert scene.ended == {event_id: 1}


async def test_bulk_replay_of_a_paused_handlers_events_waits(house: House, scene: Scene) -> None:
    """A bulk replay goes through while the handler is paused, and its events run when that is over."""
    ids = await house.send_many(60, "narrow.one")
    await house.converges()
    await pause(house, "narrow.*")
    wanted = {"status": "succeeded", "event_type": "narrow.*"}
    status, job = await house.post("/api/replays", {"filter": wanted, "reason": "again", "force": True})
    assert status == 202, job
    await waits(house, "narrow.*", 60)
    await resume(house, "narrow.*")
    await persist(lambda: job_done(house, job["id"]))
    assert scene.ended == dict.fromkeys(ids, 2)


async def job_done(house: House, job_id: str) -> bool:
    job = await house.get(f"/api/replays/{job_id}")
    return bool(job["status"] == "done" and job["succeeded"] == 60)


async def test_pausing_says_what_is_wrong(house: House) -> None:
    """An unknown pattern is 404, a pause without a reason is refused, and what is not paused cannot be resumed."""
    assert (await house.post("/api/handlers/nope/pause", REASON))[0] == 404
    assert (await house.post("/api/handlers/quick/pause", {"reason": " "}))[0] in (400, 409, 422)
    assert (await house.post("/api/handlers/quick/resume"))[0] == 404
    await pause(house, "quick")
    status, first = await house.post("/api/handlers/quick/pause", {"reason": "another one", "by": "ann"})
    assert (status, first["reason"]) == (200, REASON["reason"])


# Limits


async def test_concurrency_is_never_exceeded(house: House, scene: Scene) -> None:
    """Under 50 workers, with failures, crashes of workers and replays, never more than three of a handler run."""
    narrow = []
    for part in range(4):
        narrow += await house.send_many(50, "narrow.one", {"seconds": 0.002, "failures": part % 2})
        await house.send_many(100, "quick", {"seconds": 0.001})
        house.daemon.supervisor.crash(f"worker-{part + 1}")
    await house.converges(60)
    wanted = {"status": "succeeded", "event_type": "narrow.*"}
    status, job = await house.post("/api/replays", {"filter": wanted, "reason": "again", "force": True})
    assert status == 202, job
    await house.send_many(50, "narrow.more", {"seconds": 0.002})
    ledger = await house.converges(60)
    assert scene.most["narrow.*"] == 3
    assert scene.most["quick"] > 3
    assert (ledger["succeeded"], ledger["lost"]) == (650, 0)
    assert set(narrow) <= {event_id for event_id, count in scene.ended.items() if count >= 2}
    assert house.daemon.handler_reporter.handler_limits.by_pattern["narrow.*"].running == 0
    assert house.daemon.handler_reporter.handler_limits.by_pattern["narrow.*"].promised == 0


async def test_limited_backlog_delays_nobody(house: House, scene: Scene) -> None:
    """While a handler is busy with three events of its backlog, events of others end at once."""
    scene.gate.clear()
    await house.send_many(120, "narrow.one", {"holds": True})
    await waits(house, "narrow.*", 117)
    for _ in range(20):
        await house.reaches(await house.send("quick"), "succeeded")
    assert scene.running["narrow.*"] == 3
    scene.gate.set()
    await house.converges(60)
    assert scene.most["narrow.*"] == 3


async def test_function_that_runs_on_after_its_time_keeps_its_place(tmp_path: Path) -> None:
    """A plain function beyond its time-out counts against the limit until it returns."""
    handlers, release = Handlers(), threading.Event()
    running, most = Counter[str](), Counter[str]()

    @handlers.on("one", concurrency_max=1, timeout_seconds=0.2)
    def one(event: Event, context: Context) -> None:
        running["one"] += 1
        most["one"] = max(most["one"], running["one"])
        if event.payload.get("hangs"):
            release.wait(20)
        running["one"] -= 1

    async with open_house(tmp_path / "data", handlers, {"workers.count": 8}) as house:
        first = await house.send("one", {"hangs": True}, max_attempts=1)
        await house.reaches(first, "dead_lettered")
        second = await house.send("one")
        await waits(house, "one", 1)
        release.set()
        await house.reaches(second, "succeeded")
    assert most["one"] == 1


def test_a_limit_of_nothing_is_refused() -> None:
    """A handler that could never run is refused by name."""
    with pytest.raises(Refused, match=r"payment\.\*.*concurrency_max"):
        Handlers().on("payment.*", concurrency_max=0)(lambda event, context: None)


# Breakers


@dataclass
class Endpoint:
    """An HTTP endpoint that answers with `status`, and counts."""

    status: int = 503
    requests: int = 0
    url: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.requests += 1
        return web.Response(status=self.status)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    app = web.Application()
    app.router.add_post("/", endpoint.answer)
    async with TestServer(app, host="127.0.0.1") as server:
        endpoint.url = str(server.make_url("/?token=s3cret"))
        yield endpoint


async def test_breaker_opens_costs_no_attempts_and_closes(endpoint: Endpoint) -> None:
    """After failures in a row an endpoint is left alone; what waits spends nothing; one success lets all through."""
    settings = {
        "handlers.http": [{"match": "hook.*", "url": endpoint.url, "allow_private": True}],
        "retry.base_seconds": 3600,
        "retry.max_seconds": 3600,
        "retry.jitter": 1,
        "workers.count": 1,
    }
    async with Forge(Handlers(), settings=settings) as forge:
        events = [await forge.send("hook.one") for _ in range(60)]
        await forge.settled()
        # One worker, so nothing else was under way when it opened; after that each opening costs one probe.
        assert endpoint.requests == FAILURES_MAX
        await forge.advance(seconds=OPEN_SECONDS_MIN * 3 + 1)  # after one and two times as long
        (shown,) = (await forge.do(forge.daemon.handler_reporter.report())).handlers
        assert (shown.breaker, shown.name, shown.kind) == (BreakerState.OPEN, endpoint.url.partition("/?")[0], "http")
        issues = (await forge.do(forge.daemon.convergence.read())).issues
        assert any("its breaker is open" in issue for issue in issues)
        waiting = [event for event in events if event.status == "queued"]
        why = await forge.do(forge.daemon.why.find(waiting[-1].id))
        assert (why.cause, why.handler) == (Cause.BREAKER, "hook.*")
        assert f"has failed {FAILURES_MAX + 2} times in a row and is left alone until 2" in why.sentence
        assert why.until_us is not None
        failures = endpoint.requests
        assert failures == FAILURES_MAX + 2
        endpoint.status = 200
        await forge.advance(seconds=OPEN_SECONDS_MIN * 4)
        statuses = Counter(event.status for event in events)
        assert statuses == {"succeeded": 60 - failures, "retrying": failures}
        assert sum(event.attempt_count for event in events) == failures
        assert endpoint.requests == 60
        assert not forge.daemon.deferred_claimer.limits.by_pattern["hook.*"].breaker.tripped


async def test_answers_that_blame_the_event_open_no_breaker(tmp_path: Path, endpoint: Endpoint) -> None:
    """An endpoint that refuses events one by one is alive."""
    endpoint.status = 400
    settings = {"handlers.http": [{"match": "hook.*", "url": endpoint.url, "allow_private": True}]}
    async with open_house(tmp_path / "data", None, settings) as house:
        await house.send_many(3 * FAILURES_MAX, "hook.one")
        assert (await house.converges())["dead_lettered"] == 3 * FAILURES_MAX
        assert house.probe.counts["breaker.opened"] == 0


async def test_breaker_can_be_left_out(tmp_path: Path, endpoint: Endpoint) -> None:
    """With `breaker = false` every event is tried, and the limit of an endpoint holds."""
    table = {"match": "hook.*", "url": endpoint.url, "allow_private": True, "breaker": False, "concurrency_max": 2}
    settings = {"handlers.http": [table], "retry.max_attempts": 1}
    async with open_house(tmp_path / "data", None, settings) as house:
        await house.send_many(3 * FAILURES_MAX, "hook.one")
        assert (await house.converges())["dead_lettered"] == endpoint.requests == 3 * FAILURES_MAX
        shown = await handler_of(house, "hook.*")
        assert (shown["breaker"], shown["concurrency_max"], shown["status"]) == (None, 2, "ready")
