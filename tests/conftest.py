"""What holds for every test: a skip is loud, and where nothing may be missing it is a failure."""

import os
import signal
from collections.abc import Generator
from typing import Any

import pytest

NO_SKIPS = os.environ.get("REPLAYFORGE_NO_SKIPS") == "1"


def pytest_configure() -> None:
    """Hear Ctrl-C, and let every daemon hear it: a shell takes that from whatever it runs in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Turn a skip into a failure where the environment promises that every tool is there."""
    outcome = yield
    report = outcome.get_result()
    if NO_SKIPS and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"REPLAYFORGE_NO_SKIPS=1, but this was skipped: {report.longrepr}"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Name what was skipped and why, so that nobody takes a hole for a proof."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section("not proven on this machine")
    for reason in sorted({str(report.longrepr[2]) for report in skipped if isinstance(report.longrepr, tuple)}):
        terminalreporter.line(reason)
