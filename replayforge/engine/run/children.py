"""Sends the child events of handlers: each is durable, and its row is in the store, before its parent goes on."""

import asyncio
from asyncio import shield
from collections.abc import Awaitable, Callable

from replayforge import crashpoints
from replayforge.domain.event import EventRecord
from replayforge.engine.service_loop import Outage
from replayforge.event_loop import own_task
from replayforge.telemetry import Telemetry


class Children:
    """Hands children to ingest by `accept`, which returns a log offset, and waits by `projected` for their rows.

    A refusal waits and is no failure of a step: it says that the disk is full or the daemon ends.
    """

    def __init__(
        self,
        accept: Callable[[EventRecord], Awaitable[int]],
        projected: Callable[[int], Awaitable[None]],
        telemetry: Telemetry,
    ) -> None:
        self.accept = accept
        self.projected = projected
        self.outage = Outage(telemetry)
        self.giving_up = asyncio.Event()

    def give_up(self) -> None:
        """Wait for nothing any more: the daemon ends."""
        self.giving_up.set()

    async def send(self, record: EventRecord) -> None:
        """Return when the child has its row; sent again it is the same. Raises Unavailable once the daemon ends."""
        await shield(own_task(self.deliver(record)))

    async def deliver(self, record: EventRecord) -> None:
        """Append the child and wait for its row."""
        offset = await self.outage.outlast(lambda: self.accept(record), self.giving_up)
        crashpoints.reach("child.appended")
        await self.outage.outlast(lambda: self.projected(offset), self.giving_up)
