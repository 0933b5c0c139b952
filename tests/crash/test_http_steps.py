"""Endpoints with steps in two languages, without an SDK: daemons are killed on the way, and each step is done once."""

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.daemon_process import DaemonProcess

DATA = Path(__file__).parents[1] / "data"
ENDPOINTS = {
    "python": [sys.executable, str(DATA / "steps_endpoint.py")],
    "node": ["node", str(DATA / "steps_endpoint.mjs")],
}


@contextmanager
def serving(language: str, effects: Path) -> Iterator[str]:
    """Run an endpoint and give its URL."""
    command = [*ENDPOINTS[language], str(effects)]
    assert shutil.which(command[0]), (
        f"{command[0]} is not on PATH: this test needs it to run an endpoint in {language}."
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/hook"
        finally:
            process.kill()


@pytest.mark.parametrize("language", ENDPOINTS)
def test_an_endpoint_in_any_language_takes_each_step_once(tmp_path: Path, language: str) -> None:
    """Steps, a retry, a checkpoint, a sleep, a signal, a call and a child go through a kill after a step and one while
    it is parked."""
    effects = tmp_path / "effects"
    with serving(language, effects) as url, DaemonProcess(tmp_path) as daemon:
        daemon.settings = {
            "handlers.http": [{"match": "*", "url": url, "allow_private": True, "steps": True}],
            "handlers.signals": ["parcel.scanned"],
            "retry.base_seconds": 0.01,
            "workers.solo_seconds": 0.1,
            "workers.control_seconds": 0.1,
        }
        daemon.start("--simulate-crashes", "--crash-at", "step.committed:1")
        event_id = daemon.http.send("order.placed")
        assert daemon.wait() == 137
        daemon.start()
        daemon.http.reaches(event_id, "waiting")
        daemon.kill()
        daemon.start()
        assert daemon.http.event(event_id)["status"] == "waiting"
        daemon.http.send("parcel.scanned", {"number": 17})
        event = daemon.http.reaches(event_id, "succeeded")
    assert event["result"] == {"reserve": "reserve done", "charge": "charge done", "bill": "made", "parcel": 17}
    lines = effects.read_text().splitlines()
    assert Counter(line.partition(" ")[0] for line in lines) == {"reserve": 1, "charge": 2}
    assert len({line for line in lines if line.startswith("charge")}) == 1
