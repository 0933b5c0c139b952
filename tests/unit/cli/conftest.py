"""A daemon to talk to, and the command line as a function."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from replayforge.cli import options
from replayforge.cli.main import run
from tests.unit.cli.fake_api import FakeApi


@dataclass(frozen=True)
class Ended:
    """What a command line printed and how it ended."""

    code: int
    out: str
    err: str


Cli = Callable[..., Ended]


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as api:
        yield api


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Runs a command line in an empty directory, without the environment of whoever runs the tests, and at once."""
    monkeypatch.setattr(options, "RETRY_SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)
    for name in ("REPLAYFORGE_URL", "REPLAYFORGE_API_KEY", "REPLAYFORGE_CONFIG", "DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)

    def ended(*arguments: str) -> Ended:
        code = run(arguments)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return ended


@pytest.fixture
def ask(cli: Cli, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command line that talks to the fake daemon."""
    monkeypatch.setenv("REPLAYFORGE_URL", api.url)
    return cli
