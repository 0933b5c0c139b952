"""A daemon in a process of its own and a real Chromium that looks at its pages, with an eye on what it complains of."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_process import DaemonProcess, until
from tests.support.ports import free_port

try:
    from playwright.sync_api import Browser, sync_playwright

    from tests.browser.tabs import Look, Tabs
except ImportError:
    # Only the test that says so loudly is left; it fails in CI.
    collect_ignore_glob = ["test_[!b]*.py"]

# The shell is the same browser without windows, and loads a page in two thirds of the time.
PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, PROGRAMS)), None)
FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-gpu",
    "--disable-quic",
    # A name that is not localhost: on plain http the browser trusts it less.
    "--host-resolver-rules=MAP replay.test 127.0.0.1",
]
HANDLERS = Path(__file__).parent / "handlers_for_pages.py"
QUICK = {
    "retry.base_seconds": 600,
    "workers.count": 4,
    "supervisor.grace_seconds": 1,
    "supervisor.restarts_max": 100,
    "janitor.metrics_seconds": 0.5,
    "server.allowed_hosts": ["127.0.0.1", "replay.test"],
    "sources": [{"name": "hooks", "preset": "github", "secrets": ["secret"]}],
    "schedules": [{"name": "nightly", "event_type": "shop.closed", "cron": "0 2 1 1 *"}],
    "alerts": [{"name": "held", "when": "held", "command": ["true"]}],
}


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One Chromium for all of these tests."""
    if CHROMIUM is None:
        pytest.skip("BROWSER TESTS SKIPPED: there is no chromium on PATH")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="package")
def tabs(browser: Browser) -> Tabs:
    return Tabs(browser)


@pytest.fixture(scope="package")
def port() -> int:
    """The port of every daemon that is alone, so that the browser has what never changes from the first one."""
    return free_port()


def serving(directory: Path, port: int = 0, **settings: Any) -> DaemonProcess:
    """Start a daemon with simulated crashes."""
    return DaemonProcess(directory, HANDLERS, ["--simulate-crashes"], QUICK | settings).start("--port", str(port))


def paused_replay(daemon: DaemonProcess, dead: str) -> str:
    """Replay a dead letter in bulk, which dies again; return the id of the job, which pauses after this canary."""
    answer = daemon.http.post("/api/replays", {"ids": [dead], "reason": "r", "canary": 1})
    assert answer.status == 202
    job: str = answer.json()["id"]
    until(lambda: daemon.http.get(f"/api/replays/{job}")["status"] == "paused")
    reaches(daemon, dead, "dead_lettered")
    return job


@pytest.fixture
def daemon(tmp_path: Path, port: int) -> Iterator[DaemonProcess]:
    """A fresh daemon."""
    with serving(tmp_path, port) as process:
        yield process


@pytest.fixture
def look(tabs: Tabs, daemon: DaemonProcess) -> Iterator[Look]:
    """Open tabs at the daemon: `look(path, theme=..., width=..., java_script_enabled=...)`."""
    with tabs.at(daemon.url) as look:
        yield look


def send(daemon: DaemonProcess, event_type: str, payload: Any = None, **fields: Any) -> str:
    """Send an event and return its id."""
    body = {"workflow_id": "order-1", "event_type": event_type, "payload": {} if payload is None else payload, **fields}
    answer = daemon.http.post("/api/events", body)
    assert answer.status in (200, 201), answer.body
    return str(answer.json()["id"])


def reaches(daemon: DaemonProcess, event_id: str, *states: str) -> dict[str, Any]:
    """Return the event once it stands in one of the states."""

    def there() -> dict[str, Any] | None:
        event: dict[str, Any] = daemon.http.get(f"/api/events/{event_id}")
        return event if event["status"] in states else None

    return until(there, what=f"{event_id} to be {states}")
