"""Events that kill the process: convicted when it is proven, while everything else goes on."""

import http.client
from pathlib import Path
from typing import Any

import pytest

from replayforge.crashpoints import EXIT_CODE
from tests.support.daemon_process import DaemonProcess, until
from tests.support.sink import QUICK, SINK_HANDLERS, started

LIVES_MAX = 12


def send(daemon: DaemonProcess, event_type: str, key: str, payload: dict[str, Any] | None = None) -> None:
    body = {"workflow_id": "w", "event_type": event_type, "idempotency_key": key, "payload": payload or {}}
    assert daemon.http.post("/api/events", body).status == 201


def restart_until_converged(daemon: DaemonProcess) -> int:
    """Start the daemon again whenever it dies, until everything has ended; return how often it died."""
    for deaths in range(1, LIVES_MAX + 1):
        assert daemon.wait() == EXIT_CODE
        daemon.start()
        try:
            until(daemon.converged, 20, "convergence")
        except (OSError, http.client.HTTPException, AssertionError):
            continue
        return deaths
    raise AssertionError(f"the pill killed the daemon {LIVES_MAX} times and was not buried")


def pill_and_rest(daemon: DaemonProcess) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    events = daemon.http.get("/api/events?limit=200")["items"]
    pill = next(event for event in events if event["idempotency_key"] == "pill")
    return daemon.http.get(f"/api/events/{pill['id']}"), [event for event in events if event["id"] != pill["id"]]


@pytest.mark.parametrize("place", ["first", "last"])
def test_pill_is_buried_and_the_rest_succeeds(tmp_path: Path, place: str) -> None:
    """An event that kills the process each time is dead-lettered as poison; everything beside it succeeds."""
    settings = {**QUICK, "workers.count": 4}
    with DaemonProcess(tmp_path, SINK_HANDLERS, ["--simulate-crashes"], settings) as daemon:
        daemon.start()
        rest = [f"slow-{number}" for number in range(6)]
        rest.insert({"first": 0, "last": 6}[place], "pill")
        try:
            for key in rest:
                send(daemon, "slow.one", key, {"_force_exit": True} if key == "pill" else {"seconds": 0.1})
        except (OSError, http.client.HTTPException):
            assert place != "last"
        deaths = restart_until_converged(daemon)
        pill, others = pill_and_rest(daemon)
        assert (pill["status"], pill["reason"]) == ("dead_lettered", "poison")
        assert deaths >= 4
        assert {event["status"] for event in others} <= {"succeeded"}
        assert {attempt["outcome"] for attempt in pill["attempts"]} == {"crashed"}
        assert daemon.terminate() == 0


def test_pill_beside_a_long_handler(tmp_path: Path) -> None:
    """A pill is convicted although a handler that outlasts its solo time runs beside it, and that one is spared."""
    settings = {**QUICK, "workers.count": 4}
    with DaemonProcess(tmp_path, SINK_HANDLERS, ["--simulate-crashes"], settings) as daemon:
        daemon.start()
        send(daemon, "slow.long", "long", {"seconds": 4})
        until(lambda: started(tmp_path), what="the long handler to be started")
        send(daemon, "slow.one", "pill", {"_force_exit": True})
        restart_until_converged(daemon)
        pill, (long,) = pill_and_rest(daemon)
        assert (pill["status"], pill["reason"]) == ("dead_lettered", "poison")
        assert long["status"] == "succeeded"


def test_a_dead_pill_can_be_replayed(tmp_path: Path) -> None:
    """A replay of a buried pill clears it: it takes a death that makes it a suspect again, and three alone."""
    with DaemonProcess(tmp_path, SINK_HANDLERS, ["--simulate-crashes"], dict(QUICK)) as daemon:
        daemon.start()
        send(daemon, "slow.one", "pill", {"_force_exit": True})
        assert restart_until_converged(daemon) >= 4
        pill, _ = pill_and_rest(daemon)
        daemon.http.post(f"/api/deadletters/{pill['id']}/replay", {"reason": "once more"})
        assert restart_until_converged(daemon) >= 4
        again, _ = pill_and_rest(daemon)
        assert (again["status"], again["run"]) == ("dead_lettered", 2)
        assert again["suspicion"]["standing"] == "free"
        assert all(len(run["attempts"]) >= 4 for run in again["runs"])
        daemon.terminate()
        daemon.flags = []  # without simulated crashes its flag is plain data
        daemon.start()
        daemon.http.post(f"/api/deadletters/{pill['id']}/replay")
        until(daemon.converged)
        assert pill_and_rest(daemon)[0]["status"] == "succeeded"
