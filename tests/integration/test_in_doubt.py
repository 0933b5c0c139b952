"""In doubt: what crashes may have left without a record is listed by HTTP, command and page, and decided about once."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from replayforge.cli import main
from replayforge.domain.api_keys import Role, new_key
from replayforge.domain.event import Event
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.registry import Handlers
from tests.support.house import House, open_house

CRASH = {"_force_crash": True}


def handlers() -> Handlers:
    """Return a handler that asks after a crash, one that is started again, and one with a step that runs once."""
    registered = Handlers()
    charged: set[str] = set()

    @registered.on("careful", on_crash="hold")
    async def careful(event: Event, context: Context) -> str:
        return "done"

    @registered.on("bold")
    async def bold(event: Event, context: Context) -> str:
        if event.id not in charged:
            charged.add(event.id)
            raise SystemExit
        return "done"

    @registered.on("pays")
    async def pays(event: Event, context: Context) -> Any:
        async def charge(amount: int) -> int:
            if event.id in charged:
                return amount
            charged.add(event.id)
            raise SystemExit

        return await context.step("charge", charge, 12, once=True)

    @registered.on("fails", max_attempts=1)
    async def fails(event: Event, context: Context) -> None:
        raise ValueError

    return registered


async def planted(house: House) -> dict[str, str]:
    """Have one event of each kind, as it stands after its crash."""
    ids = {
        name: await house.send(name, payload=CRASH if name == "careful" else {})
        for name in ("careful", "bold", "pays", "fails")
    }
    ends = {"careful": "held", "bold": "succeeded", "pays": "held", "fails": "dead_lettered"}
    for name, state in ends.items():
        await house.reaches(ids[name], state)
    return ids


async def test_what_crashes_left_is_listed_and_decided_about_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exactly the crashed attempts and the begun step are in doubt; each decision is carried out once, and noted."""
    async with open_house(tmp_path, handlers(), {"chaos.enabled": True}) as house:
        url = str(house.http.make_url("")).rstrip("/")

        async def command(*arguments: str) -> tuple[int, str]:
            code = await asyncio.to_thread(main.run, ["indoubt", *arguments, "--url", url])
            return code, "".join(capsys.readouterr())

        async def items(query: str = "") -> dict[str, Any]:
            return {one["event_type"]: one for one in (await house.get(f"/api/indoubt{query}"))["items"]}

        assert (await command("ls"))[1] == "No attempt was cut short.\n"
        ids = await planted(house)
        found = await items()
        standings = {name: one["standing"] for name, one in found.items()}
        assert standings == {"careful": "undecided", "bold": "started_again", "pays": "undecided"}
        assert set(await items("?standing=undecided")) == {"careful", "pays"}
        (attempt,) = found["careful"]["attempts"]
        assert (attempt["outcome"], attempt["lease_token"], found["careful"]["on_crash"]) == ("crashed", 1, "hold")
        assert attempt["worker_name"].startswith("worker-")
        assert attempt["started_at"] <= attempt["finished_at"]
        assert (found["bold"]["starts"], found["bold"]["on_crash"]) == (2, "retry")
        (charge,) = found["pays"]["steps"]
        assert (charge["name"], charge["state"], charge["lease_token"]) == ("charge", "started", 1)
        assert charge["arguments"] == [12]
        said = (await command("ls", "--undecided"))[1]
        assert all(word in said for word in (ids["careful"], ids["pays"], "charge"))
        assert ids["bold"] not in said

        path = "/api/indoubt/{}/resolve"
        for refused, body in (("bold", {"decision": "again"}), ("careful", {"decision": "done", "step": "charge"})):
            assert (await house.post(path.format(ids[refused]), body))[0] == 409
        assert (await house.post(path.format(ids["careful"]), {"decision": "again", "result": 1}))[0] == 422
        answers = await asyncio.gather(
            *(
                house.post(path.format(ids["careful"]), {"decision": "done", "result": {"paid": 7}, "reason": "seen"})
                for _ in range(4)
            )
        )
        assert sorted(status for status, _ in answers) == [200, 409, 409, 409]
        event = await house.event(ids["careful"])
        assert (event["status"], event["result"], event["starts"]) == ("succeeded", {"paid": 7}, 1)
        assert [one["detail"] for one in event["actions"]] == ["it is done, with a result: seen"]

        assert await command("confirm", ids["pays"], "--result", "99") == (0, "decided 1 of 1\n")
        event = await house.reaches(ids["pays"], "succeeded")
        assert event["result"] == 99
        assert {name: one["standing"] for name, one in (await items()).items()} == {
            "careful": "decided",
            "bold": "started_again",
            "pays": "decided",
        }
        assert await items("?standing=undecided") == {}


