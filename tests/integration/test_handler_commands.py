"""`replayforge handlers` against a real daemon: what is listed, and pausing and resuming."""

import io
import json
from pathlib import Path

import pytest

from replayforge.cli import main
from tests.support.daemon_process import DaemonProcess
from tests.support.sink import QUICK, SINK_HANDLERS


def test_list_pause_and_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause is listed with its reason and who made it, a second resume is an error, everything needs a yes."""
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with DaemonProcess(tmp_path, SINK_HANDLERS, settings=QUICK) as daemon:
        daemon.start()

        def handlers(*arguments: str, code: int = 0) -> str:
            ended = main.run(["handlers", *arguments, "--url", daemon.url])
            said = "".join(capsys.readouterr())
            assert ended == code, said
            return said

        paused = handlers("pause", "slow.*", "--reason", "the bank is down")
        assert paused.startswith("The handler slow.* is paused by ")
        assert paused.endswith(": the bank is down\n")
        lines = handlers("ls").splitlines()
        assert lines[0].split() == ["PATTERN", "STATE", "HANDLER", "RUNNING", "WAITING", "SUCCEEDED", "FAILED", "WHY"]
        narrow, slow = (next(line for line in lines if line.startswith(name)) for name in ("narrow.*", "slow.*"))
        assert "  ready  " in narrow
        assert "0 of 2" in narrow
        assert "  paused  " in slow
        assert slow.endswith(": the bank is down")
        (shown,) = (one for one in json.loads(handlers("ls", "--json"))["items"] if one["pattern"] == "slow.*")
        assert shown["paused"]["reason"] == "the bank is down"
        assert handlers("resume", "slow.*") == "The handler slow.* is resumed.\n"
        assert "Nothing is paused under the pattern 'slow.*'." in handlers("resume", "slow.*", code=1)
        assert "Nothing was done" in handlers("pause", "*", "--reason", "maintenance", code=1)
        assert handlers("pause", "*", "--reason", "maintenance", "--yes").startswith("Everything is paused by ")
        assert json.loads(handlers("resume", "*", "--json")) == {"pattern": "*", "status": "resumed"}
