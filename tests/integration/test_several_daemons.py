"""Several daemons, real processes, on one Redis and one PostgreSQL: they share the work and inherit from each other."""

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_process import DaemonProcess, until
from tests.support.fleet import LEASE_SECONDS, SWEEP_SECONDS, Fleet, Sender, bulk, event, node_of
from tests.support.postgres_server import PostgresServer, require_postgres, shared_server
from tests.support.redis_server import MISSING, RedisServer, redis_binaries
from tests.support.sink import ended, started

SLACK_SECONDS = 20.0
EVENTS = int(os.environ.get("REPLAYFORGE_TEST_EVENTS", "300"))


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    if not redis_binaries():
        pytest.skip(MISSING)
    with RedisServer(next(iter(redis_binaries().values())), tmp_path) as server:
        yield server


@pytest.fixture
def postgres() -> PostgresServer:
    require_postgres()
    return shared_server()


@pytest.fixture
def fleet(tmp_path: Path, postgres: PostgresServer, redis: RedisServer) -> Iterator[Fleet]:
    with Fleet(tmp_path, postgres, redis) as fleet:
        yield fleet


@dataclass(frozen=True)
class Strike:
    """One of three daemons was killed under load: who is left, and what became of the work it had in its hands."""

    killed: DaemonProcess
    survivors: list[DaemonProcess]
    acknowledged: set[str]
    held: Collection[str]


