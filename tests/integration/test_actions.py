"""What people do to events: replay, retry, cancel, discard, schedule, whole workflows; and who wins when two do."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.conftest import shares_a_house
from tests.support.house import House

ACTIONS = {
    "replay": "/api/events/{id}/replay",
    "force": "/api/events/{id}/replay",
    "retry": "/api/events/{id}/retry",
    "cancel": "/api/events/{id}/cancel",
    "replay letter": "/api/deadletters/{id}/replay",
    "discard": "/api/deadletters/{id}/discard",
}
BODIES: dict[str, Any] = {"force": {"force": True}, "discard": {"reason": "of no use"}}


def later(seconds: float = 3600) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def in_state(house: House, state: str) -> str:
    """Return an event that stands in the state and stays there."""
    if state == "scheduled":
        event_id = await house.send("t", run_at=later())
    elif state == "succeeded":
        event_id = await house.send("t")
    elif state == "cancelled":
        event_id = await house.send("t", run_at=later())
        await house.reaches(event_id, "scheduled")
        await house.post(f"/api/events/{event_id}/cancel")
    else:
        event_id = await house.send("fails")
        await house.reaches(event_id, "dead_lettered")
        if state == "discarded":
            await house.post(f"/api/deadletters/{event_id}/discard", {"reason": "of no use"})
    await house.reaches(event_id, state)
    return event_id


RULES = {
    "scheduled": {"retry": 202, "cancel": 200},
    "succeeded": {"force": 202},
    "dead_lettered": {"replay": 202, "force": 202, "replay letter": 202, "discard": 200},
    "discarded": {"replay": 202, "force": 202},
    "cancelled": {"replay": 202, "force": 202},
}


@shares_a_house
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("state", RULES)
async def test_what_may_be_done_in_which_state(shared_house: House, state: str, action: str) -> None:
    """Each action is allowed in the states of the lifecycle only; elsewhere it is 409 and changes nothing."""
    event_id = await in_state(shared_house, state)
    before = await shared_house.event(event_id)
    status, answer = await shared_house.post(ACTIONS[action].format(id=event_id), BODIES.get(action))
    allowed = RULES[state].get(action, 409)
    assert status == allowed, answer
    if allowed == 409:
        after = await shared_house.event(event_id)
        assert (after["status"], after["run"], after["actions"]) == (before["status"], before["run"], before["actions"])


async def test_replay_is_a_new_run_of_the_same_event(house: House) -> None:
    """A replay keeps id and key, counts a new run with a fresh budget, and leaves earlier attempts visible."""
    event_id = await house.send("fails", idempotency_key="k")
    await house.reaches(event_id, "dead_lettered")
    status, answer = await house.post(f"/api/events/{event_id}/replay", {"reason": "fixed upstream"})
    assert (status, answer["run"]) == (202, 2)
    await house.converges()
    event = await house.reaches(event_id, "dead_lettered")
    assert (event["run"], event["attempt_count"], event["idempotency_key"]) == (2, 1, "k")
    assert [(run["run"], len(run["attempts"])) for run in event["runs"]] == [(2, 1), (1, 1)]
    assert [attempt["lease_token"] for attempt in event["attempts"]] == [2, 1], "tokens never fall"
    assert [(one["action"], one["detail"]) for one in event["actions"]] == [("replayed", "fixed upstream")]


async def test_second_replay_of_a_letter_is_409(house: House) -> None:
    """A dead letter that was replayed and succeeded cannot be replayed a second time."""
    event_id = await house.send("fails")
    await house.reaches(event_id, "dead_lettered")
    assert (await house.post(f"/api/deadletters/{event_id}/discard", {"reason": "r"}))[0] == 200
    assert (await house.post(f"/api/deadletters/{event_id}/replay"))[0] == 409


@pytest.mark.parametrize("how_many", [2, 20])
async def test_replays_at_the_same_moment(house: House, how_many: int) -> None:
    """Of simultaneous replays of one event exactly one is accepted, and exactly one new run exists."""
    event_id = await house.send("fails")
    await house.reaches(event_id, "dead_lettered")
    path = f"/api/events/{event_id}/replay"
    event, _ = await house.daemon.replayer.find(event_id)
    results = await asyncio.gather(*(house.daemon.store.replay(event, 1, "") for _ in range(how_many)))
    assert sum(done is not None for done in results) == 1
    statuses = {status for status, _ in await asyncio.gather(*(house.post(path) for _ in range(2)))}
    assert statuses <= {202, 409}
    house.daemon.publisher.fall_behind()
    await house.converges()
    assert (await house.event(event_id))["run"] in (2, 3)


async def test_edited_replay_is_a_new_event(house: House) -> None:
    """A replay with a payload is a new event that names the old one, whatever state that is in."""
    event_id = await house.send("t", {"a": 1}, idempotency_key="k", metadata={"m": 1})
    await house.reaches(event_id, "succeeded")
    status, answer = await house.post(f"/api/events/{event_id}/replay", {"payload": {"a": 2}})
    assert (status, answer["replay_of"]) == (202, event_id)
    edited = await house.reaches(answer["id"], "succeeded")
    assert (edited["payload"], edited["metadata"], edited["replay_of"]) == ({"a": 2}, {"m": 1}, event_id)
    assert ((await house.event(event_id))["edited_replays"], edited["edited_replays"]) == ([answer["id"]], [])
    async with house.http.get(f"/events/{event_id}", headers={"Accept": "text/html"}) as response:
        assert re.search(f"Replayed with another payload as <a href=./events/{answer['id']}.>", await response.text())
    assert edited["idempotency_key"] is None
    assert (await house.event(event_id))["payload"] == {"a": 1}
    _, answer = await house.post(f"/api/events/{event_id}/replay", {"payload": None})
    assert (await house.reaches(answer["id"], "succeeded"))["payload"] is None


async def test_a_replay_sent_twice_with_one_key_is_one_run(house: House) -> None:
    """At once, or when that run has failed again: it is answered with the run that it has begun, and begins none."""
    event_id = await house.send("fails", workflow_id="w")
    await house.reaches(event_id, "dead_lettered")
    one, other = {"headers": {"Idempotency-Key": '"one"'}}, {"headers": {"Idempotency-Key": "other"}}
    paths = [f"/api/events/{event_id}/replay", f"/api/deadletters/{event_id}/replay"]
    answers = await asyncio.gather(*(house.post(paths[number % 2], **one) for number in range(10)))
    assert sorted(status for status, _ in answers) == [200] * 9 + [202]
    assert {(answer["run"], answer["duplicate"]) for status, answer in answers if status == 200} == {(2, True)}
    await house.reaches(event_id, "dead_lettered")
    for path in paths:
        assert await house.post(path, **one) == (
            200, {"id": event_id, "run": 2, "status": "dead_lettered", "duplicate": True},
        )  # fmt: skip
    status, answer = await house.post("/api/workflows/w/replay", **one)
    assert (status, answer["replayed"], (await house.event(event_id))["run"]) == (202, 1, 2)
    status, answer = await house.post(paths[1], **other)
    assert (status, answer["run"], answer["duplicate"]) == (202, 3, False)
    await house.reaches(event_id, "dead_lettered")
    assert (await house.post(paths[0], **one))[1]["run"] == 2
    assert (await house.post(paths[0], headers={"Idempotency-Key": "k" * 256}))[0] == 400
    assert (await house.post(paths[0]))[1]["run"] == 4


@pytest.mark.parametrize("settled", [True, False])
async def test_an_edited_replay_sent_twice_with_one_key_is_one_event(house: House, settled: bool) -> None:
    """The key of the header is that of the new event: the same content is the same event, other content is refused."""
    event_id = await house.send("t", {"a": 1}, application_name="shop", idempotency_key="first")
    await house.reaches(event_id, "succeeded")
    path, key = f"/api/events/{event_id}/replay", {"headers": {"Idempotency-Key": '"mended"'}}
    status, answer = await house.post(path, {"payload": {"a": 2}}, **key)
    assert (status, answer["duplicate"], answer["status"]) == (202, False, "received")
    if settled:
        await house.reaches(answer["id"], "succeeded")
    status, again = await house.post(path, {"payload": {"a": 2.0}, "reason": "sent again"}, **key)
    assert (status, again["duplicate"], again["id"], again["replay_of"]) == (200, True, answer["id"], event_id)
    status, problem = await house.post(path, {"payload": {"a": 3}}, **key)
    assert (status, problem["event_id"]) == (422, answer["id"])
    status, problem = await house.post(path, {"payload": {"a": 2}}, headers={"Idempotency-Key": '"first"'})
    assert (status, problem["event_id"]) == (422, event_id)
    assert (await house.post(path, {"payload": {"a": 2}}, headers={"Idempotency-Key": "k" * 256}))[0] == 400
    edited = await house.reaches(answer["id"], "succeeded")
    assert (edited["idempotency_key"], edited["run"]) == ("mended", 1)
    assert (await house.converges())["accepted"] == 2


async def test_scheduled_event_waits_for_its_time(house: House) -> None:
    """An event with a start time is scheduled, runs when the time has come, and is no backlog meanwhile."""
    far = await house.send("t", run_at=later())
    near = await house.send("t", run_at=later(0.3))
    event = await house.reaches(far, "scheduled")
    assert event["next_run_at"] > event["created_at"]
    assert (await house.reaches(near, "succeeded"))["starts"] == 1
    past = await house.send("t", run_at="2001-01-01T00:00:00Z")
    assert (await house.reaches(past, "succeeded"))["starts"] == 1
    assert (await house.event(far))["status"] == "scheduled"
    report = await house.get("/api/convergence")
    assert (report["converged"], report["scheduled_events"]) == (True, 1)


async def test_cancelled_event_never_runs(house: House) -> None:
    """A cancelled event keeps its place, is never started, and a replay brings it back."""
    event_id = await in_state(house, "cancelled")
    event = await house.event(event_id)
    assert (event["starts"], event["next_run_at"]) == (0, None)
    assert (await house.get("/api/convergence"))["ledger"]["cancelled"] == 1
    await house.post(f"/api/events/{event_id}/replay")
    assert (await house.reaches(event_id, "succeeded"))["run"] == 2


async def test_running_event_cannot_be_cancelled(house: House) -> None:
    """An event that is claimed is 409 for cancel and replay."""
    event_id = await house.send("waits")
    await house.reaches(event_id, "processing")
    assert (await house.post(f"/api/events/{event_id}/cancel"))[0] == 409
    assert (await house.post(f"/api/events/{event_id}/replay", {"force": True}))[0] == 409


@pytest.mark.parametrize("reason", [None, {}, {"reason": ""}, {"reason": "  "}])
async def test_discard_needs_a_reason(house: House, reason: Any) -> None:
    """A discard without a reason is refused, with one it is noted and counted."""
    event_id = await house.send("fails")
    await house.reaches(event_id, "dead_lettered")
    assert (await house.post(f"/api/deadletters/{event_id}/discard", reason))[0] == 422
    assert (await house.post(f"/api/deadletters/{event_id}/discard", {"reason": "old"}))[0] == 200
    event = await house.event(event_id)
    assert (event["status"], event["reason"]) == ("discarded", "old")
    assert (await house.get("/api/convergence"))["ledger"]["discarded"] == 1


@pytest.mark.parametrize(("only", "replayed"), [("failed", 2), ("all", 4)])
async def test_workflow_replay(house: House, only: str, replayed: int) -> None:
    """A workflow's failed, or all finished, events are replayed; what is not finished is left alone and named."""
    for event_type in ("t", "fails", "t", "fails"):
        await house.send(event_type, workflow_id="flow")
    waiting = await house.send("t", workflow_id="flow", run_at=later())
    other = await house.send("fails", workflow_id="other")
    await house.converges()
    await house.reaches(waiting, "scheduled")
    status, answer = await house.post("/api/workflows/flow/replay", {"only": only, "reason": "again"})
    assert (status, answer["replayed"]) == (202, replayed)
    assert list(answer["skipped"]) == ([waiting] if only == "all" else [])
    await house.converges()
    summary = await house.get("/api/workflows/flow")
    assert (summary["total_events"], summary["succeeded"], summary["dead_lettered"]) == (5, 2, 2)
    assert (await house.event(other))["run"] == 1
    assert (await house.post("/api/workflows/flow/replay", {"only": "some"}))[0] == 422


