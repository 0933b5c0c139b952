"""A daemon in a process of its own and a real Chromium that looks at its pages, with an eye on what it complains of."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.daemon_process import DaemonProcess, until

try:
    from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
except ImportError:
    # Only the test that says so loudly is left; it fails in CI.
    collect_ignore_glob = ["test_[!b]*.py"]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
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
}
TIMEOUT_MS = 10_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for each file of tests."""
    if CHROMIUM is None:
        pytest.skip("BROWSER TESTS SKIPPED: there is no chromium on PATH")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


def serving(directory: Path) -> DaemonProcess:
    """Start a daemon with simulated crashes."""
    return DaemonProcess(directory, HANDLERS, ["--simulate-crashes"], dict(QUICK)).start()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    """A fresh daemon."""
    with serving(tmp_path) as process:
        yield process


@dataclass
class Watched:
    """A page and everything it complained of, asked for, and was refused."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, path: str) -> Watched:
        """Go to a path and wait until the page is live, or just loaded when it has no script."""
        self.page.goto(self.url + path)
        return self

    def in_theme(self, theme: str) -> Watched:
        """Show the page that is open as who prefers this theme sees it."""
        self.page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        return self

    def live(self) -> Watched:
        """Wait until the page is connected."""
        self.page.wait_for_selector("#pill[data-state=live]")
        return self

    def text(self, selector: str) -> str:
        """Return the text of the first match."""
        return self.page.locator(selector).first.inner_text()

    def clipboard(self) -> str:
        """Return what lies on the clipboard; the page needs the permission to read it."""
        self.page.bring_to_front()
        return str(self.page.evaluate("navigator.clipboard.readText()"))

    def foreign(self) -> list[str]:
        """Return the requests that went to another host."""
        own = urlsplit(self.url).netloc
        return [url for url in self.requests if urlsplit(url).netloc not in ("", own)]

    def violations(self) -> list[str]:
        """Return what the content security policy refused on the present page."""
        refused: list[str] = self.page.evaluate("window.refused ?? []")
        return refused


REFUSALS = """
window.refused = [];
document.addEventListener('securitypolicyviolation', (event) =>
  window.refused.push(`${event.violatedDirective} ${event.blockedURI}`));
"""

Look = Callable[..., Watched]


@pytest.fixture
def look(browser: Browser, daemon: DaemonProcess) -> Iterator[Look]:
    """Open tabs at the daemon: `look(path, theme=..., width=..., java_script_enabled=...)`."""
    with tabs(browser, daemon) as open_tab:
        yield open_tab


@contextmanager
def tabs(browser: Browser, daemon: DaemonProcess) -> Iterator[Look]:
    """Open tabs for a while."""
    contexts: list[BrowserContext] = []

    def open_tab(path: str = "/", *, theme: str = "light", width: int = 1440, **options: Any) -> Watched:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if theme == "dark" else "light",
            **options,
        )
        contexts.append(context)
        context.set_default_timeout(TIMEOUT_MS)
        if options.get("java_script_enabled", True):
            context.add_init_script(REFUSALS)
        watched = Watched(context.new_page(), daemon.url)
        watched.page.on("console", lambda line: note(watched, line.type, line.text))
        watched.page.on("pageerror", lambda error: watched.complaints.append(str(error)))
        watched.page.on("request", lambda request: watched.requests.append(request.url))
        return watched.open(path)

    try:
        yield open_tab
    finally:
        for context in contexts:
            context.close()


def note(watched: Watched, kind: str, text: str) -> None:
    if kind in ("error", "warning"):
        watched.complaints.append(f"{kind}: {text}")


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
