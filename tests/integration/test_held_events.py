"""Events that are held: every refusal names the way out, and a person decides, by HTTP or on the command line."""

import asyncio
from pathlib import Path

import pytest

from replayforge.cli import main
from replayforge.domain.event import Event
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.registry import Handlers
from tests.support.house import House, open_house


def careful_handlers() -> Handlers:
    handlers = Handlers()

    @handlers.on("*", on_crash="hold")
    async def careful(event: Event, context: Context) -> None:
        return None

    return handlers


async def held(house: House) -> str:
    event_id = await house.send(payload={"_force_crash": True})
    await house.reaches(event_id, "held")
    return event_id


async def test_a_held_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever else is asked of it is refused with the way out; that way leads to each of its three ends."""
    async with open_house(tmp_path, careful_handlers(), {"chaos.enabled": True}) as house:
        url = str(house.http.make_url("")).rstrip("/")

        async def command(*arguments: str) -> tuple[int, str]:
            code = await asyncio.to_thread(main.run, ["events", *arguments, "--url", url])
            return code, "".join(capsys.readouterr())

        event_id = await held(house)
        way_out = f"replayforge events resolve {event_id} --as dead_lettered|queued|succeeded"
        for path in ("events/{}/replay", "events/{}/retry", "events/{}/cancel", "deadletters/{}/replay"):
            status, problem = await house.post(f"/api/{path.format(event_id)}")
            assert (status, way_out in problem["detail"]) == (409, True), problem
        status, problem = await house.post(f"/api/deadletters/{event_id}/discard", {"reason": "of no use"})
        assert (status, way_out in problem["detail"]) == (409, True), problem
        for selection in ({"ids": [event_id]}, {"filter": {"status": "held"}}):
            status, problem = await house.post("/api/replays", selection | {"reason": "all"})
            assert (status, "replayforge events resolve" in problem["detail"]) == (422, True), problem
        code, said = await command("replay", event_id)
        assert (code, way_out in said) == (1, True), said
        issues = (await house.get("/api/convergence"))["issues"]
        assert any("replayforge events resolve" in issue for issue in issues)

        assert await command("resolve", event_id, "--as", "succeeded", "--reason", "seen at the bank") == (
            0,
            "resolved 1 of 1\n",
        )
        event = await house.event(event_id)
        assert (event["status"], event["actions"][0]["detail"]) == ("succeeded", "it is done: seen at the bank")
        code, said = await command("resolve", event_id, "--as", "queued")
        assert (code, "only a held event" in said) == (1, True), said

        failed = await held(house)
        status, answer = await house.post(f"/api/events/{failed}/resolve", {"status": "dead_lettered", "reason": "no"})
        assert (status, answer["status"]) == (200, "dead_lettered")
        assert (await house.event(failed))["reason"] == "given_up"
        assert (await house.get("/api/deadletters?group_by=reason"))["items"][0]["group"] == "given_up"

        again = await held(house)
        assert (await command("resolve", again, "--as", "queued"))[0] == 0
        assert (await house.reaches(again, "held"))["run"] == 1
        await house.probe.saw("attempt.reclaimed", 4)
        assert (await house.event(again))["starts"] == 2
        assert (await command("resolve", again, "--as", "nonsense"))[0] == 64
