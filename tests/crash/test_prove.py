"""`prove` on the handlers that the guide shows: it finds the charge that a crash doubles, and finds no other."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from tests.support.daemon_process import REPOSITORY, DaemonProcess
from tests.support.guide import run_commands, write_files
from tests.support.storm import PLACES, daemons_at

needs_openssl = pytest.mark.skipif(which("openssl") is None, reason="the handlers of the guide call by TLS: no openssl")


@pytest.fixture
def handlers(tmp_path: Path) -> Path:
    """A directory with the files that the guide shows."""
    write_files("prove", tmp_path, {})
    return tmp_path


def start(directory: Path, *options: str) -> "subprocess.Popen[str]":
    """Start `prove` in a directory, with a place of its own for what it leaves."""
    scratch = directory / "scratch"
    scratch.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "replayforge", "prove", "--handlers", "handlers.py", *options], cwd=directory,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def prove(directory: Path, *options: str) -> tuple[int, Any]:
    """Prove, and return the exit code and the report; nothing is left behind."""
    out, err = start(directory, "--json", *options).communicate(timeout=300)
    assert out, err
    assert list((directory / "scratch").iterdir()) == []
    report = json.loads(out)
    return report["exit_code"], report


@pytest.mark.slow
@needs_openssl
def test_the_call_that_a_crash_doubles_is_named_with_its_line(handlers: Path) -> None:
    """Outside of a step it is; within one that hands on its key it is not, though the step's function ran again."""
    points = ["--point", "attempt.finished", "--point", "step.returned", "--passes", "1"]
    code, report = prove(handlers, "--event", "placed.json", "--event", "paid.json", *points)
    placed, paid = ({cell["point"]: cell for cell in row["cells"]} for row in report["rows"])
    assert code == 1, report
    (doubled,) = placed["attempt.finished"]["doubled"]
    assert doubled["call"] == "POST https://bank.example/charges"
    assert doubled["remedy"] == "wrap it in ctx.step(...)"
    line = next(number for number, text in enumerate((handlers / "handlers.py").read_text().splitlines(), 1)
                if text == "    charge(event.workflow_id)")  # fmt: skip
    assert doubled["place"] == f"{handlers / 'handlers.py'}:{line}"
    assert {point: cell["mark"] for point, cell in paid.items()} == dict.fromkeys(paid, "converged")
    assert paid["step.returned"]["step"] == "charge"
    assert (paid["step.returned"]["steps_again"], paid["step.returned"]["known_again"]) == (["charge"], 1)


def test_a_handler_without_a_sample_is_named(handlers: Path) -> None:
    code, report = prove(handlers)
    assert (code, report["rows"]) == (2, [])
    assert set(report["no_sample"]) == {"order.placed", "order.paid"}


def test_what_cannot_be_loaded_proves_nothing(handlers: Path) -> None:
    (handlers / "handlers.py").write_text("import nothing_of_that_name\n")
    process = start(handlers, "--event", "placed.json")
    assert "nothing_of_that_name" in process.communicate(timeout=60)[1]
    assert process.returncode == 2


HANGING = """
import time
from replayforge import Handlers
handlers = Handlers()

@handlers.on("order.placed")
def hang(event, ctx):
    open("hangs", "w").close()
    time.sleep(3600)
"""


def test_ctrl_c_leaves_nothing(handlers: Path) -> None:
    """No process, and no file."""
    (handlers / "handlers.py").write_text(HANGING)
    os.mkfifo(handlers / "hangs")
    process = start(handlers, "--event", "placed.json")
    with (handlers / "hangs").open():
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert list((handlers / "scratch").iterdir()) == []
    assert [one for one in command_lines() if str(handlers) in one] == []


def command_lines() -> list[str]:
    """Return the command line of every process that there is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_text())
    return found


@pytest.mark.slow
@needs_openssl
def test_the_guide(tmp_path: Path) -> None:
    """The commands of the guide, at every point: one red, one green, and what is held."""
    write_files("prove", tmp_path, {})
    assert run_commands("prove", DaemonProcess(tmp_path), {"8787": "8787"}, timeout_seconds=600) == []
    report = (tmp_path / "prove.html").read_text()
    assert "wrap it in ctx.step(...)" in report


RECORDED = """
from replayforge import Handlers
handlers = Handlers()

@handlers.on("order.*")
def take(event, ctx):
    return event.payload["total"]
"""


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_history_has_samples(place: str, tmp_path: Path) -> None:
    """The latest event of a type that succeeded is tried; the daemon that recorded it goes on."""
    (tmp_path / "handlers.py").write_text(RECORDED)
    with daemons_at(place, tmp_path, tmp_path / "handlers.py") as recording:
        daemon = recording.daemons[-1]
        for total in (12, 13):
            body = {"event_type": "order.placed", "workflow_id": "w", "payload": {"total": total}}
            sent = daemon.http.post("/api/events", body).json()
            assert daemon.http.get(f"/api/events/{sent['id']}?wait=20")["status"] == "succeeded"
        url = f'[store]\nurl = "{daemon.settings["store.url"]}"\n' if place == "shared" else ""
        (tmp_path / "replayforge.toml").write_text(f'data_dir = "{daemon.data_dir}"\n{url}')
        code, report = prove(tmp_path, "--from-history", "--point", "settle.committed")
        assert daemon.http.get(f"/api/events/{sent['id']}")["status"] == "succeeded"
    (row,) = report["rows"]
    assert (code, row["sample"], row["handlers"]) == (0, f"event {sent['id']}", ["order.*"])
    assert [cell["mark"] for cell in row["cells"]] == ["converged"]
