"""A port belongs to whoever was given it, before its server listens and after that has died."""

import os
import socket
import subprocess
import sys

import pytest

from replayforge.demo import ports
from replayforge.demo.child_daemon import port_for
from replayforge.domain.errors import Refused

ANOTHER = "from replayforge.demo.ports import free_port; print(free_port(), flush=True); input()"


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


def test_a_demo_listens_where_it_is_told_or_where_nobody_comes_by_chance() -> None:
    """Without a wish it takes the usual port if it can; any other is none that Linux gives to whoever asks."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        theirs, free = taken.getsockname()[1], ports.free_port()
        assert (port_for(free, theirs), port_for(None, free)) == (free, free)
        for found in (port_for(None, theirs), port_for(0, free), port_for(0, theirs)):
            assert ports.LOWEST <= found < ports.HIGHEST
            assert found != free
        with pytest.raises(Refused, match=f"Port {theirs} is in use"):
            port_for(theirs, free)
