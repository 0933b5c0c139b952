"""The API as its OpenAPI document has it: every operation called by nothing else, every answer judged by it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from subprocess import PIPE, STDOUT
from tempfile import NamedTemporaryFile
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from replayforge import Context, Event, Handlers, Permanent, Retry, crashpoints
from replayforge.engine.handlers.callbacks import Listener
from replayforge.web.api import examples, openapi
from replayforge.web.api.described_operations import OPERATIONS, PARAMETERS
from tests.support.described_client import DescribedClient
from tests.support.house import House, open_house
from tests.support.polling import persist

SETTINGS = {
    "chaos.enabled": True,
    "sources": [{"name": "open", "preset": "none"}, {"name": "signed", "preset": "hmac", "secrets": ["secret"]}],
    "schedules": [{"name": "nightly", "event_type": "order.placed", "cron": "0 2 * * *"}],
    "alerts": [{"name": "held", "when": "held", "command": ["true"]}],
    "lanes": [{"match": "order.laned", "key": "workflow_id"}],
}

SEED = 20261128
# What no schema tells: whether an id, a key, an offset or a step that is well formed fits what the store holds.
FITTING = (
    "post_event",
    "replay_event",
    "replay_dead_letter",
    "resolve_event",
    "decide_in_doubt",
    "create_replay",
    "shadow_runs",
    "commit_offset",
)
SCHEMATHESIS = f"""
[[operations]]
include-operation-id = {list(FITTING)}
checks.positive_data_acceptance.expected-statuses = ["2xx", 401, 403, 404, 409, 422]

[[operations]]  # a source whose provider never asks takes deliveries alone
include-operation-id = "answer_challenge"
checks.positive_data_acceptance.expected-statuses = ["2xx", 401, 403, 404, 405]

[[operations]]  # each line of NDJSON is refused by itself, whatever it is
include-operation-id = "post_bulk"
checks.negative_data_rejection.expected-statuses = ["2xx", 400, 413, 415, 422]
"""

FIXED = """
from replayforge import Handlers
handlers = Handlers()

@handlers.on("order.fails")
async def mended(event, ctx):
    return "done"
"""

LINES_ARE_TEXT = """
import schemathesis

@schemathesis.serializer("application/x-ndjson")
def lines(_, value):
    return str(value).encode()
