"""Lanes over two daemons on one PostgreSQL, with kills, at full size; by hand. The oracle is the handlers' sinks."""

import os
import random
import threading
import time
from bisect import bisect_left
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.daemon_process import DaemonProcess, until
from tests.support.postgres_server import PostgresServer, require_postgres
from tests.support.sink import QUICK, SINK_HANDLERS, Line, lines_of

KEYS = int(os.environ.get("REPLAYFORGE_LANE_KEYS", "1000"))
EACH = int(os.environ.get("REPLAYFORGE_LANE_EVENTS", "50"))
KILLS = 6
LIMIT, PER_SECOND, PACED_KEYS, PACED_EACH = 3, 5, 3, 150
WINDOW_SECONDS = 10.0
LANES = [
    {"match": "flaky.*", "order": "strict"},
    {"match": "slow.*", "concurrency": LIMIT},
    {"match": "paced.*", "rate": f"{PER_SECOND}/s"},
]
SETTINGS = {
    **QUICK, "lanes": LANES, "workers.count": 16, "workers.lease_seconds": 6, "workers.heartbeat_seconds": 1,
    "janitor.sweep_seconds": 1,
}  # fmt: skip


@pytest.mark.soak
def test_order_limits_and_rates_over_two_daemons(tmp_path: Path) -> None:
    """Order per key is never violated, no more of a key run at once than may, rates are kept over any ten seconds."""
    require_postgres()
    dice = random.Random(7)
    with PostgresServer() as server:
        settings = {**SETTINGS, "store.url": server.url}
        daemons = [DaemonProcess(tmp_path / name, SINK_HANDLERS, settings=settings) for name in ("first", "second")]
        for one in daemons:
            one.start()
        try:
            place = send(daemons)
            kills: list[tuple[float, int]] = []
            for _ in range(KILLS):
                threading.Event().wait(dice.uniform(2, 6))
                side = dice.randrange(2)
                daemons[side].kill()
                kills.append((time.time(), side))
                daemons[side].start()
            until(daemons[0].converged, 3000, "convergence")
        finally:
            for one in daemons:
                one.kill()
    noted = sorted(
        ((line, side) for side, one in enumerate(daemons) for line in lines_of(one.directory)),
        key=lambda pair: pair[0].at_seconds,
    )
    lines = [line for line, _ in noted]
    judge_order(lines, place)
    judge_limit(noted, kills, place)
    judge_rate(lines, place)


Place = dict[str, tuple[str, str, int]]  # event id -> type, key, number


def send(daemons: list[DaemonProcess]) -> Place:
    """Send the events of each key in their order, each key by one daemon, since only one log has an order."""
    place: Place = {}
    kinds = [("flaky.one", KEYS, EACH), ("slow.one", max(1, KEYS // 10), EACH), ("paced.one", PACED_KEYS, PACED_EACH)]
    for kind, keys, each in kinds:
        for number in range(each):
            for side, daemon in enumerate(daemons):
                mine = [key for key in range(keys) if key % 2 == side]
                for start in range(0, len(mine), 1000):
                    some = mine[start : start + 1000]
                    ids = daemon.http.send_many([event(kind, key, number) for key in some])
                    place |= {name: (kind, f"{kind}/{key}", number) for name, key in zip(ids, some, strict=True)}
    return place


def event(kind: str, key: int, number: int) -> dict[str, object]:
    payload = {"failures": int(number % 10 == 0), "seconds": 0.02}
    return {"workflow_id": f"{kind}/{key}", "event_type": kind, "payload": payload}


def judge_order(lines: list[Line], place: Place) -> None:
    """In strict order nobody is started before everybody before it has ended, and nobody ever again after that."""
    current: defaultdict[str, int] = defaultdict(int)
    ended: set[str] = set()
    number_ended: defaultdict[str, int] = defaultdict(lambda: -1)
    for line in lines:
        kind, key, number = place[line.event_id]
        if kind != "flaky.one":
            continue
        if line.word == "started":
            assert number in (current[key], current[key] + 1), (key, number, current[key])
            assert number_ended[key] >= number - 1, (key, number)
            current[key] = number
        else:
            ended.add(line.event_id)
            number_ended[key] = max(number_ended[key], number)
    assert len(ended) == KEYS * EACH


def judge_limit(noted: list[tuple[Line, int]], kills: list[tuple[float, int]], place: Place) -> None:
    """No more of a key run at once than may; what runs in a daemon ends when that is killed."""
    running: defaultdict[str, set[tuple[str, int]]] = defaultdict(set)
    left = list(kills)
    for line, side in noted:
        while left and left[0][0] <= line.at_seconds:
            _, killed = left.pop(0)
            for key, some in running.items():
                running[key] = {one for one in some if one[1] != killed}
        kind, key, _ = place[line.event_id]
        if kind == "slow.one":
            (running[key].add if line.word == "started" else running[key].discard)((line.event_id, side))
            assert len(running[key]) <= LIMIT, (key, running[key])


def judge_rate(lines: list[Line], place: Place) -> None:
    """Over any ten seconds a key has at most five percent more starts than its rate, and over all of it no fewer."""
    starts: defaultdict[str, list[float]] = defaultdict(list)
    for line in lines:
        kind, key, _ = place[line.event_id]
        if kind == "paced.one" and line.word == "started":
            starts[key].append(line.at_seconds)
    assert len(starts) == PACED_KEYS
    for times in starts.values():
        most = max(bisect_left(times, at + WINDOW_SECONDS) - index for index, at in enumerate(times))
        print(f"at most {most} starts in {WINDOW_SECONDS} s; {len(times) / (times[-1] - times[0]):.2f} a second in all")  # noqa: T201
        assert most <= PER_SECOND * WINDOW_SECONDS * 1.05
