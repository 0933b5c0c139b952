"""Rates of lanes as a sink outside of the daemon counts them, while others wait in thousands."""

import sys
from pathlib import Path

import pytest

from tests.support.daemon_process import DaemonProcess, until
from tests.support.fleet import Fleet
from tests.support.postgres_server import require_postgres, shared_server
from tests.support.rates import keeps_rate, least_and_most, starts_by_key
from tests.support.redis_server import RedisServer, redis_binaries
from tests.support.sink import QUICK, SINK_HANDLERS, lines_of

KEYS, PER_SECOND, SECONDS, OTHERS = 3, 5, 20, 50_000
LANE = {"match": "paced.*", "rate": f"{PER_SECOND}/s"}


@pytest.mark.soak
@pytest.mark.parametrize("others", [0, OTHERS])
def test_rates_are_kept_from_both_sides(others: int, tmp_path: Path) -> None:
    """Over any ten seconds each key is started as often as it may be, however many other events are ready."""
    settings = {**QUICK, "lanes": [LANE], "workers.count": 8}
    with DaemonProcess(tmp_path, SINK_HANDLERS, settings=settings) as daemon:
        daemon.start()
        for _ in range(0, others, 1000):
            daemon.http.send_many(
                [{"workflow_id": "w", "event_type": "slow.one", "payload": {"seconds": 0.006}}] * 1000
            )
        paced = [key for _ in range(PER_SECOND * SECONDS) for key in range(KEYS)]
        ids = daemon.http.send_many(
            [{"workflow_id": f"key-{key}", "event_type": "paced.one", "payload": {}} for key in paced]
        )
        until(daemon.converged, 600, "convergence")
    lines = lines_of(tmp_path)
    starts = starts_by_key(lines, {name: f"key-{key}" for name, key in zip(ids, paced, strict=True)})
    since, last = min(times[0] for times in starts.values()), max(times[-1] for times in starts.values())
    meanwhile = sum(since < line.at_seconds < last for line in lines if line.word == "ended") - len(ids)
    for key, times in starts.items():
        sys.stderr.write(f"{key}: {len(times)} in {times[-1] - since:.1f} s, {least_and_most(times, since)}\n")
    sys.stderr.write(f"{meanwhile} others ran meanwhile\n")
    assert len(starts) == KEYS
    assert meanwhile > others / 100 or not others
    assert all(keeps_rate(times, since, PER_SECOND) for times in starts.values())


@pytest.mark.soak
def test_rates_hold_over_two_daemons(tmp_path: Path) -> None:
    """Two daemons of one PostgreSQL start each key together as often as it may be, over any ten seconds."""
    require_postgres()
    redis = RedisServer(next(iter(redis_binaries().values())), tmp_path)
    with redis, Fleet(tmp_path, shared_server(), redis, lanes=[LANE]) as fleet:
        daemons = [fleet.start("one"), fleet.start("other")]
        names: dict[str, str] = {}
        for number in range(PER_SECOND * SECONDS * KEYS):
            key = f"key-{number % KEYS}"
            event = {"workflow_id": key, "event_type": "paced.one", "payload": {}}
            names[daemons[number % 2].http.post("/api/events", event).json()["id"]] = key
        until(daemons[0].converged, 120, "convergence")
        lines = [line for daemon in daemons for line in lines_of(daemon.directory)]
    starts = {key: sorted(times) for key, times in starts_by_key(lines, names).items()}
    since = min(times[0] for times in starts.values())
    for key, times in starts.items():
        sys.stderr.write(f"{key}: {len(times)} in {times[-1] - since:.1f} s, {least_and_most(times, since)}\n")
    assert len(starts) == KEYS
    assert all(keeps_rate(times, since, PER_SECOND) for times in starts.values())