"""


def described_handlers() -> Handlers:
    """Return handlers of which each leaves another kind of answer behind."""
    handlers = Handlers()
    handlers.signal("order.confirmed")

    @handlers.on("order.placed")
    async def placed(event: Event, ctx: Context) -> dict[str, Any]:
        return {"charged": await ctx.step("charge", charge, 12)}

    @handlers.on("order.fails", max_attempts=1)
    async def fails(event: Event, ctx: Context) -> None:
        raise Permanent("declined")

    @handlers.on("order.later")
    async def later(event: Event, ctx: Context) -> None:
        raise Retry("not yet", after=3600)

    @handlers.on("order.laned")
    async def laned(event: Event, ctx: Context) -> None:
        raise Retry("not yet", after=3600)

    @handlers.on("order.held", on_crash="hold")
    async def held(event: Event, ctx: Context) -> None:
        await asyncio.Event().wait()

    return handlers


async def charge(amount: int) -> dict[str, int]:
    return {"amount": amount}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "data", described_handlers(), SETTINGS) as house:
        yield house


@pytest.fixture
async def client(house: House) -> DescribedClient:
    return DescribedClient(house, await house.get("/openapi.json"))


async def test_every_operation_by_the_document_alone(client: DescribedClient) -> None:
    """Each operation succeeds when it is called as described, and answers what is described and nothing else."""
    await ingest(client)
    await events_and_workflows(client)
    await dead_letters_and_replays(client)
    await what_stands_still_and_goes_on(client)
    await reports(client)
    await log_and_steps(client)
    await arm_a_crash(client)
    assert client.operations.keys() - client.succeeded == set()


async def ingest(client: DescribedClient) -> None:
    """Send events in every way."""
    call = client.call
    sent = await call("post_event", {"workflow_id": "w", "event_type": "order.placed", "idempotency_key": "k"})
    again = await call("post_event", {"workflow_id": "w", "event_type": "order.placed", "idempotency_key": "k"})
    assert (sent["duplicate"], again["duplicate"], again["id"]) == (False, True, sent["id"])
    kinds = ("order.fails", "order.fails", "order.later", "order.laned", "order.laned", "nobody.handles")
    answer = await call("post_bulk", [*({"workflow_id": "w", "event_type": kind} for kind in kinds), {"bad": 1}])
    assert (answer["accepted"], answer["rejected"]) == (6, 1)
    one = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.placed", "data": {}}
    assert await call("post_event", one, media="application/cloudevents+json")
    assert (await call("post_event", [one], media="application/cloudevents-batch+json"))["duplicates"] == 1
    assert (await call("post_bulk", [one, {}], media="application/cloudevents-batch+json"))["rejected"] == 1
    lines = '{"workflow_id": "w", "event_type": "order.fails"}\n{}'
    assert len(await call("post_bulk", lines, media="application/x-ndjson")) == 2
    await call("receive_delivery", {"a": 1}, source="open")
    asked = {"hub.challenge": "1158", "hub.verify_token": "secret"}
    assert await call("answer_challenge", source="signed", **asked) == "1158"
    assert await call("generate_workload", count=1)
    for name in ("laned", "later", "fails"):
        await client.house.reaches(await newest(client, f"order.{name}"), "retrying", "dead_lettered", "queued")


async def newest(client: DescribedClient, event_type: str) -> str:
    """Return the newest event of a type."""

    async def look() -> str | None:
        items = (await client.call("list_events", event_type=event_type, limit=1))["items"]
        return items[0]["id"] if items else None

    found = await persist(look, 10)
    assert found is not None
    return found


async def events_and_workflows(client: DescribedClient) -> None:
    """Look at events and workflows, and move events."""
    call = client.call
    placed, later = await newest(client, "order.placed"), await newest(client, "order.later")
    assert (await call("show_event", id=placed, wait=10))["status"] == "succeeded"
    assert (await call("list_steps", id=placed, limit=5))["items"][0]["name"] == "charge"
    assert (await call("show_why", id=placed))["cause"] == "ended"
    page = await call("list_events", status="retrying", workflow_id="w", since="2026-11-22T10:00:00Z", limit=1)
    assert (await call("list_events", cursor=page["next_cursor"] or "1"))["next_cursor"] is None or page["has_more"]
    searched = await call("list_events", contains="nowhere", workflow_id="w")
    assert (searched["items"], searched["searched"] > 0, searched["search_complete"]) == ([], True, True)
    assert (await call("recent_events", limit=3))["items"]
    assert len(await call("export_events", workflow_id="w")) >= 8
    assert (await call("retry_event", id=later))["status"] == "queued"
    await client.house.reaches(later, "retrying")
    assert (await call("cancel_event", {"reason": "no longer wanted"}, id=later))["status"] == "cancelled"
    assert (await call("replay_event", {"force": True, "from": "start", "dry_run": True}, id=placed))["dry_run"]
    assert (await call("replay_event", {"force": True, "from": "start", "reason": "again"}, id=placed))["run"] == 2
    assert (await call("replay_event", {"payload": {"total": 13}}, id=placed))["replay_of"] == placed
    held = (await call("post_event", {"workflow_id": "h", "event_type": "order.held"}))["id"]
    worker = await busy_with(client, held)
    await call("crash_worker", name=worker)
    await client.house.reaches(held, "held")
    (doubt,) = (await call("list_in_doubt", standing="undecided"))["items"]
    assert (doubt["id"], doubt["handler"]) == (held, "order.held")
    assert (await call("resolve_event", {"to": "queued", "reason": "once more"}, id=held))["status"] == "queued"
    await call("crash_worker", name=await busy_with(client, held))
    await client.house.reaches(held, "held")
    assert (await call("decide_in_doubt", {"decision": "done", "result": 7}, id=held))["status"] == "succeeded"
    assert (await call("list_workflows", application_name="default", limit=5))["items"]
    assert (await call("show_workflow", id="w"))["total_events"] >= 8
    assert (await call("show_timeline", id="w"))["events"][0]["attempts"]


async def busy_with(client: DescribedClient, event_id: str) -> str:
    """Return the worker that runs an event, once one does."""

    async def look() -> str | None:
        items = (await client.call("list_workers"))["items"]
        return next((one["worker_name"] for one in items if one["current_event_id"] == event_id), None)

    found = await persist(look, 10)
    assert found is not None
    return found


async def dead_letters_and_replays(client: DescribedClient) -> None:
    """Replay and discard dead letters, one by one and many at once, and see before what a fix would do with them."""
    call = client.call
    with NamedTemporaryFile("w", suffix=".py") as fixed:
        fixed.write(FIXED)
        fixed.flush()
        found = await call("shadow_runs", {"handlers": fixed.name, "filter": {"event_type": "order.fails"}})
        assert found["verdicts"]["cured"] == found["runs"] == len(found["cured"]) > 1
        again = await call("shadow_runs", {"handlers": fixed.name, "ids": found["cured"][:1]})
        assert (again["cured"], again["groups"][0]["before"]) == (found["cured"][:1], "Permanent: declined")
    first, second, *_ = [one["id"] for one in (await call("list_dead_letters", limit=5))["items"]]
    assert (await call("list_dead_letters", group_by="error"))["items"]
    assert (await call("list_error_groups", window_seconds=60))["items"]
    assert (await call("replay_dead_letter", {"reason": "again"}, id=first))["run"] == 2
    assert (await call("discard_dead_letter", {"reason": "a test"}, id=second))["status"] == "discarded"
    assert (await call("show_event", id=second))["reason"] == "a test"
    chosen = {"filter": {}, "reason": "again", "rate_per_second": 0.01}
    assert (await call("create_replay", {**chosen, "dry_run": True}))["count"]
    job = (await call("create_replay", chosen))["id"]

    async def rests() -> bool:
        return bool((await call("show_replay", id=job))["replayed"])

    assert await persist(rests, 10)
    for name in ("pause_replay", "resume_replay", "show_replay", "cancel_replay"):
        assert (await call(name, id=job))["id"] == job
    assert (await call("list_replays", limit=5))["items"]
    assert (await call("replay_workflow", {"only": "failed", "reason": "again"}, id="w"))["workflow_id"] == "w"


async def what_stands_still_and_goes_on(client: DescribedClient) -> None:
    """Pause and resume handlers, sources and schedules, and look at them."""
    call, pause = client.call, {"reason": "a test", "by": "pytest"}
    for kind, named in (
        ("handler", {"pattern": "order.placed"}),
        ("source", {"name": "open"}),
        ("schedule", {"name": "nightly"}),
    ):
        assert (await call(f"pause_{kind}", pause, **named))["by"] == "pytest"
        assert (await call(f"list_{kind}s"))["items"]
        assert (await call(f"resume_{kind}", **named))["status"] == "resumed"
    assert (await call("run_schedule", name="nightly"))["event_id"]
    async with client.house.http.post("/in/signed", data=b"{}") as response:
        assert response.status == 401
    assert (await call("list_refusals", name="signed"))["items"]
    assert (await call("verify_refusals", name="signed"))["still_refused"] == 1
    assert (await call("list_lanes", limit=5))["items"]
    assert (await call("list_alerts"))["items"]
    assert (await call("send_test_alert", name="held"))["delivered"] is True


async def reports(client: DescribedClient) -> None:
    """Ask how everything is."""
    reports = ("show_convergence", "show_metrics", "list_services", "show_prometheus_metrics", "show_openapi")
    health = ("health", "health_live", "health_ready", "stream_health", "stream_stats", "log_health", "log_statistics")
    for name in (*reports, *health, "show_schema"):
        assert await client.call(name)
    assert await client.call("stream_hints", topics="events", seen="x")


async def log_and_steps(client: DescribedClient) -> None:
    """Write and read the log, and speak as an endpoint with steps does."""
    call, callbacks = client.call, client.house.daemon.callbacks
    offset = (await call("append_record", {"a": [1]}))["offset"]
    assert (await call("read_records", offset=offset - 1, limit=1, wait_seconds=1))["events"][0]["event"] == {"a": [1]}
    assert await call("commit_offset", {"consumer": "audit", "offset": offset}) == {
        "consumer": "audit",
        "offset": offset,
    }

    async def record(did: Any) -> int:
        return len(did)

    listener = Listener(b'{"charge":{"ok":1}}', record)
    with callbacks.listening("event", 7, listener):
        serving = asyncio.create_task(listener.serve())
        signed = {"id": "event", "token": "7", "signature": callbacks.signature("event", 7)}
        assert await call("show_journal", **signed) == {"charge": {"ok": 1}}
        assert await call("post_checkpoint", {"lease_token": 7, "did": []}, **signed) is None
        listener.finish()
        await serving


async def arm_a_crash(client: DescribedClient) -> None:
    """Arm a crash for a time that never comes."""
    armed = {"point": "replay.committed", "times": 1_000_000}
    try:
        assert await client.call("arm_crash", armed) == armed
    finally:
        crashpoints.armed.clear()


@pytest.mark.slow
async def test_what_others_make_of_the_document(
    client: DescribedClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Schemathesis, which knows nothing of us, finds no answer that the document does not describe.

    It tries all operations but the stream, which ends with its client alone. Crashes are armed and never come.
    """
    monkeypatch.setattr(crashpoints, "pass_armed", lambda *_: None)
    await ingest(client)
    await events_and_workflows(client)
    await dead_letters_and_replays(client)
    (tmp_path / "schemathesis.toml").write_text(SCHEMATHESIS)
    (tmp_path / "lines_are_text.py").write_text(LINES_ARE_TEXT)
    hooks = {**os.environ, "SCHEMATHESIS_HOOKS": "lines_are_text", "PYTHONPATH": str(tmp_path)}
    command = (
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(tmp_path / "schemathesis.toml"), "run"),
        *(str(client.house.http.make_url("/openapi.json")), "--exclude-operation-id", "stream_hints"),
        *("--checks", "all", "--max-examples", "10", "--seed", str(SEED), "--no-color"),
    )
    process = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, env=hooks, stdout=PIPE, stderr=STDOUT)
    said, _ = await process.communicate()
    crashpoints.armed.clear()
    assert process.returncode == 0, said.decode()


