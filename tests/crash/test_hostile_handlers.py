"""Misbehaving handlers beside honest ones in a real daemon: nobody but themselves notices, and each is named."""

import html
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.data.hostile_handlers import COSTS, MISBEHAVIOURS
from tests.support.daemon_process import DaemonProcess, until
from tests.support.slow import the_rest_slow

HANDLERS = Path(__file__).parent.parent / "data" / "hostile_handlers.py"
SECONDS = float(os.environ.get("HOSTILE_SECONDS", "600"))
ALONE_SECONDS = min(SECONDS, 120.0)
SHORT_SECONDS = 5.0
HONEST = ("honest.async", "honest.thread", "honest.executor")
HONEST_PER_ROUND = 20
ROUNDS_MIN = 3
# One of them holds the loop for 0.3 s, which no honest event beside it can outrun: it must not be one in a hundred.
ROUNDS_PER_MISBEHAVIOUR = 3


@pytest.fixture(params=the_rest_slow(["uvloop", "asyncio"]))
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DaemonProcess]:
    settings: dict[str, Any] = {"retry.base_seconds": 0.05, "janitor.promote_seconds": 0.05}
    if request.param == "asyncio":
        (tmp_path / "uvloop.py").write_text("raise ImportError('the test asks for asyncio')\n")
    with DaemonProcess(tmp_path, HANDLERS, settings=settings) as daemon:
        yield daemon.start()


def send(daemon: DaemonProcess, types: list[str]) -> list[str]:
    """Send one event of each of the types and return their ids."""
    events = [{"workflow_id": "w", "event_type": one} for one in types]
    body = daemon.http.post("/api/events/bulk", events).body
    return [item["id"] for item in json.loads(body)["items"]]


def ended(daemon: DaemonProcess, event_id: str) -> dict[str, Any]:
    """Return an event once it has ended."""

    def look() -> dict[str, Any] | None:
        event: dict[str, Any] = daemon.http.get(f"/api/events/{event_id}")
        return event if event["status"] in ("succeeded", "dead_lettered") else None

    return until(look, 60, f"the end of {event_id}")


def honest_round(daemon: DaemonProcess) -> list[float]:
    """Send honest events, see each succeed, and return how long each took as the daemon's own clock says."""
    ids = send(daemon, [HONEST[number % len(HONEST)] for number in range(HONEST_PER_ROUND)])
    events = [ended(daemon, event_id) for event_id in ids]
    assert [event["status"] for event in events] == ["succeeded"] * len(ids), [event["last_error"] for event in events]
    return [took(event) for event in events]


def took(event: dict[str, Any]) -> float:
    """Return the seconds from an event's acceptance to its end."""
    return (datetime.fromisoformat(event["updated_at"]) - datetime.fromisoformat(event["created_at"])).total_seconds()


def p99(seconds: list[float]) -> float:
    return sorted(seconds)[int(0.99 * (len(seconds) - 1))]


def honest_rounds(daemon: DaemonProcess, seconds: float, before: Callable[[int], object] = int) -> list[float]:
    """Send honest events for so long and return how long each took; `before` is called with each round's number."""
    deadline, seen, number = time.monotonic() + seconds, list[float](), 0
    while number < ROUNDS_MIN or time.monotonic() < deadline:
        before(number)
        seen += honest_round(daemon)
        # Whatever handlers say of themselves, and however they do it, people can look.
        assert daemon.http.request("GET", "/api/workers").status == 200
        number += 1
    return seen


def check_ends(daemon: DaemonProcess, sent: dict[str, str]) -> None:
    """See that every misbehaviour, given with an event of it, ended as it says."""
    for event_type, (state, error) in MISBEHAVIOURS.items():
        event = ended(daemon, sent[event_type])
        assert event["status"] == state, (event_type, event["last_error"])
        assert error in (event["last_error"] or ""), (event_type, event["last_error"])


def check_alive(daemon: DaemonProcess, pid: int) -> None:
    """See that the daemon is the same process, names everybody, and stops in order."""
    assert daemon.pid == pid
    assert daemon.running
    check_named(daemon)
    assert daemon.terminate() == 0


def check_named(daemon: DaemonProcess) -> None:
    """See that who costs somebody something is named: on the pages, in the metrics, in readiness and in the log."""
    pages = {path: html.unescape(daemon.http.request("GET", path).body.decode()) for path in ("/", "/runtime")}
    metrics = daemon.http.request("GET", "/metrics").body.decode()
    for name in ("swallow_cancellation", "hang_in_thread", "hang_in_executor"):
        assert all(f"The handler hostile.{name} does not end" in page for page in pages.values())
        assert f'replayforge_handler_running_on{{handler="hostile.{name}"' in metrics
    for event_type, (state, _) in MISBEHAVIOURS.items():
        if state == "dead_lettered":
            assert f'replayforge_handler_faults_total{{handler="{event_type}",kind="' in metrics, event_type
    for event_type, words in COSTS.items():
        assert all(words in page for page in pages.values()), (
            event_type,
            words,
            daemon.http.get("/api/convergence")["issues"],
        )
    for kind in ("changed_for_all", "exited", "abandoned", "timed_out", "crashed", "failed"):
        assert f'kind="{kind}"' in metrics
    assert 'replayforge_loop_blocked_total{handler="' in metrics
    assert daemon.http.get("/health/ready")["checks"]["handlers"]["status"] == "degraded"
    log = daemon.stderr.read_text()
    for word in ("callback.exited", "attempt.abandoned", "attempt.failed", "interpreter.restored"):
        assert word in log


def test_misbehaviours_hit_nobody_else(daemon: DaemonProcess) -> None:
    """Every misbehaviour at once beside honest events, which all succeed; the daemon lives and stops in order."""
    assert len(MISBEHAVIOURS) >= 40
    pid = daemon.pid
    sent = dict(zip(MISBEHAVIOURS, send(daemon, list(MISBEHAVIOURS)), strict=True))
    honest_rounds(daemon, SHORT_SECONDS)
    check_ends(daemon, sent)
    check_alive(daemon, pid)


@pytest.mark.soak
def test_misbehaviours_for_long(daemon: DaemonProcess) -> None:
    """Honest events alone for two minutes, then for HOSTILE_SECONDS (ten minutes) beside one misbehaviour after the
    other, again and again: p99 of the honest ones is at most three times what it was alone."""
    pid, sent = daemon.pid, dict[str, str]()
    types = cycle(MISBEHAVIOURS)
    alone = honest_rounds(daemon, ALONE_SECONDS)

    def misbehave(number: int) -> None:
        if number % ROUNDS_PER_MISBEHAVIOUR == 0:
            event_type = next(types)
            (event_id,) = send(daemon, [event_type])
            sent.setdefault(event_type, event_id)

    beside = honest_rounds(daemon, SECONDS, misbehave)
    for _ in range(len(MISBEHAVIOURS) - len(sent)):  # on a slow machine
        misbehave(0)
    sys.stdout.write(
        f"{len(alone):,} honest events alone: p50 {median(alone):.3f} s, p99 {p99(alone):.3f} s;"
        f" {len(beside):,} beside: p50 {median(beside):.3f} s, p99 {p99(beside):.3f} s\n"
    )
    check_ends(daemon, sent)
    assert p99(beside) <= 3 * p99(alone), (p99(alone), p99(beside))
    check_alive(daemon, pid)