def kill_one_of_three(fleet: Fleet) -> Strike:
    """Kill a daemon in the middle of the work; return once the others have taken over what it held, and all is sent."""
    first, second, third = (fleet.start(name) for name in ("first", "second", "third"))
    kinds = ["quick", "slow.one", "quick", "flaky.one", "quick"]
    events = [event(f"key-{number}", kinds[number % 5], number=number, seconds=0.05) for number in range(EVENTS)]
    senders = [Sender([first, second, third], events[part::6]) for part in range(6)]
    for sender in senders:
        sender.start()
    until(lambda: fleet.lines() > EVENTS // 2, 60, "a quarter of the events to have started")
    assert {worker["node"] for worker in second.http.get("/api/workers")["items"]} == {
        node_of(daemon) for daemon in (first, second, third)
    }
    first.kill()
    killed_at = time.monotonic()
    held = fleet.held_by(f"{node_of(first)}/")
    until(lambda: all(starts > held[one] for one, starts in fleet.handed_out(held).items()), 60, "the take-over")
    took_seconds = time.monotonic() - killed_at
    sys.stdout.write(f"{len(held)} events taken over in {took_seconds:.2f} s\n")
    assert took_seconds < LEASE_SECONDS + SWEEP_SECONDS + SLACK_SECONDS
    for sender in senders:
        sender.join(120)
    return Strike(first, [second, third], {one for sender in senders for one in sender.acknowledged}, held)


def all_ended_once(fleet: Fleet, strike: Strike) -> None:
    """Check that every event ended succeeded once, and that every start of a handler is counted."""
    rows, starts, attempts = fleet.rows(), fleet.starts(), fleet.attempts()
    assert len(strike.acknowledged) == len(rows) == EVENTS
    assert {rows[one][0] for one in strike.acknowledged} == {"succeeded"}
    assert all(outcomes.count("succeeded") == 1 for outcomes in attempts.values())
    assert all(starts[one] <= rows[one][1] for one in rows)
    assert {outcome for one in strike.held for outcome in attempts[one]} >= {"crashed"} or not strike.held
    retries = sum(outcomes.count("failed") for outcomes in attempts.values())
    further = sum(count for _, count in rows.values()) - EVENTS
    sys.stdout.write(f"{further} further starts, {retries} of them after a failure\n")


def test_one_of_three_is_killed_for_good(fleet: Fleet, redis: RedisServer) -> None:
    """With ack = "stored" and one of three daemons killed in the middle, every acknowledged event ends succeeded once,
    within lease and sweep, and every further start is counted."""
    fleet.settings["ingest.ack"] = "stored"
    strike = kill_one_of_three(fleet)
    until(lambda: all(daemon.converged() for daemon in strike.survivors), 60, "the rest to end")
    all_ended_once(fleet, strike)
    report = until(lambda: gone(strike.survivors[0], strike.killed), 20, "the dead node to be named")
    assert report["waiting"] == 0
    until(lambda: node_of(strike.killed) not in consumers(redis), 20, "the dead node's consumer to be removed")


@pytest.mark.slow
def test_one_of_three_is_killed_and_comes_back(fleet: Fleet) -> None:
    """With ack = "log" what the killed daemon held is taken over all the same, and what it had accepted and not yet
    dispatched ends when it is back: every acknowledged event succeeded once, every further start counted."""
    fleet.settings["ingest.ack"] = "log"
    strike = kill_one_of_three(fleet)
    sys.stdout.write(f"{len(strike.acknowledged - fleet.rows().keys())} events wait on the dead daemon's disk\n")
    fleet.start("first")
    until(lambda: all(daemon.converged() for daemon in fleet.daemons.values()), 60, "the rest to end")
    all_ended_once(fleet, strike)


def gone(witness: DaemonProcess, daemon: DaemonProcess) -> dict[str, Any] | None:
    """Return what a daemon says of another one that it cannot reach any more."""
    report = witness.http.get("/api/convergence")
    named = [node for node in report["unreachable_nodes"] if node["node"] == node_of(daemon)]
    return named[0] if named else None


def consumers(redis: RedisServer) -> set[str]:
    """Return the names of the readers that the stream knows."""
    (key,) = redis.admin.keys("*:entries")
    (group,) = redis.admin.xinfo_groups(key)
    return {one["name"] for one in redis.admin.xinfo_consumers(key, group["name"])}


@pytest.mark.slow
def test_what_waits_on_a_dead_disk_is_named(fleet: Fleet) -> None:
    """With ack = "log" the accepted events that a dead daemon did not dispatch are named by the others, by number and
    offset, and they finish when it returns."""
    witness = fleet.start("witness")
    lost = fleet.start("lost", "--simulate-crashes", "--crash-at", "dispatch.read:2")
    with suppress(OSError, HTTPException):  # it may die before it answers; what is in its log is accepted either way
        lost.http.request("POST", "/api/events/bulk", bulk([event(f"key-{number}") for number in range(600)]))
    assert lost.wait() == 137
    named = until(lambda: gone(witness, lost), 20, "the dead node to be named")
    assert (named["projected_offset"], named["durable_offset"], named["waiting"]) == (500, 600, 100)
    report = until(lambda: settled_but(witness, 100), 20, "the dispatched part to end")
    sentence = next(issue for issue in report["issues"] if node_of(lost) in issue)
    assert "100 accepted records (offsets 501 to 600" in sentence
    assert report["ledger"]["lost"] == 0
    fleet.start("lost")
    until(witness.converged, 30, "everything to end")
    assert gone(witness, lost) is None
    assert {state for state, _ in fleet.rows().values()} == {"succeeded"}
    assert len(fleet.rows()) == 600


def settled_but(witness: DaemonProcess, open_count: int) -> dict[str, Any] | None:
    """Return the report once nothing but so many unreachable events is open."""
    report: dict[str, Any] = witness.http.get("/api/convergence")
    assert not report["converged"]
    return report if report["ledger"]["open"] == open_count else None


def test_paused_daemon_is_fenced(fleet: Fleet) -> None:
    """A daemon that is stopped beyond its lease finds its work done by another: each late result is fenced and counted,
    and each event has one outcome."""
    paused, helper = fleet.start("paused"), fleet.start("helper")
    for number in range(8):
        helper.http.post("/api/events", event(f"key-{number}", "slow.one", seconds=3))
    until(lambda: started(paused.directory), 20, "a handler to start")
    paused.signal(signal.SIGSTOP)
    begun = set(started(paused.directory))
    zombies = begun - set(ended(paused.directory))
    until(lambda: {state for state, _ in fleet.rows().values()} == {"succeeded"}, 60, "the helper to take over")
    paused.signal(signal.SIGCONT)
    until(lambda: fenced(paused) == len(zombies), 20, "the zombies to be fenced")
    assert fenced(helper) == 0
    outcomes = fleet.attempts()
    inherited = {one for one in outcomes if outcomes[one] == ["crashed", "succeeded"]}
    assert zombies
    assert inherited & begun == zombies, "the rest was held and not begun"
    assert all(outcomes[one] == ["succeeded"] for one in outcomes if one not in inherited)
    assert all(starts == len(outcomes[one]) for one, (_, starts) in fleet.rows().items())
    assert until(paused.converged, 20)["ledger"]["succeeded"] == 8


def fenced(daemon: DaemonProcess) -> int:
    """Return how many late results a daemon has dropped."""
    return int(daemon.http.get("/api/metrics")["counters"].get("attempt.fenced", 0))


def test_blocked_loop_keeps_its_leases(fleet: Fleet, tmp_path: Path) -> None:
    """A handler that blocks the whole event loop beyond the lease keeps its event: nobody takes it over."""
    handlers = tmp_path / "blocking_handlers.py"
    handlers.write_text(
        "import time\nfrom replayforge import Handlers\nhandlers = Handlers()\n\n\n"
        "@handlers.on('*')\nasync def block(event, context):\n    time.sleep(event.payload['seconds'])\n"
    )
    blocked = fleet.start("blocked", handlers=handlers)
    helper = fleet.start("helper", handlers=handlers)
    until(lambda: len(fleet.table("nodes")) == 2, 20, "both hearts to beat")
    sent = helper.http.post("/api/events", event("key", seconds=LEASE_SECONDS * 2)).json()["id"]
    until(lambda: fleet.rows().get(sent, ("", 0))[0] == "succeeded", 30, "the end of the handler")
    assert fleet.attempts() == {sent: ["succeeded"]}
    assert fleet.rows()[sent] == ("succeeded", 1)
    assert fenced(blocked) == fenced(helper) == 0


def send_behind_a_stall(daemon: DaemonProcess, seconds: float) -> tuple[str, list[str]]:
    """Send at once an event whose handler holds the event loop, and three that are handed to workers behind it; return
    the ids once the loop stands still."""
    events = [event("stalling", "stalling.one", seconds=seconds), *(event(f"key-{number}") for number in range(3))]
    ids: list[str] = []

    def send() -> None:
        answer = daemon.client().request("POST", "/api/events/bulk", bulk(events))
        ids.extend(item["id"] for item in answer.json()["items"])

    sender = threading.Thread(target=send)
    sender.start()
    until(lambda: started(daemon.directory), 20, "the handler to hold the loop")
    sender.join(seconds + 20)
    return ids[0], ids[1:]


@pytest.mark.slow
def test_events_behind_a_blocked_loop_run_once(fleet: Fleet) -> None:
    """Events that were handed to workers which a blocked loop keeps from seeing them stay this daemon's beyond their
    leases: nobody else runs them meanwhile, and they run once."""
    blocked, helper = fleet.start("blocked"), fleet.start("helper")
    until(lambda: len(fleet.table("nodes")) == 2, 20, "both hearts to beat")
    ids = send_behind_a_stall(blocked, LEASE_SECONDS * 2.5)
    until(helper.converged, 30, "all to end")
    assert fleet.starts() == dict.fromkeys([ids[0], *ids[1]], 1)
    assert set(map(tuple, fleet.attempts().values())) == {("succeeded",)}
    assert fenced(blocked) == fenced(helper) == 0


def test_a_daemon_that_was_stopped_begins_nothing_it_holds_no_more(fleet: Fleet) -> None:
    """A daemon stopped for longer than its leases, with events handed to workers that have not begun: another one runs
    them, and the first, once it goes on, starts none of them and is fenced for what it had begun."""
    stopped, helper = fleet.start("stopped"), fleet.start("helper")
    until(lambda: len(fleet.table("nodes")) == 2, 20, "both hearts to beat")
    sending = threading.Thread(target=send_behind_a_stall, args=(stopped, LEASE_SECONDS / 2), daemon=True)
    sending.start()
    until(lambda: started(stopped.directory), 20, "the handler to hold the loop")
    stopped.signal(signal.SIGSTOP)
    held = fleet.held_by(f"{node_of(stopped)}/")
    until(lambda: [state for state, _ in fleet.rows().values()] == ["succeeded"] * 4, 40, "the helper to run them")
    stopped.signal(signal.SIGCONT)
    sending.join(30)
    until(lambda: fenced(stopped) == 1, 20, "the late result to be fenced")
    assert until(stopped.converged, 20)["ledger"]["succeeded"] == 4
    assert len(held) == 4
    assert sorted(started(stopped.directory).values()) == [1], "only what it had begun before"
    assert sorted(started(helper.directory).values()) == [1, 1, 1, 1]


@pytest.mark.slow
def test_cloned_log(fleet: Fleet) -> None:
    """Of two daemons with copies of one log, the one that was there first ends itself and says why."""
    original = fleet.start("original")
    original.http.post("/api/events", event("key"))
    until(original.converged)
    original.kill()
    shutil.copytree(original.data_dir, fleet.directory / "clone" / "data")
    fleet.start("original")
    fleet.start("clone")
    with suppress(OSError, HTTPException):  # it may end before it answers
        original.http.post("/api/events", event("another key"))
    assert original.wait() == 70
    assert "copies of one log" in original.stderr.read_text() or "a copy of this log" in original.stderr.read_text()


def test_store_of_one_process(tmp_path: Path, redis: RedisServer) -> None:
    """A second daemon on the same SQLite store is refused in one sentence that names the holder."""
    first = DaemonProcess(tmp_path / "first", settings={"redis.url": redis.url})
    second = DaemonProcess(
        tmp_path / "second", settings={"redis.url": redis.url, "store.url": f"sqlite:///{first.store_path}"}
    )
    with first.start():
        ended = second.run_refused()
        assert ended.code == 78
        (sentence,) = [line for line in ended.err.splitlines() if line.strip()]
        assert f"is in use by another process, pid {first.pid}" in sentence


def test_installations_do_not_mix(tmp_path: Path, postgres: PostgresServer, redis: RedisServer) -> None:
    """Two installations on one Redis, each with a store of its own, run each event once, and on its own side."""
    with Fleet(tmp_path / "mine", postgres, redis) as mine, Fleet(tmp_path / "yours", postgres, redis) as yours:
        daemons = [mine.start("daemon"), yours.start("daemon")]
        for number in range(40):
            daemons[number % 2].http.post("/api/events", event(f"key-{number}"))
        assert [until(daemon.converged)["ledger"]["succeeded"] for daemon in daemons] == [20, 20]
        assert mine.starts().total() == yours.starts().total() == 20
        assert not mine.starts().keys() & yours.starts().keys()


def test_ordered_stop_leaves_nothing_behind(fleet: Fleet) -> None:
    """A daemon that is told to stop hands its work over at once: no lease has to lapse, and nobody misses it."""
    leaving, staying = fleet.start("leaving"), fleet.start("staying")
    for number in range(60):
        leaving.http.post("/api/events", event(f"key-{number}", "slow.one", seconds=0.2))
    assert leaving.terminate() == 0
    report = until(staying.converged, 30, "the rest to end")
    assert report["ledger"]["succeeded"] == 60
    assert "crashed" not in {outcome for outcomes in fleet.attempts().values() for outcome in outcomes}
    assert not [issue for issue in report["issues"] if node_of(leaving) in issue]


def test_the_lease_of_a_daemon_that_stands_still_is_named(fleet: Fleet) -> None:
    """Another daemon says who holds an event and until when; once the lease has lapsed it runs there."""
    first = fleet.start("first")
    event_id = first.http.send("gated.one")
    first.http.reaches(event_id, "processing")
    second = fleet.start("second")
    (second.directory / "gate").touch()
    first.signal(signal.SIGSTOP)
    try:
        seen = until(lambda: lease_named(second, event_id), what="the lease to be seen")
        assert f"Daemon {node_of(first)}/" in seen["sentence"]
        assert f"holds it under the lease token 1 until {seen['until']}" in seen["sentence"]
        assert datetime.fromisoformat(seen["until"]) <= datetime.now(UTC) + timedelta(seconds=LEASE_SECONDS)
        second.http.reaches(event_id, "succeeded")
        assert second.http.get(f"/api/events/{event_id}/why")["cause"] == "ended"
        (doubt,) = second.http.get("/api/indoubt")["items"]
        assert (doubt["id"], doubt["standing"], doubt["attempts"][0]["lease_token"]) == (event_id, "started_again", 1)
    finally:
        first.signal(signal.SIGCONT)


def lease_named(daemon: DaemonProcess, event_id: str) -> dict[str, Any] | None:
    """Return what a daemon says of an event while another one holds it, once it knows until when."""
    said: dict[str, Any] = daemon.http.get(f"/api/events/{event_id}/why")
    return said if said["cause"] == "lease" and said["until"] else None
