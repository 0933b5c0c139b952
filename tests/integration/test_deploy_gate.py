"""The gate of a start: runs that changed code would break are reported or held, all others go on, and back again."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from replayforge.engine.handlers.loading import load_handlers
from tests.integration.test_deploy_check import EDITED, RECORDED, parked
from tests.support.house import House, open_house
from tests.support.polling import persist
from tests.support.postgres_server import require_postgres, shared_server
from tests.support.slow import the_rest_slow

RUNS = 50


def settings_of(url: str, handlers: Path, gate: str) -> dict[str, Any]:
    """Return the settings of a daemon on a store, the data directory's own where none is named."""
    given = {"handlers.modules": f'["{handlers}"]', "deploy.gate": gate}
    return given | {"store.url": url} if url else given


def house_of(directory: Path, url: str, handlers: Path, gate: str) -> Any:
    """Return a daemon with the handlers of a file."""
    return open_house(directory, load_handlers([str(handlers)]), settings_of(url, handlers, gate))


async def looked(house: House) -> dict[str, Any]:
    """Return what the gate has found, once it has."""

    async def look() -> dict[str, Any] | None:
        found: dict[str, Any] | None = (await house.get("/api/convergence"))["deploy"]
        return found

    found = await persist(look)
    assert found is not None
    return found


async def states(house: House, events: dict[str, str]) -> Counter[tuple[str, str]]:
    return Counter([(events[event_id], (await house.event(event_id))["status"]) for event_id in events])


