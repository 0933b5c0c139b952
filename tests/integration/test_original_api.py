"""Every path of the original ReplayForge's API: its request bodies are understood, its field names are answered."""

import asyncio
from typing import Any

import pytest

from replayforge.domain.clock import parse_time
from replayforge.domain.event import Event
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.registry import Handlers
from replayforge.web.api.shapes import LEGACY_NAMES
from tests.support.house import House

EVENT = {
    "id", "application_id", "workflow_id", "event_type", "service_name", "idempotency_key", "status", "payload_json",
    "metadata_json", "attempt_count", "max_attempts", "next_retry_at", "last_error", "created_at", "updated_at",
    "duplicate", "attempts",
}  # fmt: skip
ATTEMPT = {
    "id", "attempt_number", "worker_name", "status", "error_message", "metadata_json", "started_at", "finished_at",
    "duration_ms",
}  # fmt: skip
RECENT = {
    "id", "workflow_id", "event_type", "service_name", "status", "attempt_count", "last_error", "updated_at",
}  # fmt: skip
WORKFLOW = {
    "workflow_id", "total_events", "succeeded", "failed", "dead_lettered", "in_flight", "has_failures",
    "last_updated_at",
}  # fmt: skip
STEP = {
    "id", "event_type", "service_name", "status", "attempt_count", "max_attempts", "last_error", "created_at",
    "updated_at", "attempts",
}  # fmt: skip
DEAD_LETTER = {
    "id", "event_id", "workflow_id", "event_type", "service_name", "reason", "last_error", "created_at", "replayed_at",
    "replay_status",
}  # fmt: skip
WORKER = {"id", "worker_name", "status", "last_heartbeat_at", "current_event_id", "is_stale"}
COMMON = {
    "total_events", "acknowledged_events", "pending_events", "stream_backlog", "retrying_events", "dlq_events",
    "orphaned_records", "duplicate_deliveries", "duplicate_side_effects", "recent_failures", "active_workers",
    "stale_workers", "worker_heartbeat_age_seconds", "convergence_state", "converged", "retry_queue_depth",
    "retry_stream_depth", "incoming_stream_depth",
}  # fmt: skip
CONVERGENCE = COMMON | {
    "processed_events", "received_events", "queued_events", "processing_events", "dead_lettered_events",
    "convergence_issues", "verified_at",
}  # fmt: skip
METRICS = COMMON | {
    "succeeded", "failed", "dead_lettered", "retrying", "queued", "processing", "replay_requeued",
    "replay_success_rate", "processed_per_sec", "incoming_pending", "retry_pending", "replay_latency_ms",
    "event_attempt_failures", "avg_attempt_duration_ms", "p50_attempt_duration_ms", "p95_attempt_duration_ms",
}  # fmt: skip

BODY: dict[str, Any] = {
    "application_name": "shop",
    "workflow_id": "checkout_17",
    "event_type": "payment.authorized",
    "service_name": "payment-service",
    "idempotency_key": "checkout_17:payment",
    "payload": {"amount": 129.5, "currency": "USD"},
    "metadata": {"source": "test"},
    "max_attempts": 2,
}


def shop() -> Handlers:
    """Return handlers that work for 10 ms, which the answers measure, and fail as often as the payload says."""
    handlers = Handlers()

    @handlers.on("*")
    async def handle(event: Event, context: Context) -> None:
        await asyncio.sleep(0.01)
        if event.run == 1 and event.attempt <= event.payload.get("failures", 0):
            raise RuntimeError("gateway timeout")

    return handlers


@pytest.fixture
def handlers() -> Handlers:
    return shop()


@pytest.fixture
def settings() -> dict[str, Any]:
    return {"chaos.enabled": True}


async def send(house: House, key: str, failures: int = 0, **changed: Any) -> str:
    """Send one event in the original's body form and return its id."""
    payload = {"amount": 1, "failures": failures}
    status, event = await house.post("/api/events", BODY | {"idempotency_key": key, "payload": payload} | changed)
    assert status == 201
    return str(event["id"])


async def send_and_settle(house: House) -> dict[str, str]:
    """Send one event that succeeds, one that does at its second attempt, and one that never does; return their ids."""
    ids = {
        "good": await send(house, "good"),
        "flaky": await send(house, "flaky", failures=1, event_type="inventory.reserved"),
        "dead": await send(house, "dead", failures=2, event_type="email.receipt_sent", workflow_id="checkout_18"),
    }
    await house.converges()
    return ids


async def test_an_event_is_accepted_and_known_again(house: House) -> None:
    """The original's body is accepted with 201; the same body again is a duplicate of the same event."""
    status, event = await house.post("/api/events", BODY)
    assert status == 201
    assert event["duplicate"] is False
    for name in ("application_name", "workflow_id", "event_type", "service_name", "idempotency_key", "max_attempts"):
        assert event[name] == BODY[name]
    assert (event["payload"], event["metadata"]) == (BODY["payload"], BODY["metadata"])
    status, again = await house.post("/api/events", BODY)
    assert (status, again["duplicate"], again["id"]) == (200, True, event["id"])


