"""kill -9 in the middle of a bulk replay, judged from outside: each member gets exactly one further run."""

import json
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from replayforge.whole_lines import whole_lines
from tests.support.daemon_process import DaemonProcess, until
from tests.support.fleet import Fleet
from tests.support.postgres_server import require_postgres, shared_server
from tests.support.redis_server import MISSING, RedisServer, redis_binaries
from tests.support.sink import QUICK

MENDING_HANDLERS = Path(__file__).parents[1] / "data" / "mending_handlers.py"
MEMBERS = 600
KILLS = 3


def runs_begun(*directories: Path) -> dict[str, Counter[int]]:
    """Return event id -> run -> how often its handler was started, as the handlers of each daemon have noted it."""
    runs: dict[str, Counter[int]] = {}
    for path in (directory / "runs.txt" for directory in directories):
        for line in whole_lines(path):
            event_id, run, _ = line.split("\t")
            runs.setdefault(event_id, Counter())[int(run)] += 1
    return runs


def again(*directories: Path) -> int:
    """Return how many events have begun a further run."""
    return sum(run[2] > 0 for run in runs_begun(*directories).values())


def send_dead_letters(daemon: DaemonProcess, count: int = MEMBERS) -> set[str]:
    """Send events that fail for good in their first run, and return their ids."""
    body = b"\n".join([b'{"workflow_id": "w", "event_type": "t"}'] * count)
    answer = daemon.http.request("POST", "/api/events/bulk", body, {"Content-Type": "application/x-ndjson"})
    ids = {json.loads(line)["id"] for line in answer.body.splitlines()}
    assert len(ids) == count
    until(daemon.converged, what="the first runs to fail")
    return ids


def job(daemon: DaemonProcess) -> dict[str, Any]:
    found: dict[str, Any] = daemon.http.get("/api/replays/rpl_1")
    return found


def ended(daemon: DaemonProcess) -> dict[str, Any] | None:
    found = job(daemon)
    return found if found["status"] == "done" and not found["open"] else None


def judge(daemon: DaemonProcess, members: set[str], in_flight: set[str]) -> None:
    """See that each member has had its one further run, and that only what a kill interrupted was started twice."""
    outcome = until(lambda: ended(daemon), 30, "the job to come to its end")
    until(daemon.converged)
    runs = runs_begun(daemon.directory)
    assert runs.keys() == members
    assert {frozenset(run) for run in runs.values()} == {frozenset({1, 2})}, "a run too few or too many"
    assert {event_id for event_id, run in runs.items() if run[2] > 1} <= in_flight
    assert (outcome["total"], outcome["replayed"], outcome["succeeded"]) == (MEMBERS, MEMBERS, MEMBERS)
    with closing(sqlite3.connect(f"file:{daemon.store_path}?mode=ro", uri=True)) as store:
        noted = dict(store.execute("SELECT event_seq, count(*) FROM actions WHERE action = 'replayed' GROUP BY 1"))
    assert len(noted) == MEMBERS
    assert set(noted.values()) == {1}
    assert daemon.http.get("/api/convergence")["ledger"]["lost"] == 0


def processing(daemon: DaemonProcess) -> set[str]:
    """Return what the dead daemon's store has in processing."""
    with closing(sqlite3.connect(daemon.store_path)) as store:
        return {row[0] for row in store.execute("SELECT id FROM events WHERE state = 'processing'")}


def test_kills_in_the_middle_of_a_job(tmp_path: Path) -> None:
    """A job that is killed again and again ends by itself: every member replayed once, and counted once."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201
    rng = random.Random(seed)
    with DaemonProcess(tmp_path, MENDING_HANDLERS, settings=dict(QUICK)) as daemon:
        daemon.start()
        members = send_dead_letters(daemon)
        body = {"filter": {}, "reason": "mended", "rate_per_second": 400, "canary": 20, "expected_count": MEMBERS}
        assert daemon.http.post("/api/replays", body).status == 202
        in_flight: set[str] = set()
        for target in sorted(rng.sample(range(1, MEMBERS - 50), KILLS)):
            until(lambda target=target: again(tmp_path) >= target, what=f"{target} further runs")  # type: ignore[misc]
            daemon.kill()
            in_flight |= processing(daemon)
            daemon.start()
        judge(daemon, members, in_flight)
        assert daemon.terminate() == 0
        assert daemon.run_command("check", "--data-dir", str(daemon.data_dir)).code == 0


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    require_postgres()
    if not redis_binaries():
        pytest.skip(MISSING)
    with (
        RedisServer(next(iter(redis_binaries().values())), tmp_path) as redis,
        Fleet(tmp_path, shared_server(), redis) as fleet,
    ):
        yield fleet


@pytest.mark.slow
def test_another_daemon_carries_the_job_on(fleet: Fleet) -> None:
    """When the daemon on which a job was made is killed for good, another one brings it to its end."""
    first, second = (fleet.start(name, handlers=MENDING_HANDLERS) for name in ("first", "second"))
    places = (first.directory, second.directory)
    members = send_dead_letters(second, 200)
    assert first.http.post("/api/replays", {"filter": {}, "reason": "mended", "rate_per_second": 60}).status == 202
    until(lambda: again(*places) >= 40, what="40 further runs")
    first.kill()
    held = {row["id"] for row in fleet.table("events") if row["state"] == "processing"}
    outcome = until(lambda: ended(second), 30, "the job to come to its end")
    assert (outcome["replayed"], outcome["skipped"], outcome["succeeded"]) == (200, 0, 200)
    runs = runs_begun(*places)
    assert runs.keys() == members
    assert {frozenset(run) for run in runs.values()} == {frozenset({1, 2})}
    assert {event_id for event_id, run in runs.items() if run[2] > 1} <= held
