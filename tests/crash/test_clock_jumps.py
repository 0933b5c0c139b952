"""The wall clock of a running daemon jumps, by an hour, ten years, a second: what becomes of its events does not."""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from replayforge.domain.event import decode_record
from replayforge.forgelog.log import ForgeLog, Record
from replayforge.whole_lines import whole_lines
from tests.support.clock_jumps import JumpingDaemon, library
from tests.support.daemon_process import DaemonProcess, until
from tests.support.fleet import SHORT, Fleet, bulk, event
from tests.support.postgres_server import require_postgres, shared_server
from tests.support.redis_server import MISSING, RedisServer, redis_binaries
from tests.support.sink import QUICK, SINK_HANDLERS, lines_of, started

HOUR, DAY, DECADE = 3_600.0, 86_400.0, 3_652 * 86_400.0
LEAP_SECOND = -1.0
JUMPS = (0.0, HOUR, 0.0, -HOUR, LEAP_SECOND, DECADE, -DECADE, DECADE)
JUMPS_OF_ONE = (0.0, HOUR, -DECADE, DECADE)
BACKOFF_SECONDS = 1.0
AUCKLAND = "NZST-12NZDT,M9.5.0,M4.1.0/3"  # Pacific/Auckland, written out: not every machine has the table of zones
SETTINGS = QUICK | {
    "retry.base_seconds": BACKOFF_SECONDS,
    "retry.max_seconds": BACKOFF_SECONDS,
    "retry.jitter": 0,
    "janitor.mirror_seconds": 0.1,
    "janitor.retention_seconds": 0.2,
    "log.retention_seconds": DAY,
    "retention.succeeded_seconds": DAY,
    "retention.dead_seconds": DAY,
}
PAGES = (
    "/", "/events", "/workflows", "/workflows/workflow", "/dead-letters", "/runtime", "/metrics", "/api/events",
    "/api/convergence", "/api/metrics", "/api/workers", "/api/supervisor", "/api/insights/errors", "/health/ready",
    "/api/workflows/workflow/timeline",
)  # fmt: skip
TERMINAL = {"succeeded", "dead_lettered"}


def telemetry_events(daemon: DaemonProcess, name: str) -> list[dict[str, Any]]:
    """Return what the daemon has logged under a name."""
    return [json.loads(line) for line in whole_lines(daemon.stderr) if f'"{name}"' in line]


def send(daemon: DaemonProcess, number: object, shift_seconds: float, *, seconds: float = 0.5) -> dict[str, str]:
    """Send one event of each kind, one of them for half a second later by the daemon's clock; return key -> id."""
    later = datetime.fromtimestamp(time.time() + shift_seconds + 0.5, UTC).isoformat()
    events = [
        *(event(f"quick-{number}-{copy}") for copy in range(3)),
        event(f"flaky-{number}", "flaky.once", failures=1),
        event(f"slow-{number}", "slow.work", seconds=seconds),
        event(f"doomed-{number}", "doomed.work"),
        event(f"later-{number}") | {"run_at": later},
    ]
    answer = daemon.http.request("POST", "/api/events/bulk", bulk(events))
    accepted = answer.json()
    assert (answer.status, accepted["accepted"]) == (200, len(events)), answer.body
    return {sent["idempotency_key"]: item["id"] for sent, item in zip(events, accepted["items"], strict=True)}


def wait_for_the_middle(daemons: list[DaemonProcess], ids: dict[str, str], number: object) -> None:
    """Return when the events of a round run, the slow one is at it, and the flaky one waits for its second attempt."""
    begun = [ids[key] for key in ids if key.endswith(f"-{number}") and not key.startswith("later")]

    def look() -> bool:
        starts: Counter[str] = Counter()
        for daemon in daemons:
            starts += started(daemon.directory)
        return all(starts[event_id] for event_id in begun)

    until(look, what=f"the events of round {number} to begin")
    flaky = ids[f"flaky-{number}"]
    until(lambda: daemons[0].http.get(f"/api/events/{flaky}")["attempts"], what="the first attempt to be on record")


def look_at_everything(daemon: DaemonProcess) -> None:
    """Every page answers, and none shows a negative number."""
    for page in PAGES:
        answer = daemon.http.request("GET", page, headers={"Accept": "text/html, application/json, */*"})
        assert answer.status == 200, (page, answer.status, answer.body[:2000])
        text = answer.body.decode()
        if page == "/metrics":
            assert [line for line in text.splitlines() if line.rpartition(" ")[2].startswith("-")] == []
        elif text.startswith("{"):
            assert negatives(answer.json()) == [], (page, text)
        else:
            words = text.replace('tabindex="-1"', "")
            assert re.findall(r"(?:^|[\s>(=\"])[-−]\d[^\"<]*", words) == [], page


