"""Bytes sent to the daemon as they are, and what it says until it closes the connection."""

import asyncio
import json
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

CLOSED_SECONDS = 30.0  # patience for the slowest goodbye: a body is given up after two times ten seconds


@dataclass(frozen=True, slots=True)
class Said:
    """What came back on a connection before the daemon closed it."""

    answer: bytes

    @property
    def status(self) -> int:
        """The status of the first answer, 0 when there was none."""
        return int(self.answer.split(b" ", 2)[1]) if self.answer else 0

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the first answer, with names in lower case."""
        lines = self.answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def problem(self) -> dict[str, Any]:
        """The JSON of the first answer."""
        document: dict[str, Any] = json.loads(self.answer.partition(b"\r\n\r\n")[2])
        return document


async def connect(port: int) -> socket.socket:
    """Return a connection that does not block."""
    connection = socket.socket()
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    return connection


async def hear(connection: socket.socket) -> Said:
    """Return what the daemon says until it closes; raises TimeoutError when it does not."""
    loop, answer = asyncio.get_running_loop(), b""
    async with asyncio.timeout(CLOSED_SECONDS):
        with suppress(ConnectionError):
            while chunk := await loop.sock_recv(connection, 65_536):
                answer += chunk
    return Said(answer)


async def say(port: int, *packets: bytes) -> Said:
    """Send packets on a connection of their own, each once the daemon has read the one before, and hear it out."""
    loop = asyncio.get_running_loop()
    connection = await connect(port)
    try:
        with suppress(ConnectionError):  # the daemon may have heard enough
            for packet in packets:
                await loop.sock_sendall(connection, packet)
                for _ in range(3):  # the daemon runs in the same loop
                    await asyncio.sleep(0)
        return await hear(connection)
    finally:
        connection.close()
