"""What is said between a daemon and an endpoint with steps, and what each answer does to the event."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from replayforge.engine.handlers.step_messages import NEXT_TYPE
from replayforge.web.http.connection import ConnectionLimits
from tests.support.house import House, open_house
from tests.support.postgres_server import require_postgres, shared_server

Asked = dict[str, Any]
Script = Callable[[Asked], Any]
STEP = {"step": "first", "ok": 1}


def next_of(step: dict[str, Any], *did: dict[str, Any]) -> web.Response:
    """Answer what is next."""
    return web.Response(body=json.dumps({"did": did, "next": step}), content_type=NEXT_TYPE)


@dataclass
class Endpoint:
    """An endpoint on loopback that answers as its script says: with a response, or JSON that ends it."""

    script: Script
    asked: list[Asked] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    house: House | None = None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        asked = json.loads(await request.read())
        self.asked.append(asked)
        self.ids.append(request.headers["webhook-id"])
        answer = self.script(asked)
        if hasattr(answer, "__await__"):
            answer = await answer
        return answer if isinstance(answer, web.StreamResponse) else web.json_response(answer)

    @property
    def events(self) -> House:
        assert self.house is not None
        return self.house


@asynccontextmanager
async def talking(tmp_path: Path, script: Script, **settings: Any) -> AsyncIterator[Endpoint]:
    """Run a daemon whose only handler is an endpoint with steps."""
    endpoint = Endpoint(script)
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/hook", endpoint.answer)
    async with TestServer(app, host="127.0.0.1") as server:
        table = {"match": "*", "url": str(server.make_url("/hook")), "allow_private": True, "steps": True}
        table["on_cancel"] = settings.pop("on_cancel", "end")
        chosen = {"workers.count": 1, "handlers.http": [table], **settings}
        async with open_house(tmp_path / "data", None, chosen, ConnectionLimits()) as house:
            endpoint.house = house
            yield endpoint


async def checkpoint(asked: Asked, *did: dict[str, Any], **changed: Any) -> tuple[int, str]:
    """POST a checkpoint as an endpoint does, and return status and body of the answer."""
    body = {"lease_token": asked["lease_token"], "did": did, **changed}
    async with ClientSession() as session, session.post(asked["checkpoint_url"], json=body) as answer:
        return answer.status, await answer.text()


async def test_each_answer_is_recorded_before_the_endpoint_is_asked_again(tmp_path: Path) -> None:
    """The journal holds what it did, the webhook-id counts committed answers, and the schema tells of all."""

    def script(asked: Asked) -> Any:
        journal = asked["journal"]
        if "first" not in journal:
            body = b'{"did": [{"step": "first", "ok": 1.10}], "next": {"again": {}}}'
            return web.Response(body=body, content_type=NEXT_TYPE)
        if "nap" not in journal:
            return next_of({"sleep": {"step": "nap", "seconds": 0.01}}, {"step": "second", "ok": None})
        return {"ended": sorted(journal)}

    async with talking(tmp_path, script) as endpoint:
        event_id = await endpoint.events.send("order.placed", {"n": 1}, idempotency_key="k", metadata={"m": 2})
        event = await endpoint.events.reaches(event_id, "succeeded")
        schema = await endpoint.events.get("/schemas/steps.json")
    assert event["result"] == {"ended": ["first", "nap", "second"]}
    assert endpoint.ids == [f"{event_id}.0", f"{event_id}.1", f"{event_id}.2"]
    last = endpoint.asked[-1]
    assert last["journal"] == {"first": {"ok": 1.1}, "second": {"ok": None}, "nap": {"ok": None}}
    known = ("id", "application_name", "event_type", "workflow_id", "idempotency_key", "payload", "metadata", "run")
    assert [last["event"][name] for name in known] == [
        event_id, "default", "order.placed", "workflow", "k", {"n": 1}, {"m": 2}, 1,
    ]  # fmt: skip
    assert last["journal_url"] is None
    assert len({asked["journal_key"] for asked in endpoint.asked}) == 1
    definitions = schema["$defs"]
    assert definitions["StepsRequest"]["properties"].keys() == last.keys()
    assert definitions["EventInRequest"]["properties"].keys() == last["event"].keys()
    assert definitions["Next"]["properties"].keys() == {"sleep", "wait_for", "send", "call", "again", "restart"}
    assert (definitions["Next"]["minProperties"], definitions["Next"]["maxProperties"]) == (1, 1)


async def test_a_checkpoint_is_durable_when_it_is_answered(tmp_path: Path) -> None:
    """204 is the answer; what was reported need not be reported again, and reported again it changes nothing."""
    statuses: list[int] = []

    async def script(asked: Asked) -> Any:
        if "first" in asked["journal"]:
            return asked["journal"]
        statuses.append((await checkpoint(asked, {"step": "first", "ok": 1}, {"step": "second", "ok": 2}))[0])
        statuses.append((await checkpoint(asked, {"step": "first", "ok": "again"}))[0])
        return next_of({"again": {}}, {"step": "second", "ok": "again"})

    async with talking(tmp_path, script) as endpoint:
        event = await endpoint.events.reaches(await endpoint.events.send(), "succeeded")
    assert statuses == [204, 204]
    assert event["result"] == {"first": {"ok": 1}, "second": {"ok": 2}}


async def test_a_checkpoint_gives_the_endpoint_its_whole_time_again(tmp_path: Path) -> None:
    """An endpoint that reports as it goes on is not cut off, however long all of it takes."""
    deadlines: list[float] = []

    async def script(asked: Asked) -> Any:
        running = endpoint.events.daemon.workers[0].rules.deadlines.running
        deadlines.extend(running.values())
        await checkpoint(asked, STEP)
        deadlines.extend(running.values())
        return "done"

    async with talking(tmp_path, script) as endpoint:
        await endpoint.events.reaches(await endpoint.events.send(), "succeeded")
    assert len(deadlines) == 2
    assert deadlines[0] < deadlines[1] < float("inf")


async def test_a_callback_is_refused_that_is_late_forged_or_means_nothing(tmp_path: Path) -> None:
    """409 for another token and after the end, 403 for a changed URL, 422 for what is wrong; no key is needed."""
    answers: dict[str, tuple[int, str]] = {}

    async def script(asked: Asked) -> Any:
        step = {"step": "first", "ok": 1}
        answers["other token"] = await checkpoint(asked, step, lease_token=asked["lease_token"] + 1)
        forged = asked | {"checkpoint_url": asked["checkpoint_url"].replace("/1/", "/2/")}
        answers["forged"] = await checkpoint(forged, step)
        answers["neither"] = await checkpoint(asked, {"step": "first"})
        answers["name"] = await checkpoint(asked, {"step": "first#2", "ok": 1})
        answers["unknown"] = await checkpoint(asked, {"step": "first", "okay": 1})
        answers["good"] = await checkpoint(asked, step)
        return "done"

    async with talking(tmp_path, script, **{"server.api_keys": ["key"]}) as endpoint:
        async with endpoint.events.http.post(
            "/api/events", json={"workflow_id": "w", "event_type": "t"}, headers={"X-API-Key": "key"}
        ) as accepted:
            assert accepted.status == 201
        await endpoint.events.probe.saw("attempt.settled")
        answers["late"] = await checkpoint(endpoint.asked[0], {"step": "first", "ok": 1})
    assert {name: status for name, (status, _) in answers.items()} == {
        "other token": 409, "forged": 403, "neither": 422, "name": 422, "unknown": 422, "good": 204, "late": 409,
    }  # fmt: skip
    assert "either `ok` or `error`" in answers["neither"][1]


async def test_another_daemon_of_the_store_tells_late_callbacks_from_stray_ones(tmp_path: Path) -> None:
    """It knows the URLs of its peers: 503 while the attempt runs elsewhere, 409 once that has ended."""
    require_postgres()
    store = {"store.url": shared_server().new_schema()}
    statuses: list[int] = []

    async def script(asked: Asked) -> Any:
        statuses.append((await checkpoint(strayed(asked, other), STEP))[0])
        return "done"

    async with open_house(tmp_path / "other", None, store) as other, talking(tmp_path, script, **store) as endpoint:
        await endpoint.events.reaches(await endpoint.events.send(), "succeeded")
        statuses.append((await checkpoint(strayed(endpoint.asked[0], other), STEP))[0])
    assert statuses == [503, 409]


def strayed(asked: Asked, other: House) -> Asked:
    """Have the callback URL lead to another daemon, as a balancer may."""
    path = urlsplit(asked["checkpoint_url"]).path
    return asked | {"checkpoint_url": str(other.http.make_url(path))}


async def test_a_failure_is_tried_again_until_the_policy_gives_up(tmp_path: Path) -> None:
    """What is next waits for the retry; then the endpoint is told of the failure, which stays as it is."""
    error = {"type": "BankDown", "message": "not now"}

    def script(asked: Asked) -> Any:
        if "charge" in asked["journal"]:
            return asked["journal"]["charge"]
        return next_of({"sleep": {"step": "never", "seconds": 60}}, {"step": "charge", "error": error})

    async with talking(tmp_path, script, **{"retry.max_attempts": 3}) as endpoint:
        event = await endpoint.events.reaches(await endpoint.events.send(), "succeeded")
    assert event["result"] == {"error": error}
    assert len(endpoint.asked) == 4
    assert [attempt["outcome"] for attempt in event["attempts"]] == ["succeeded"]


async def test_a_permanent_failure_is_recorded_at_once_and_what_is_next_is_done(tmp_path: Path) -> None:
    """Code that has dealt with a failure goes on; a result that is too large fails its step."""

    def script(asked: Asked) -> Any:
        if asked["journal"]:
            return {name: entry.get("error", {}).get("type") for name, entry in asked["journal"].items()}
        failed = {"step": "charge", "error": {"type": "NoMoney", "message": "", "permanent": True}}
        large = {"step": "large", "ok": "x" * 300}
        return next_of({"sleep": {"step": "nap", "seconds": 0}}, failed, large)

    async with talking(tmp_path, script, **{"journal.result_bytes_max": 300}) as endpoint:
        event = await endpoint.events.reaches(await endpoint.events.send(), "succeeded")
    assert event["result"] == {"charge": "NoMoney", "large": "bad_result", "nap": None}


WRONG: dict[str, tuple[Asked, list[Asked], str]] = {
    "a name of two kinds": ({"sleep": {"step": "first", "seconds": 0}}, [STEP], "is that of a step"),
    "a reserved name": ({"sleep": {"step": "a#2", "seconds": 0}}, [], "which are set before"),
    "an undeclared signal": ({"wait_for": {"step": "w", "event_type": "x"}}, [], "declared"),
    "two things at once": ({"again": {}, "sleep": {"step": "s", "seconds": 0}}, [STEP], "exactly one"),
    "no progress": ({"again": {}}, [], "never end"),
    "an unknown field": ({"nap": {}}, [], "nap"),
}


async def test_an_answer_that_cannot_be_followed_is_a_dead_letter_with_words(tmp_path: Path) -> None:
    """To ask once more would have its effects once more; what it did and could be read is recorded."""

    def script(asked: Asked) -> Any:
        step, did, _ = WRONG[asked["event"]["event_type"]]
        return next_of(step, *did)

    async with talking(tmp_path, script) as endpoint:
        sent = {name: await endpoint.events.send(name) for name in WRONG}
        errors = {name: (await endpoint.events.reaches(sent[name], "dead_lettered"))["last_error"] for name in sent}
    assert [name for name, (_, _, words) in WRONG.items() if words not in errors[name]] == []
    assert len(endpoint.asked) == len(WRONG)


async def test_a_sleep_that_is_recorded_cannot_be_asked_for_again(tmp_path: Path) -> None:
    """An endpoint that does not look into its journal would go round for ever."""
    async with talking(tmp_path, lambda _: next_of({"sleep": {"step": "nap", "seconds": 0}})) as endpoint:
        event = await endpoint.events.reaches(await endpoint.events.send(), "dead_lettered")
    assert "asked for the sleep 'nap' again" in event["last_error"]
    assert len(endpoint.asked) == 2


async def test_an_endpoint_that_is_away_is_asked_once_more_for_the_same(tmp_path: Path) -> None:
    """A 503 spends an attempt; the webhook-id stays, since nothing was committed in between."""

    def script(asked: Asked) -> Any:
        if not asked["journal"]:
            return next_of({"again": {}}, STEP)
        return web.Response(status=503) if len(endpoint.asked) == 2 else "done"

    async with talking(tmp_path, script) as endpoint:
        event_id = await endpoint.events.send()
        event = await endpoint.events.reaches(event_id, "succeeded")
    assert endpoint.ids == [f"{event_id}.0", f"{event_id}.1", f"{event_id}.1"]
    assert [attempt["outcome"] for attempt in event["attempts"]] == ["succeeded", "failed"]


async def test_a_replay_from_the_failure_has_the_step_done_that_ended_the_run(tmp_path: Path) -> None:
    """An endpoint that gives up for a failed step, by a 4xx, gets that step back; the webhook-id goes on counting."""
    failed = {"step": "charge", "error": {"type": "NoMoney", "permanent": True}}

    def script(asked: Asked) -> Any:
        journal = asked["journal"]
        if "charge" not in journal:
            did = [failed] if asked["event"]["run"] == 1 else [{"step": "charge", "ok": "paid"}]
            return next_of({"again": {}}, STEP, *did)
        return web.Response(status=400) if "error" in journal["charge"] else journal

    async with talking(tmp_path, script) as endpoint:
        event_id = await endpoint.events.send()
        await endpoint.events.reaches(event_id, "dead_lettered")
        status, answer = await endpoint.events.post(f"/api/events/{event_id}/replay", {"from": "failure"})
        assert status == 202, answer
        event = await endpoint.events.reaches(event_id, "succeeded")
    assert event["result"] == {"first": {"ok": 1}, "charge": {"ok": "paid"}}
    assert "first" in endpoint.asked[2]["journal"]
    assert len(set(endpoint.ids)) == len(endpoint.ids) == 4


async def test_a_restart_goes_on_with_an_empty_journal_and_another_payload(tmp_path: Path) -> None:
    """Names and keys are free again, the webhook-id goes on counting, and what the event came with stays."""

    def script(asked: Asked) -> Any:
        page = asked["event"]["payload"]["page"]
        if page == 3:
            return page
        return next_of({"restart": {"payload": {"page": page + 1}}}, {"step": "read", "ok": page})

    async with talking(tmp_path, script) as endpoint:
        event_id = await endpoint.events.send(payload={"page": 1})
        event = await endpoint.events.reaches(event_id, "succeeded")
    assert (event["result"], event["payload"], event["run"]) == (3, {"page": 1}, 1)
    assert [asked["journal"] for asked in endpoint.asked] == [{}, {}, {}]
    assert endpoint.ids == [f"{event_id}.{n}" for n in range(3)]
    assert len({asked["journal_key"] for asked in endpoint.asked}) == 3


def undoing(asked: Asked) -> Any:
    """Reserve and wait; undo when cancelled, with a pause that is a wait like any other, and then finish."""
    journal = asked["journal"]
    if not asked["cancelled"]:
        return next_of({"wait_for": {"step": "parcel", "event_type": "scanned"}}, STEP)
    if "cooled" not in journal:
        return next_of({"sleep": {"step": "cooled", "seconds": 1.2}}, {"step": "undo", "ok": 1})
    return sorted(journal)


DID: dict[str, Callable[[], web.Response]] = {
    "nothing more": lambda: next_of({"sleep": {"step": "nap", "seconds": 60}}),
    "a step": lambda: next_of({"again": {}}, {"step": "second", "ok": 2}),
    "a failed step": lambda: next_of({"again": {}}, {"step": "second", "error": {"type": "Down"}}),
}
CANCELLABLE: dict[str, Any] = {"handlers.signals": ["scanned"], "on_cancel": "run"}


async def test_an_endpoint_is_told_of_a_cancel_where_it_waits(tmp_path: Path) -> None:
    """The wait has failed as `Cancelled`, every request from then on says so, and the event ends cancelled."""
    async with talking(tmp_path, undoing, **CANCELLABLE) as endpoint:
        event_id = await endpoint.events.send()
        await endpoint.events.reaches(event_id, "waiting")
        status, answer = await endpoint.events.post(f"/api/events/{event_id}/cancel", {"reason": "no use"})
        assert status == 202, answer
        event = await endpoint.events.reaches(event_id, "cancelled")
    assert event["result"] == ["cooled", "first", "parcel", "undo"]
    assert [asked["cancelled"] for asked in endpoint.asked] == [False, True, True]
    assert endpoint.asked[1]["journal"]["parcel"] == {"error": {"type": "Cancelled", "message": ""}}


@pytest.mark.parametrize("on_cancel", ["end", "run"])
@pytest.mark.parametrize("did", DID)
async def test_an_endpoint_that_is_asked_at_the_time_hears_of_a_cancel_next(
    tmp_path: Path, on_cancel: str, did: str
) -> None:
    """With nothing that it waits for, too, and instead of a retry; or it is asked no more, without `on_cancel`."""

    async def script(asked: Asked) -> Any:
        if asked["cancelled"]:
            return sorted(asked["journal"])
        if "first" not in asked["journal"]:
            return next_of({"again": {}}, STEP)
        status, _ = await endpoint.events.post(f"/api/events/{asked['event']['id']}/cancel", {"reason": "no use"})
        assert status == 202
        return DID[did]()

    async with talking(tmp_path, script, on_cancel=on_cancel, **{"retry.base_seconds": 60}) as endpoint:
        event = await endpoint.events.reaches(await endpoint.events.send(), "cancelled")
    told = [asked["cancelled"] for asked in endpoint.asked]
    assert told == [False, False, True] if on_cancel == "run" else [False, False]
    if on_cancel == "run":
        assert event["result"] == ["first", "nap" if did == "nothing more" else "second"]


async def test_a_large_journal_is_fetched(tmp_path: Path) -> None:
    """Above 1 MiB the journal is left at journal_url for as long as the endpoint is being asked."""
    fetched: list[Any] = []

    async def script(asked: Asked) -> Any:
        if asked["journal_url"] is None:
            number = len(asked["journal"])
            return next_of({"again": {}}, {"step": f"step-{number}", "ok": "x" * 250_000})
        assert asked["journal"] is None
        async with ClientSession() as session, session.get(asked["journal_url"]) as answer:
            fetched.append(await answer.json())
        return "done"

    async with talking(tmp_path, script) as endpoint:
        await endpoint.events.reaches(await endpoint.events.send(), "succeeded")
        async with ClientSession() as session, session.get(endpoint.asked[-1]["journal_url"]) as late:
            assert late.status == 409
    assert sorted(fetched[0]) == [f"step-{number}" for number in range(5)]


async def test_a_parked_event_goes_on_in_another_attempt(tmp_path: Path) -> None:
    """A sleep of more than a second holds no worker, and no attempt is left behind."""

    def script(asked: Asked) -> Any:
        if asked["event"]["event_type"] == "other" or "nap" in asked["journal"]:
            return asked["lease_token"]
        return next_of({"sleep": {"step": "nap", "seconds": 1.2}}, STEP)

    async with talking(tmp_path, script) as endpoint:
        event_id = await endpoint.events.send()
        await endpoint.events.reaches(event_id, "waiting")
        await endpoint.events.reaches(await endpoint.events.send("other"), "succeeded")
        event = await endpoint.events.reaches(event_id, "succeeded")
    assert event["result"] > 1
    assert [attempt["outcome"] for attempt in event["attempts"]] == ["succeeded"]
