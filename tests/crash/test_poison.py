"""Events that kill the process: convicted when it is proven, while everything else goes on."""

import http.client
import random
import signal
import threading
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


def under_suspicion(daemon: DaemonProcess) -> list[dict[str, Any]]:
    """Return what deaths say of each event that they say anything of."""
    events = daemon.http.get("/api/events?limit=200")["items"]
    found = (daemon.http.get(f"/api/events/{event['id']}")["suspicion"] for event in events)
    return [one for one in found if one is not None]


def all_states(daemon: DaemonProcess) -> set[tuple[str, str | None]]:
    return {(event["status"], event["reason"]) for event in daemon.http.get("/api/events?limit=200")["items"]}


def test_slow_pill_beside_traffic_is_convicted(tmp_path: Path) -> None:
    """An event that kills the process after longer than its first time alone is convicted, and nobody beside it is."""
    settings = {**QUICK, "workers.count": 4}
    with DaemonProcess(tmp_path, SINK_HANDLERS, settings=settings) as daemon:
        daemon.start()
        for number in range(12):
            send(daemon, "slow.one", f"slow-{number}", {"seconds": 0.3})
        send(daemon, "deadly.slow", "pill", {"seconds": 0.5})
        restart_until_converged(daemon)
        pill, others = pill_and_rest(daemon)
        assert (pill["status"], pill["reason"]) == ("dead_lettered", "poison")
        assert len(pill["suspicion"]["died_alone_after_seconds"]) >= 3
        assert {event["status"] for event in others} == {"succeeded"}


def test_deploy_that_is_killed_makes_nobody_a_suspect(tmp_path: Path) -> None:
    """What a draining daemon leaves is interrupted, though it was killed before it had ended; three times in a row."""
    with DaemonProcess(tmp_path, SINK_HANDLERS, settings={**QUICK, "workers.count": 4}) as daemon:
        daemon.start()
        for number in range(3):
            send(daemon, "gated.one", f"event-{number}")
        for _ in range(3):
            until(lambda: busy(daemon) == 3, what="all to run")
            daemon.signal(signal.SIGTERM)
            until(lambda: daemon.http.request("GET", "/health/ready").status == 503, what="draining")
            daemon.kill()
            daemon.start()
        assert under_suspicion(daemon) == []
        (tmp_path / "gate").touch()
        until(daemon.converged, what="convergence")
        for event in daemon.http.get("/api/events")["items"]:
            outcomes = [one["outcome"] for one in daemon.http.get(f"/api/events/{event['id']}")["attempts"]]
            assert outcomes == ["succeeded"] + ["interrupted"] * 3


def busy(daemon: DaemonProcess) -> int:
    return sum(worker["status"] == "busy" for worker in daemon.http.get("/api/workers")["items"])


def test_pause_charges_nobody(tmp_path: Path) -> None:
    """A daemon that was stopped for a while and goes on has killed nothing, and has nobody under suspicion."""
    with DaemonProcess(tmp_path, SINK_HANDLERS, settings=QUICK) as daemon:
        daemon.start()
        send(daemon, "slow.one", "event", {"seconds": 1})
        until(lambda: busy(daemon) == 1)
        daemon.signal(signal.SIGSTOP)
        threading.Event().wait(0.5)
        daemon.signal(signal.SIGCONT)
        until(daemon.converged)
        assert under_suspicion(daemon) == []
        assert all_states(daemon) == {("succeeded", None)}


def kill_at_random(daemon: DaemonProcess, kills: int, most_seconds: float, rng: random.Random) -> None:
    """Kill the daemon and start it anew, again and again, each time after another while."""
    pause = threading.Event()
    for _ in range(kills):
        pause.wait(rng.uniform(0.05, most_seconds))
        daemon.kill()
        daemon.start()


def test_random_kills_convict_nobody(tmp_path: Path) -> None:
    """Kills under load, each after another while, convict nobody, and all that was sent succeeds."""
    with DaemonProcess(tmp_path, SINK_HANDLERS, settings={**QUICK, "workers.count": 8}) as daemon:
        daemon.start()
        for number in range(40):
            send(daemon, "slow.one", f"slow-{number}", {"seconds": 0.1 + number / 40})
        kill_at_random(daemon, 6, 1.5, random.Random(1))
        until(daemon.converged, 60, "convergence")
        assert all_states(daemon) == {("succeeded", None)}


@pytest.mark.soak
@pytest.mark.parametrize(
    ("kills", "most_seconds", "handler_seconds"), [(169, 3.0, 0.5), (12, 20.0, 12.0)], ids=["under load", "12 s"]
)
def test_many_kills_convict_nobody(tmp_path: Path, kills: int, most_seconds: float, handler_seconds: float) -> None:
    """With the settings as they are shipped, 169 kills under load convict nobody, nor do kills of 12 s handlers."""
    with DaemonProcess(tmp_path, SINK_HANDLERS) as daemon:
        daemon.start()
        stop, sent = threading.Event(), 0

        def feed() -> None:
            nonlocal sent
            while not stop.wait(0.1):
                try:
                    client = daemon.client()
                    kind = {"workflow_id": "w", "event_type": "slow.one", "payload": {"seconds": handler_seconds}}
                    sent += client.post("/api/events", {**kind, "idempotency_key": f"key-{sent}"}).status in (200, 201)
                    client.close()
                except (OSError, http.client.HTTPException, ValueError):
                    continue

        feeder = threading.Thread(target=feed, daemon=True)
        if handler_seconds < 1:
            feeder.start()
        else:
            for number in range(8):
                send(daemon, "slow.one", f"slow-{number}", {"seconds": handler_seconds})
        kill_at_random(daemon, kills, most_seconds, random.Random(1))
        stop.set()
        until(daemon.converged, 600, "convergence")
        ledger = daemon.http.get("/api/convergence")["ledger"]
        print(kills, "kills", ledger)  # noqa: T201
        assert (ledger["dead_lettered"], ledger["open"], ledger["lost"]) == (0, 0, 0)
