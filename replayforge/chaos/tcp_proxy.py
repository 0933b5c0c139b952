"""A TCP proxy between a client and a server, for doing to a connection what networks do."""

import asyncio
from typing import Self


class TcpProxy:
    """Forwards to a port on this machine until told otherwise; use as `async with TcpProxy(port) as proxy`.

    A closed gate holds bytes back without closing anything (a black hole); opening it again delivers them, as TCP
    would after a partition.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.latency_seconds = 0.0  # added in each direction
        self.to_server = asyncio.Event()
        self.to_client = asyncio.Event()
        self.heal()
        self.clients: set[asyncio.StreamWriter] = set()
        self.servers: set[asyncio.StreamWriter] = set()
        self.serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self.listener = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port: int = self.listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.listener.close()
        self.heal()
        self.reset()
        await asyncio.gather(*self.serving, return_exceptions=True)
        await self.listener.wait_closed()

    @property
    def url(self) -> str:
        """Where a Redis behind it is."""
        return f"redis://127.0.0.1:{self.port}/0"

    def blackhole(self) -> None:
        """Let no byte through in either direction, for old and new connections, until healed."""
        self.to_server.clear()
        self.to_client.clear()

    def swallow_answers(self) -> None:
        """Let requests reach the server, but no answer come back, until healed."""
        self.to_client.clear()

    def heal(self) -> None:
        """Let everything through again, what was held back first."""
        self.to_server.set()
        self.to_client.set()

    def reset(self) -> None:
        """Break every connection with RST."""
        for writer in (*self.clients, *self.servers):
            writer.transport.abort()

    def half_open(self) -> None:
        """Let the server see every connection end, while the client's end stays open and silent."""
        self.to_client.clear()
        for writer in self.servers:
            writer.transport.abort()

    async def serve(self, from_client: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Connect somebody with the server, and forward until both ends are done."""
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        task.add_done_callback(self.serving.discard)
        try:
            from_server, server = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            client.transport.abort()
            return
        self.clients.add(client)
        self.servers.add(server)
        pumps = (self.pump(from_client, server, self.to_server), self.pump(from_server, client, self.to_client))
        await asyncio.gather(*pumps, return_exceptions=True)
        self.clients.discard(client)
        self.servers.discard(server)

    async def pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        """Forward until the source ends, then end the target."""
        loop = asyncio.get_running_loop()
        try:
            while data := await source.read(65536):
                await gate.wait()
                loop.call_later(self.latency_seconds, target.write, data)
            await gate.wait()
        except OSError:
            await gate.wait()
        loop.call_later(self.latency_seconds, target.close)
