"""Events with three subscribers while the daemon is killed at random instants: three children each, and each once."""

import random
import sqlite3
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_process import DaemonProcess, HttpClient, until
from tests.support.sink import QUICK

HANDLERS = Path(__file__).parents[1] / "data" / "subscriber_handlers.py"
NAMES = ("crm", "mail", "search")
SENT_AT_ONCE = 500
CHILDREN = "SELECT origin, subscriber, state FROM events WHERE subscriber IS NOT NULL"
PARENTS = "SELECT state, count(*) FROM events WHERE origin IS NULL GROUP BY state"
SIZES = [(60, 3), pytest.param(10_000, 40, marks=pytest.mark.soak)]


def event(number: int) -> Mapping[str, Any]:
    return {
        "workflow_id": f"workflow-{number % 50}", "event_type": "fan.out", "payload": {"n": number},
        "idempotency_key": str(number),
    }  # fmt: skip


def rows(path: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as store:
        return store.execute(statement).fetchall()


@pytest.mark.parametrize(("events", "kills"), SIZES)
def test_every_subscriber_gets_each_event_once(events: int, kills: int, tmp_path: Path) -> None:
    rng, notes = random.Random(events), tmp_path / "notes.txt"
    variables = {"NOTES": str(notes)}
    with DaemonProcess(tmp_path / "data", HANDLERS, settings=QUICK, variables=variables) as daemon:
        daemon.start()
        client = HttpClient(daemon.url)
        ids = [
            sent
            for first in range(0, events, SENT_AT_ONCE)
            for sent in client.send_many([event(number) for number in range(first, min(events, first + SENT_AT_ONCE))])
        ]
        client.close()
        for _ in range(kills):
            time.sleep(rng.uniform(0.05, 0.5))
            daemon.kill()
            daemon.start()
        report = until(daemon.converged, 60 + events / 20, "everything has ended")
        assert report["ledger"]["lost"] == 0
        children = rows(daemon.store_path, CHILDREN)
        parents = dict(rows(daemon.store_path, PARENTS))
    assert Counter((parent, name) for parent, name, _ in children) == {(one, name): 1 for one in ids for name in NAMES}
    assert parents == {"succeeded": events}
    broken = sum(number % 10 == 5 for number in range(events))
    wanted = {(name, "succeeded"): events for name in NAMES}
    wanted |= {("search", "succeeded"): events - broken, ("search", "dead_lettered"): broken}
    assert Counter((name, state) for _, name, state in children) == wanted
    noted = Counter(tuple(line.split("\t")) for line in notes.read_text().splitlines())
    assert noted.keys() == {(name, str(number)) for name in NAMES for number in range(events)}
