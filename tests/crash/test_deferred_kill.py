"""kill -9 while events wait for their handlers: none is lost, none is stuck, and each ends once."""

import random
from pathlib import Path

from tests.support.daemon_process import DaemonProcess, until
from tests.support.sink import QUICK, SINK_HANDLERS, ended, started

EVENTS = 100
KILLS = 1
REASON = {"reason": "a test"}


def send(daemon: DaemonProcess, event_type: str, count: int, name: str, **payload: object) -> set[str]:
    """Send events in one request and return their ids."""
    events = [
        {
            "workflow_id": "w",
            "event_type": event_type,
            "idempotency_key": f"{name}-{number}",
            "payload": {"seconds": 0.005, **payload},
        }
        for number in range(count)
    ]
    answer = daemon.http.post("/api/events/bulk", events)
    assert answer.status == 200, answer
    return {item["id"] for item in answer.json()["items"]}


def waiting(daemon: DaemonProcess, pattern: str) -> int:
    items = daemon.http.get("/api/handlers")["items"]
    return int(next(item["waiting"] for item in items if item["pattern"] == pattern))


def test_kills_between_pause_and_resume(tmp_path: Path) -> None:
    """Killed while events wait for a paused handler and for one at its limit, and again while they are recalled, the
    daemon brings every event to its end exactly once."""
    rng = random.Random()
    with DaemonProcess(tmp_path, SINK_HANDLERS, settings=QUICK) as daemon:
        daemon.start()
        assert daemon.http.post("/api/handlers/slow.*/pause", REASON).status == 200
        ids = send(daemon, "slow.one", EVENTS, "slow") | send(daemon, "narrow.one", EVENTS, "narrow")
        until(lambda: waiting(daemon, "slow.*") == EVENTS, 20, "all to wait")
        daemon.kill()
        daemon.start()
        assert waiting(daemon, "slow.*") == EVENTS
        assert daemon.http.post("/api/handlers/slow.*/resume").status == 200
        for _ in range(KILLS):
            goal = min(len(ids), len(ended(tmp_path)) + rng.randrange(20, 60))
            until(lambda goal=goal: len(ended(tmp_path)) >= goal, 30, "some to end")  # type: ignore[misc]
            daemon.kill()
            daemon.start()
        report = until(daemon.converged, 60, "convergence")
        said = {name: count for name, count in report["ledger"].items() if count and name != "copies"}
        assert said == {"accepted": len(ids), "succeeded": len(ids)}
        assert ended(tmp_path).keys() == started(tmp_path).keys() == ids
        assert daemon.terminate() == 0
        checked = daemon.run_command("check", "--data-dir", str(daemon.data_dir))
        assert checked.code == 0, checked
