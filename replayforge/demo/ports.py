"""Ports for servers that must be told theirs, and that nobody else is given, not even while they are down.

Of the ports that Linux gives to whoever asks for any, one may be gone when its server is started again: another program
has it, or a client that tried to reach the server from that very port has reached itself.
"""

import os
import random
import socket

LOWEST, HIGHEST = 10_000, 32_000  # below those that Linux gives to whoever asks for any

unused = list(range(LOWEST, HIGHEST))
random.Random(os.getpid()).shuffle(unused)  # processes side by side go their own ways
signs: list[int] = []  # descriptors of the datagram ports of the same numbers: they tell others while this one lives


def free_port() -> int:
    """Return a port on which nobody listens, another one each time, and to no two processes the same."""
    while True:
        port = unused.pop()
        sign = socket.socket(type=socket.SOCK_DGRAM)
        try:
            sign.bind(("127.0.0.1", port))
            with socket.socket() as listener:
                listener.bind(("127.0.0.1", port))
        except OSError:
            sign.close()
            continue
        signs.append(sign.detach())
        return port