async def test_what_a_person_ended_did_not_fail(house: House) -> None:
    """Cancelled and discarded events are no failures: no replay of what failed runs them, no total counts them.

    What has failed once and waits for another attempt is counted as failed, and is not replayed.
    """
    timer = await house.send("t", workflow_id="flow", run_at=later())
    ended = [await house.send("postponed", workflow_id="flow") for _ in range(2)]
    letters = [await house.send("fails", workflow_id="flow") for _ in range(2)]
    for event_id in ended:
        await house.reaches(event_id, "retrying")
    for event_id in letters:
        await house.reaches(event_id, "dead_lettered")
    for event_id in (timer, ended[0]):
        assert (await house.post(f"/api/events/{event_id}/cancel", {"reason": "refunded by hand"}))[0] == 200
    await house.post(f"/api/deadletters/{letters[0]}/discard", {"reason": "old"})
    totals = await house.get("/api/workflows/flow")
    assert [totals[name] for name in ("failed", "dead_lettered", "in_flight", "has_failures")] == [1, 1, 1, True]
    async with house.http.get("/workflows/flow?only=failed") as response:
        page = await response.text()
    assert "Replay 1 failed event<" in page
    assert [event_id in page for event_id in (timer, *letters, *ended)] == [False, False, True, False, True]
    _, answer = await house.post("/api/workflows/flow/replay", {"only": "failed", "reason": "again"})
    assert answer["ids"] == [letters[1]]
    assert (await house.event(timer))["status"] == "cancelled"
    await house.reaches(letters[1], "dead_lettered")
    await house.post(f"/api/deadletters/{letters[1]}/discard", {"reason": "old"})
    await house.post(f"/api/events/{ended[1]}/cancel")
    totals = await house.get("/api/workflows/flow")
    assert (totals["failed"], totals["has_failures"]) == (0, False)


