"""Recorded runs are replayed with other code, and nothing is touched: the same answers, the same order, no effects."""

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replayforge.domain.lifecycle import State
from replayforge.domain.recorded_run import RecordedRun
from replayforge.domain.reports import EventFilter
from replayforge.engine.handlers.loading import load_handlers
from replayforge.shadow.replayed import Asked, ChangedArguments, End, Job, NamedStep, OutsideEffect, ReplayedRun, World
from replayforge.shadow.replaying import HandlersNotLoaded, replay_all
from replayforge.stores.recordings import recorded_runs
from replayforge.stores.snapshot import read_snapshot
from replayforge.testing import Forge

HERE = Path(__file__).parents[1] / "data" / "shadow"
RECORDED, CHANGED = HERE / "recorded.py", HERE / "changed.py"
TYPES = (
    "whole", "plain", "order", "simple", "parked.same", "parked.inserted", "parked.vanished", "parked.arguments",
    "parked.kind", "parked.raises", "effect.connect", "effect.stream", "effect.name", "effect.thread",
    "effect.remove", "effect.process", "effect.database", "effect.library", "removed", "deadly", "group",
)  # fmt: skip
LATER = World(ahead_seconds=400 * 86_400, random_seed=1, hash_seed=1)


@pytest.fixture(scope="module")
def canary() -> Iterator[socket.socket]:
    """A listener that nobody may connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@pytest.fixture(scope="module")
def history(canary: socket.socket) -> dict[str, RecordedRun]:
    """One run of each type, as it was recorded; it is read while the daemon lives."""
    return asyncio.run(recorded(canary.getsockname()[1]))


async def recorded(port: int) -> dict[str, RecordedRun]:
    async with Forge(load_handlers([str(RECORDED)])) as forge:
        for event_type in TYPES:
            await forge.send(event_type, {"port": port}, workflow_id=event_type)
        await forge.settled()
        await forge.send("paid", {}, workflow_id="whole")
        await forge.advance(hours=9)
        everything = EventFilter(), frozenset(State), 1000
        runs = await read_snapshot(forge.config.store.url, lambda: recorded_runs(*everything))
    return {run.event.event_type: run for run in runs}


@pytest.fixture(scope="module")
def as_recorded(history: dict[str, RecordedRun]) -> dict[str, ReplayedRun]:
    return replayed(history, Job((str(RECORDED),)))


@pytest.fixture(scope="module")
def as_changed(history: dict[str, RecordedRun]) -> dict[str, ReplayedRun]:
    return replayed(history, Job((str(CHANGED),)))


def replayed(history: dict[str, RecordedRun], job: Job) -> dict[str, ReplayedRun]:
    runs = [run for name, run in history.items() if name != "child"]
    done = asyncio.run(replay_all(job, runs))
    assert [one.id for one in done] == [run.id for run in runs]
    return {run.event.event_type: one for run, one in zip(runs, done, strict=True)}


def test_signals_are_no_runs(history: dict[str, RecordedRun]) -> None:
    assert history.keys() == {*TYPES, "child"}


def test_code_that_is_the_same_does_the_same(
    history: dict[str, RecordedRun], as_recorded: dict[str, ReplayedRun]
) -> None:
    for name, one in as_recorded.items():
        assert (one.asks, one.unreached, one.changed, one.effect) == ((), (), (), None), name
        ends = {"parked": End.STANDS, "group": End.RAISED}
        assert one.end is ends.get(name.partition(".")[0], End.RETURNED)
        assert one.result == history[name].event.result


def test_what_a_parked_run_waits_for_is_named(as_recorded: dict[str, ReplayedRun]) -> None:
    assert as_recorded["parked.same"].stands == (NamedStep("wait_for", "never"),)


def test_time_that_code_only_waits_for_passes_at_once_and_every_clock_tells_it(
    history: dict[str, RecordedRun], as_changed: dict[str, ReplayedRun]
) -> None:
    result = json.loads(as_changed["simple"].result or b"null")
    assert abs(result["at"] - 25 - history["simple"].started_at_us / 1e6) < 2


def test_in_another_world_clock_chance_and_the_order_of_sets_are_others(
    history: dict[str, RecordedRun], as_changed: dict[str, ReplayedRun]
) -> None:
    here = json.loads(as_changed["simple"].result or b"null")
    later = replayed({"simple": history["simple"]}, Job((str(CHANGED),), LATER))["simple"]
    there = json.loads(later.result or b"null")
    assert round((there["at"] - here["at"]) / 86_400) == 400
    assert there["chance"] != here["chance"]
    assert sorted(there["order"]) == sorted(here["order"])
    assert there["order"] != here["order"]


def test_only_names_count_and_no_order_until_a_step_is_new(as_changed: dict[str, ReplayedRun]) -> None:
    assert as_changed["plain"].end is End.BEGINS
    assert as_changed["plain"].asks == (Asked("step", "double[3]", "[3]"),)
    assert as_changed["plain"].unreached == ()


def test_other_arguments_another_payload_and_a_step_that_is_gone_are_named(as_changed: dict[str, ReplayedRun]) -> None:
    order = as_changed["order"]
    assert (order.end, order.result) == (End.RETURNED, b'{"done":true}')
    assert order.unreached == (NamedStep("step", "reserve"),)
    assert order.changed == (
        ChangedArguments("step", "charge", '[{"number":2}]', '[{"number":3}]'),
        ChangedArguments("send", "child", '{"number":1}', '{"number":7}'),
    )


@pytest.mark.parametrize(
    ("name", "end", "said"),
    [
        ("same", End.STANDS, {"stands": (NamedStep("wait_for", "never"),)}),
        ("inserted", End.BEGINS, {"asks": (Asked("step", "more", '[5,{"number":6}]'),)}),
        ("vanished", End.STANDS, {"unreached": (NamedStep("step", "double"),)}),
        ("arguments", End.STANDS, {"changed": (ChangedArguments("step", "double", "[1]", "[2]"),)}),
        ("kind", End.BEGINS, {"asks": (Asked("call", "double", "{}", "step"),)}),
        ("raises", End.RAISED, {"signature": "LookupError: N", "unreached": (NamedStep("wait_for", "never"),)}),
    ],
)
def test_a_parked_run_is_replayed_to_where_it_stands(
    as_changed: dict[str, ReplayedRun], name: str, end: End, said: dict[str, Any]
) -> None:
    one = as_changed[f"parked.{name}"]
    assert one.end is end
    assert {field: getattr(one, field) for field in said} == said


@pytest.mark.parametrize(
    ("name", "line", "what"),
    [
        ("connect", "one.connect(", "a connection"),
        ("stream", "asyncio.open_connection(", "a connection"),
        ("name", "getaddrinfo(", "a name looked up"),
        ("thread", "write_text(", "a file opened for writing"),
        ("remove", "os.unlink(", "a file removed"),
        ("process", "subprocess.run(", "a process started"),
        ("database", "sqlite3.connect(", "a database opened"),
        ("library", "ctypes.CDLL(", "a function called by ctypes"),
    ],
)
def test_an_effect_outside_of_steps_is_refused_and_said_with_its_line(
    as_changed: dict[str, ReplayedRun], name: str, line: str, what: str
) -> None:
    one = as_changed[f"effect.{name}"]
    number = next(at for at, text in enumerate(CHANGED.read_text().splitlines(), start=1) if line in text)
    assert one.end is End.EFFECT
    assert isinstance(one.effect, OutsideEffect)
    assert one.effect.what.startswith(what)
    assert one.effect.place == f"{CHANGED}:{number}"


def test_nobody_has_connected(canary: socket.socket, as_changed: dict[str, ReplayedRun]) -> None:
    assert as_changed["effect.connect"].end is End.EFFECT
    with pytest.raises(BlockingIOError):
        canary.accept()


def test_a_recorded_failure_is_heard_before_anything_new_begins(as_changed: dict[str, ReplayedRun]) -> None:
    assert as_changed["group"].end is End.RAISED
    assert "ValueError: no" in (as_changed["group"].error or "")


def test_the_step_is_named_whose_recorded_failure_ends_a_run(
    as_recorded: dict[str, ReplayedRun], as_changed: dict[str, ReplayedRun]
) -> None:
    """Also out of a group of errors; an error of the code's own names none."""
    for one in (as_recorded["group"], as_changed["group"]):
        assert one.failed_steps == (NamedStep("step", "refuse"),)
    assert as_changed["parked.raises"].failed_steps == ()


def test_a_type_that_nobody_handles_any_more_is_named(as_changed: dict[str, ReplayedRun]) -> None:
    assert as_changed["removed"].end is End.NO_HANDLER


def test_code_that_ends_its_process_takes_no_other_run_with_it(as_changed: dict[str, ReplayedRun]) -> None:
    assert as_changed["deadly"].end is End.UNFINISHED
    assert "exit status 3" in (as_changed["deadly"].error or "")


def test_an_effect_of_the_import_is_said_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "importing.py"
    file.write_text("import socket\n\nsocket.create_connection(('127.0.0.1', 9))\n")
    with pytest.raises(HandlersNotLoaded, match="has an effect: a name looked up") as refused:
        asyncio.run(replay_all(Job((str(file),)), []))
    assert refused.value.effect is not None
    assert refused.value.effect.place == f"{file}:3"