async def test_the_document_is_whole(client: DescribedClient) -> None:
    """Operations have names of their own, every schema is one, and every example is what it is an example of."""
    names = [told["operationId"] for methods in client.document["paths"].values() for told in methods.values()]
    assert len(names) == len(set(names)) == len(OPERATIONS)
    for schema in client.document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for _, _, told in client.operations.values():
        parameters = ((one["schema"], one.get("example", "x")) for one in told["parameters"])
        shown = [example for media in media_of(told) for example in examples_in(media, client.document["components"])]
        for schema, example in [*parameters, *shown]:
            client.check(schema, example, told["operationId"])
    assert all(name.partition(":")[0] for name in PARAMETERS)


def media_of(told: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what an operation takes and answers of each media type; what a body of any media type is nobody knows."""
    body = told.get("requestBody", {}).get("content", {})
    taken = [one for media, one in body.items() if media != "*/*"]
    return taken + [one for told in told["responses"].values() for one in told.get("content", {}).values()]


def examples_in(media: dict[str, Any], components: dict[str, Any]) -> list[tuple[dict[str, Any], Any]]:
    """Return the examples of a media type, each with the one schema that it is an example of."""
    if "example" in media:
        return [(media["schema"], media["example"])]
    schemas = media["schema"].get("anyOf", [media["schema"]])
    names = [one["$ref"].rpartition("/")[2] for one in schemas]
    assert media["examples"] == {name: {"$ref": f"#/components/examples/{name}"} for name in names}
    return [(one, components["examples"][name]["value"]) for one, name in zip(schemas, names, strict=True)]


def test_every_typical_value_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """No value is kept for a member that no answer has any more."""
    looked_at: set[str] = set()

    class Watched(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            looked_at.add(name)
            return super().__getitem__(name)

    values = Watched(examples.VALUES)
    monkeypatch.setattr(examples, "VALUES", values)
    for kind in openapi.types_of_answers(OPERATIONS.values()):
        if kind is not str:
            examples.example_of(kind)
    assert values.keys() - looked_at == set()