async def test_timeline_shows_everything_in_order(house: House) -> None:
    """A timeline holds the workflow's events in order, each with its attempts."""
    ids = [await house.send(event_type, workflow_id="flow") for event_type in ("t", "fails", "t")]
    await house.converges()
    timeline = await house.get("/api/workflows/flow/timeline")
    assert [event["id"] for event in timeline["events"]] == ids
    assert [len(event["attempts"]) for event in timeline["events"]] == [1, 1, 1]


UNKNOWN_FIELDS = ["/api/events/{id}/replay", "/api/events/{id}/cancel", "/api/deadletters/{id}/replay"]


@shares_a_house
@pytest.mark.parametrize("path", UNKNOWN_FIELDS)
async def test_misspelt_fields_are_refused(shared_house: House, path: str) -> None:
    """A field that the action does not know is 422 and named, and nothing is done."""
    event_id = await shared_house.send("fails")
    await shared_house.reaches(event_id, "dead_lettered")
    status, problem = await shared_house.post(path.format(id=event_id), {"raeson": "x"})
    assert (status, problem["errors"][0]["pointer"]) == (422, "/raeson")
    assert (await shared_house.event(event_id))["run"] == 1


@shares_a_house
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/actions/discard", {}), ("/actions/replay", {}), ("/actions/cancel", {}),
        ("/actions/resolve", {"status": "queued"}), ("/actions/replay-workflow", {"workflow": "workflow"}),
        ("/handlers/pause", {"pattern": "*"}),
    ],
)  # fmt: skip
async def test_reasons_in_forms_are_as_long_as_in_the_api(
    shared_house: House, path: str, fields: dict[str, str]
) -> None:
    """A form takes no reason that the API would refuse: it says so, and nothing is done."""
    event_id = await in_state(shared_house, "dead_lettered")
    form = {"id": event_id, "reason": "é" * 1001, **fields}
    async with shared_house.http.post(path, data=form, allow_redirects=False) as response:
        assert (response.status, "1,000 characters" in await response.text()) == (422, True)
    assert (await shared_house.event(event_id))["status"] == "dead_lettered"
