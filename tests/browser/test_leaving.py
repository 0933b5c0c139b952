"""A daemon that stops while pages are open."""

import time

from playwright.sync_api import expect

from replayforge.assembly import DRAIN_SECONDS
from tests.browser.conftest import Look
from tests.support.daemon_process import DaemonProcess


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
