"""Where everything lies: a handler that changes the working directory, and a data directory for its owner's eyes."""

import os
import stat
from pathlib import Path

import pytest

from replayforge.domain.event import Event
from replayforge.engine.handlers.context import Context
from replayforge.engine.handlers.registry import Handlers
from replayforge.forgelog.errors import LogPoisoned
from tests.support.house import open_house


async def test_a_handler_may_change_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a data directory named relative to where the daemon was started, a handler's chdir into another
    installation changes neither that one nor anything of ours."""
    handlers = Handlers()

    @handlers.on("*")
    async def wander(event: Event, context: Context) -> None:
        os.chdir(tmp_path / "theirs")

    for place in ("theirs", "ours"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        async with open_house(Path(".replayforge"), handlers):
            pass
    monkeypatch.chdir(tmp_path / "ours")
    theirs = {path: path.read_bytes() for path in (tmp_path / "theirs").rglob("*") if path.is_file()}
    async with open_house(Path(".replayforge"), handlers, {"janitor.mirror_seconds": 0.02}) as house:
        await house.reaches(await house.send(), "succeeded")
        status, _ = await house.post("/forgelog/commit", {"consumer": "somebody", "offset": 1})
        assert status == 200
        await house.send_many(20)
        assert (await house.converges())["succeeded"] == 21
        assert house.daemon.log.poisoned is None
    assert {path: path.read_bytes() for path in (tmp_path / "theirs").rglob("*") if path.is_file()} == theirs


async def test_a_log_that_is_moved_away_ends_the_daemon(tmp_path: Path) -> None:
    """A log directory that is renamed under an idle daemon is noticed without any event, and the daemon gives up."""
    async with open_house(tmp_path / "data", Handlers()) as house:
        (tmp_path / "data" / "log").rename(tmp_path / "away")
        error = await house.daemon.supervisor.failed
        assert isinstance(error.__cause__, LogPoisoned)
        assert getattr(error, "exit_code", 70) == 70
        status, problem = await house.post("/api/events", {"workflow_id": "w", "event_type": "t"})
        assert (status, problem["outcome"]) == (503, "unknown")


async def test_everything_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Whatever the umask, what a daemon makes is 0600 in a file and 0700 in a directory."""
    before = os.umask(0)
    try:
        async with open_house(tmp_path / "up" / "data", Handlers()) as house:
            await house.send_many(3)
            await house.converges()
            made = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "up").rglob("*")}
    finally:
        os.umask(before)
    assert len(made) > 8
    wrong = {str(path): oct(mode) for path, mode in made.items() if mode != (0o700 if path.is_dir() else 0o600)}
    assert wrong == {}
