"""Many events on a real Redis and a real PostgreSQL: a backlog stays in the store, and what is done leaves no trace.

The small versions run always, the full sizes with `pytest -m soak -s`.
"""

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client

from tests.support.daemon_process import DaemonProcess, until
from tests.support.fleet import Fleet, bulk, event, node_of
from tests.support.postgres_server import PostgresServer, require_postgres
from tests.support.redis_server import MISSING, RedisServer, redis_binaries
from tests.support.sink import lines_of

EVENTS_PER_REQUEST = 1000
LEASE_SECONDS = 60.0
STANDSTILL_SECONDS_MAX = 10.0  # a sixth of the lease: a recovery that waits for a lease cannot pass
LOOK_SECONDS = 0.005
# Everything that could bring work back by running out of time takes a lease; the refill alone is as quick as ever.
PATIENT = {
    "workers.lease_seconds": LEASE_SECONDS,
    "workers.heartbeat_seconds": LEASE_SECONDS / 6,
    "workers.handler_timeout_seconds": 600,
    "janitor.stream_reclaim_seconds": LEASE_SECONDS,
    "janitor.stream_idle_seconds": LEASE_SECONDS,
    "janitor.refill_seconds": 1.0,
}

STEPS = 10
GROWTH_MAX = 2.0  # the tables follow the pace of the work; left to grow they would take three times as much
RENEWALS_MIN = 640
# Finished events go as fast as they come; an acknowledged one is in the store, so that a guest may leave for good.
FORGETFUL = {
    "ingest.ack": "stored",
    "retention.succeeded_seconds": 1.0,
    "janitor.retention_seconds": 1.0,
    "stream.entries_max": 1000,
}

# The heart beats often and no lease lapses, however slow the machine is.
BEATING = {"workers.count": 16, "workers.lease_seconds": 30.0, "workers.heartbeat_seconds": 0.1}


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


def schema_of(fleet: Fleet) -> str:
    """Return the name of the schema that the daemons' store is."""
    return fleet.store_url.partition("search_path=")[2]


def in_state(fleet: Fleet, *states: str) -> int:
    """Return how many events are in these states, as the daemons have counted them."""
    sql = "SELECT coalesce(sum(amount), 0)::bigint FROM {}.tallies WHERE name = ANY ($1)"
    return int(fleet.select(sql, list(states))[0][0])


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
        assert [until(daemon.converged, 60)["ledger"]["lost"] for daemon in daemons] == [0, 0]
        until(redis.nothing_on_streams, 20, "the last entries to be read and removed")


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


@pytest.mark.slow
def test_backlog_stays_in_the_store(tmp_path: Path, postgres: PostgresServer, redis: RedisServer) -> None:
    """A backlog of twelve streams' worth never puts more than `entries_max` on Redis, although two daemons fill it; and
    when Redis is wiped, work goes on with the next refill and not a lease later."""
    backlog(tmp_path, postgres, redis, events=3_000, entries_max=250)


@pytest.mark.soak
def test_backlog_of_two_hundred_thousand(tmp_path: Path, postgres: PostgresServer, redis: RedisServer) -> None:
    """The same at full size, with the `entries_max` that is the default."""
    backlog(tmp_path, postgres, redis, events=200_000, entries_max=10_000)


@dataclass(frozen=True)
class Steps:
    """How many events come in each of ten steps, and in every which of them a guest helps."""

    events: int
    guest_every: int


def leave_no_trace(directory: Path, postgres: PostgresServer, redis: RedisServer, steps: Steps) -> None:
    """Send ten steps of events while daemons come and go and finished events are retired; nothing may pile up."""
    with Fleet(directory, postgres, redis, **FORGETFUL) as fleet:
        stays = fleet.start("stays")
        sizes = [bytes_after_step(fleet, stays, number, steps) for number in range(STEPS)]
        ledger = until(stays.converged, 60)["ledger"]
        assert (ledger["accepted"], ledger["lost"], ledger["open"]) == (STEPS * steps.events, 0, 0)
        growth = max(sizes[3:]) / sizes[2]
        say(f"the tables never took more than {growth:.2f} times what they took after three steps")
        assert growth <= GROWTH_MAX
        until(lambda: consumers(redis) == {node_of(stays)}, 20, "the readers of the dead to be forgotten")
        until(redis.nothing_on_streams, 20, "the last entries to be read and removed")