@pytest.mark.parametrize(("word", "state", "starts"), [("rerun", "succeeded", 2), ("dead-letter", "dead_lettered", 1)])
async def test_the_other_two_decisions(
    word: str, state: str, starts: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is said to run again does so, once; what is said to have failed is a dead letter and can be replayed."""
    registered, crashed = Handlers(), set[str]()

    @registered.on("careful", on_crash="hold")
    async def careful(event: Event, context: Context) -> None:
        if event.id not in crashed:
            crashed.add(event.id)
            raise SystemExit

    async with open_house(tmp_path, registered) as house:
        event_id, url = await house.send("careful"), str(house.http.make_url("")).rstrip("/")
        await house.reaches(event_id, "held")
        assert await asyncio.to_thread(main.run, ["indoubt", word, event_id, "--reason", "seen", "--url", url]) == 0
        event = await house.reaches(event_id, state)
        assert event["attempt_count"] == 0
        assert (await house.get("/api/indoubt"))["items"][0]["starts"] == starts
        assert await asyncio.to_thread(main.run, ["indoubt", word, event_id, "--url", url]) == 1
        assert "nobody has to decide" in capsys.readouterr().err


async def test_who_has_decided_is_told(tmp_path: Path) -> None:
    """A key that may only read sees what is in doubt and decides nothing; the name of the one that did is noted."""
    keys = {
        name: new_key(name, role) for name, role in (("app", Role.INGEST), ("ops", Role.OPERATE), ("look", Role.READ))
    }
    settings = {"server.api_keys": [key.entry() for _, key in keys.values()], "chaos.enabled": True}
    async with open_house(tmp_path, handlers(), settings) as house:
        app, ops, look = ({"X-API-Key": keys[name][0]} for name in ("app", "ops", "look"))
        event = {"workflow_id": "w", "event_type": "careful", "payload": CRASH}
        async with house.http.post("/api/events", json=event, headers=app) as response:
            path = f"/api/indoubt/{(await response.json())['id']}/resolve"
        await house.probe.saw("attempt.reclaimed")
        for headers, status in ((app, 403), (look, 403), (ops, 200), (ops, 409)):
            async with house.http.post(path, json={"decision": "dead_lettered"}, headers=headers) as response:
                assert response.status == status
        (item,) = (await house.get("/api/indoubt", headers=look))["items"]
        assert (item["standing"], item["decision"]["by"], item["decision"]["detail"]) == (
            "decided",
            "ops",
            "it had failed",
        )


async def test_the_page_of_what_is_in_doubt(tmp_path: Path) -> None:
    """Each event has a row with what is known; a form decides, once, and what is no JSON is refused."""
    async with open_house(tmp_path, handlers(), {"chaos.enabled": True}) as house:
        ids = await planted(house)
        async with house.http.get("/in-doubt") as response:
            text = await response.text()
        for name in ("careful", "bold", "pays"):
            assert f'id="doubt-{ids[name]}"' in text
        assert f'id="doubt-{ids["fails"]}"' not in text
        assert text.count("It is done") == 2
        assert "started again" in text
        for decision, result, state in (
            ("perhaps", "", "held"),
            ("done", "{", "held"),
            ("done", "[1]", "succeeded"),
            ("again", "", "succeeded"),
        ):
            form = {"id": ids["careful"], "decision": decision, "result": result, "reason": "seen"}
            async with house.http.post("/actions/decide", data=form, allow_redirects=False) as response:
                assert response.status == 303
            assert (await house.event(ids["careful"]))["status"] == state
        async with house.http.get("/in-doubt?standing=undecided") as response:
            text = await response.text()
        assert f'id="doubt-{ids["careful"]}"' not in text
        assert f'id="doubt-{ids["pays"]}"' in text
