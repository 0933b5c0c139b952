"""What holds for every test: a skip is loud, and where nothing may be missing it is a failure."""

import os
import signal
import sys
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Generator
from typing import Any

import pytest

from tests.support.branches import Branches
from tests.support.rewritten_once import RewrittenOnce

# pytest imports it when something is left behind, in whichever thread that shows: two at once find half a module.
assert tracemalloc

# Hundreds of processes import the package: where none may keep what it has compiled, each compiles it anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

NO_SKIPS = os.environ.get("REPLAYFORGE_NO_SKIPS") == "1"


def pytest_configure(config: pytest.Config) -> None:
    """Hear Ctrl-C, and let every daemon hear it: a shell takes that from whatever it runs in the background."""
    config.pluginmanager.register(Branches())
    if worker := getattr(config, "workerinput", None):
        config.pluginmanager.register(RewrittenOnce(int(worker["workerid"].removeprefix("gw")), worker["workercount"]))
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
    """Name what was skipped and why, so that nobody takes a hole for a proof; and say what was proven, in figures."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section("not proven on this machine")
    for reason in sorted({str(report.longrepr[2]) for report in skipped if isinstance(report.longrepr, tuple)}):
        terminalreporter.line(reason)
    lines = proven(terminalreporter.stats)
    if lines:
        terminalreporter.section("ForgeLog, proven")
    for line in lines:
        terminalreporter.line(line)


def proven(stats: dict[str, list[Any]]) -> list[str]:
    """Return a line for each suite of the log: what all its parts counted, or the seed of one that failed."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    violated = {report.nodeid for report in stats.get("failed", [])}
    seeds: dict[str, int] = {}
    for report in (report for reports in stats.values() for report in reports if hasattr(report, "user_properties")):
        for _, (suite, seed, counted) in (pair for pair in report.user_properties if pair[0] == "proven"):
            suite = suite.partition("[")[0]
            counts[suite].update(counted)
            if report.nodeid in violated:
                seeds[suite] = seed
    return [
        f"{suite}: {', '.join(f'{count:,} {what}' for what, count in counted.items())}; "
        + (f"FAILED, seed {seeds[suite]}" if suite in seeds else "0 violations")
        for suite, counted in counts.items()
    ]
