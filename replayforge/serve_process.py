"""`replayforge serve` as a child process: started, heard, told to stop or killed, for demo, tests and bench."""

import contextlib
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Protocol

from replayforge.domain.errors import Unavailable

LISTENS = re.compile(r"\w+ listens on (\S+)")
DRAIN_SECONDS = 2.0


class EndedTooEarly(Unavailable):
    """The daemon ended before it said where it listens."""

    exit_code = 1


class Process(Protocol):
    """What is needed of a process that runs: a Popen, or whatever else stands for one."""

    pid: int
    stdin: IO[bytes] | None
    stdout: IO[bytes] | None
    stderr: IO[bytes] | None

    def poll(self) -> int | None:
        """Return the exit code, None while the process runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once the process has ended; raises TimeoutExpired."""

    def send_signal(self, number: int, /) -> None:
        """Send a signal, unless the process has ended."""


def serve_arguments(data_dir: Path, *options: str, port: int = 0) -> list[str]:
    """Return the command line of a daemon on a data directory, after the program; on a free port if none is named."""
    return ["serve", "--port", str(port), "--data-dir", str(data_dir), *options]


def python_module(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module with this Python."""
    return [sys.executable, "-m", module, *arguments]


class ServeProcess:
    """One process that says on standard output where it listens. Call it from one thread.

    `hear` is told each line of standard output, in a thread of its own, and `hear_error` each of standard error if
    that is a pipe.
    """

    def __init__(
        self,
        process: Process,
        hear: Callable[[str], None] = lambda line: None,
        hear_error: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.process = process
        self.hear = hear
        self.hear_error = hear_error
        self.url = ""
        self.listens_or_ended = threading.Event()
        targets = (self.read_output, *([self.read_error] if process.stderr else []))
        self.readers = [threading.Thread(target=target, daemon=True) for target in targets]
        for reader in self.readers:
            reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended, None while it runs."""
        return self.process.poll()

    def read_output(self) -> None:
        """Pass on what comes on standard output, and note where the process listens."""
        for line in lines_of(self.process.stdout):
            self.hear(line)
            if not self.url and (found := LISTENS.fullmatch(line)):
                self.url = found[1]
                self.listens_or_ended.set()
        self.listens_or_ended.set()

    def read_error(self) -> None:
        """Pass on what comes on standard error."""
        for line in lines_of(self.process.stderr):
            self.hear_error(line)

    def wait_listening(self, timeout_seconds: float | None = None) -> str:
        """Return where it listens, once it has said so; raises EndedTooEarly."""
        self.listens_or_ended.wait(timeout_seconds)
        if not self.url:
            raise EndedTooEarly("The daemon did not say where it listens.")
        return self.url

    def signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        self.process.send_signal(number)

    def wait(self, timeout_seconds: float | None = None, drain_seconds: float = DRAIN_SECONDS) -> int:
        """Return the exit code once the process has ended and everything it said was heard.

        What children of it hold open is waited for no longer than `drain_seconds`.
        """
        code = self.process.wait(timeout_seconds)
        self.drain(drain_seconds)
        return code

    def terminate(self, timeout_seconds: float | None = None) -> int:
        """Send SIGTERM and wait for an ordered end; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout_seconds)

    def kill(self) -> int:
        """kill -9, harmless when it has ended already; returns the exit code."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def drain(self, seconds: float = DRAIN_SECONDS) -> None:
        """Hear what a process that has ended said last."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        for reader in self.readers:
            reader.join(seconds)


def lines_of(pipe: IO[bytes] | None) -> Iterator[str]:
    """Yield the lines that come through a pipe, until its end, and close it."""
    assert pipe is not None
    with pipe:
        for line in pipe:
            yield line.decode("utf-8", "backslashreplace").rstrip("\n")
