"""The port that the daemon listens on."""

import os
import socket

import pytest

from replayforge.daemon import port_check
from replayforge.domain.errors import Fatal


async def test_a_port_that_somebody_closed_ends_the_daemon() -> None:
    """Nobody could connect, and nothing else would say so; the same goes when its number is somebody else's by now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        look = port_check(listening)
        assert await look() == 0
        os.close(listening.fileno())
        with pytest.raises(Fatal, match="Nobody can connect any more"):
            await look()
        stranger = os.open(os.devnull, os.O_RDONLY)
        assert stranger == listening.detach()
        with pytest.raises(Fatal, match="Nobody can connect any more"):
            await look()
        os.close(stranger)
