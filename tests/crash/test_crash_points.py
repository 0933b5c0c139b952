"""The process dies at every named point of the road of an event; what was acknowledged ends exactly once."""

import http.client
import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from replayforge.crashpoints import EXIT_CODE, POINTS
from tests.support.daemon_process import Answer, DaemonProcess, until
from tests.support.sink import QUICK, SINK_HANDLERS, ended

# A dead letter that is replayed, a failed attempt, and a handler at its limit are what the last points need.
EVENTS: list[dict[str, Any]] = [
    *({"event_type": "quick.one", "idempotency_key": f"quick-{number}"} for number in range(10)),
    *({"event_type": "narrow.one", "idempotency_key": f"narrow-{number}"} for number in range(5)),
    {"event_type": "flaky.one", "idempotency_key": "flaky", "payload": {"failures": 1}},
    {"event_type": "doomed.one", "idempotency_key": "doomed"},
]
LANE = {"match": "narrow.*", "concurrency": 5}

# Those of workflows are in test_step_crashes.py, that of schedules in test_schedules.py.
OF_WORKFLOWS = ("step.", "child.", "park.", "signal.", "wake.")


@pytest.mark.parametrize(
    ("point", "times"),
    [
        *((point, 1) for point in POINTS if not point.startswith((*OF_WORKFLOWS, "schedule.", "alert."))),
        ("log.appended", 4),
        ("settle.committed", 3),
    ],
)
def test_death_at_a_point(tmp_path: Path, point: str, times: int) -> None:
    """A daemon that dies at the point, restarted without it, brings everything acknowledged to one end."""
    with DaemonProcess(tmp_path, SINK_HANDLERS, settings={**QUICK, "lanes": [LANE]}) as daemon:
        daemon.start("--simulate-crashes", "--crash-at", f"{point}:{times}")
        acknowledged = send_until_it_dies(daemon)
        assert daemon.wait() == EXIT_CODE
        daemon.start()
        until(daemon.converged, 20, "convergence")
        for body in EVENTS:  # as clients do who saw no answer
            acknowledged.add(daemon.http.post("/api/events", complete(body)).json()["id"])
        report = until(daemon.converged, 20, "convergence")
        judge(daemon, tmp_path, acknowledged, report)
        assert daemon.terminate() == 0
        checked = daemon.run_command("check", "--data-dir", str(daemon.data_dir))
        assert checked.code == 0, checked


def complete(body: dict[str, Any]) -> dict[str, Any]:
    return {"workflow_id": "w", "payload": {}, **body}


def send_until_it_dies(daemon: DaemonProcess) -> set[str]:
    """Send events one by one and replay the dead letter, until the daemon is gone; return what was acknowledged."""
    acknowledged: set[str] = set()
    extra = 0
    try:
        for body in EVENTS:
            acknowledged.add(accepted(daemon.http.post("/api/events", complete(body))))
        while True:
            extra += 1
            assert extra < 500, "the daemon does not die"
            for letter in daemon.http.get("/api/deadletters")["items"]:
                daemon.http.post(f"/api/deadletters/{letter['id']}/replay")
            acknowledged.add(accepted(daemon.http.post("/api/events", complete({"event_type": "flaky.more"}))))
    except (OSError, http.client.HTTPException, json.JSONDecodeError):
        return acknowledged


def accepted(answer: Answer) -> str:
    assert answer.status in (200, 201), answer
    return str(answer.json()["id"])


def judge(daemon: DaemonProcess, directory: Path, acknowledged: set[str], report: dict[str, Any]) -> None:
    """Hold acknowledgements, effects and the store against each other."""
    with closing(sqlite3.connect(f"file:{daemon.store_path}?mode=ro", uri=True)) as store:
        states = dict(store.execute("SELECT id, state FROM events").fetchall())
        types = dict(store.execute("SELECT id, event_type FROM events").fetchall())
        ends = Counter(
            store.execute(
                "SELECT e.id, a.run FROM attempts a JOIN events e ON e.seq = a.event_seq WHERE a.ended_run = 1"
            ).fetchall()
        )
    assert acknowledged - states.keys() == set(), "acknowledged and lost"
    wanted = {event_id: "dead_lettered" if types[event_id] == "doomed.one" else "succeeded" for event_id in states}
    assert states == wanted
    assert {pair: count for pair, count in ends.items() if count != 1} == {}
    assert {event_id for event_id, _ in ends} == states.keys()
    succeeded = {event_id for event_id, state in states.items() if state == "succeeded"}
    assert succeeded - ended(directory).keys() == set()
    assert report["ledger"]["lost"] == 0
    assert report["ledger"]["accepted"] == len(states)


def test_points_are_plain_names_while_simulation_is_off(tmp_path: Path) -> None:
    """Without --simulate-crashes an armed point does nothing."""
    with DaemonProcess(tmp_path, SINK_HANDLERS, settings=QUICK) as daemon:
        daemon.start("--crash-at", "log.appended")
        assert accepted(daemon.http.post("/api/events", complete({"event_type": "quick.one"})))
        until(daemon.converged)
        assert daemon.terminate() == 0