def negatives(value: Any, name: str = "") -> list[tuple[str, float]]:
    """Return every negative number in a document, and where."""
    if isinstance(value, dict):
        return [found for key, one in value.items() for found in negatives(one, f"{name}/{key}")]
    if isinstance(value, list):
        return [found for one in value for found in negatives(one, name)]
    return [(name, value)] if isinstance(value, (int, float)) and value < 0 else []


def histories(daemon: DaemonProcess, ids: dict[str, str]) -> dict[str, Any]:
    """Return what became of each event, without any time: state, starts, the outcomes of its attempts, last first."""
    found = {}
    for key, event_id in ids.items():
        shown = daemon.http.get(f"/api/events/{event_id}")
        outcomes = [one["outcome"] for one in shown["attempts"]]
        found[key] = (shown["status"], shown["starts"], shown["attempt_count"], outcomes)
        assert all(0 <= one["duration_ms"] < 30_000 for one in shown["attempts"]), shown["attempts"]
    return found


def records_of(daemon: DaemonProcess) -> list[Record]:
    """Return the log of a daemon that has ended."""
    log = ForgeLog.open(daemon.data_dir / "log")
    try:
        return log.read(0, records_max=10_000)
    finally:
        log.finish()


def nothing_was_taken_back(daemon: DaemonProcess) -> None:
    """No lease was lost, no attempt taken back or fenced, nothing removed by age, and nothing ended with an error."""
    words = [
        *("lease.lost", "attempt.reclaimed", "attempt.fenced", "event.retired", "log.retained"),
        *("chore.failed", "service.crashed", "request.failed"),
    ]
    assert {word: telemetry_events(daemon, word) for word in words if telemetry_events(daemon, word)} == {}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[JumpingDaemon, DaemonProcess]]:
    """A daemon whose clock jumps, in another zone of time, and one beside it whose clock does not."""
    settings = SETTINGS | {"workers.count": 4}
    with (
        JumpingDaemon(tmp_path / "jumps", SINK_HANDLERS, settings=settings, zone=AUCKLAND) as jumps,
        DaemonProcess(tmp_path / "steady", SINK_HANDLERS, settings=settings) as steady,
    ):
        jumps.start()
        steady.start()
        yield jumps, steady


@pytest.mark.slow
def test_a_history_is_the_same_with_and_without_jumps(pair: tuple[JumpingDaemon, DaemonProcess]) -> None:
    """Through jumps of an hour, ten years and a second, with work running, retrying and scheduled, each event has the
    starts, attempts and end it has beside a steady clock; the log keeps its order and its times never run back."""
    jumps, steady = pair
    ids: dict[str, str] = {}
    began, moves = time.time(), 0
    for number, shift in enumerate(JUMPS):
        moves += number > 0 and abs(shift - JUMPS[number - 1]) > 300
        jumps.set_clock(shift)
        until(lambda: len(telemetry_events(jumps, "clock.jumped")) == moves, what=f"the warning of jump {number}")  # noqa: B023
        ids |= send(jumps, number, shift)
        assert send(steady, number, 0).items() <= ids.items()
        for daemon in pair:
            wait_for_the_middle([daemon], ids, number)
        look_at_everything(jumps)
        if number and shift < JUMPS[number - 1]:
            retried = ids[f"flaky-{number - 1}"]
            until(lambda: started(jumps.directory)[retried] == 2, 8, "a retry the clock was set back under")  # noqa: B023
        if number == 0:
            zoned = jumps.http.get(f"/api/events/{ids['quick-0-0']}")["created_at"]
            assert abs(datetime.fromisoformat(zoned).timestamp() - began) < 30
    told = []
    for daemon in pair:
        until(lambda: not daemon.http.get("/api/events?status=scheduled")["items"], what="what was scheduled")  # noqa: B023
        until(daemon.converged, 10, "everything to end")
        told.append(histories(daemon, ids))
        assert {state for state, *_ in told[-1].values()} == TERMINAL
        assert started(daemon.directory) == {ids[key]: starts for key, (_, starts, *_) in told[-1].items()}
        assert daemon.terminate() == 0
        nothing_was_taken_back(daemon)
    assert told[0] == told[1]
    assert telemetry_events(steady, "clock.jumped") == []
    logs = [records_of(daemon) for daemon in pair]
    orders = [[decode_record(record.payload).id for record in log] for log in logs]
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == sorted(ids.values())
    for log in logs:
        times = [record.appended_at_us for record in log]
        assert times == sorted(times)
    assert logs[0][-1].appended_at_us > (began + DECADE) * 1e6
    checked = jumps.run_command("check", "--data-dir", str(jumps.data_dir))
    assert checked.code == 0, checked.out + checked.err


