"""kill -9 at random moments under load, again and again, judged from outside the process."""

import http.client
import json
import os
import random
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from replayforge.domain.reclaim import CRASHES_MAX
from tests.support.daemon_process import Answer, DaemonProcess, HttpClient, until
from tests.support.sink import QUICK, SINK_HANDLERS, ended, lines_of
from tests.support.slow import the_rest_slow

CLIENTS = 4
LEASE_SECONDS = 600.0
RESUME_SECONDS_MAX = 120.0  # with many kills on the way; one kill alone is measured below
TYPES = {"quick.one": 6, "quick.two": 6, "slow.one": 2, "flaky.one": 2, "blocking.one": 1}
GONE = (OSError, http.client.HTTPException)


class Load:
    """Threads that send keyed events for as long as they are let, and write down what was acknowledged.

    Each event is sent until it has its acknowledgement, across kills, as a client with a key does.
    """

    def __init__(self, daemon: DaemonProcess, acknowledgements: Path, seed: int) -> None:
        self.daemon = daemon
        self.file = os.open(acknowledgements, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.stopping = threading.Event()
        self.errors: list[BaseException] = []
        self.threads = [
            threading.Thread(target=self.work, args=(number, random.Random(f"{seed}/{number}")))
            for number in range(CLIENTS)
        ]

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)
        os.close(self.file)
        assert not self.errors, self.errors
        assert not any(thread.is_alive() for thread in self.threads)

    def work(self, number: int, rng: random.Random) -> None:
        try:
            sent = 0
            while not self.stopping.wait(rng.uniform(0, 0.15)):
                count = rng.choice((1, 1, 1, 5, 20))
                events = [self.event(f"{number}-{sent + index}", rng) for index in range(count)]
                sent += count
                self.deliver(events, bulk=count > 1)
        except BaseException as error:
            self.errors.append(error)
            raise

    def event(self, key: str, rng: random.Random) -> dict[str, object]:
        payload = {"key": key, "seconds": rng.choice((0.01, 0.1, 0.3)), "failures": 1, "text": "é" * rng.randrange(200)}
        return {
            "workflow_id": f"workflow-{key[:3]}",
            "event_type": rng.choices(tuple(TYPES), tuple(TYPES.values()))[0],
            "payload": payload,
            "idempotency_key": key,
        }

    def deliver(self, events: list[dict[str, object]], *, bulk: bool) -> None:
        """Send until every event is acknowledged; also after the stop, so that nothing is left half-way."""
        pause = threading.Event()
        waiting = events
        deadline = time.monotonic() + 60
        while waiting:
            assert time.monotonic() < deadline, "the daemon took nothing for a minute"
            client = HttpClient(self.daemon.url)
            try:
                answer = self.send(client, waiting, bulk=bulk)
            except (*GONE, ValueError):  # the daemon was killed, or is not up again
                pause.wait(0.02)
                continue
            finally:
                client.close()
            waiting = self.note(answer, waiting)

    def send(self, client: HttpClient, events: list[dict[str, object]], *, bulk: bool) -> Answer:
        if not bulk:
            return client.post("/api/events", events[0])
        body = b"\n".join(json.dumps(event).encode() for event in events)
        return client.request("POST", "/api/events/bulk", body, {"Content-Type": "application/x-ndjson"})

    def note(self, answer: Answer, events: list[dict[str, object]]) -> list[dict[str, object]]:
        """Write down what this answer acknowledges, and return what has to be sent again."""
        if answer.status >= 300:
            assert answer.status in (429, 503), answer
            return events
        items = [json.loads(line) for line in answer.body.splitlines()]
        acknowledged = [item["id"] for item in items if "problem" not in item]
        os.write(self.file, "".join(f"{event_id}\n" for event_id in acknowledged).encode())
        return [event for event, item in zip(events, items, strict=True) if "problem" in item]


@pytest.mark.parametrize("kills", the_rest_slow([8, 30]))
def test_kills_under_load(tmp_path: Path, kills: int) -> None:
    """kill -9 under load: everything acknowledged ends exactly once, and work goes on at once after each start."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201
    rng = random.Random(seed)
    settings = {**QUICK, "workers.count": 8, "workers.lease_seconds": LEASE_SECONDS}
    with DaemonProcess(tmp_path, SINK_HANDLERS, settings=settings) as daemon:
        load = Load(daemon, tmp_path / "acknowledged.txt", seed)
        daemon.start()
        load.start()
        interrupted: list[tuple[float, dict[str, int]]] = []
        try:
            for _ in range(kills):
                threading.Event().wait(rng.uniform(0.05, 0.6))
                daemon.kill()
                interrupted.append((time.time(), in_flight(daemon)))
                daemon.start()
        finally:
            load.stop()
        until(daemon.converged, 60, "convergence")
        poison = judge(daemon, tmp_path, kills)
        judge_resumption(tmp_path, interrupted, poison)
        assert daemon.terminate() == 0
        check(daemon, tmp_path)


def in_flight(daemon: DaemonProcess) -> dict[str, int]:
    """Return event id -> lease token of what the dead daemon's store has in processing."""
    with closing(sqlite3.connect(daemon.store_path)) as store:
        return dict(store.execute("SELECT id, lease_token FROM events WHERE state = 'processing'").fetchall())


