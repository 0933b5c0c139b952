"""Many events on a real Redis and a real PostgreSQL: a backlog stays in the store, and what is done leaves no trace.

The small versions run always, the full sizes with `pytest -m soak -s`.
"""

import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import redis as redis_client

from tests.support.daemon_process import DaemonProcess, until
from tests.support.fleet import Fleet, bulk, event
from tests.support.postgres_server import PostgresServer, require_postgres
from tests.support.redis_server import MISSING, RedisServer, redis_binaries
from tests.support.sink import lines_of

EVENTS_PER_REQUEST = 1000
LEASE_SECONDS = 60.0
STANDSTILL_SECONDS_MAX = 10.0  # a sixth of the lease: a recovery that waits for a lease cannot pass
LOOK_SECONDS = 0.002
# Everything that could bring work back by running out of time takes a lease; the refill alone is as quick as ever.
PATIENT = {
    "workers.lease_seconds": LEASE_SECONDS,
    "workers.heartbeat_seconds": LEASE_SECONDS / 6,
    "workers.handler_timeout_seconds": 600,
    "janitor.stream_reclaim_seconds": LEASE_SECONDS,
    "janitor.stream_idle_seconds": LEASE_SECONDS,
    "janitor.refill_seconds": 1.0,
}


class DepthWatch(threading.Thread):
    """Looks at the length of the one stream on a server all the time, from outside, and keeps the highest."""

    def __init__(self, server: RedisServer) -> None:
        super().__init__(daemon=True)
        (self.key,) = server.admin.keys("*:entries")
        self.client = redis_client.Redis(port=server.port)
        self.ended = threading.Event()
        self.looks = self.highest = 0

    def run(self) -> None:
        while not self.ended.wait(LOOK_SECONDS):
            self.highest = max(self.highest, int(self.client.xlen(self.key)))
            self.looks += 1

    def __enter__(self) -> "DepthWatch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()
        self.client.close()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    if not redis_binaries():
        pytest.skip(MISSING)
    with RedisServer(next(iter(redis_binaries().values())), tmp_path) as server:
        yield server


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A server whose autovacuum looks every second instead of every minute, as the tests hurry too."""
    require_postgres()
    with PostgresServer(autovacuum_naptime="1s") as server:
        yield server


def say(text: str) -> None:
    sys.stdout.write(f"\n  {text}")
    sys.stdout.flush()


def send(daemon: DaemonProcess, event_type: str, first: int, count: int) -> list[str]:
    """Send so many events with the keys from number `first` on; return their ids as acknowledged."""
    events = [event(f"key-{number}", event_type) for number in range(first, first + count)]
    answer = daemon.http.request("POST", "/api/events/bulk", bulk(events))
    assert (answer.status, answer.json()["rejected"]) == (200, 0), answer.body
    return [item["id"] for item in answer.json()["items"]]


def in_state(fleet: Fleet, *states: str) -> int:
    """Return how many events are in these states, as the daemons have counted them."""
    schema = fleet.settings["store.url"].partition("search_path=")[2]
    sql = f"SELECT coalesce(sum(amount), 0)::bigint FROM {schema}.tallies WHERE name = ANY ($1)"
    return int(fleet.postgres.query(sql, list(states))[0][0])


def backlog(directory: Path, postgres: PostgresServer, redis: RedisServer, events: int, entries_max: int) -> None:
    """Let a backlog grow before a closed gate; wipe Redis as it opens, and three times more while the work goes on."""
    with Fleet(directory, postgres, redis, **PATIENT, **{"stream.entries_max": entries_max}) as fleet:
        daemons = [fleet.start("first"), fleet.start("second")]
        with DepthWatch(redis) as watch:
            sent = fill(fleet, daemons, events)
            say(f"{events:,} rows wait behind {watch.highest:,} entries")
            began = time.monotonic()
            wiped_at = [wipe(fleet, redis, ended_min=0)]  # with no claim under way that would notice it
            for daemon in daemons:
                (daemon.directory / "gate").touch()
            wiped_at += [wipe(fleet, redis, ended_min=events * fifths // 5) for fifths in (1, 2, 3)]
            wait_for(fleet, "succeeded", events)
            say(
                f"drained in {time.monotonic() - began:.1f} s, depth {watch.highest:,} at most in {watch.looks:,} looks"
            )
        assert entries_max * 0.9 <= watch.highest <= entries_max
        standstills = standstills_after(wiped_at, starts_of(daemons))
        say(f"longest standstill after each wipe: {', '.join(f'{seconds:.2f} s' for seconds in standstills)}")
        assert max(standstills) < STANDSTILL_SECONDS_MAX
        assert fleet.starts() == dict.fromkeys(sent, 1)
        assert len(sent) == events
        assert [until(daemon.converged)["ledger"]["lost"] for daemon in daemons] == [0, 0]
        assert redis.admin.xlen(watch.key) == 0


def fill(fleet: Fleet, daemons: list[DaemonProcess], events: int) -> list[str]:
    """Send gated events to the daemons in turn and return their ids once all have rows and none has begun."""
    acknowledged = []
    for first in range(0, events, EVENTS_PER_REQUEST):
        daemon = daemons[first // EVENTS_PER_REQUEST % len(daemons)]
        acknowledged += send(daemon, "gated.one", first, EVENTS_PER_REQUEST)
    until(lambda: in_state(fleet, "queued", "processing") == events, 120, "every event to have its row")
    return acknowledged


def wait_for(fleet: Fleet, state: str, count: int, seconds: float = 600) -> None:
    """Return once so many events are in a state."""
    until(lambda: in_state(fleet, state) >= count, seconds, f"{count:,} events to be {state}")


def wipe(fleet: Fleet, redis: RedisServer, *, ended_min: int) -> float:
    """Wipe Redis once so many events have ended; returns when that was, in seconds since the epoch."""
    wait_for(fleet, "succeeded", ended_min)
    redis.admin.flushall()
    return time.time()


def starts_of(daemons: list[DaemonProcess]) -> list[float]:
    """Return when handlers started, on whichever daemon, in seconds since the epoch and in order."""
    lines = (line for daemon in daemons for line in lines_of(daemon.directory))
    return sorted(line.at_seconds for line in lines if line.word == "started")


def standstills_after(moments: list[float], starts: list[float]) -> list[float]:
    """Return for each moment the longest time without a start between it and the next moment."""
    longest = []
    for begin, end in pairwise([*moments, starts[-1]]):
        within = [begin, *(start for start in starts if begin <= start <= end)]
        longest.append(max(later - earlier for earlier, later in pairwise(within)))
    return longest


def test_backlog_stays_in_the_store(tmp_path: Path, postgres: PostgresServer, redis: RedisServer) -> None:
    """A backlog of twenty streams' worth never puts more than `entries_max` on Redis, although two daemons fill it; and
    when Redis is wiped, work goes on with the next refill and not a lease later."""
    backlog(tmp_path, postgres, redis, events=10_000, entries_max=500)


@pytest.mark.soak
def test_backlog_of_two_hundred_thousand(tmp_path: Path, postgres: PostgresServer, redis: RedisServer) -> None:
    """The same at full size, with the `entries_max` that is the default."""
    backlog(tmp_path, postgres, redis, events=200_000, entries_max=10_000)
