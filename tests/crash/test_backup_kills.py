"""Backups of a daemon that is killed while it works and while it is copied, judged by what clients were told."""

import random
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from replayforge.whole_lines import whole_lines
from tests.crash.test_kill import Load
from tests.support.daemon_process import DaemonProcess, until
from tests.support.postgres_server import binaries, require_postgres, shared_server
from tests.support.sink import QUICK, SINK_HANDLERS

ENDED = "SELECT id, updated_at_us FROM {}.events WHERE state IN ('succeeded', 'dead_lettered')"
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
                known = len(whole_lines(acknowledged))
                until(lambda known=known: len(whole_lines(acknowledged)) > known + 20)  # type: ignore[misc]
                before = set(whole_lines(acknowledged))
                with killed(daemon, rng):
                    done = daemon.run_command("backup", str(tmp_path / f"backup-{number}"), *of(daemon))
            finally:
                load.stop()
            assert done.code == 0, done
            judge(tmp_path, number, before)


@pytest.mark.slow
def test_backup_of_a_daemon_on_postgres(tmp_path: Path) -> None:
    """As the guide says, under load: pg_dump, then the backup of the log. The pair, adopted, has all that was
    acknowledged before, and what had ended before is not run again."""
    require_postgres()
    server, acknowledged = shared_server(), tmp_path / "acknowledged.txt"
    url = server.new_schema()
    schema, settings = url.partition("search_path=")[2], SETTINGS | {"store.url": url}
    with DaemonProcess(tmp_path / "original", SINK_HANDLERS, settings=settings) as daemon:
        daemon.start()
        load = Load(daemon, acknowledged, 1)
        load.start()
        try:
            until(lambda: len(whole_lines(acknowledged)) > 100)
            ended = set(server.query(ENDED.format(schema)))
            dump = postgres_tool("pg_dump", "-n", schema, server.url)
            before = set(whole_lines(acknowledged))
            done = daemon.run_command("backup", str(tmp_path / "backup"), *of(daemon))
        finally:
            load.stop()
        assert done.code == 0, done
    server.query(f"DROP SCHEMA {schema} CASCADE")
    postgres_tool("psql", "-q", "-v", "ON_ERROR_STOP=1", server.url, given=dump)
    with DaemonProcess(tmp_path / "restored", SINK_HANDLERS, settings=settings) as restored:
        restored.directory.mkdir()
        done = restored.run_command("restore", str(tmp_path / "backup"), *of(restored))
        assert done.code == 0, done
        restored.start("--adopt-store")
        until(restored.converged, 300, "convergence")
        assert restored.terminate() == 0
        came_to = set(server.query(ENDED.format(schema)))
        assert before <= {event_id for event_id, _ in came_to}
        assert ended
        assert ended <= came_to
        assert restored.run_command("check", *of(restored)).code == 0


def postgres_tool(name: str, *arguments: str, given: str = "") -> str:
    """Run a program of PostgreSQL's own and return what it prints."""
    command = [str(binaries() / name), *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout


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
