"""Two daemons on one PostgreSQL tell of alerts, and whichever has just told is killed, again and again."""

import json
import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from replayforge.whole_lines import whole_lines
from tests.support.daemon_process import DaemonProcess, until
from tests.support.fleet import SHORT, node_of
from tests.support.postgres_server import require_postgres, shared_server
from tests.support.sink import SINK_HANDLERS

COMMAND = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + chr(10))"
ROUNDS = 4
ALERTS = {"dead": "dead_letters", "new": "new_error_signature"}


def messages(heard: Path) -> list[dict[str, Any]]:
    """Return what the receiver was told, whichever daemon told it."""
    return [json.loads(line) for line in whole_lines(heard)]


@pytest.fixture
def heard(tmp_path: Path) -> Path:
    return tmp_path / "heard.ndjson"


@pytest.fixture
def pair(tmp_path: Path, heard: Path) -> Iterator[list[DaemonProcess]]:
    """Two daemons that tell of the same alerts to the same receiver."""
    require_postgres()
    target = {"command": [sys.executable, "-c", COMMAND, str(heard)]}
    settings = SHORT | {
        "store.url": shared_server().new_schema(), "stream.backend": "embedded",
        "alerts": [{"name": name, "when": when, **target} for name, when in ALERTS.items()],
    }  # fmt: skip
    with ExitStack() as stack:
        yield [
            stack.enter_context(DaemonProcess(tmp_path / name, SINK_HANDLERS, settings=settings)).start()
            for name in ("one", "two")
        ]


@pytest.mark.slow
@pytest.mark.parametrize("killed_after", ["said", "heard"])
def test_each_alert_is_told_once_whoever_dies(pair: list[DaemonProcess], heard: Path, killed_after: str) -> None:
    """One of two tells that an alert begins, and dies; the other one tells that it ends, and the next time that it
    begins. Killed once it knows that it was heard, nothing is told twice; killed before, a repeat has the same id."""
    nodes = {node_of(daemon): daemon for daemon in pair}
    for number, state in enumerate(["began", "ended"] * ROUNDS):
        before = {one["id"] for one in messages(heard)}
        act = doom if state == "began" else discard
        act(random.choice([daemon for daemon in pair if daemon.running]))
        teller = nodes[until(partial(told, heard, before, state), 60, f"both alerts to be told: {state}")]
        if killed_after == "said":
            until(partial(all_said, teller, state), 30, "it to be written down")
        for daemon in pair:
            if not daemon.running:
                daemon.start()
        teller.kill()
        if number % 4 > 1:  # else the other one is alone until it has told what is next
            teller.start()
    told_of = messages(heard)
    for name in ALERTS:
        first = {one["id"]: one["state"] for one in reversed(told_of) if one["alert"] == name}
        assert [*reversed(first.values())] == ["began", "ended"] * ROUNDS, told_of
        assert len({one.partition(".")[0] for one in first}) == ROUNDS
    if killed_after == "said":
        assert len(told_of) == 2 * ROUNDS * len(ALERTS)
    assert len({one["node"] for one in told_of}) == 2, "both have told"


def doom(daemon: DaemonProcess) -> None:
    daemon.http.reaches(daemon.http.send("doomed.one"), "dead_lettered")


def discard(daemon: DaemonProcess) -> None:
    """Decide about every dead letter there is."""
    for one in daemon.http.get("/api/events?status=dead_lettered")["items"]:
        assert daemon.http.post(f"/api/deadletters/{one['id']}/discard", {"reason": "enough"}).status == 200


def told(heard: Path, before: set[str], state: str) -> str | None:
    """Return which node has told last, once both alerts were told beside what was `before`."""
    new = [one for one in messages(heard) if one["id"] not in before]
    assert {one["state"] for one in new} <= {state}
    return new[-1]["node"] if {one["alert"] for one in new} == ALERTS.keys() else None


def all_said(daemon: DaemonProcess, state: str) -> bool:
    """Tell whether it is written down of every alert that it was told."""
    items = daemon.http.get("/api/alerts")["items"]
    return all({subject["said"] for subject in one["subjects"]} == {state} for one in items)
