"""kill -9 of a daemon between an event of a schedule and the place that is moved after it."""

from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from replayforge.crashpoints import EXIT_CODE
from tests.support.daemon_process import DaemonProcess, until
from tests.support.sink import QUICK, SINK_HANDLERS, ended

TICK = {"name": "tick", "every_seconds": 1, "event_type": "quick.one", "workflow": "ticks", "missed": "all"}


def test_a_death_before_the_place_moves_makes_every_slot_once(tmp_path: Path) -> None:
    """Each slot has one event, that of the death as well, and none is left out."""
    with DaemonProcess(tmp_path, SINK_HANDLERS, settings={**QUICK, "schedules": [TICK]}) as daemon:
        daemon.start("--simulate-crashes", "--crash-at", "schedule.appended")
        assert daemon.wait() == EXIT_CODE
        daemon.start()
        until(lambda: len(ended(tmp_path)) >= 3, 20, "three slots to have run")
        daemon.http.post("/api/schedules/tick/pause", {"reason": "enough"})
        until(daemon.converged, 20, "convergence")
        items = daemon.http.get("/api/events?workflow_id=ticks&limit=100")["items"]
        assert {one["id"] for one in items} == ended(tmp_path).keys()
        assert {one["status"] for one in items} == {"succeeded"}
        slots = sorted(datetime.fromisoformat(one["idempotency_key"].removeprefix("schedule:tick:")) for one in items)
        assert {later - earlier for earlier, later in pairwise(slots)} == {timedelta(seconds=1)}
        assert daemon.terminate() == 0
        assert daemon.run_command("check", "--data-dir", str(daemon.data_dir)).code == 0
