"""`python -m replayforge` as a fork of a process that has loaded it already (fork_server.py)."""

import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from replayforge.forked_process import ForkedProcess, ForkServer

REPOSITORY = Path(__file__).parents[2]
STARTING = threading.Lock()


def fork_server() -> ForkServer:
    """Return the server of this process; it ends with it. Several threads may ask for it at once."""
    with STARTING:
        return only_fork_server()


@cache
def only_fork_server() -> ForkServer:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return ForkServer("tests.support.fork_server", REPOSITORY, inherited | {"PYTHONPATH": str(REPOSITORY)})


def start_forked(
    arguments: Sequence[str], directory: Path, environment: Mapping[str, str], stderr: int
) -> ForkedProcess:
    """Start `replayforge` with these arguments; its standard output can be read."""
    read, write = os.pipe()
    try:
        pid, ended = fork_server().start(arguments, directory, environment, [write, stderr])
    finally:
        os.close(write)
    return ForkedProcess(pid, ended, os.fdopen(read, "rb"))


def run_forked(
    arguments: Sequence[str], directory: Path, environment: Mapping[str, str], timeout_seconds: float
) -> tuple[int, str, str]:
    """Run `replayforge` with these arguments; returns exit code, standard output and standard error."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        pid, ended = fork_server().start(arguments, directory, environment, [out.fileno(), err.fileno()])
        process = ForkedProcess(pid, ended)
        try:
            code = process.wait(timeout_seconds)
        finally:
            process.kill()
        for file in (out, err):
            file.seek(0)
        return code, out.read(), err.read()
