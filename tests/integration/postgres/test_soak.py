"""Random faults, one upon another, against three daemons on one Redis and one PostgreSQL; by hand, at any length.

The oracle is outside: what was acknowledged stands in a file of the test's own, what handlers did in their sinks.
"""

import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from replayforge.chaos.proxy_thread import ProxyThread
from tests.integration.postgres.storm import Scene, ended_by_itself, strike
from tests.support.daemon_process import DaemonProcess, HttpClient, until
from tests.support.fleet import Fleet, bulk, event
from tests.support.postgres_server import PostgresServer, require_postgres
from tests.support.redis_server import MISSING, RedisServer, redis_binaries
from tests.support.sink import Line, lines_of

SECONDS = "REPLAYFORGE_SOAK_SECONDS"
SEED = "REPLAYFORGE_SOAK_SEED"
CYCLE_SECONDS = 40.0
CALM_SHARE = 0.25
SAY_SECONDS = 5.0
CLIENTS = 3
EVENTS_PER_REQUEST = 5
REQUEST_PAUSE_SECONDS = 0.05
AHEAD_MAX = 3000  # how many acknowledged events may be without an end before the clients wait
ACKS = {"first": "log", "second": "stored", "third": "log"}
# How an event of each type ends, and how often its handler runs when nothing goes wrong.
ENDS = {
    "quick": ("succeeded", 1), "slow.one": ("succeeded", 1), "slow.long": ("succeeded", 1),
    "flaky.one": ("succeeded", 2), "doomed.one": ("dead_lettered", 1),
}  # fmt: skip
SECONDS_OF = {"slow.one": 0.05, "slow.long": 3.0}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    if not redis_binaries():
        pytest.skip(MISSING)
    with RedisServer(next(iter(redis_binaries().values())), tmp_path) as server:
        yield server


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    require_postgres()
    with PostgresServer() as server:
        yield server


@pytest.fixture
def scene(tmp_path: Path, postgres: PostgresServer, redis: RedisServer) -> Iterator[Scene]:
    seed = int(os.environ.get(SEED, time.time()))
    say(f"seed {seed}")
    with Fleet(tmp_path, postgres, redis) as fleet, ProxyThread() as network:
        scene = Scene(fleet, postgres, redis, network, random.Random(seed))
        for name, ack in ACKS.items():
            scene.add(name, ack)
        yield scene


class Client(threading.Thread):
    """Sends keyed events to whichever daemon takes them, each until it is acknowledged, which it writes to a file."""

    def __init__(self, number: int, daemons: list[DaemonProcess], acks: Path, seed: int) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.daemons = daemons
        self.acks = acks
        self.rng = random.Random(seed)
        self.stopping = threading.Event()
        self.go_on = threading.Event()
        self.sent = 0
        self.refused = 0

    def run(self) -> None:
        with self.acks.open("a", buffering=1) as acks:
            while not self.stopping.is_set():
                events = [self.next_event() for _ in range(EVENTS_PER_REQUEST)]
                while (acknowledged := self.send(events)) is None:
                    self.refused += 1
                    self.stopping.wait(REQUEST_PAUSE_SECONDS)
                acks.writelines(f"{one}\n" for one in acknowledged)
                self.stopping.wait(REQUEST_PAUSE_SECONDS)
                self.go_on.wait()

    def next_event(self) -> dict[str, Any]:
        """Return a new event of a random type."""
        self.sent += 1
        (event_type,) = self.rng.choices(list(ENDS), (200, 50, 4, 30, 5))
        return event(f"{self.number}-{self.sent}", event_type, seconds=SECONDS_OF.get(event_type, 0))

    def send(self, events: list[dict[str, Any]]) -> list[str] | None:
        """Send the events once, to some daemon; returns their ids if all of them were acknowledged."""
        client = HttpClient(self.rng.choice(self.daemons).url, timeout_seconds=3)
        try:
            answer = client.request("POST", "/api/events/bulk", bulk(events))
        except (OSError, HTTPException):
            return None
        finally:
            client.close()
        if answer.status != 200 or answer.json()["rejected"]:
            return None
        return [item["id"] for item in answer.json()["items"]]


class Progress:
    """Says every few seconds how far it is, and holds the clients back while too much is open."""

    def __init__(self, scene: Scene, clients: list[Client], acks: Path) -> None:
        self.scene = scene
        self.clients = clients
        self.acks = acks
        self.began = time.monotonic()
        self.faults: Counter[str] = Counter()
        self.said_at = 0.0

    def look(self) -> None:
        """Look at what is open, and say something when it is time."""
        acknowledged = self.acks.read_bytes().count(b"\n")
        ended = self.scene.fleet.lines() // 2
        for client in self.clients:
            (client.go_on.clear if acknowledged - ended > AHEAD_MAX else client.go_on.set)()
        if time.monotonic() - self.said_at >= SAY_SECONDS:
            self.said_at = time.monotonic()
            memory = "/".join(f"{rss_mebibytes(daemon)}" for daemon in self.scene.fleet.daemons.values())
            say(
                f"{self.said_at - self.began:6.0f} s: {acknowledged:,} acknowledged, about {ended:,} ended,"
                f" {self.faults.total()} faults, {memory} MiB"
            )