async def breaks_and_reverts(directory: Path, url: str, count: int) -> None:
    """Park runs, edit their code in two ways, and take that back again."""
    async with house_of(directory, url, RECORDED, "hold") as house:
        assert (await looked(house))["runs"] == 0
        events = await parked(house, count // 2, "order.audited", "order.renamed")
    async with house_of(directory, url, EDITED, "hold") as house:
        found = await looked(house)
        assert found["verdicts"] == {"inserted": count // 2, "vanished": count // 2}
        assert await states(house, events) == {
            ("order.audited", "waiting"): count // 2, ("order.renamed", "held"): count // 2,
        }  # fmt: skip
        for event_id, event_type in events.items():
            event = await house.event(event_id)
            await house.send("scanned", {"by": event_id}, workflow_id=event["workflow_id"])
            if event_type == "order.renamed":
                change = event["code_change"]
                assert (event["reason"], change["verdict"], change["step"], change["after"]) == (
                    "code_changed", "vanished", "reserve", "begins the step 'hold'",
                )  # fmt: skip
        for event_id in [event_id for event_id in events if events[event_id] == "order.audited"]:
            assert (await house.reaches(event_id, "succeeded"))["result"] == {"by": event_id}
        assert (await states(house, events))["order.renamed", "held"] == count // 2
        assert house.daemon.telemetry.counts["deploy.held"] == count // 2
    async with house_of(directory, url, RECORDED, "report") as house:
        for event_id in events:
            assert (await house.reaches(event_id, "succeeded"))["result"] == {"by": event_id}
        assert house.daemon.telemetry.counts["deploy.released"] == count // 2


async def test_exactly_what_an_edit_breaks_is_held_until_it_is_reverted(tmp_path: Path) -> None:
    """The others finish with the new code; signals that come meanwhile are kept for those that are held."""
    await breaks_and_reverts(tmp_path / "data", "", RUNS)


@pytest.mark.parametrize("count", the_rest_slow((10, RUNS)))
async def test_it_is_so_on_postgresql(count: int, tmp_path: Path) -> None:
    """The same, with the runs in a database that others share."""
    require_postgres()
    await breaks_and_reverts(tmp_path / "data", shared_server().new_schema(), count)


@pytest.mark.slow
async def test_it_is_so_with_many(tmp_path: Path) -> None:
    """More than one page of them."""
    await breaks_and_reverts(tmp_path / "data", "", 1200)


async def test_reported_alone_nothing_is_held(tmp_path: Path) -> None:
    """What would break is told on the status page, in the metrics and in the log, and goes on all the same."""
    async with house_of(tmp_path, "", RECORDED, "off") as house:
        events = await parked(house, 1, "order.renamed", "order.same")
        assert (await house.get("/api/convergence"))["deploy"] is None
    async with house_of(tmp_path, "", EDITED, "report") as house:
        assert (await looked(house))["breaking"] == 1
        assert set((await states(house, events)).values()) == {1}
        async with house.http.get("/") as response:
            assert "1 open run would not go on with the code that runs now" in await response.text()
        async with house.http.get("/metrics") as response:
            assert 'replayforge_deploy_runs{verdict="vanished"} 1.0' in await response.text()
        assert house.daemon.telemetry.counts["deploy.broke"] == 2
        for event_id, event_type in events.items():
            await house.send("scanned", {}, workflow_id=f"{event_type}-0")
            await house.reaches(event_id, "succeeded")


async def test_what_somebody_has_let_pass_is_not_held_again(tmp_path: Path) -> None:
    """As it is: at the next start with the same code it goes on waiting."""
    async with house_of(tmp_path, "", RECORDED, "off") as house:
        (event_id,) = await parked(house, 1, "order.gone")
    async with house_of(tmp_path, "", EDITED, "hold") as house:
        await house.reaches(event_id, "held")
        assert (await house.post(f"/api/events/{event_id}/resolve", {"to": "queued"}))[0] == 200
        await house.reaches(event_id, "waiting")
    async with house_of(tmp_path, "", EDITED, "hold") as house:
        assert (await looked(house))["breaking"] == 0
        assert (await house.event(event_id))["status"] == "waiting"


async def test_what_the_start_did_not_come_to_is_looked_at_when_it_wakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its handler runs: it is held, or goes on; also when the gate has crashed meanwhile."""
    async with house_of(tmp_path, "", RECORDED, "hold") as house:
        events = await parked(house, 1, "order.renamed", "order.same")
    monkeypatch.setattr("replayforge.shadow.gate.SWEEP_SECONDS", 0.0)
    async with house_of(tmp_path, "", EDITED, "hold") as house:
        found = await looked(house)
        assert (found["complete"], found["runs"]) == (False, 0)
        house.daemon.supervisor.crash("deploy_gate")
        for event_type in events.values():
            await house.send("scanned", {}, workflow_id=f"{event_type}-0")
        renamed, same = events
        await house.reaches(same, "succeeded")
        event = await house.reaches(renamed, "held")
        assert (event["code_change"]["verdict"], event["attempts"]) == ("vanished", [])
        assert house.daemon.telemetry.counts["attempt.started"] == 1


async def test_what_the_start_did_not_come_to_is_reported_when_it_wakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what it had recorded before it woke, though it does not wait for that; nobody asks after a whole look."""
    async with house_of(tmp_path, "", RECORDED, "report") as house:
        events = await parked(house, 1, "order.renamed", "order.same")
        assert {worker.may_go_on for worker in house.daemon.workers} == {None}
    monkeypatch.setattr("replayforge.shadow.gate.SWEEP_SECONDS", 0.0)
    async with house_of(tmp_path, "", EDITED, "report") as house:
        assert (await looked(house))["runs"] == 0
        for event_id, event_type in events.items():
            await house.send("scanned", {}, workflow_id=f"{event_type}-0")
            await house.reaches(event_id, "succeeded")

        async def told() -> dict[str, Any] | None:
            found = await looked(house)
            return found if found["runs"] == 2 else None

        found = await persist(told)
        assert found is not None
        assert (found["verdicts"], found["breaking"], found["complete"]) == (
            {"inserted": 1, "vanished": 1}, 1, False,
        )  # fmt: skip


async def test_code_that_cannot_be_tried_holds_nothing(tmp_path: Path) -> None:
    """An effect at import time: the gate says so, and everything goes on."""
    odd = tmp_path / "odd.py"
    odd.write_text(f"{RECORDED.read_text()}\nimport os\nos.mkdir({str(tmp_path / 'made')!r})\n")
    async with house_of(tmp_path / "data", "", RECORDED, "hold") as house:
        (event_id,) = await parked(house, 1, "order.same")
    settings = settings_of("", odd, "hold")
    async with open_house(tmp_path / "data", load_handlers([str(RECORDED)]), settings) as house:
        found = await looked(house)
        assert (found["complete"], "a file made" in found["error"]) == (False, True)
        await house.send("scanned", {}, workflow_id="order.same-0")
        await house.reaches(event_id, "succeeded")
