"""Two daemons on one PostgreSQL and one Redis that are stopped and killed again and again: each outcome counts once."""

import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_process import DaemonProcess, until
from tests.support.fleet import Fleet, Sender, event
from tests.support.ports import free_port
from tests.support.postgres_server import require_postgres, shared_server
from tests.support.redis_server import RedisServer, redis_binaries
from tests.support.sink import Line, lines_of

NAMES = ("a", "b")
KINDS = ("quick", "slow.one", "quick", "flaky.one", "narrow.x", "stalling.x", "blocking.x")
SECONDS = {"slow.one": (0.05, 0.2, 1.0, 3.0), "stalling.x": (0.02, 0.1, 0.5), "narrow.x": (0.1,), "blocking.x": (0.1,)}
EVENTS = 3_000
INJURED_SECONDS = 240.0
DEFECTS = ("service.crashed", "chore.failed")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    require_postgres()
    with (
        RedisServer(next(iter(redis_binaries().values())), tmp_path) as redis,
        Fleet(tmp_path, shared_server(), redis) as fleet,
    ):
        yield fleet


def events(rng: random.Random) -> list[dict[str, Any]]:
    """Return events of every kind of handler, quick and slow ones, some that hold the loop or fail at first."""
    chosen = [KINDS[number % len(KINDS)] for number in range(EVENTS)]
    return [
        event(f"key-{number}", kind, number=number, seconds=rng.choice(SECONDS.get(kind, (0,))))
        for number, kind in enumerate(chosen)
    ]


def injure(fleet: Fleet, daemons: dict[str, DaemonProcess], rng: random.Random) -> None:
    """Stop one of the daemons for less or more than a lease, or kill it and start it on its port, at once or later."""
    name, pause = rng.choice(NAMES), threading.Event()
    if rng.random() < 0.35:
        daemons[name].kill()
        pause.wait(rng.choice((0, 0, 3.0)))
        fleet.start(name, "--port", daemons[name].url.rpartition(":")[2])
        return
    daemons[name].signal(signal.SIGSTOP)
    pause.wait(rng.choice((0.3, 1.0, 2.5, 4.0)))
    daemons[name].signal(signal.SIGCONT)


def starts(fleet: Fleet) -> dict[str, list[Line]]:
    """Return event id -> every start of its handler, on whichever daemon, in order of time."""
    found: dict[str, list[Line]] = defaultdict(list)
    for name in NAMES:
        for line in lines_of(fleet.directory / name):
            if line.word == "started":
                found[line.event_id].append(line)
    return {one: sorted(lines, key=lambda line: line.at_seconds) for one, lines in found.items()}


@pytest.mark.soak
def test_stops_and_kills_of_two_daemons(fleet: Fleet) -> None:
    """Every event succeeds exactly once; no token starts twice, none after a later one, and each start is on record."""
    seed = random.randrange(1_000_000)
    print("seed", seed)  # noqa: T201
    rng = random.Random(seed)
    daemons = {name: fleet.start(name, "--port", str(free_port())) for name in NAMES}
    sent = events(rng)
    senders = [Sender(list(daemons.values()), sent[part::3]) for part in range(3)]
    for sender in senders:
        sender.start()
    deadline = time.monotonic() + INJURED_SECONDS
    while time.monotonic() < deadline:
        threading.Event().wait(rng.uniform(0.2, 1.5))
        injure(fleet, daemons, rng)
    for sender in senders:
        sender.join(120)
    until(lambda: all(daemon.converged() for daemon in daemons.values()), 180, "convergence")

    rows, begun = fleet.rows(), starts(fleet)
    assert {one for sender in senders for one in sender.acknowledged} <= set(rows)
    assert {one: state for one, (state, _) in rows.items() if state != "succeeded"} == {}
    successes = {one: outcomes.count("succeeded") for one, outcomes in fleet.attempts().items()}
    assert {one: count for one, count in successes.items() if count != 1} == {}
    tokens = {one: [line.token for line in lines] for one, lines in begun.items()}
    assert {one: found for one, found in tokens.items() if found != sorted(set(found))} == {}
    known = fleet.select("SELECT e.id, a.token FROM {}.attempts AS a JOIN {}.events AS e ON e.seq = a.event_seq")
    recorded = {(row["id"], row["token"]) for row in known}
    assert {(one, token) for one, found in tokens.items() for token in found} - recorded == set()
    assert {one: len(found) for one, found in tokens.items() if len(found) > rows[one][1]} == {}
    for name, daemon in daemons.items():
        said = daemon.stderr.read_text()
        assert {word: said.count(word) for word in DEFECTS if word in said} == {}, name
