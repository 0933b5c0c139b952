"""Runs that are held because their code has changed: what is told of them, and how people let them go on."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from replayforge import Context, Event, Handlers
from replayforge.cli import main
from replayforge.domain.code_change import CodeChange, Fate
from replayforge.domain.lifecycle import State
from replayforge.stores.code_changes import ChangedRun
from tests.support.builders import now_us
from tests.support.house import House, open_house

GONE = CodeChange(Fate.VANISHED, "reserve", "step", "1", "2")
calls: Counter[str] = Counter()


async def effect(name: str) -> str:
    calls[name] += 1
    return name


def handlers() -> Handlers:
    handlers = Handlers()
    handlers.signal("scanned")

    @handlers.on("order")
    async def order(event: Event, ctx: Context) -> Any:
        await ctx.step("reserve", effect, f"reserve {event.id}")
        await ctx.step("pack", effect, f"pack {event.id}")
        return (await ctx.wait_for("scanned")).payload

    return handlers


async def held(house: House, workflow: str) -> str:
    """Return an event that was parked and is held, as if its code had changed."""
    event_id = await house.send("order", workflow_id=workflow)
    await house.reaches(event_id, "waiting")
    store = house.daemon.store
    (seen,) = [one.event for one in await store.open_runs(State.WAITING, 0, 100) if one.event.id == event_id]
    assert await store.hold_changed([ChangedRun(seen, GONE)], now_us()) == [event_id]
    return event_id


async def ends(house: House, event_id: str, workflow: str) -> tuple[int, int]:
    """Have a run come to its end; returns how often its effects have happened."""
    assert (await house.reaches(event_id, "waiting"))["label"]
    await house.send("scanned", {"by": workflow}, workflow_id=workflow)
    assert (await house.reaches(event_id, "succeeded"))["result"] == {"by": workflow}
    return calls[f"reserve {event_id}"], calls[f"pack {event_id}"]


async def test_a_held_run_is_shown_with_its_difference_and_let_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it is, from its start, or from a step: by HTTP, on the command line and on its page."""
    async with open_house(tmp_path / "data", handlers()) as house:
        url = str(house.http.make_url("")).rstrip("/")

        async def command(*arguments: str) -> tuple[int, str]:
            code = await asyncio.to_thread(main.run, ["events", *arguments, "--url", url])
            return code, "".join(capsys.readouterr())

        event_id = await held(house, "as it is")
        event = await house.event(event_id)
        assert (event["status"], event["reason"]) == ("held", "code_changed")
        assert event["code_change"] == {
            "verdict": "vanished", "step": "reserve", "kind": "step", "before": "1", "after": "2",
            "sentence": GONE.words,
        }  # fmt: skip
        assert GONE.words in (await house.get(f"/api/events/{event_id}/why"))["sentence"]
        assert GONE.words in (await command("show", event_id))[1]
        async with house.http.get(f"/events/{event_id}") as response:
            page = await response.text()
        for said in (GONE.words.replace("'", "&#39;"), "Go on as it is", "Begin anew", "<option>pack</option>"):
            assert said in page
        for refused in (["--as-is", "--restart"], ["--as", "queued", "--as-is"], []):
            assert (await command("resolve", event_id, *refused))[0] == 64
        path = f"/api/events/{event_id}/resolve"
        assert (await house.post(path, {"to": "queued", "from": "bill"}))[0] == 409
        assert (await house.post(path, {"to": "succeeded", "from": "start"}))[0] == 422
        assert await command("resolve", event_id, "--as-is") == (0, "resolved 1 of 1\n")
        assert await ends(house, event_id, "as it is") == (1, 1)
        assert (await house.event(event_id))["run"] == 1

        event_id = await held(house, "restart")
        await house.send("scanned", {"by": "restart"}, workflow_id="restart")
        assert (await command("resolve", event_id, "--restart"))[0] == 0
        event = await house.reaches(event_id, "succeeded")
        assert (event["run"], event["journal"], event["code_change"]) == (2, 2, None)
        assert (calls[f"reserve {event_id}"], calls[f"pack {event_id}"]) == (2, 2)

        event_id = await held(house, "step")
        assert (await command("resolve", event_id, "--from", "pack"))[0] == 0
        assert await ends(house, event_id, "step") == (1, 2)

        event_id = await held(house, "page")
        form = {"id": event_id, "status": "from", "from": "reserve", "reason": ""}
        async with house.http.post("/actions/resolve", data=form, headers={"Origin": url}) as response:
            assert response.status == 200
        assert await ends(house, event_id, "page") == (2, 2)
