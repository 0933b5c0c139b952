"""A port belongs to whoever was given it, before its server listens and after that has died."""

import os
import socket
import subprocess
import sys

import pytest

from replayforge.chaos import ports

ANOTHER = "from replayforge.chaos.ports import free_port; print(free_port(), flush=True); input()"


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ports that are still to be given, the last one first."""
    order = [ports.free_port() for _ in range(2)]
    for _ in order:
        os.close(ports.signs.pop())
    monkeypatch.setattr(ports, "unused", order)
    return order


def test_a_port_that_another_process_was_given_is_passed_over(order: list[int]) -> None:
    """Nobody listens on it yet; once that process has ended, it is free again."""
    with subprocess.Popen([sys.executable, "-c", ANOTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as another:
        assert another.stdout is not None
        theirs, free = int(another.stdout.readline()), order[-1]
        order.append(theirs)
        assert ports.free_port() == free
        another.communicate(b"\n")
    order.append(theirs)
    assert ports.free_port() == theirs


def test_a_port_on_which_somebody_listens_is_passed_over(order: list[int]) -> None:
    """Whoever it is need not have asked for it."""
    with socket.create_server(("127.0.0.1", order[-1])):
        free = order[0]
        assert ports.free_port() == free
