"""Which branches of forgelog/ its unit tests take, measured while they run, whichever workers run them.

Each worker traces the unit tests of forgelog/ that it runs, and nothing else; the process that the user started adds up
what they saw. A part of these tests proves nothing about branches, so only a run of all of them is judged.
"""

import json
from collections.abc import Generator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from coverage import Coverage, CoverageData

from replayforge import threads
from replayforge.threads import OWN_THREADS_MAX, DaemonThreads

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "replayforge/forgelog"
TESTS = ROOT / "tests/unit/forgelog"
OUTPUT = "branches of forgelog"


class Branches:
    """The plugin. A session without workers is its own worker."""

    def __init__(self) -> None:
        self.coverage = new_coverage()
        self.seen: list[bytes] = []
        self.whole = self.tracing = False

    # In each worker

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Find out whether all the tests of forgelog/ are here."""
        found = {item.path for item in session.items if is_of_forgelog(item)}
        parts = session.config.option.keyword or any("::" in str(argument) for argument in session.config.args)
        self.whole = not parts and found == set(TESTS.glob("test_*.py"))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, bool, bool]:
        """Trace the unit tests of forgelog/, and none between them."""
        if self.whole and is_of_forgelog(item) and not self.tracing:
            self.tracing = True
            self.coverage.start()
            threads.own_threads = DaemonThreads(OWN_THREADS_MAX, "traced")  # threads that run already are not traced
        done = yield
        if self.tracing and not is_of_forgelog(nextitem):
            self.tracing = False
            self.coverage.stop()
        return done

    # At the end

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what a worker saw."""
        seen = getattr(node, "workeroutput", {}).get(OUTPUT)
        self.seen += [seen] if seen else []

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Hand in what this worker saw, or judge what all of them saw; a red run says enough already."""
        if self.whole and self.coverage.get_data().measured_files():
            self.seen.append(self.coverage.get_data().dumps())
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput[OUTPUT] = self.seen[0] if self.seen else None
            return
        missing = not_taken(self.seen) if self.seen and exitstatus == pytest.ExitCode.OK else {}
        if missing:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            session.config.hook.pytest_runtest_logreport(report=red(missing))


def is_of_forgelog(item: pytest.Item | None) -> bool:
    return item is not None and item.path.is_relative_to(TESTS)


def new_coverage() -> Coverage:
    found = Coverage(data_file=None, config_file=False, branch=True, source=[str(SOURCE)])
    found.set_option("run:disable_warnings", ["already-imported", "no-data-collected"])
    return found


def not_taken(seen: list[bytes]) -> dict[str, object]:
    """Return the lines and branches of each module that nobody saw."""
    everything = new_coverage()
    data = everything.get_data()
    for dumped in seen:
        more = CoverageData(no_disk=True)
        more.loads(dumped)
        data.update(more)
    with TemporaryDirectory() as directory:
        report = Path(directory) / "coverage.json"
        everything.json_report(outfile=str(report))
        files = json.loads(report.read_text())["files"]
    return {
        name: (found["missing_lines"], found["missing_branches"])
        for name, found in files.items()
        if found["missing_lines"] or found["missing_branches"]
    }


def red(missing: dict[str, object]) -> pytest.TestReport:
    """Return the report of a test that failed."""
    name = "tests/unit/forgelog/test_coverage.py::test_every_branch_is_taken"
    what = "The unit tests of forgelog/ leave these lines and branches out:\n" + "\n".join(
        f"{module}: lines {lines_and_branches}" for module, lines_and_branches in missing.items()
    )
    return pytest.TestReport(name, (name, None, name), {}, "failed", what, "call")
