"""Forks of a process that has loaded the program: what they are given, how they end, and that none is left."""

import os
import select
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from replayforge.forked_process import ForkServer
from replayforge.serve_process import ServeProcess, serve_arguments
from tests.support.forked_process import REPOSITORY
from tests.support.processes import open_files

ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)}


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with closing(ForkServer("tests.support.fork_server", REPOSITORY, ENVIRONMENT)) as started:
        yield started


def test_a_fork_says_what_a_new_process_would_and_ends_with_its_code(server: ForkServer, tmp_path: Path) -> None:
    process = server.start_heard(["log", "verify", "--data-dir", "nowhere"], tmp_path, ENVIRONMENT)
    assert process.stderr is not None
    assert "There is no log in nowhere." in process.stderr.read().decode()
    assert process.wait(10) == process.poll() == 3


def test_what_is_handed_in_is_open_in_it_alone_until_the_server_ends(server: ForkServer, tmp_path: Path) -> None:
    """The fork ends with the server, whose own copy is closed as soon as there is the fork."""
    read, write = os.pipe()
    with closing(os.fdopen(read)), closing(os.fdopen(write, "w")):
        daemon = ServeProcess(server.start_heard(serve_arguments(tmp_path), tmp_path, ENVIRONMENT, [write]))
        assert daemon.wait_listening(30)
    assert any(one.startswith("pipe:") for one in open_files(daemon.pid))
    with closing(os.fdopen(os.pidfd_open(daemon.pid))) as living:
        assert select.select([living], [], [], 0)[0] == []
        server.close()
        assert select.select([living], [], [], 10)[0] == [living]
