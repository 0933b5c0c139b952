"""Backups of a daemon that is killed while it works and while it is copied, judged by what clients were told."""

import random
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.crash.test_kill import Load
from tests.support.daemon_process import DaemonProcess, until
from tests.support.sink import QUICK, SINK_HANDLERS

SETTINGS = {**QUICK, "workers.count": 32}


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.soak)])
def test_backup_under_kills(tmp_path: Path, rounds: int) -> None:
    """Backed up under load while it is killed and started again, a daemon comes back elsewhere with everything that was
    acknowledged before; log and store agree before anything runs, and after all of it has ended."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201
    rng, acknowledged = random.Random(seed), tmp_path / "acknowledged.txt"
    with DaemonProcess(tmp_path / "original", SINK_HANDLERS, settings=SETTINGS) as daemon:
        daemon.start()
        for number in range(rounds):
            load = RoundLoad(daemon, acknowledged, seed)
            load.number = number
            load.start()
            try:
                known = len(acknowledged.read_text().split())
                until(lambda known=known: len(acknowledged.read_text().split()) > known + 20)  # type: ignore[misc]
                before = set(acknowledged.read_text().split())
                with killed(daemon, rng):
                    done = daemon.run_command("backup", str(tmp_path / f"backup-{number}"), *of(daemon))
            finally:
                load.stop()
            assert done.code == 0, done
            judge(tmp_path, number, before)


class RoundLoad(Load):
    """A load with keys of its own in each round."""

    number = 0

    def event(self, key: str, rng: random.Random) -> dict[str, object]:
        return super().event(f"{self.number}-{key}", rng)


def of(daemon: DaemonProcess) -> tuple[str, str]:
    return "--data-dir", str(daemon.data_dir)


@contextmanager
def killed(daemon: DaemonProcess, rng: random.Random) -> Iterator[None]:
    """Kill the daemon at a random moment of what is done inside, and start it again."""
    delay, ended = rng.uniform(0, 0.8), threading.Event()

    def kill() -> None:
        ended.wait(delay)
        daemon.kill()
        daemon.start()

    killing = threading.Thread(target=kill)
    killing.start()
    try:
        yield
    finally:
        killing.join(60)


def judge(directory: Path, number: int, before: set[str]) -> None:
    """Restore a backup, check it, run it to its end, check it again, and look for every event that must be there."""
    with DaemonProcess(directory / f"restored-{number}", SINK_HANDLERS, settings=SETTINGS) as restored:
        restored.directory.mkdir()
        done = restored.run_command("restore", str(directory / f"backup-{number}"), *of(restored))
        assert done.code == 0, done
        assert restored.run_command("check", *of(restored)).code == 0
        restored.start()
        until(restored.converged, 300, "convergence")
        assert restored.terminate() == 0
        with closing(sqlite3.connect(restored.store_path)) as store:
            states = dict(store.execute("SELECT id, state FROM events"))
        assert {states.get(event_id) for event_id in before} <= {"succeeded", "dead_lettered"}
        assert restored.run_command("check", *of(restored)).code == 0
