"""Each suite counts what it did, and the counts are printed at the end of the run (see tests/conftest.py)."""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

ONE_SALT = 0x0FE5A17D


class Tally:
    """What one suite did. `seed` reproduces it: FORGELOG_SEED=<seed> pytest ..."""

    def __init__(self, name: str, show: Callable[[str], None] = print) -> None:
        self.name = name
        self.show = show
        self.counts: Counter[str] = Counter()
        self.seed = int(os.environ.get("FORGELOG_SEED", "20261122"))
        self.rng = random.Random()
        self.sow(name)
        self.salt: int | None = None
        self.started = time.monotonic()

    def sow(self, name: str) -> None:
        """Begin the random numbers of this name."""
        self.rng.seed(f"{self.seed}:{name}")

    def randbits(self, bits: int) -> int:
        """The salt of a segment."""
        return self.rng.getrandbits(bits) if self.salt is None else self.salt

    def token_hex(self, size: int) -> str:
        """The id of a log."""
        return f"{self.randbits(size * 8):0{size * 2}x}"

    @contextmanager
    def one_salt(self) -> Iterator[None]:
        """Have every log that is opened meanwhile begin its segment with one salt, so that equal logs stay equal.

        They take no random number then, either: what comes after does not depend on how many were opened.
        """
        self.salt = ONE_SALT
        try:
            yield
        finally:
            self.salt = None

    def add(self, what: str, count: int = 1) -> None:
        self.counts[what] += count

    def progress(self) -> None:
        """Show the counts so far; long runs do so now and then."""
        counts = ", ".join(f"{count:,} {what}" for what, count in self.counts.items())
        self.show(f"{self.name}: {counts}; {time.monotonic() - self.started:.1f} s")


def show_now(config: pytest.Config, line: str) -> None:
    """Write to the terminal in the middle of a test."""
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\n{line}", flush=True)  # noqa: T201 - this is what it is for


@pytest.fixture
def tally(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tally]:
    tally = Tally(request.node.name.removeprefix("test_"), show=partial(show_now, request.config))
    monkeypatch.setattr("replayforge.forgelog.writer.secrets.randbits", tally.randbits)
    monkeypatch.setattr("replayforge.forgelog.storage.secrets.token_hex", tally.token_hex)
    yield tally
    request.node.user_properties.append(("proven", [tally.name, tally.seed, dict(tally.counts)]))