def bytes_after_step(fleet: Fleet, stays: DaemonProcess, number: int, steps: Steps) -> int:
    """Send a step's events and return how many bytes the tables take once these have ended and earlier ones are gone.

    Where a guest helps it takes half of them and leaves at once, one in order, the next by kill -9.
    """
    daemon = stays if number % steps.guest_every else fleet.start(f"guest-{number}")
    at_once = min(steps.events, EVENTS_PER_REQUEST) // 2
    for first in range(number * steps.events, (number + 1) * steps.events, at_once):
        if first == number * steps.events + steps.events // 2:
            if daemon is not stays:
                (daemon.kill if number % 2 else daemon.terminate)()
            daemon = stays
        send(daemon, "quick", first, at_once)
    until(stays.converged, 120, "the step to end")
    until(lambda: in_state(fleet, "succeeded") <= steps.events, 60, "retention to keep up")
    bytes_of, hot = sizes(fleet), table_facts(fleet, "events")
    say(
        f"{(number + 1) * steps.events:,} events: {sum(bytes_of.values()) >> 10:,} KiB, of these events"
        f" {bytes_of['events'] >> 10:,}, contents {bytes_of['contents'] >> 10:,},"
        f" attempts {bytes_of['attempts'] >> 10:,};"
        f" {hot['n_dead_tup']:,} dead rows of events, vacuumed {hot['autovacuum_count']} times"
    )
    return sum(bytes_of.values())


def sizes(fleet: Fleet) -> dict[str, int]:
    """Return how many bytes each table takes, indexes and all."""
    sql = "SELECT relname, pg_total_relation_size(relid) FROM pg_stat_user_tables WHERE schemaname = $1"
    return {row[0]: row[1] for row in fleet.connection.query(sql, schema_of(fleet))}


def table_facts(fleet: Fleet, table: str) -> Any:
    """Return what the server has counted about a table."""
    sql = "SELECT * FROM pg_stat_user_tables WHERE schemaname = $1 AND relname = $2"
    (facts,) = fleet.connection.query(sql, schema_of(fleet), table)
    return facts


def consumers(redis: RedisServer) -> set[str]:
    """Return the names of the readers that the stream knows."""
    (key,) = redis.admin.keys("*:entries")
    (group,) = redis.admin.xinfo_groups(key)
    return {one["name"] for one in redis.admin.xinfo_consumers(key, group["name"])}


@pytest.mark.slow
def test_nothing_piles_up(tmp_path: Path, postgres: PostgresServer, redis: RedisServer) -> None:
    """Five thousand events, served by daemons that come and go, leave an empty stream that knows only who lives, and
    tables that have long stopped growing: without retention or vacuum they would have grown threefold."""
    leave_no_trace(tmp_path, postgres, redis, Steps(events=500, guest_every=3))


@pytest.mark.soak
def test_nothing_piles_up_of_a_hundred_thousand(tmp_path: Path, postgres: PostgresServer, redis: RedisServer) -> None:
    """The same at full size."""
    leave_no_trace(tmp_path, postgres, redis, Steps(events=10_000, guest_every=1))


@pytest.mark.slow
def test_heartbeats_leave_the_indexes_alone(tmp_path: Path, postgres: PostgresServer, redis: RedisServer) -> None:
    """Renewing a lease writes the row where it lies: PostgreSQL counts (nearly) every such update as heap-only."""
    with Fleet(tmp_path, postgres, redis, **BEATING) as fleet:
        daemon = fleet.start("daemon")
        send(daemon, "quick", 0, EVENTS_PER_REQUEST)
        until(daemon.converged, 60)
        for number in range(16):
            daemon.http.post("/api/events", event(f"slow-{number}", "slow.one", seconds=30))
        until(lambda: len(fleet.starts()) == EVENTS_PER_REQUEST + 16, 20, "the handlers to start")
        renewed = until(lambda: many_renewals(daemon), 30, "the heart to have beaten often enough")
        # Claims and outcomes move an event from index to index and are never heap-only, so what is counted are beats.
        until(lambda: heap_only(fleet) >= renewed * 0.9, 30, f"{renewed:,} renewals to be counted as heap-only")
        say(f"{heap_only(fleet):,} heap-only updates after {renewed:,} renewals")


def many_renewals(daemon: DaemonProcess) -> int | None:
    """Return how many leases a daemon has renewed, once they are many."""
    renewed = int(daemon.http.get("/api/metrics")["counters"].get("lease.renewed", 0))
    return renewed if renewed >= RENEWALS_MIN else None


def heap_only(fleet: Fleet) -> int:
    """Return how many updates of events PostgreSQL has counted that touched no index; it counts some seconds late."""
    return int(table_facts(fleet, "events")["n_tup_hot_upd"])
