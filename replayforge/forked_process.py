"""Processes that are forks of one that has loaded the program already (fork_server.py); they look like a Popen."""

import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

from replayforge.fork_server import CODE, ForkRequest
from replayforge.serve_process import python_module

PID_BYTES_MAX = 64


class ForkedProcess:
    """One child; a Popen as far as is needed."""

    def __init__(self, pid: int, ended: int, stdout: IO[bytes] | None = None, stderr: IO[bytes] | None = None) -> None:
        self.pid = pid
        self.ended = ended
        self.stdin: IO[bytes] | None = None
        self.stdout = stdout
        self.stderr = stderr
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
                os.close(self.ended)
                # A server that was killed tells nothing, and leaves nobody: its children are told by their own lines.
                (self.returncode,) = CODE.unpack(told) if told else (-signal.SIGKILL,)
            return self.returncode

    def send_signal(self, number: int, /) -> None:
        """Send a signal unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The client's side of a server, which is a process of its own that runs a module; several threads may ask it.

    It ends with this process, or when it is closed, and its children with it.
    """

    def __init__(self, module: str, directory: Path, environment: Mapping[str, str]) -> None:
        self.asking = threading.Lock()
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603  (this very program)
                python_module(module, str(theirs.fileno())), cwd=directory, env=dict(environment),
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip

    def start(
        self, arguments: Sequence[str], directory: Path, environment: Mapping[str, str], handles: Sequence[int]
    ) -> tuple[int, int]:
        """Start a child that has its output, its error output and more open; returns its pid and the descriptor from
        which its exit code will be read."""
        ended, reports = os.pipe()
        request = msgspec.json.encode(ForkRequest(list(arguments), str(directory), dict(environment)))
        try:
            with self.asking:
                socket.send_fds(self.channel, [request], [*handles, reports])
                answer = self.channel.recv(PID_BYTES_MAX)
        finally:
            os.close(reports)
        if not answer:
            raise ChildProcessError(f"The process that forks has ended with {self.process.wait()}.")
        return int(answer), ended

    def start_heard(
        self, arguments: Sequence[str], directory: Path, environment: Mapping[str, str], handles: Sequence[int] = ()
    ) -> ForkedProcess:
        """Start a child whose output and error output can be read."""
        out, err = os.pipe(), os.pipe()
        try:
            pid, ended = self.start(arguments, directory, environment, [out[1], err[1], *handles])
        finally:
            os.close(out[1])
            os.close(err[1])
        return ForkedProcess(pid, ended, os.fdopen(out[0], "rb"), os.fdopen(err[0], "rb"))

    def close(self) -> None:
        """End the server, and with it every child."""
        self.channel.close()
        self.process.wait()
