"""The stream on Redis: one stream and one consumer group, shared by every daemon on the same store."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from redis.asyncio import Redis

from replayforge.domain.errors import Refused, Unavailable
from replayforge.streams.redis_link import GroupGone, RedisLink
from replayforge.streams.redis_scripts import PREPARE, REMOVE_CONSUMERS
from replayforge.streams.stream import Delivery, Entry, StreamStats
from replayforge.telemetry import Telemetry

VERSION_MIN = (6, 2)
CALL_SECONDS_MAX = 5.0
CHECK_SECONDS = 1.0
RECREATE_SECONDS = 0.1
BATCH_ENTRIES_MAX = 1000
SWEEP_START = "0-0"

T = TypeVar("T")
Row = tuple[str | None, dict[str, str] | None]


class RedisStream:
    """Entries `{id, run}` under keys that carry the store's id, so installations sharing a Redis never meet.

    Beside the entries lies the *generation*, a random word written whenever the group is made. A generation or a
    server run id other than the one known means that entries may be lost (FLUSHALL, an eviction, an old snapshot,
    an empty failover): `wiped` is set. XADD never makes the stream, so it cannot come to life without its group.
    """

    def __init__(
        self,
        url: str,
        *,
        store_id: str,
        node: str,
        telemetry: Telemetry,
        stream_key: str = "replayforge",
        group: str = "replayforge",
        block_seconds: float = 2.0,
    ) -> None:
        self.name = "redis"
        self.wiped = asyncio.Event()
        self.node = node
        self.group = group
        self.telemetry = telemetry
        self.block_seconds = block_seconds
        self.entries_key = f"{stream_key}:{{{store_id}}}:entries"
        self.generation_key = f"{stream_key}:{{{store_id}}}:generation"
        self.writer = RedisLink(url, CALL_SECONDS_MAX, CALL_SECONDS_MAX)
        self.reader = RedisLink(url, 2.5 * block_seconds, 3 * block_seconds)
        self.readying = asyncio.Lock()
        self.identity: tuple[str, str] | None = None  # generation, server run id
        self.checked_at = float("-inf")
        self.group_gone = False
        self.server_version = ""
        self.failing: set[str] = set()
        self.read_unfinished = True  # entries may be pending under this node's name that nobody here holds
        self.held: set[str] = set()  # handles read here and not yet acked or handed back
        self.sweep_cursor = SWEEP_START

    # Being ready, and knowing whether this is still the same stream

    async def open(self) -> None:
        """See Stream.open."""
        self.wiped.set()
        await self.make_ready()

    async def ensure_ready(self) -> None:
        """Make ready when the last look is long ago or something went wrong since."""
        if self.group_gone or time.monotonic() - self.checked_at > CHECK_SECONDS:
            await self.make_ready()

    async def make_ready(self) -> None:
        """Make the stream and its group where they are missing, and notice when entries may have been lost."""
        async with self.readying, self.calling(self.writer, "connect") as client:
            pipeline: Any = client.pipeline(transaction=False)
            generation, server = await pipeline.get(self.generation_key).info("server").execute()
            self.check_version(server)
            if generation is None or self.group_gone:
                keys = (self.entries_key, self.generation_key)
                generation = await client.eval(PREPARE, len(keys), *keys, self.group, uuid.uuid4().hex)
            self.group_gone = False
            self.checked_at = time.monotonic()
            self.recognise((generation, server.get("run_id", "")))

    def recognise(self, identity: tuple[str, str]) -> None:
        """Compare with the stream as it was known; another one means entries may be lost."""
        if self.identity not in (None, identity):
            self.wiped.set()
            self.held.clear()
            self.read_unfinished = True
            self.sweep_cursor = SWEEP_START
            self.telemetry.emit("stream.wiped", node=self.node)
        self.identity = identity

    def check_version(self, server: dict[str, Any]) -> None:
        """Raise Refused for a server that lacks the commands this is built on."""
        version = str(server["redis_version"])
        if tuple(int(part) for part in version.split(".")[:2]) < VERSION_MIN:
            raise Refused(f"Redis 6.2 or newer is needed, this one is {version}")
        valkey = server.get("valkey_version")
        self.server_version = f"valkey {valkey}" if valkey else f"redis {version}"

    @asynccontextmanager
    async def calling(self, link: RedisLink, operation: str) -> AsyncIterator[Redis]:
        """Lend the link's client, and report when an operation begins to fail and when it works again."""
        try:
            async with link.calling() as client:
                yield client
        except GroupGone:
            self.group_gone = True
            raise
        except Unavailable as error:
            self.checked_at = float("-inf")
            if operation not in self.failing:
                self.failing.add(operation)
                self.telemetry.emit("stream.failed", operation=operation, error=str(error))
            raise
        if operation in self.failing:
            self.failing.remove(operation)
            self.telemetry.emit("stream.recovered", operation=operation)

    # The road of an entry

    async def publish(self, entries: Sequence[Entry]) -> None:
        """See Stream.publish."""
        for batch in batches(entries):
            await self.ensure_ready()
            if not await self.add(batch):
                await self.make_ready()
                if not await self.add(batch):
                    raise GroupGone
            self.telemetry.emit("entry.published", len(batch))

    async def add(self, entries: Sequence[Entry]) -> bool:
        """Add the entries in one round trip; False, and perhaps a part of them added, when the stream is gone."""
        async with self.calling(self.writer, "publish") as client:
            pipeline: Any = client.pipeline(transaction=False)
            pipeline.get(self.generation_key)
            for entry in entries:
                pipeline.xadd(self.entries_key, fields_of(entry), nomkstream=True)
            generation, *handles = await pipeline.execute()
        if self.identity and generation != self.identity[0]:
            self.checked_at = float("-inf")
        self.group_gone = self.group_gone or None in handles
        return None not in handles

    async def read(self, count: int, wait_seconds: float) -> list[Delivery]:
        """See Stream.read."""
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                await self.ensure_ready()
                deliveries = await self.read_once(count, deadline - time.monotonic())
            except GroupGone:
                await asyncio.sleep(RECREATE_SECONDS)
                deliveries = []
            if deliveries or time.monotonic() >= deadline:
                return deliveries

    async def read_once(self, count: int, wait_seconds: float) -> list[Delivery]:
        """Read what an unfinished read left behind, else what is new."""
        if self.read_unfinished:
            left_behind = await self.read_rows("0", count + len(self.held), wait_seconds=0)
            deliveries = await self.receive(row for row in left_behind if row[0] not in self.held)
            if deliveries:
                return deliveries
        self.read_unfinished = True  # stays so when the read is cancelled or fails
        rows = await self.read_rows(">", count, wait_seconds)
        self.read_unfinished = False
        return await self.receive(rows)

    async def read_rows(self, after: str, count: int, wait_seconds: float) -> list[Row]:
        """Ask once, blocking no longer than one block; `after` is ">" for new entries, an id for pending ones."""
        block_ms = int(1000 * min(wait_seconds, self.block_seconds))
        async with self.calling(self.reader, "read") as client:
            answer: Any = await client.xreadgroup(
                self.group, self.node, {self.entries_key: after}, count=count, block=block_ms if block_ms > 0 else None
            )
        return answer[0][1] if answer else []

    async def receive(self, rows: Iterable[Row]) -> list[Delivery]:
        """Hold what can be understood; remove entries whose body is gone or not ours, or they would stay for ever."""
        deliveries, unusable = [], []
        for handle, fields in rows:
            entry = entry_of(fields)
            if handle is None:
                self.read_unfinished = True  # 6.2 sweeps a deleted entry without naming it; a read of our own does
            elif entry is None:
                unusable.append(handle)
            else:
                deliveries.append(Delivery(entry, handle))
        self.held.update(delivery.handle for delivery in deliveries)
        await self.remove(unusable)
        return deliveries

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """See Stream.ack."""
        for batch in batches(deliveries):
            await self.remove([delivery.handle for delivery in batch])

    async def remove(self, handles: Sequence[str], publish_again: Sequence[Entry] = ()) -> None:
        """Ack and delete in one transaction, since an ack alone leaves the entry in the stream."""
        if not handles:
            return
        self.held.difference_update(handles)
        async with self.calling(self.writer, "ack") as client:
            pipeline: Any = client.pipeline(transaction=True)
            for entry in publish_again:
                pipeline.xadd(self.entries_key, fields_of(entry), nomkstream=True)
            pipeline.xack(self.entries_key, self.group, *handles).xdel(self.entries_key, *handles)
            await pipeline.execute()

    async def hand_back(self, deliveries: Sequence[Delivery]) -> None:
        """See Stream.hand_back; a pending entry is nobody else's, so it is published again as it is acked."""
        for batch in batches(deliveries):
            await self.remove([delivery.handle for delivery in batch], [delivery.entry for delivery in batch])

    # Chores

    async def reclaim(self, min_idle_seconds: float, count: int) -> list[Delivery]:
        """See Stream.reclaim; follows the server's cursor, over several calls where one is not enough."""
        await self.ensure_ready()
        while True:
            async with self.calling(self.writer, "reclaim") as client:
                self.sweep_cursor, rows, *_ = await client.xautoclaim(
                    self.entries_key, self.group, self.node, int(1000 * min_idle_seconds), self.sweep_cursor, count
                )
            deliveries = await self.receive(rows)
            if deliveries:
                self.telemetry.emit("entry.reclaimed", len(deliveries))
            if deliveries or self.sweep_cursor == SWEEP_START:
                return deliveries

    async def depth(self) -> int:
        """See Stream.depth."""
        async with self.calling(self.writer, "depth") as client:
            return int(await client.xlen(self.entries_key))

    async def remove_dead_consumers(self, nodes_alive: Collection[str]) -> int:
        """See Stream.remove_dead_consumers."""
        async with self.calling(self.writer, "chore") as client:
            keep = (self.node, *nodes_alive)
            return int(await client.eval(REMOVE_CONSUMERS, 1, self.entries_key, self.group, *keep))

    async def stats(self) -> StreamStats:
        """See Stream.stats."""
        try:
            await self.ensure_ready()
            return await self.measure()
        except Unavailable as error:
            return StreamStats(backend=self.name, up=False, warnings=(str(error),))

    async def measure(self) -> StreamStats:
        """Take the figures of one moment, and the time one round trip takes."""
        async with self.calling(self.writer, "stats") as client:
            started_at = time.monotonic()
            await client.ping()
            latency_ms = 1000 * (time.monotonic() - started_at)
            pipeline: Any = client.pipeline(transaction=True)
            pipeline.xlen(self.entries_key).xpending(self.entries_key, self.group)
            pipeline.xpending_range(self.entries_key, self.group, "-", "+", 1)
            pipeline.xinfo_consumers(self.entries_key, self.group).info("memory")
            depth, pending, oldest, consumers, memory = await pipeline.execute()
        return StreamStats(
            backend=self.name,
            up=True,
            depth=depth,
            pending=pending["pending"],
            lag=max(0, depth - pending["pending"]),  # the server's own lag is unknown as soon as entries are deleted
            oldest_idle_seconds=oldest[0]["time_since_delivered"] / 1000 if oldest else 0.0,
            consumers=len(consumers),
            server_version=self.server_version,
            latency_ms=latency_ms,
            warnings=tuple(warnings_about(memory)),
        )

    async def close(self) -> None:
        """See Stream.close."""
        await self.reader.close()
        await self.writer.close()


def batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut into pieces that Redis handles without keeping others waiting."""
    return (items[start : start + BATCH_ENTRIES_MAX] for start in range(0, len(items), BATCH_ENTRIES_MAX))


def fields_of(entry: Entry) -> dict[Any, Any]:
    """Write an entry as the fields of a stream entry."""
    return {"id": entry.event_id, "run": entry.run}


def entry_of(fields: dict[str, str] | None) -> Entry | None:
    """Read an entry; None when the body is gone or somebody else wrote it."""
    try:
        return Entry(fields["id"], int(fields["run"])) if fields else None
    except (KeyError, ValueError):
        return None


def warnings_about(memory: dict[str, Any]) -> Iterator[str]:
    """Yield a sentence for each setting of the server that can cost entries."""
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield f"Redis may evict the stream: maxmemory-policy is {policy}, set it to noeviction"
