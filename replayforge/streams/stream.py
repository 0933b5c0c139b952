"""The stream contract: the conveyor that says "look at event N now", and the values that travel on it."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from replayforge.domain.event import Entry


class Delivery(msgspec.Struct, frozen=True):
    """An entry as read, with the handle its ack needs."""

    entry: Entry
    handle: str


@dataclass(frozen=True, slots=True)
class StreamStats:
    """What a person wants to know of a stream; the figures are zero while it is down.

    `depth` = `pending` (read, not acked) + `lag` (not read yet). `oldest_idle_seconds` is how long the longest
    pending entry has been with its reader. `warnings` are sentences for a red banner.
    """

    backend: str
    up: bool
    depth: int = 0
    pending: int = 0
    lag: int = 0
    oldest_idle_seconds: float = 0.0
    consumers: int = 0
    server_version: str = ""
    latency_ms: float = 0.0
    warnings: tuple[str, ...] = ()


class Stream(Protocol):
    """Carries entries from the publisher to the workers, at least once each while it lives.

    Any entry may come twice, late, or be lost with the backend; `wiped` says when that may have happened. What
    cannot be done now raises `Unavailable`, and the same call may simply be made again later: an entry whose
    publishing, ack or hand-back failed is on the stream or comes back, never both acked and wanted.
    One coroutine reads at a time; everything else may be called from anywhere in the event loop.
    """

    name: str
    wiped: asyncio.Event
    entries_max: int

    async def open(self) -> None:
        """Make ready, and set `wiped`, for the publisher cannot know what is still there.

        Raises Unavailable when the backend does not answer; the stream may be used all the same, since every
        later call makes ready by itself. Raises Refused when the backend can never serve.
        """
        ...

    def take_wiped(self) -> bool:
        """Tell whether entries may have been lost since this was asked last."""
        ...

    async def publish(self, entries: Sequence[Entry]) -> int:
        """Put the entries at the end, in order, until the stream holds `entries_max`; return how many found room.

        The limit holds however many daemons publish at once. On failure any part of the entries may be on the stream.
        """
        ...

    async def read(self, count: int, wait_seconds: float) -> list[Delivery]:
        """Return up to `count` entries as soon as there is one, or nothing after `wait_seconds`.

        What is returned is pending until it is acked or handed back. Entries that a cancelled or failed read may
        have taken come again with a later one. Entries that were read under this node's name by a process that is
        gone are the first to come.
        """
        ...

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Remove the entries for good; once more does no harm."""
        ...

    async def hand_back(self, deliveries: Sequence[Delivery]) -> None:
        """Make entries that were read but are not wanted now available at once, to any reader."""
        ...

    async def reclaim(self, min_idle_seconds: float, count: int) -> list[Delivery]:
        """Take over up to `count` entries that have been pending for that long, whoever read them.

        Repeated calls get round to every pending entry.
        """
        ...

    async def depth(self) -> int:
        """Return how many entries the stream holds, pending ones included."""
        ...

    async def remove_dead_consumers(self, nodes_alive: Collection[str]) -> int:
        """Forget the readers of nodes that are not alive and have nothing pending; return how many."""
        ...

    async def stats(self) -> StreamStats:
        """Describe the stream as it is now; says `up=False` instead of raising."""
        ...

    async def close(self) -> None:
        """Let go of every connection; entries stay as they are. Safe twice, and before open."""
        ...
