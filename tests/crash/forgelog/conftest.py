"""Each suite counts what it did, and the counts are printed at the end of the run."""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import pytest

LINES: list[str] = []


class Tally:
    """What one suite did. `seed` reproduces it: FORGELOG_SEED=<seed> pytest ..."""

    def __init__(self, name: str, show: Callable[[str], None] = print) -> None:
        self.name = name
        self.show = show
        self.counts: Counter[str] = Counter()
        self.seed = int(os.environ.get("FORGELOG_SEED", "20261122"))
        self.rng = random.Random(f"{self.seed}:{name}")
        self.started = time.monotonic()

    def add(self, what: str, count: int = 1) -> None:
        self.counts[what] += count

    def progress(self) -> None:
        """Show the counts so far; long runs do so now and then."""
        self.show(self.line(True))

    def line(self, passed: bool) -> str:
        counts = ", ".join(f"{count:,} {what}" for what, count in self.counts.items())
        seconds = time.monotonic() - self.started
        return f"{self.name}: {counts}; {'0 violations' if passed else f'FAILED, seed {self.seed}'}; {seconds:.1f} s"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = (yield).get_result()  # type: ignore[attr-defined]
    if report.when == "call":
        item.stash[PASSED] = report.passed


PASSED = pytest.StashKey[bool]()


def show_now(config: pytest.Config, line: str) -> None:
    """Write to the terminal in the middle of a test."""
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\n{line}", flush=True)  # noqa: T201 - this is what it is for


@pytest.fixture
def tally(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tally]:
    tally = Tally(request.node.name.removeprefix("test_"), show=partial(show_now, request.config))
    monkeypatch.setattr("replayforge.forgelog.writer.secrets.randbits", tally.rng.getrandbits)
    yield tally
    LINES.append(tally.line(request.node.stash.get(PASSED, False)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if LINES:
        terminalreporter.section("ForgeLog, proven")
        for line in LINES:
            terminalreporter.line(line)
        LINES.clear()
