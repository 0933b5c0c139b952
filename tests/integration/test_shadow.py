"""Shadow says exactly what other code would do with history, and its cures come true."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from replayforge.cli.main import run
from replayforge.domain.recorded_run import RecordedRun
from replayforge.domain.reports import EventFilter
from replayforge.engine.handlers.loading import load_handlers
from replayforge.shadow import comparing
from replayforge.shadow.comparing import Question, compare
from replayforge.shadow.replayed import Job
from replayforge.shadow.report import report_of
from replayforge.stores.recordings import COMPARABLE, recorded_runs
from replayforge.stores.snapshot import read_snapshot
from tests.support.house import House, open_house
from tests.support.postgres_server import require_postgres, shared_server

HERE = Path(__file__).parents[1] / "data" / "shadow"
BILLING, FIXED = str(HERE / "billing.py"), str(HERE / "billing_fixed.py")
UNSTEADY = [f"unsteady.{name}" for name in ("clock", "chance", "sets", "dicts", "plain")]
COUNTRIES = ("AT", "CH", "DE", "FR")
STORES = ("sqlite", "postgres")
AMOUNTS: Sequence[dict[str, Any]] = ({"amount": "12.5"}, {"amount": "7.25"}, {}, {"amount": "3"}, {"amount": "many"})


def sizes(now: int, many: int) -> list[Any]:
    """Return a few runs on one store for the test command, and many on each for the slow proofs."""
    return [("sqlite", now), *(pytest.param(store, many, marks=pytest.mark.slow) for store in STORES)]


@pytest.fixture(autouse=True)
def fewer_worlds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the test command the second world speaks for all of them."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(comparing, "FURTHER", ())


class Billing:
    """Daemons one after the other on one data directory and store, and the command beside them."""

    def __init__(self, store: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.settings: dict[str, Any] = {"retry.max_attempts": 1}
        if store == "postgres":
            require_postgres()
            self.settings["store.url"] = shared_server().new_schema()
            monkeypatch.setenv("REPLAYFORGE__STORE__URL", self.settings["store.url"])

    def house(self, handlers: str) -> AbstractAsyncContextManager[House]:
        """Open a daemon with some handlers."""
        return open_house(self.directory, load_handlers([handlers]), self.settings)

    async def shadow(self, *arguments: str) -> int:
        """Run the command, and return its exit code."""
        return await asyncio.to_thread(run, ["shadow", "--data-dir", str(self.directory), *arguments])

    async def runs(self, house: House) -> list[RecordedRun]:
        """Return all history."""
        url = house.daemon.config.store.url
        return await read_snapshot(url, lambda: recorded_runs(EventFilter(), COMPARABLE, 10_000))


async def send(house: House, event_type: str, payloads: Sequence[dict[str, Any]]) -> list[str]:
    """Send events, one workflow each, and return their ids once they have ended."""
    lines = [
        json.dumps({"workflow_id": f"{event_type}-{number}", "event_type": event_type, "payload": payload})
        for number, payload in enumerate(payloads)
    ]
    headers = {"Content-Type": "application/x-ndjson"}
    async with house.http.post("/api/events/bulk", data="\n".join(lines), headers=headers) as response:
        ids = [str(json.loads(answer)["id"]) async for answer in response.content]
    await house.converges(60)
    return ids


async def send_unsteady(house: House, each: int, letters: str) -> None:
    """Send events to the handlers whose results nobody can foresee."""
    for event_type in UNSTEADY:
        await send(house, event_type, [{"number": number, "letters": letters} for number in range(each)])


@pytest.mark.slow
@pytest.mark.parametrize("store", STORES)
async def test_unchanged_code_is_the_same_whatever_it_takes_from_clock_chance_and_sets(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    billing = Billing(store, tmp_path, monkeypatch)
    async with billing.house(BILLING) as house:
        await send_unsteady(house, 200, "ab")
        report = report_of(await compare(Question(Job((BILLING,))), await billing.runs(house)))
        assert report["groups"] == []
        assert report["verdicts"]["same"] == report["runs"] == 1000


@pytest.mark.parametrize(("store", "count"), sizes(20, 1000))
async def test_one_changed_branch_names_exactly_the_affected_runs(
    store: str, count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    billing = Billing(store, tmp_path, monkeypatch)
    async with billing.house(BILLING) as house:
        ids = await send(house, "order", [{"number": at, "country": COUNTRIES[at % 4]} for at in range(count)])
        await send_unsteady(house, count // 4, "abcde")
        assert await billing.shadow("--handlers", FIXED, "--json", "--limit", "10000") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["groups"] == [
        {
            "verdict": "result_changed", "pointer": "/result/fee", "before": 2.5, "after": 3, "count": count // 4,
            "first": {"id": ids[1], "workflow_id": "order-1"}, "ids": ids[1::4],
        }
    ]  # fmt: skip
    assert {name: number for name, number in report["verdicts"].items() if number} == {
        "same": count - count // 4 + len(UNSTEADY) * (count // 4),
        "result_changed": count // 4,
    }


@pytest.mark.parametrize(("store", "count"), sizes(10, 500))
async def test_exactly_the_cured_dead_letters_are_replayed_and_all_succeed(
    store: str, count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    billing = Billing(store, tmp_path, monkeypatch)
    async with billing.house(BILLING) as house:
        ids = await send(house, "invoice", [AMOUNTS[at % 5] for at in range(count)])
    async with billing.house(FIXED) as house:
        command = ("--handlers", FIXED, "--state", "dead_lettered", "--replay-cured", "--yes")
        assert await billing.shadow(*command, "--url", str(house.http.make_url("/"))) == 0
        said, each = capsys.readouterr().out, count // 5
        assert f"{4 * each} runs: {each} same, {each} now raises, {2 * each} cured" in said
        assert f"{each} runs: now raises: KeyError: '…' -> Permanent: there is no amount; first" in said
        assert f"{each} runs: still ValueError: too many; first: invoice-4 (" in said
        await house.converges()
        stands = await stood(house, ids)
    assert [{stands[one] for one in ids[at::5]} for at in range(5)] == [
        {("succeeded", 2)}, {("succeeded", 2)}, {("dead_lettered", 1)}, {("succeeded", 1)}, {("dead_lettered", 1)},
    ]  # fmt: skip


async def test_json_is_all_of_the_output_while_the_cured_are_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How the bulk replay goes is said beside it."""
    billing = Billing("sqlite", tmp_path, monkeypatch)
    async with billing.house(BILLING) as house:
        ids = await send(house, "invoice", AMOUNTS)
    async with billing.house(FIXED) as house:
        command = ("--handlers", FIXED, "--state", "dead_lettered", "--replay-cured", "--yes", "--json")
        assert await billing.shadow(*command, "--url", str(house.http.make_url("/"))) == 0
        out, err = capsys.readouterr()
        (cured,) = [group["ids"] for group in json.loads(out)["groups"] if group["verdict"] == "cured"]
        assert cured == ids[:2]
        assert "is done: replayed 2 of 2 · 2 succeeded" in err


async def stood(house: House, ids: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Return state and run of each event."""
    events = await house.daemon.store.events_by_ids(ids)
    return {event_id: (str(event.state), event.run) for event_id, (event, _) in events.items()}