@pytest.mark.slow
def test_retention_stops_at_a_jump_and_goes_on_with_the_right_time(tmp_path: Path) -> None:
    """While the clock is an hour ahead nothing is removed by age, however old it really grows; once the clock is right
    what is old goes, from the store and from the log. Hours that the machine slept through are no jump."""
    kept_seconds = 2.0
    names = ("log.retention_seconds", "retention.succeeded_seconds")
    settings = SETTINGS | dict.fromkeys(names, kept_seconds) | {"log.segment_bytes": 16 << 20}
    with JumpingDaemon(tmp_path, SINK_HANDLERS, settings=settings) as daemon:
        daemon.start()
        daemon.set_clock(HOUR)
        until(lambda: telemetry_events(daemon, "clock.jumped"), what="the warning")
        sent = [event(f"large-{number}", "quick", text="x" * 900_000) for number in range(20)]
        for part in (sent[:10], sent[10:]):
            assert daemon.http.request("POST", "/api/events/bulk", bulk(part)).json()["accepted"] == 10
        until(daemon.converged, what="the events to end")
        ended = max(line.at_seconds for line in lines_of(tmp_path)) - HOUR
        until(lambda: time.time() > ended + kept_seconds + 1, what="the events to be old")
        ledger = daemon.http.get("/api/convergence")["ledger"]
        assert (ledger["succeeded"], ledger.get("retired", 0)) == (20, 0)
        assert telemetry_events(daemon, "log.retained") == []
        jumped = telemetry_events(daemon, "clock.jumped")[0]
        assert "restart if it is right" in jumped["remedy"]
        assert jumped["drift_seconds"] == pytest.approx(HOUR, abs=10)

        daemon.set_clock(0)
        until(lambda: len(telemetry_events(daemon, "clock.jumped")) == 2, what="the word that all is well")
        assert telemetry_events(daemon, "clock.jumped")[1]["remedy"] == ""
        send(daemon, 1, 0)
        until(daemon.converged, what="the events to end")
        daemon.sleep(8 * HOUR)
        until(lambda: daemon.http.get("/api/convergence")["ledger"]["retired"] == 24 + 2, what="the old to be removed")
        until(lambda: telemetry_events(daemon, "log.retained"), what="the log's first segment to go")
        assert len(telemetry_events(daemon, "clock.jumped")) == 2


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Two daemons that share Redis and PostgreSQL; only one of them has a clock that jumps."""
    library()
    require_postgres()
    if not redis_binaries():
        pytest.skip(MISSING)
    settings = SETTINGS | SHORT | {name: SETTINGS[name] for name in SETTINGS if name.startswith("retry")}
    with (
        RedisServer(next(iter(redis_binaries().values())), tmp_path) as redis,
        Fleet(tmp_path, shared_server(), redis, **settings) as fleet,
    ):
        jumps = JumpingDaemon(tmp_path / "jumps", SINK_HANDLERS, settings=fleet.settings, zone=AUCKLAND)
        fleet.daemons["jumps"] = jumps
        yield fleet


@pytest.mark.slow
def test_neighbours_do_not_notice_the_jumps_of_one(fleet: Fleet) -> None:
    """Two daemons on one PostgreSQL: handlers that run beyond their leases while one daemon's clock jumps keep them, on
    either daemon, and every event, whoever accepted it, has the starts and the end it would have had."""
    jumps, steady = fleet.start("jumps"), fleet.start("steady")
    assert isinstance(jumps, JumpingDaemon)
    ids: dict[str, str] = {}
    for number, shift in enumerate(JUMPS_OF_ONE):
        jumps.set_clock(shift)
        for daemon, name in ((jumps, f"{number}-jumps"), (steady, f"{number}-steady")):
            sent = send(daemon, name, 0, seconds=2.2)  # what is due goes by the database's clock, which does not jump
            ids |= sent
            wait_for_the_middle([jumps, steady], sent, name)
        for daemon in (jumps, steady):
            look_at_everything(daemon)
            assert not [issue for issue in daemon.http.get("/api/convergence")["issues"] if "Node" in issue]
    until(lambda: not jumps.http.get("/api/events?status=scheduled")["items"], what="what was scheduled")
    until(jumps.converged, 15, "everything to end")
    told = {key: (state, starts) for key, (state, starts, *_) in histories(steady, ids).items()}
    expected = {"quick": ("succeeded", 1), "flaky": ("succeeded", 2), "slow": ("succeeded", 1)}
    expected |= {"doomed": ("dead_lettered", 1), "later": ("succeeded", 1)}
    assert told == {key: expected[key.partition("-")[0]] for key in ids}
    assert fleet.starts() == {ids[key]: starts for key, (_, starts) in told.items()}
    for daemon in (jumps, steady):
        assert daemon.terminate() == 0
        nothing_was_taken_back(daemon)
    assert len(telemetry_events(jumps, "clock.jumped")) == len(JUMPS_OF_ONE) - 1
    assert telemetry_events(steady, "clock.jumped") == []
