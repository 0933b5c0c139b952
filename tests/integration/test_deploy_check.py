"""`deploy check`: which open runs new code goes on with, beside a living daemon, with no effect and no false alarm."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from replayforge.cli import main
from replayforge.engine.handlers.loading import load_handlers
from replayforge.shadow.deploy_report import in_words
from tests.support.house import House, open_house

HERE = Path(__file__).parents[1] / "data" / "gate"
RECORDED, EDITED = HERE / "recorded.py", HERE / "edited.py"
FATES = {
    "order.same": ("continues", ""),
    "order.random": ("continues", ""),
    "order.audited": ("inserted", "audit"),
    "order.renamed": ("vanished", "reserve"),
    "order.gone": ("vanished", "reserve"),
    "order.ended": ("vanished", "scanned"),
    "order.dearer": ("arguments_changed", "charge"),
    "order.slept": ("kind_changed", "charge"),
    "order.raises": ("raises", ""),
    "order.connects": ("undecidable", ""),
    "retired": ("no_handler", ""),
}


async def parked(house: House, count: int, *types: str) -> dict[str, str]:
    """Return events that are parked in workflows of their own, by their ids, with their types."""
    found = {}
    for event_type in types:
        for number in range(count):
            found[await house.send(event_type, {}, workflow_id=f"{event_type}-{number}")] = event_type
    for event_id in found:
        await house.reaches(event_id, "waiting")
    return found


async def test_each_kind_of_edit_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By step, before and after, grouped; the exit code says whether the code may be deployed."""
    async with open_house(tmp_path / "data", load_handlers([str(RECORDED)])) as house:
        events = await parked(house, 1, *FATES)

        async def command(*arguments: str) -> tuple[int, str, str]:
            given = ["deploy", "check", "--data-dir", str(tmp_path / "data"), *arguments]
            return (await asyncio.to_thread(main.run, given), *capsys.readouterr())

        html = tmp_path / "report.html"
        code, said, _ = await command("--handlers", str(EDITED), "--json", "--html", str(html))
        report = msgspec.json.decode(said)
        assert (code, report["runs"]) == (1, len(FATES))
        found = {events[name]: group for group in report["groups"] for name in group["ids"]}
        fates = {name: (found[name]["verdict"], found[name]["step"]) for name in found}
        assert fates == {name: fate for name, fate in FATES.items() if fate[0] != "continues"}
        assert report["verdicts"]["continues"] == 2
        assert (found["order.dearer"]["before"], found["order.dearer"]["after"]) == ("[12]", "[13]")
        assert (found["order.slept"]["before"], found["order.slept"]["after"]) == ("step", "sleep")
        page = html.read_text()
        for said in ("arguments changed", "[13]", "http-equiv"):
            assert said in page
        words = "\n".join(in_words(report))
        assert "1 kind changed: What is recorded as step 'charge' is sleep in the code now." in words
        assert "first: order.slept-0" in words
        assert (await command("--handlers", str(RECORDED)))[:2] == (0, "11 open runs with a journal: 11 continues\n")
        code, said, refused = await command("--handlers", str(HERE / "missing.py"))
        assert (code, said, "missing.py does not exist" in refused) == (2, "", True)
        states = {(await house.event(event_id))["status"] for event_id in events}
        assert states == {"waiting"}
