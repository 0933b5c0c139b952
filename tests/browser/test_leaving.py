"""A daemon that stops while pages are open."""

import time

from playwright.sync_api import expect

from replayforge.assembly import DRAIN_SECONDS
from tests.browser.tabs import Look
from tests.support.daemon_process import DaemonProcess, until
from tests.support.processes import open_files


def test_sigterm_with_open_tabs_ends_at_once(daemon: DaemonProcess, look: Look) -> None:
    """Open streams hold nothing up: the daemon ends without waiting for them, and the tabs say that it is away."""
    tabs = [look(path).live() for path in ("/", "/events", "/runtime")]
    started = time.monotonic()
    assert daemon.terminate() == 0
    assert time.monotonic() - started < DRAIN_SECONDS
    assert "Traceback" not in daemon.stderr.read_text()
    for tab in tabs:
        expect(tab.page.locator("#pill")).to_contain_text("Reconnecting")


def test_closed_tabs_leave_nothing_behind(daemon: DaemonProcess, look: Look) -> None:
    """Tabs that went away without a word raise no error and do not hold up the end."""
    for path in ("/", "/events", "/runtime"):
        look(path).live().page.context.close()
    started = time.monotonic()
    assert daemon.terminate() == 0
    assert time.monotonic() - started < DRAIN_SECONDS
    assert "Traceback" not in daemon.stderr.read_text()


def test_tabs_that_outlived_a_restart_hold_no_connection_once_they_are_gone(daemon: DaemonProcess, look: Look) -> None:
    """After kill -9 both tabs come back to the new daemon; when they close, it has as many sockets as before them."""
    port = daemon.url.rpartition(":")[2]
    before = sockets(daemon)
    tabs = [look(path).live() for path in ("/", "/events")]
    daemon.kill()
    daemon.start("--port", port)
    for tab in tabs:
        expect(tab.page.locator("#pill")).to_have_text("Live", timeout=20_000)
    assert sockets(daemon) >= before + 2
    for tab in tabs:
        tab.page.context.close()
    until(lambda: sockets(daemon) == before, what="the sockets of the tabs to be closed")


def sockets(daemon: DaemonProcess) -> int:
    """Return how many sockets the daemon holds, the one that has just been used for asking included."""
    daemon.http.get("/health")
    return sum(link.startswith("socket:") for link in open_files(daemon.pid))
