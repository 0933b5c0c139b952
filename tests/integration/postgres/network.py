"""A proxy that can break a connection at the worst moment: after a commit was carried out, before its answer came."""

import asyncio
from typing import Any

from replayforge.chaos.tcp_proxy import TcpProxy
from tests.support.polling import persist


class CommitBreaker(TcpProxy):
    """Breaks the next `breaks_left` connections whose COMMIT got through, and in any case every `every`th.

    `broken` counts those it has broken. `sign` is by what a commit is known.
    """

    sign = b"COMMIT\0"

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self.breaks_left = 0
        self.passes_left = 0
        self.broken = 0
        self.every = 0
        self.commits = 0
        self.doomed: set[Any] = set()

    def break_commits(self, count: int, *, after: int = 0) -> None:
        """Break the answers of so many COMMITs, once `after` others have passed."""
        self.breaks_left, self.passes_left = count, after

    async def has_broken(self, count: int) -> None:
        """Return once it has broken so many; a daemon goes on to commit, if only the beats of its heart."""

        async def look() -> bool:
            return self.broken >= count

        await persist(look, 60)

    async def pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        try:
            while data := await source.read(65536):
                if gate is self.to_client and target.transport in self.doomed:
                    self.broken += 1
                    target.transport.abort()
                    return
                if gate is self.to_server and self.sign in data:
                    self.notice(source)
                await gate.wait()
                target.write(data)
            await gate.wait()
        except OSError:
            await gate.wait()
        target.close()

    def notice(self, source: asyncio.StreamReader) -> None:
        """Decide whether the answer to this COMMIT is to be lost."""
        self.commits += 1
        if self.every and self.commits % self.every == 0:
            self.doomed.add(source._transport)  # type: ignore[attr-defined]
        elif self.passes_left:
            self.passes_left -= 1
        elif self.breaks_left:
            self.breaks_left -= 1
            self.doomed.add(source._transport)  # type: ignore[attr-defined]
