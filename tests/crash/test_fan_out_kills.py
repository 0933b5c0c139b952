"""Events with three subscribers while the daemon is killed at random instants: three children each, and each once."""

import random
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_process import HttpClient, until
from tests.support.storm import PLACES, daemons_at

HANDLERS = Path(__file__).parents[1] / "data" / "subscriber_handlers.py"
NAMES = ("crm", "mail", "search")
SENT_AT_ONCE = 500
CHILDREN = "SELECT origin, subscriber, state FROM {}.events WHERE subscriber IS NOT NULL"
PARENTS = "SELECT state, count(*) AS events FROM {}.events WHERE origin IS NULL GROUP BY state"
SIZES = [
    ("embedded", 60, 3),
    *(pytest.param(place, 10_000, 40, marks=pytest.mark.soak) for place in PLACES),
]


def event(number: int) -> Mapping[str, Any]:
    return {
        "workflow_id": f"workflow-{number % 50}", "event_type": "fan.out", "payload": {"n": number},
        "idempotency_key": str(number),
    }  # fmt: skip


@pytest.mark.parametrize(("where", "events", "kills"), SIZES)
def test_every_subscriber_gets_each_event_once(where: str, events: int, kills: int, tmp_path: Path) -> None:
    """Whichever daemon dies, each event has its three children, all of which come to their ends."""
    rng = random.Random(events)
    with daemons_at(where, tmp_path, HANDLERS) as place:
        client = HttpClient(place.daemons[0].url)
        ids = [
            sent
            for first in range(0, events, SENT_AT_ONCE)
            for sent in client.send_many([event(number) for number in range(first, min(events, first + SENT_AT_ONCE))])
        ]
        client.close()
        for _ in range(kills):
            time.sleep(rng.uniform(0.05, 0.5))
            daemon = rng.choice(place.daemons)
            daemon.kill()
            daemon.start()
        report = until(place.daemons[0].converged, 60 + events / 20, "everything has ended")
        assert report["ledger"]["lost"] == 0
        children = place.select(CHILDREN)
        parents = dict(place.select(PARENTS))
    assert Counter((parent, name) for parent, name, _ in children) == {(one, name): 1 for one in ids for name in NAMES}
    assert parents == {"succeeded": events}
    broken = sum(number % 10 == 5 for number in range(events))
    wanted = {(name, "succeeded"): events for name in NAMES}
    wanted |= {("search", "succeeded"): events - broken, ("search", "dead_lettered"): broken}
    assert Counter((name, state) for _, name, state in children) == wanted
    notes = [(daemon.directory / "notes.txt").read_text() for daemon in place.daemons]
    noted = {tuple(line.split("\t")) for text in notes for line in text.splitlines()}
    assert noted == {(name, str(number)) for name in NAMES for number in range(events)}
