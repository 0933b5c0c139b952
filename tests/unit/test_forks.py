"""What a forked child must not keep of the daemon's, as far as that can be told without forking."""

import asyncio
import socket
from contextlib import closing

from replayforge.forks import Belongings, kept_loop


def test_what_the_loop_of_a_thread_waits_for() -> None:
    """Connections of the heartbeat's loop are the daemon's while it beats, and their numbers nobody's later."""
    belongings = Belongings((), (), port=0, opened=frozenset())
    ours, theirs = socket.socketpair()
    with ours, theirs, closing(asyncio.SelectorEventLoop()) as loop:
        loop.add_reader(ours, lambda: None)
        with kept_loop(loop):
            assert ours.fileno() in belongings.descriptors()
            assert theirs.fileno() not in belongings.descriptors()
        assert ours.fileno() not in belongings.descriptors()
        loop.remove_reader(ours)
