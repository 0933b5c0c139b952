"""A transport without a network, for connections in unit tests."""

import asyncio
from typing import Any


class MemoryTransport(asyncio.Transport):
    """Keeps what is written, and tells its protocol when it is closed."""

    def __init__(self, peer: str | None = None) -> None:
        super().__init__({"peername": (peer, 1) if peer else None})
        self.said = b""
        self.closed = False
        self.paused = False
        self.protocol: asyncio.Protocol | None = None

    def write(self, data: Any) -> None:
        self.said += bytes(data)

    def close(self) -> None:
        if not self.closed and self.protocol is not None:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


async def settle() -> None:
    """Let everything happen that needs nothing but turns of the loop."""
    for _ in range(8):
        await asyncio.sleep(0)
