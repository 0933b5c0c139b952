"""Events that kill the process: convicted when it is proven, while everything else goes on."""

import http.client
import random
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from replayforge.crashpoints import EXIT_CODE
from replayforge.domain.poison import AGREEING_DEATHS
from tests.support.daemon_process import DaemonProcess, until
from tests.support.sink import QUICK, SINK_HANDLERS

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
            until(daemon.converged, 30, "convergence")
        except (OSError, http.client.HTTPException, AssertionError):
            continue
        return deaths
    raise AssertionError(f"the pill killed the daemon {LIVES_MAX} times and was not buried")


def test_pill_is_buried_and_the_rest_succeeds(tmp_path: Path) -> None:
    """An event that kills the process after longer than its first time alone is dead-lettered as poison; what came
    before and after it succeeds, and so does a handler that outlasts every time alone beside it."""
    settings = QUICK | {"workers.count": 4, "workers.solo_seconds": 0.1, "workers.control_seconds": 0.3}
    with DaemonProcess(tmp_path, SINK_HANDLERS, settings=settings) as daemon:
        daemon.start()
        kinds = [("slow.one", "first", 0.1), ("slow.one", "long", 0.8), ("deadly.one", "pill", 0.15)]
        kinds += [("slow.one", f"later {number}", 0.1) for number in range(3)]
        events = [
            {"workflow_id": "w", "event_type": kind, "idempotency_key": key, "payload": {"seconds": seconds}}
            for kind, key, seconds in kinds
        ]
        assert daemon.http.post("/api/events/bulk", events).status == 200
        assert restart_until_converged(daemon) >= AGREEING_DEATHS
        items = {event["idempotency_key"]: event for event in daemon.http.get("/api/events")["items"]}
        pill = daemon.http.get(f"/api/events/{items.pop('pill')['id']}")
        assert (pill["status"], pill["reason"]) == ("dead_lettered", "poison")
        assert len(pill["suspicion"]["died_alone_after_seconds"]) >= AGREEING_DEATHS
        assert {attempt["outcome"] for attempt in pill["attempts"]} == {"crashed"}
        assert {key: event["status"] for key, event in items.items()} == dict.fromkeys(items, "succeeded")


def under_suspicion(daemon: DaemonProcess) -> list[dict[str, Any]]:
    """Return what deaths say of each event that they say anything of."""
    events = daemon.http.get("/api/events?limit=200")["items"]
    found = (daemon.http.get(f"/api/events/{event['id']}")["suspicion"] for event in events)
    return [one for one in found if one is not None]


def all_states(daemon: DaemonProcess) -> set[tuple[str, str | None]]:
    return {(event["status"], event["reason"]) for event in daemon.http.get("/api/events?limit=200")["items"]}


def busy(daemon: DaemonProcess) -> int:
    return sum(worker["status"] == "busy" for worker in daemon.http.get("/api/workers")["items"])


def kill_at_random(daemon: DaemonProcess, kills: int, most_seconds: float, rng: random.Random) -> None:
    """Kill the daemon and start it anew, again and again, each time after another while."""
    pause = threading.Event()
    for _ in range(kills):
        pause.wait(rng.uniform(0.05, most_seconds))
        daemon.kill()
        daemon.start()


@pytest.mark.slow
def test_pauses_deploys_and_random_kills_convict_nobody(tmp_path: Path) -> None:
    """A daemon that was stopped and goes on has nobody under suspicion, nor has one that was killed while it drained,
    whose events were interrupted; kills under load, each after another while, convict nobody."""
    with DaemonProcess(tmp_path, SINK_HANDLERS, settings={**QUICK, "workers.count": 8}) as daemon:
        daemon.start()
        for number in range(3):
            send(daemon, "gated.one", f"gated-{number}")
        until(lambda: busy(daemon) == 3, what="all to run")
        daemon.signal(signal.SIGSTOP)
        threading.Event().wait(0.3)
        daemon.signal(signal.SIGCONT)
        assert busy(daemon) == 3
        assert under_suspicion(daemon) == []
        daemon.signal(signal.SIGTERM)
        until(lambda: daemon.http.request("GET", "/health/ready").status == 503, what="draining")
        daemon.kill()
        daemon.start()
        assert under_suspicion(daemon) == []
        (tmp_path / "gate").touch()
        until(daemon.converged, what="convergence")
        for event in daemon.http.get("/api/events")["items"]:
            outcomes = [one["outcome"] for one in daemon.http.get(f"/api/events/{event['id']}")["attempts"]]
            assert outcomes == ["succeeded", "interrupted"]
        for number in range(12):
            send(daemon, "slow.one", f"slow-{number}", {"seconds": 0.1 + number / 24})
        kill_at_random(daemon, 2, 0.6, random.Random(1))
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