async def test_what_is_no_worker_is_not_crashed(house: House) -> None:
    """Another service of the supervisor is as unknown there as a name of nothing."""
    for name in ("dispatcher", "nobody"):
        assert name == "nobody" or name in house.daemon.supervisor.guards
        status, problem = await house.post(f"/api/chaos/workers/{name}/crash")
        assert (status, problem["detail"]) == (404, f"There is no worker {name!r}.")


async def test_an_event_is_shown_with_its_attempts(house: House) -> None:
    """An event has every field of the original with its value, and so has each attempt."""
    event_id = await send(house, "flaky", failures=1)
    await house.converges()
    event = await house.event(event_id)
    assert event.keys() >= EVENT
    assert all(event[original] == event[ours] for original, ours in LEGACY_NAMES["ShownEvent"].items())
    assert (event["application_id"], event["status"], event["attempt_count"]) == ("shop", "succeeded", 1)
    assert (event["payload_json"], event["metadata_json"]) == ({"amount": 1, "failures": 1}, BODY["metadata"])
    attempts = sorted(event["attempts"], key=lambda attempt: int(attempt["attempt_number"]))
    assert all(attempt.keys() >= ATTEMPT for attempt in attempts)
    assert [attempt["status"] for attempt in attempts] == ["failed", "succeeded"]
    assert "gateway timeout" in attempts[0]["error_message"]
    assert len({attempt["id"] for attempt in attempts}) == 2
    assert all(attempt["duration_ms"] >= 10 and attempt["worker_name"] for attempt in attempts)


async def test_a_retrying_event_says_when(house: House) -> None:
    """next_retry_at is the time of the next attempt while there is one to come."""
    event_id = await send(house, "later", failures=1, run_at="2099-01-01T00:00:00Z")
    event = await house.reaches(event_id, "scheduled")
    assert parse_time(event["next_retry_at"]) == parse_time("2099-01-01T00:00:00Z")


async def test_an_unknown_event_is_not_found(house: House) -> None:
    """An id that names nothing is answered with 404, as are a workflow and a dead letter."""
    for path in ("/api/events/x", "/api/workflows/x", "/api/workflows/x/timeline"):
        async with house.http.get(path) as response:
            assert response.status == 404
    status, _ = await house.post("/api/deadletters/x/replay")
    assert status == 404


async def test_recent_events(house: House) -> None:
    """The newest events come first, each with the original's fields, as many as were asked for."""
    ids = await send_and_settle(house)
    page = await house.get("/api/events/recent?limit=2")
    assert all(item.keys() >= RECENT for item in page["items"])
    assert [item["id"] for item in page["items"]] == [ids["dead"], ids["flaky"]]


async def test_workflows(house: House) -> None:
    """Workflows have the original's totals, in the list and alone."""
    await send_and_settle(house)
    page = await house.get("/api/workflows?limit=50")
    by_id = {item["workflow_id"]: item for item in page["items"]}
    assert by_id.keys() == {"checkout_17", "checkout_18"}
    assert all(item.keys() >= WORKFLOW for item in by_id.values())
    alone = await house.get("/api/workflows/checkout_18")
    assert alone == by_id["checkout_18"]
    totals = ("total_events", "succeeded", "dead_lettered", "in_flight", "has_failures")
    assert [alone[name] for name in totals] == [1, 0, 1, 0, True]
    assert [by_id["checkout_17"][name] for name in totals] == [2, 2, 0, 0, False]


async def test_a_timeline(house: House) -> None:
    """A timeline holds the workflow's events in the order they came, each with its attempts."""
    ids = await send_and_settle(house)
    timeline = await house.get("/api/workflows/checkout_17/timeline")
    assert timeline["workflow_id"] == "checkout_17"
    assert [event["id"] for event in timeline["events"]] == [ids["good"], ids["flaky"]]
    assert all(event.keys() >= STEP for event in timeline["events"])
    assert [len(event["attempts"]) for event in timeline["events"]] == [1, 2]
    assert all(attempt.keys() >= ATTEMPT for event in timeline["events"] for attempt in event["attempts"])


async def test_a_dead_letter_is_replayed_once(house: House) -> None:
    """A dead letter is listed with the original's fields, its replay succeeds, and a second replay is a conflict."""
    ids = await send_and_settle(house)
    (letter,) = (await house.get("/api/deadletters?limit=100"))["items"]
    assert letter.keys() >= DEAD_LETTER
    assert (letter["event_id"], letter["reason"]) == (ids["dead"], "attempts_exhausted")
    status, _ = await house.post(f"/api/deadletters/{letter['id']}/replay")
    assert status == 202
    await house.reaches(ids["dead"], "succeeded")
    status, _ = await house.post(f"/api/deadletters/{letter['id']}/replay")
    assert status == 409
    assert (await house.get("/api/deadletters"))["items"] == []