def judge_resumption(directory: Path, interrupted: list[tuple[float, dict[str, int]]], poison: dict[str, int]) -> None:
    """See that what was in flight at a kill was started again long before its lease would have lapsed."""
    starts: dict[str, list[tuple[int, float]]] = {}
    for line in lines_of(directory):
        if line.word == "started":
            starts.setdefault(line.event_id, []).append((line.token, line.at_seconds))
    waits = [
        min(at_seconds for newer, at_seconds in starts[event_id] if newer > token) - killed_at
        for killed_at, held in interrupted
        for event_id, token in held.items()
        if event_id not in poison
    ]
    assert len(waits) > len(interrupted), "too few events were in flight when the daemon was killed to show anything"
    print(f"{len(waits)} in flight at a kill, started again after {sorted(waits)[len(waits) // 2]:.2f} s (median),")  # noqa: T201
    print(f"{max(waits):.2f} s (slowest), several kills between them")  # noqa: T201
    assert max(waits) < RESUME_SECONDS_MAX < LEASE_SECONDS


def judge(daemon: DaemonProcess, directory: Path, kills: int) -> dict[str, int]:
    """Hold acknowledgements, effects and the store against each other; return what was taken for poison.

    Kills as dense as these can meet the same event three times while it runs alone after a crash: the daemon cannot
    tell that from an event that kills it, so such an event may end as poison, and only such a one.
    """
    acknowledged = set((directory / "acknowledged.txt").read_text().split())
    finished = ended(directory)
    assert len(acknowledged) > 100
    with closing(sqlite3.connect(f"file:{daemon.store_path}?mode=ro", uri=True)) as store:
        states = dict(store.execute("SELECT id, state FROM events").fetchall())
        poison = dict(
            store.execute(
                "SELECT e.id, count(*) FROM events e JOIN attempts a ON e.seq = a.event_seq WHERE e.state ="
                " 'dead_lettered' AND e.reason = 'poison' AND a.outcome = 'crashed' GROUP BY e.id"
            ).fetchall()
        )
        outcomes = Counter(
            store.execute(
                "SELECT e.id, a.run FROM attempts a JOIN events e ON e.seq = a.event_seq WHERE a.outcome = 'succeeded'"
            ).fetchall()
        )
    assert acknowledged - states.keys() == set(), "acknowledged and lost"
    succeeded = {event_id for event_id, state in states.items() if state == "succeeded"}
    print(f"{len(states)} events, {len(acknowledged)} acknowledged, {len(poison)} taken for poison")  # noqa: T201
    assert states.keys() - succeeded == poison.keys()
    assert all(crashes >= CRASHES_MAX for crashes in poison.values())
    assert len(poison) < kills
    assert {pair: count for pair, count in outcomes.items() if count != 1} == {}
    assert {event_id for event_id, _ in outcomes} == succeeded
    assert succeeded - finished.keys() == set(), "succeeded without its handler ever having ended"
    report = daemon.http.get("/api/convergence")
    assert report["ledger"]["lost"] == 0
    assert report["ledger"]["succeeded"] == len(succeeded)
    assert report["ledger"]["accepted"] == len(states)
    return poison


def check(daemon: DaemonProcess, directory: Path) -> None:
    """`replayforge check` finds nothing; then it names a row that was deleted and an outcome that was doubled."""
    clean = daemon.run_command("check", "--data-dir", str(daemon.data_dir))
    assert clean.code == 0, clean
    with closing(sqlite3.connect(daemon.store_path)) as store:
        (lost_seq, lost_id), (doubled_seq, doubled_id) = store.execute(
            "SELECT seq, id FROM events ORDER BY seq LIMIT 2"
        ).fetchall()
        store.execute("DELETE FROM events WHERE seq = ?", (lost_seq,))
        store.execute(
            "INSERT INTO attempts SELECT event_seq, token + 1000, run, number, outcome, ended_run, owner, worker,"
            " started_at_us, ended_at_us, error, error_signature FROM attempts WHERE event_seq = ?"
            " AND outcome = 'succeeded'",
            (doubled_seq,),
        )
        store.commit()
    dirty = daemon.run_command("check", "--data-dir", str(daemon.data_dir))
    assert dirty.code == 1, dirty
    found = dirty.out + dirty.err
    assert any("lost" in line and lost_id in line for line in found.splitlines()), found
    assert any(doubled_id in line for line in found.splitlines()), found
