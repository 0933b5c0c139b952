"""Ports for servers that must be told theirs, and that nobody else is given, not even while they are down."""

import os
import random
import socket

LOWEST, HIGHEST = 10_000, 32_000  # below those that Linux gives to whoever asks for any

unused = list(range(LOWEST, HIGHEST))
random.Random(os.getpid()).shuffle(unused)  # processes side by side go their own ways


def free_port() -> int:
    """Return a port on which nobody listens, another one each time."""
    while True:
        port = unused.pop()
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