async def test_workers(house: House) -> None:
    """Every worker is listed with the original's fields, and none is stale."""
    items = (await house.get("/api/workers"))["items"]
    assert len(items) == 16
    assert all(item.keys() >= WORKER for item in items)
    assert not any(item["is_stale"] for item in items)


async def test_metrics_count_events(house: House) -> None:
    """The metrics hold every field of the original, and its counts are those of the events sent."""
    await send_and_settle(house)
    metrics = await house.get("/api/metrics")
    assert metrics.keys() >= METRICS
    expected = {
        "total_events": 3, "succeeded": 2, "dead_lettered": 1, "dlq_events": 1, "acknowledged_events": 3,
        "failed": 0, "retrying": 0, "queued": 0, "processing": 0, "pending_events": 0, "retry_queue_depth": 0,
        "event_attempt_failures": 3, "recent_failures": 3, "active_workers": 16, "stale_workers": 0,
        "orphaned_records": 0, "duplicate_side_effects": 0, "converged": True, "convergence_state": "converged",
    }  # fmt: skip
    assert {name: metrics[name] for name in expected} == expected


async def test_metrics_measure_attempts(house: House) -> None:
    """Durations are those of the attempts, which take 10 ms and more, and the rate counts what succeeded."""
    await send_and_settle(house)
    metrics = await house.get("/api/metrics")
    assert 10 <= metrics["p50_attempt_duration_ms"] <= metrics["p95_attempt_duration_ms"] < 10_000
    assert 10 <= metrics["avg_attempt_duration_ms"] <= metrics["p95_attempt_duration_ms"]
    assert metrics["processed_per_sec"] == pytest.approx(2 / 60, abs=0.001)


async def test_metrics_measure_replays(house: House) -> None:
    """Before any replay there is no latency; after one that succeeded the rate is 1 and the latency is measured."""
    ids = await send_and_settle(house)
    before = await house.get("/api/metrics")
    assert (before["replay_requeued"], before["replay_success_rate"], before["replay_latency_ms"]) == (0, 0, None)
    await house.post(f"/api/deadletters/{ids['dead']}/replay")
    await house.reaches(ids["dead"], "succeeded")
    after = await house.get("/api/metrics")
    assert (after["replay_requeued"], after["replay_success_rate"]) == (1, 1)
    assert 10 <= after["replay_latency_ms"] < 10_000


async def test_metrics_of_a_fresh_daemon(house: House) -> None:
    """Where nothing has happened nothing was measured: no duration is made up."""
    metrics = await house.get("/api/metrics")
    names = ("avg_attempt_duration_ms", "p50_attempt_duration_ms", "p95_attempt_duration_ms", "replay_latency_ms")
    assert [metrics[name] for name in names] == [None] * 4
    assert (metrics["processed_per_sec"], metrics["total_events"]) == (0, 0)


async def test_convergence(house: House) -> None:
    """The report has the original's fields and agrees with what was sent."""
    await send_and_settle(house)
    report = await house.get("/api/convergence")
    assert report.keys() >= CONVERGENCE
    assert (report["total_events"], report["processed_events"], report["dead_lettered_events"]) == (3, 3, 1)
    assert (report["converged"], report["convergence_state"]) == (True, "converged")
    assert all(report[original] == report[ours] for original, ours in LEGACY_NAMES["Convergence"].items())
    assert parse_time(report["verified_at"]) > 0


async def test_a_workload_is_generated(house: House) -> None:
    """The demo's path answers how many workflows and events were sent, and how many failed to be."""
    status, answer = await house.post("/api/demo/generate-workload?count=3")
    assert (status, answer) == (200, {"workflows": 3, "events_sent": 21, "errors": 0})


async def test_health(house: House) -> None:
    """The health paths say ok, which version runs, and which stream carries the entries."""
    health = await house.get("/health")
    assert health["status"] == "ok"
    assert health["version"]
    backend = await house.get("/health/backend")
    assert (backend["backend"], backend["status"]) == ("embedded", "ok")
    stats = await house.get("/health/backend/stats")
    assert stats.keys() >= {"backend", "depth", "pending", "consumers"}


async def test_forgelog(house: House) -> None:
    """What is appended to ForgeLog is read back behind its offset, committed by a consumer, and seen in the stats."""
    status, appended = await house.post("/forgelog/append", {"kind": "note", "n": 1})
    assert status == 201
    offset = appended["offset"]
    read = await house.get(f"/forgelog/read?offset={offset - 1}&limit=10")
    assert [(record["offset"], record["event"]) for record in read["events"]] == [(offset, {"kind": "note", "n": 1})]
    assert read["next_offset"] == offset
    status, _ = await house.post("/forgelog/commit", {"consumer": "audit", "offset": offset})
    assert status == 200
    stats = await house.get("/forgelog/stats")
    assert stats.keys() >= {"last_offset", "durable_offset", "committed_offset", "wal_size", "segment_count"}
    assert (stats["last_offset"], stats["raft_state"]) == (offset, "standalone")
    assert (await house.get("/forgelog/health"))["status"] == "ok"
