"""Two daemons, real processes, on one Redis and one PostgreSQL: a pause holds for both, a limit for each of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_process import DaemonProcess, until
from tests.support.fleet import Fleet, bulk, event
from tests.support.postgres_server import require_postgres, shared_server
from tests.support.redis_server import MISSING, RedisServer, redis_binaries
from tests.support.sink import ended, lines_of

EVENTS = 40
NARROW_MAX = 2


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    if not redis_binaries():
        pytest.skip(MISSING)
    require_postgres()
    server = next(iter(redis_binaries().values()))
    with RedisServer(server, tmp_path) as redis, Fleet(tmp_path, shared_server(), redis) as fleet:
        yield fleet


def send(daemon: DaemonProcess, name: str, event_type: str) -> None:
    """Send events to one daemon."""
    events = [event(f"{name}-{number}", event_type, seconds=0.01) for number in range(EVENTS)]
    answer = daemon.http.request("POST", "/api/events/bulk", bulk(events))
    assert answer.status == 200, answer


def handler(daemon: DaemonProcess, pattern: str) -> dict[str, Any]:
    items: list[dict[str, Any]] = daemon.http.get("/api/handlers")["items"]
    return next(item for item in items if item["pattern"] == pattern)


def most_at_once(daemon: DaemonProcess, ids: set[str]) -> int:
    """Return how many of these events ran at once in one daemon at most, by the lines its handlers wrote."""
    running = most = 0
    for line in lines_of(daemon.directory):
        if line.event_id in ids:
            running += 1 if line.word == "started" else -1
            most = max(most, running)
    return most


def test_two_daemons_keep_limits_and_share_pauses(fleet: Fleet) -> None:
    """Neither daemon runs more of a handler at once than its limit. A pause made at one is seen by the
    other; what waited runs on the one that is left when the pause is lifted."""
    first, second = fleet.start("first"), fleet.start("second")
    for daemon, name in ((first, "first"), (second, "second")):
        send(daemon, name, "narrow.one")
    until(first.converged, 30, "convergence")
    ids = set(fleet.rows())
    assert len(ids) == sum(fleet.starts().values()) == 2 * EVENTS
    assert max(most_at_once(daemon, ids) for daemon in (first, second)) == NARROW_MAX
    answer = first.http.post("/api/handlers/slow.*/pause", {"reason": "a test", "by": "ann"})
    assert answer.status == 200, answer
    pause = until(lambda: handler(second, "slow.*")["paused"], 10, "the other daemon to see the pause")
    assert (pause["reason"], pause["by"]) == ("a test", "ann")
    for daemon, name in ((first, "first-slow"), (second, "second-slow")):
        send(daemon, name, "slow.one")
    until(lambda: handler(first, "slow.*")["waiting"] == 2 * EVENTS, 20, "all to wait")
    assert second.http.get("/api/convergence")["paused_events"] == 2 * EVENTS
    first.kill()
    assert second.http.post("/api/handlers/slow.*/resume").status == 200
    until(second.converged, 30, "convergence")
    assert {state for state, _ in fleet.rows().values()} == {"succeeded"}
    assert sum(ended(second.directory).values()) + sum(ended(first.directory).values()) == 4 * EVENTS
