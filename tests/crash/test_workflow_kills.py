"""Workflows with everything in them whose daemons are killed at random instants, while their code is edited."""

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from replayforge.testing import Forge
from replayforge.whole_lines import whole_lines
from tests.data import everything_handlers
from tests.data.everything_handlers import EDITED, PREPARED
from tests.support.daemon_process import DaemonProcess, HttpClient, until
from tests.support.slow import the_rest_slow
from tests.support.storm import PLACES, daemons_at

HANDLERS = Path(everything_handlers.__file__)
STILL_SECONDS = 180  # in which of many workflows on a busy machine at least one event ends
PER_KILL = 2  # workflows that begin between two kills
KILLS = [*the_rest_slow([4, 8]), pytest.param(200, marks=pytest.mark.soak)]
EVENTS = ("bill", "confirmed", "mail", "order")
RECORDED = (
    "SELECT id, step FROM {}.steps AS steps JOIN {}.events ON seq = event_seq"
    " WHERE kind = 'step' AND steps.state IN ('done', 'failed')"
)
VARIABLES = {"EFFECT_SECONDS": "0.02"}

Effect = tuple[str, str]


@dataclass
class Storm:
    """Daemons that are killed and started again, and what that may have cost: `excused` counts kills inside a step."""

    daemons: list[DaemonProcess]
    recorded: Callable[[], set[Effect]]
    rng: random.Random
    excused: Counter[Effect] = field(default_factory=Counter)
    final: dict[Effect, int] = field(default_factory=dict)
    seen: dict[Path, Counter[Effect]] = field(default_factory=dict)

    def strike(self) -> None:
        """Kill one of them, note what must not happen again, and start it with another version of the code."""
        daemon = self.rng.choice(self.daemons)
        daemon.kill()
        done, here = self.recorded(), effects(daemon.directory)
        begun = here - self.seen.get(daemon.directory, Counter())
        self.seen[daemon.directory] = here
        self.excused.update(effect for effect in begun if effect not in done)
        now = self.effects()
        self.final |= {effect: now[effect] for effect in done if effect not in self.final}
        daemon.variables["WORKFLOW"] = self.rng.choice(list(PREPARED))
        daemon.start()

    def effects(self) -> Counter[Effect]:
        """Count every effect, on whichever daemon."""
        return sum((effects(daemon.directory) for daemon in self.daemons), Counter())


def effects(directory: Path) -> Counter[Effect]:
    """Count the effects of the steps of a daemon, by event and name."""
    lines = whole_lines(directory / "effects.txt")
    return Counter((event_id, name) for event_id, name in (line.split("\t") for line in lines))


@pytest.fixture(params=the_rest_slow(PLACES))
def storm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storm]:
    """One daemon on SQLite, or two on PostgreSQL and Redis."""
    with daemons_at(request.param, tmp_path, HANDLERS) as place:
        for daemon in place.daemons:
            daemon.variables |= VARIABLES
        yield Storm(place.daemons, lambda: set(place.select(RECORDED)), random.Random(request.node.name))


def sent(event_type: str, number: int) -> dict[str, Any]:
    """Return an event of a workflow, which is sent under one key."""
    payload = {"n": number, "grace_seconds": 1.1, "late_seconds": 1.1, "seconds": 1.1}
    return {
        "workflow_id": f"workflow-{number}", "event_type": event_type, "payload": payload,
        "idempotency_key": f"{event_type}-{number}",
    }  # fmt: skip


async def undisturbed(workflows: int, path: Path) -> tuple[list[Any], Counter[Effect]]:
    """Return the results of workflows that nobody disturbs, and how often each of their effects happens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFECTS", str(path / "effects.txt"))
        async with Forge(everything_handlers.handlers) as forge:
            orders = [await forge.send(**sent("order", number)) for number in range(workflows)]
            for number in range(workflows):
                await forge.send(**sent("confirmed", number))
            await forge.advance(hours=1)
            return [order.result for order in orders], effects(path)


@pytest.mark.parametrize("kills", KILLS)
async def test_kills_and_edits_repeat_nothing_recorded_and_change_no_result(
    storm: Storm, kills: int, tmp_path: Path
) -> None:
    """Signals are sent before, during and after the wait for them; each is taken once, each child exists once."""
    expected, once = await undisturbed(kills * PER_KILL, tmp_path)
    play(storm, kills)
    reader = storm.daemons[0].http
    await_end(reader, len(expected))
    for number, result in enumerate(expected):
        judge(reader.get(f"/api/events?workflow_id=workflow-{number}")["items"], reader, result)
    happened = storm.effects()
    assert {effect for effect in once if effect[1] not in EDITED} <= happened.keys()
    for effect, count in happened.items():
        assert count <= max(1, once[effect]) * (1 + storm.excused[effect]), effect
        assert storm.final.get(effect, count) == count, f"{effect} was recorded, and done again"
    sys.stderr.write(f"{kills} kills, {storm.excused.total()} inside steps; {happened.total()} effects\n")
    for daemon in storm.daemons:
        metrics = daemon.http.request("GET", "/metrics").body.decode()
        assert "\nreplayforge_repaired_total 0.0\n" in metrics
        assert daemon.terminate() == 0
        assert "had missed what they waited for" not in daemon.stderr.read_text()
    for daemon in storm.daemons:
        checked = daemon.run_command("check", "--data-dir", str(daemon.data_dir))
        assert checked.code == 0, checked


def await_end(reader: HttpClient, workflows: int) -> None:
    """Return when every event of the workflows has succeeded, which may take as long as they come on."""

    def came_on() -> int | None:
        now: int = reader.get("/api/convergence")["ledger"]["succeeded"]
        return now if now > ended else None

    ended = -1
    while ended < workflows * len(EVENTS):
        ended = until(came_on, STILL_SECONDS, f"another event to succeed after {ended}")


def judge(events: list[dict[str, Any]], reader: HttpClient, expected: dict[str, Any]) -> None:
    """Demand that a workflow has the events it should have, and that its order came to what it comes to undisturbed."""
    assert sorted((one["event_type"], one["status"]) for one in events) == [(one, "succeeded") for one in EVENTS]
    found = {one["event_type"]: reader.event(one["id"]) for one in events}
    result = found["order"]["result"]
    assert {name: result.get(name) for name in expected if name not in EDITED} == {
        name: value for name, value in expected.items() if name not in EDITED
    }
    assert result.get("prepare-1", expected["prepare-1"]) == expected["prepare-1"]
    assert found["order"]["id"] in str(found["confirmed"]["result"])


class Struck(Protocol):
    """What has daemons, and kills something whenever it is told to."""

    rng: random.Random

    @property
    def daemons(self) -> Sequence[DaemonProcess]:
        """The daemons that are sent events."""

    def strike(self) -> None:
        """Kill, and start again."""


def play(storm: Struck, kills: int, per_kill: int = PER_KILL) -> None:
    """Begin workflows between kills. Their signals come up to three kills earlier, or later."""
    workflows = kills * per_kill
    due: dict[int, list[dict[str, Any]]] = {}
    for number in range(workflows):
        begin = number // per_kill
        due.setdefault(begin, []).append(sent("order", number))
        due.setdefault(max(0, begin + storm.rng.randint(-1, 3)), []).append(sent("confirmed", number))
    for turn in range(max(due) + 1):
        events = due.get(turn, [])
        storm.rng.shuffle(events)
        for event in events:
            assert storm.rng.choice(storm.daemons).http.post("/api/events", event).status == 201
        if turn < kills:
            time.sleep(storm.rng.uniform(0.0, 0.8))
            storm.strike()