@pytest.mark.soak
@pytest.mark.skipif(SECONDS not in os.environ, reason=f"set {SECONDS} to soak the daemons for so long")
def test_random_faults(scene: Scene, tmp_path: Path) -> None:
    """Whatever is broken in whatever order: no acknowledged event is lost, each has exactly one outcome, the one its
    handler decides, each further start is counted, and in the quiet at the end nothing is left on the way."""
    acks = tmp_path / "acks.txt"
    acks.touch()
    daemons = list(scene.fleet.daemons.values())
    clients = [Client(number, daemons, acks, scene.rng.randrange(1 << 30)) for number in range(CLIENTS)]
    progress = Progress(scene, clients, acks)
    for client in clients:
        client.go_on.set()
        client.start()
    while time.monotonic() - progress.began < float(os.environ[SECONDS]):
        progress.look()
        if (time.monotonic() - progress.began) % CYCLE_SECONDS < CYCLE_SECONDS * (1 - CALM_SHARE):
            progress.faults.update(strike(scene))
        scene.last(0.2, 2)
        assert ended_by_itself(scene) == []
    for client in clients:
        client.stopping.set()
        client.go_on.set()
    for client in clients:
        client.join(30)
        assert not client.is_alive()
    say(f"quiet now, after {dict(progress.faults)}")
    until(lambda: all(quiet(daemon) for daemon in daemons), 180, "all to end")
    until(scene.redis.nothing_on_streams, 30, "entries of events that have ended to be read and removed")
    judge(scene, set(acks.read_text().split()), sum(client.sent for client in clients))
    say(f"{sum(client.refused for client in clients):,} requests were sent again")


def quiet(daemon: DaemonProcess) -> bool:
    """Tell whether a daemon says that everything has ended."""
    with suppress(OSError, HTTPException, AssertionError):
        return daemon.converged() is not None
    return False


def judge(scene: Scene, acknowledged: set[str], sent: int) -> None:
    """Hold what the store says against what was acknowledged and what the handlers did."""
    rows = {row["id"]: row for row in scene.fleet.table("events")}
    attempts: dict[int, list[Any]] = {row["seq"]: [] for row in rows.values()}
    for attempt in scene.fleet.table("attempts"):
        attempts[attempt["event_seq"]].append(attempt)
    lines = [line for daemon in scene.fleet.daemons.values() for line in lines_of(daemon.directory)]
    started = Counter((line.event_id, line.token) for line in lines if line.word == "started")
    further = sum(row["starts"] - ENDS[row["event_type"]][1] for row in rows.values())
    crashed = Counter(attempt["outcome"] for some in attempts.values() for attempt in some)
    say(f"{len(acknowledged):,} acknowledged, {len(rows):,} rows, {further:,} further starts, attempts {dict(crashed)}")
    assert acknowledged - rows.keys() == set(), "acknowledged events are lost"
    assert len(rows) == len(acknowledged) == sent
    wrong = {
        one: complaint for one, row in rows.items() if (complaint := judge_row(row, attempts[row["seq"]], started))
    }
    assert wrong == {}
    assert {pair for pair, count in started.items() if count > 1} == set(), "a token was handed out twice"
    assert unaccounted(rows, attempts, lines) == {}


def judge_row(row: Any, attempts: list[Any], started: Counter[tuple[str, int]]) -> str | None:
    """Return what is wrong with the end of an event, or None."""
    state, _ = ENDS[row["event_type"]]
    if row["state"] != state:
        return f"{row['state']} instead of {state}: {row['reason']}, {row['last_error']}"
    outcomes = [attempt["outcome"] for attempt in attempts if attempt["ended_run"]]
    if outcomes != ["succeeded" if state == "succeeded" else "failed"]:
        return f"ended {len(outcomes)} times: {outcomes}"
    if row["starts"] < len(attempts):
        return f"{row['starts']} starts are counted for {len(attempts)} attempts"
    deciding = next(attempt["token"] for attempt in attempts if attempt["ended_run"])
    if (row["id"], deciding) not in started:
        return "its outcome belongs to a start that nobody saw"
    if deciding != row["lease_token"]:
        return f"token {deciding} decided, although the event was handed out again under token {row['lease_token']}"
    return None


def unaccounted(rows: dict[str, Any], attempts: dict[int, list[Any]], lines: list[Line]) -> dict[str, str]:
    """Return the events whose handlers ran more often than was counted, or whose effect is missing."""
    tokens: dict[str, set[int]] = {event_id: set() for event_id in rows}
    effects = {(line.event_id, line.token) for line in lines if line.word == "ended"}
    for line in lines:
        tokens[line.event_id].add(line.token)
    complaints = {}
    for event_id, row in rows.items():
        if len(tokens[event_id]) > row["starts"]:
            complaints[event_id] = f"{row['starts']} starts are counted, but {len(tokens[event_id])} were seen"
        succeeded = [attempt for attempt in attempts[row["seq"]] if attempt["outcome"] == "succeeded"]
        if any((event_id, attempt["token"]) not in effects for attempt in succeeded):
            complaints[event_id] = "it succeeded, but its effect was never seen"
    return complaints


def rss_mebibytes(daemon: DaemonProcess) -> int:
    """Return how much memory a daemon's process takes; 0 while it does not run."""
    try:
        pages = int(Path(f"/proc/{daemon.pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def say(text: str) -> None:
    sys.stdout.write(f"\n  {text}")
    sys.stdout.flush()
