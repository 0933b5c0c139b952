"""`python -m replayforge` as a fork of a process that has loaded it already (fork_server.py); looks like a Popen."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

from tests.support.fork_server import CODE

REPOSITORY = Path(__file__).parents[2]


class ForkedProcess:
    """One child; a Popen as far as tests need it."""

    def __init__(self, pid: int, ended: int, stdout: IO[bytes] | None) -> None:
        self.pid = pid
        self.ended = ended
        self.stdin: IO[bytes] | None = None
        self.stdout = stdout
        self.stderr: IO[bytes] | None = None
        self.returncode: int | None = None
        self.reading = threading.Lock()

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        return self.look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once the process has ended; raises TimeoutExpired."""
        code = self.look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(["replayforge"], timeout or 0)
        return code

    def look(self, timeout: float | None) -> int | None:
        """Wait so long for the exit code, at most."""
        with self.reading:
            if self.returncode is None and select.select([self.ended], [], [], timeout)[0]:
                told = os.read(self.ended, CODE.size)
                assert told, "the fork server is gone"
                (self.returncode,) = CODE.unpack(told)
                os.close(self.ended)
            return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The client's side of the server; one for each process that runs tests."""

    def __init__(self) -> None:
        self.asking = threading.Lock()
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno())]
            inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
            self.process = subprocess.Popen(
                command, cwd=REPOSITORY, env=inherited | {"PYTHONPATH": str(REPOSITORY)}, pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip

    def start(
        self, arguments: Sequence[str], directory: Path, environment: Mapping[str, str], out: int, err: int
    ) -> tuple[int, int]:
        """Start a child; returns its pid and the descriptor from which its exit code will be read."""
        ended, reports = os.pipe()
        request = {"arguments": arguments, "directory": str(directory), "environment": dict(environment)}
        try:
            with self.asking:
                socket.send_fds(self.channel, [json.dumps(request).encode()], [out, err, reports])
                answer = self.channel.recv(64)
        finally:
            os.close(reports)
        assert answer, f"the fork server has ended with {self.process.wait()}"
        return int(answer), ended


STARTING = threading.Lock()


def fork_server() -> ForkServer:
    """Return the server of this process; it ends with it. Several threads may ask for it at once."""
    with STARTING:
        return only_fork_server()


@cache
def only_fork_server() -> ForkServer:
    return ForkServer()


def start_forked(
    arguments: Sequence[str], directory: Path, environment: Mapping[str, str], stderr: int
) -> ForkedProcess:
    """Start `replayforge` with these arguments; its standard output can be read."""
    read, write = os.pipe()
    try:
        pid, ended = fork_server().start(arguments, directory, environment, write, stderr)
    finally:
        os.close(write)
    return ForkedProcess(pid, ended, os.fdopen(read, "rb"))


def run_forked(
    arguments: Sequence[str], directory: Path, environment: Mapping[str, str], timeout_seconds: float
) -> tuple[int, str, str]:
    """Run `replayforge` with these arguments; returns exit code, standard output and standard error."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        pid, ended = fork_server().start(arguments, directory, environment, out.fileno(), err.fileno())
        process = ForkedProcess(pid, ended, None)
        try:
            code = process.wait(timeout_seconds)
        finally:
            process.kill()
        for file in (out, err):
            file.seek(0)
        return code, out.read(), err.read()
