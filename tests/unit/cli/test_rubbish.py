"""Rubbish in arguments, files, environments and answers ends in a sentence and an exit code, never in a traceback."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from replayforge.cli import main
from tests.support.daemon_process import REPOSITORY, until
from tests.unit.cli.conftest import Cli

CODES = {1, 2, 64, 78}
ADDRESSES = ["", "x", "http://", "http://[::1", "http://x:99999", "http://x:y", "http://127.0.0.1:0", "ftp://x", "http://a..b",
             f"http://{'a' * 300}", "http://☃.example:1", "http://127.0.0.1:1/☃\n", "http://\udcff"]  # fmt: skip
ANSWERS = [b"<html>hi</html>", b"", b"null", b"[]", b'"text"', b"{}", b'{"items": 3}', b'{"items": [3]}', b"\xff\xfe",
           b"[" * 100_000, b'{"items": [{"id": 3, "status": [], "created_at": 7, "last_error": {}}]}', b"1e999",
           b'{"errors": 3, "title": [1]}']  # fmt: skip
HEADS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n",
    b"HTTP/1.1 503 No\r\nRetry-After: \xb2\r\nContent-Length: %d\r\n\r\n",
]
ASKING = [["status"], ["events", "ls"], ["events", "show", "x"], ["events", "resolve", "x", "--as", "queued"],
          ["dead", "ls"], ["dead", "groups"], ["dead", "replay", "x"], ["replays", "ls"], ["replays", "show", "x"],
          ["handlers", "ls"], ["workflows", "show", "x"], ["send", "t", "{}", "--patience", "0"]]  # fmt: skip


class RubbishServer:
    """Answers each request with the bytes it was given."""

    def __init__(self) -> None:
        self.answer = b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65_536)
                connection.sendall(self.answer)


@pytest.fixture(scope="module")
def server() -> Iterator[RubbishServer]:
    server = RubbishServer()
    yield server
    server.listener.shutdown(socket.SHUT_RDWR)
    server.listener.close()


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses(cli: Cli, address: str) -> None:
    """What is not an address, or none that anybody can reach, is said to be none."""
    ended = cli("status", "--url", address)
    assert ended.code in (1, 2)
    assert ended.err.startswith("replayforge: ")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("arguments", ASKING, ids=lambda arguments: "-".join(arguments[:2]))
def test_answers(cli: Cli, server: RubbishServer, arguments: list[str]) -> None:
    """Whatever answers, be it HTML, JSON of another shape or no HTTP at all, the command says that it is no daemon."""
    for answer in [
        os.urandom(100),
        b"HTTP/1.1 200 OK\r\n",
        *(head % len(body) + body for head in HEADS for body in ANSWERS),
    ]:
        server.answer = answer
        ended = cli(*arguments, "--url", server.url)
        assert ended.code in {0, *CODES}, (answer[:200], ended)
        assert "Traceback" not in ended.err
        assert "defect" not in ended.err


RUBBISH = ["", "\0", "@missing", "@directory", "@binary", "@deep", "9" * 400, "\udcff", "{", "nan", "-1"]
LOCAL = [["send", "t", "{}", "--max-attempts"], ["send", "t"], ["send", "--bulk"], ["events", "ls", "--since"],
         ["events", "ls", "--limit"], ["events", "replay", "x", "--payload"], ["check", "--data-dir"],
         ["log", "verify", "--data-dir"], ["log", "dump", "--data-dir"], ["log", "stat", "--data-dir"],
         ["config", "show", "--config"], ["config", "check", "--config"], ["serve", "--port"], ["serve", "--workers"],
         ["serve", "--config"], ["demo", "--port"], ["completion"], ["status", "--api-key"], ["nonsense"]]  # fmt: skip


@pytest.mark.parametrize("arguments", LOCAL, ids="-".join)
def test_arguments(cli: Cli, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    """Missing files, directories as files, binary and endless documents, numbers that are none or too large."""
    monkeypatch.setenv("REPLAYFORGE_URL", "http://127.0.0.1:1")
    Path("directory").mkdir()
    Path("binary").write_bytes(bytes(range(256)))
    Path("deep").write_text("[" * 100_000)
    retry_budget = ["--patience", "0"] if arguments[0] == "send" else []
    for rubbish in RUBBISH:
        for value in (rubbish, rubbish.removeprefix("@")):
            if arguments[0] in ("serve", "demo") and value in ("", "directory"):
                continue
            ended = cli(*arguments, value, *retry_budget)
            assert ended.code in {0, 3, 5, *CODES}, (value, ended)
            assert "Traceback" not in ended.err
            assert "defect" not in ended.err


@pytest.mark.parametrize(
    "variable",
    [
        "REPLAYFORGE__STORE__URL=postgresql://[::1/x",
        "REPLAYFORGE__REDIS__URL=redis://[::1",
        "REPLAYFORGE__SERVER__PORT=x",
    ],
)
def test_environments(cli: Cli, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """A setting that is not an address is named as such before anything is opened."""
    monkeypatch.setenv(*variable.split("=", 1))
    ended = cli("config", "check")
    assert ended.code == 78
    assert "is not an address" in ended.err or "server.port" in ended.err


def test_defects_are_called_defects(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error that nobody foresaw is one sentence and an exit code of its own."""
    monkeypatch.setattr(main, "run", lambda: 1 // 0)
    assert main.guarded() == 70
    assert capsys.readouterr().err == (
        "replayforge: This is a defect of ReplayForge: ZeroDivisionError: integer division or modulo by zero.\n"
    )


@pytest.mark.parametrize("shell", ["version > /dev/full", "version | true", "--help > /dev/full", "--help | true"])
def test_output_that_cannot_be_written(shell: str) -> None:
    """A full disk gives one sentence, a pipe whose reader has read enough gives none, and exit code 74 either."""
    script = f"{sys.executable} -m replayforge {shell}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 74
    said = ["replayforge: The output cannot be written: No space left on device."] if "/dev/full" in shell else []
    assert done.stderr.splitlines() == said


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_descriptors(closed: str) -> None:
    """Without standard descriptors a command does its work, and nothing is said."""
    script = f"{sys.executable} -m replayforge version {closed}"
    done = subprocess.run(["bash", "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_interrupted_while_modules_load(tmp_path: Path) -> None:
    """Ctrl-C before the command line is loaded ends in one word and exit code 130."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "click.py").write_text(f"open({str(fifo)!r}).read()")  # loads for as long as we want
    process = subprocess.Popen(
        [sys.executable, "-m", "replayforge", "version"], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    held = until(lambda: opened_by_a_reader(fifo), 60)
    try:
        process.send_signal(signal.SIGINT)
        os.close(held)  # a signal that comes just before the call that reads does not wake it
        said = process.stderr.read()
        assert (process.wait(30), said) == (130, "Interrupted.\n")
    finally:
        process.stderr.close()
        process.kill()
        process.wait()


def opened_by_a_reader(fifo: Path) -> int | None:
    """Return a FIFO opened for writing, once somebody reads from it."""
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None
