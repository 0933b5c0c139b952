"""SIGTERM under load: nothing is left half-way, and the process ends in time, whatever the handlers do."""

import http.client
import json
import signal
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from replayforge.assembly import DRAIN_SECONDS
from replayforge.whole_lines import whole_lines
from tests.support.daemon_process import DaemonProcess, HttpClient, until
from tests.support.sink import QUICK, SINK_HANDLERS, ended, lines_of

SLOWNESS = {"loop.blocked", "log.slowed"}  # what a machine that has other things to do may give rise to
STUBBORN = """
import asyncio, time
from replayforge import Handlers

handlers = Handlers()

@handlers.on("stubborn")
async def stubborn(event, ctx):
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

@handlers.on("thread")
def thread(event, ctx):
    time.sleep(60)

@handlers.on("patient")
async def patient(event, ctx):
    await asyncio.sleep(60)
"""


def states(daemon: DaemonProcess) -> Counter[str]:
    with closing(sqlite3.connect(f"file:{daemon.store_path}?mode=ro", uri=True)) as store:
        return Counter(dict(store.execute("SELECT state, count(*) FROM events GROUP BY state").fetchall()))


def send(daemon: DaemonProcess, event_type: str, count: int = 1, seconds: float = 0.0) -> None:
    body = {"workflow_id": "w", "event_type": event_type, "payload": {"seconds": seconds}}
    assert daemon.http.post("/api/events/bulk", [body] * count).json()["accepted"] == count


def test_sigterm_under_load(tmp_path: Path) -> None:
    """SIGTERM under load exits 0 within the grace period, leaves nothing processing, and loses nothing acknowledged."""
    with DaemonProcess(tmp_path, SINK_HANDLERS, settings={**QUICK, "supervisor.grace_seconds": 5}) as daemon:
        daemon.start()
        acknowledged: list[str] = []
        refusals: list[tuple[int, str | None]] = []
        sender = threading.Thread(target=send_until_gone, args=(daemon.client(), acknowledged, refusals))
        sender.start()
        send(daemon, "slow.one", 40, seconds=0.5)
        until(lambda: len(acknowledged) > 50 and lines_of(tmp_path), what="load")
        began = time.monotonic()
        assert daemon.terminate(20) == 0
        assert time.monotonic() - began < 5 + 10
        sender.join(20)
        left = states(daemon)
        assert left["processing"] == 0
        assert left["queued"] > 0, "the load was too light to leave anything queued"
        assert all(status == 503 and after is not None for status, after in refusals)
        before = len(lines_of(tmp_path))
        daemon.start()
        assert any("clean stop" in line and "unclean" not in line for line in until(lambda: recovered(daemon)))
        report = until(daemon.converged, 30)
        assert len(lines_of(tmp_path)) > before
        assert report["ledger"]["accepted"] == len(acknowledged) + 40
        assert set(acknowledged) - ended(tmp_path).keys() == set()
        assert set(ended(tmp_path).values()) == {1}, "an ordered stop runs nothing twice"


def logged(daemon: DaemonProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in whole_lines(daemon.stderr)]


def recovered(daemon: DaemonProcess) -> list[str] | None:
    return [line for line in daemon.announced if "recovered" in line] or None


def send_until_gone(client: HttpClient, acknowledged: list[str], refusals: list[tuple[int, str | None]]) -> None:
    try:
        while True:
            answer = client.post("/api/events", {"workflow_id": "w", "event_type": "quick.one"})
            if answer.status == 201:
                acknowledged.append(answer.json()["id"])
            else:
                refusals.append((answer.status, answer.headers.get("retry-after")))
    except (OSError, http.client.HTTPException):
        return


def test_running_handlers_may_finish(tmp_path: Path) -> None:
    """A handler that runs when SIGTERM comes finishes within the grace period, its outcome stands, and all is well."""
    with DaemonProcess(tmp_path, SINK_HANDLERS, settings=QUICK | {"logging.format": "json"}) as daemon:
        daemon.start()
        send(daemon, "slow.one", 3, seconds=1.0)
        until(lambda: len(lines_of(tmp_path)) == 3)
        assert daemon.terminate() == 0
        assert states(daemon) == {"succeeded": 3}
        assert {line["event"] for line in logged(daemon) if line["level"] == "warning"} <= SLOWNESS


@pytest.mark.parametrize("event_type", ["patient", "thread", "stubborn"])
def test_handlers_that_do_not_end(tmp_path: Path, event_type: str) -> None:
    """A handler that outlasts the grace period is interrupted: exit 0 in time, nothing processing, no attempt spent.

    It makes no difference whether it runs in a thread or refuses to be cancelled.
    """
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    settings = {**QUICK, "supervisor.grace_seconds": 0.5}
    with DaemonProcess(tmp_path, tmp_path / "stubborn.py", settings=settings) as daemon:
        daemon.start()
        send(daemon, event_type)
        until(lambda: daemon.http.get("/api/events?status=processing")["items"])
        began = time.monotonic()
        assert daemon.terminate(20) == 0
        assert time.monotonic() - began < 15
        assert states(daemon) == {"queued": 1}
        with closing(sqlite3.connect(daemon.store_path)) as store:
            assert store.execute("SELECT outcome FROM attempts").fetchall() == [("interrupted",)]
            assert store.execute("SELECT attempt_count FROM events").fetchall() == [(0,)]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_exits_at_once(tmp_path: Path, second: int) -> None:
    """A second signal ends the process at once, with a code of its own."""
    with DaemonProcess(tmp_path, SINK_HANDLERS, settings=QUICK) as daemon:
        daemon.start()
        send(daemon, "slow.one", seconds=30)
        until(lambda: lines_of(tmp_path))
        daemon.signal(signal.SIGTERM)
        until(lambda: daemon.http.get("/api/supervisor") and draining(daemon), what="draining")
        daemon.signal(second)
        assert daemon.wait(10) == 130, "the handler and its grace take longer"


def draining(daemon: DaemonProcess) -> bool:
    answer = daemon.http.request("GET", "/health/ready")
    return answer.status == 503


def test_idle_stop_is_quick(tmp_path: Path) -> None:
    """An idle daemon waits for nothing after SIGTERM, nor after SIGINT."""
    with DaemonProcess(tmp_path, SINK_HANDLERS) as daemon:
        for number in (signal.SIGTERM, signal.SIGINT):
            daemon.start()
            began = time.monotonic()
            daemon.signal(number)
            assert daemon.wait() == 0
            assert time.monotonic() - began < DRAIN_SECONDS
