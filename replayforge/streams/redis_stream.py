"""The stream on Redis: one stream and one consumer group, shared by every daemon on the same store."""

import asyncio
from asyncio import sleep
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import monotonic
from typing import Any, TypeVar

from redis.asyncio import Redis

from replayforge.domain.errors import Refused, Unavailable
from replayforge.domain.event import Entry
from replayforge.streams.redis_group import RedisGroup
from replayforge.streams.redis_link import GroupGone, RedisLink
from replayforge.streams.redis_scripts import DELIVER_ORPHANS, PUBLISH, REMOVE_CONSUMERS, REMOVE_ENTRIES
from replayforge.streams.stream import Delivery, StreamStats
from replayforge.telemetry import Telemetry

RECREATE_SECONDS = 0.1
BATCH_ENTRIES_MAX = 1000
SWEEP_START = "0-0"

T = TypeVar("T")
Row = tuple[str | None, dict[str, str] | None]


class RedisStream:
    """Entries `{id, run}` under keys that carry the store's id, so installations sharing a Redis never meet.

    Blocking reads have a client of their own, which is thrown away when a read has not come back `call_seconds`
    after its block; the default leaves room for a log-in over a network of two seconds' round trip. XADD never makes
    the stream, so that it cannot come to life without its group, and never trims it, since trimming drops unread
    work. Nothing is retried here: a caller that got Unavailable backs off.
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
        entries_max: int = 10_000,
        block_seconds: float = 2.0,
        call_seconds: float = 8.0,
    ) -> None:
        self.name = "redis"
        self.wiped = asyncio.Event()
        self.node = node
        self.telemetry = telemetry
        self.entries_max = entries_max
        self.block_seconds = block_seconds
        self.writer = RedisLink(url, call_seconds)
        self.reader = RedisLink(url, block_seconds + call_seconds)
        self.group = RedisGroup(
            self.writer,
            stream_key=stream_key,
            store_id=store_id,
            name=group,
            telemetry=telemetry,
            on_wiped=self.start_over,
        )
        self.key = self.group.entries_key
        self.start_over()

    def start_over(self) -> None:
        """Forget what was read and swept, for the stream may be another one, and call for a refill."""
        self.wiped.set()
        self.held: set[str] = set()  # handles read here and not yet acked or handed back
        self.left_behind = True  # entries may be pending under this node's name that nobody here holds
        self.sweep_cursor = SWEEP_START

    async def open(self) -> None:
        """See Stream.open."""
        self.start_over()
        await self.group.make()

    def calling(self, link: RedisLink, operation: str) -> AbstractAsyncContextManager[Redis]:
        """See RedisGroup.calling."""
        return self.group.calling(link, operation)

    # The road of an entry

    def take_wiped(self) -> bool:
        """See Stream.take_wiped."""
        wiped = self.wiped.is_set()
        self.wiped.clear()
        return wiped

    async def publish(self, entries: Sequence[Entry]) -> int:
        """See Stream.publish; each batch of a thousand is one step inside Redis."""
        published = 0
        for batch in batches(entries):
            added = await self.publish_batch(batch)
            published += added
            if added:
                self.telemetry.emit("entry.published", added)
            if added < len(batch):
                break
        return published

    async def publish_batch(self, entries: Sequence[Entry]) -> int:
        """Add what finds room, to a stream made anew if it is gone; returns how many."""
        await self.group.ensure()
        added = await self.add(entries)
        if added is None:
            await self.group.make()
            added = await self.add(entries)
        if added is None:
            raise GroupGone
        return added

    async def add(self, entries: Sequence[Entry]) -> int | None:
        """Add what finds room, in one round trip, and return how many; None when the stream is gone."""
        words = [word for entry in entries for word in (entry.event_id, entry.run)]
        keys = (self.key, self.group.generation_key)
        async with self.calling(self.writer, "publish") as client:
            answer: Any = await client.eval(PUBLISH, len(keys), *keys, self.entries_max, *words)
        there, added, generation = answer
        self.group.doubt(generation=generation, gone=not there)
        return int(added) if there else None

    async def read(self, count: int, wait_seconds: float) -> list[Delivery]:
        """See Stream.read."""
        deadline = monotonic() + wait_seconds
        while True:
            try:
                await self.group.ensure()
                deliveries = await self.read_once(count, deadline - monotonic())
            except GroupGone:
                await sleep(RECREATE_SECONDS)
                deliveries = []
            if deliveries or monotonic() >= deadline:
                return deliveries

    async def read_once(self, count: int, wait_seconds: float) -> list[Delivery]:
        """Read what was left behind, else what is new."""
        try:
            if self.left_behind:
                self.left_behind = False
                rows = await self.read_rows("0", count + len(self.held), wait_seconds=0)
                deliveries = await self.receive(row for row in rows if row[0] not in self.held)
                if deliveries:
                    self.left_behind = True  # there may be more
                    return deliveries
            return await self.receive(await self.read_rows(">", count, wait_seconds))
        except (Unavailable, asyncio.CancelledError):
            self.left_behind = True
            raise

    async def read_rows(self, after: str, count: int, wait_seconds: float) -> list[Row]:
        """Ask once, blocking no longer than one block; `after` is ">" for new entries, an id for pending ones."""
        block_ms = int(1000 * min(wait_seconds, self.block_seconds))
        async with self.calling(self.reader, "read") as client:
            answer: Any = await client.xreadgroup(
                self.group.name, self.node, {self.key: after}, count=count, block=block_ms if block_ms > 0 else None
            )
        return answer[0][1] if answer else []

    async def receive(self, rows: Iterable[Row]) -> list[Delivery]:
        """Hold what can be understood; remove entries whose body is gone or not ours, or they would stay for ever."""
        deliveries, unusable = [], []
        for handle, fields in rows:
            entry = entry_of(fields)
            if handle is None:
                self.left_behind = True  # 6.2 sweeps a deleted entry without naming it; a read of our own does
            elif entry is None:
                unusable.append(handle)
            else:
                deliveries.append(Delivery(entry, handle))
        await self.remove(unusable)
        self.held.update(delivery.handle for delivery in deliveries)
        return deliveries

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """See Stream.ack."""
        for batch in batches(deliveries):
            await self.remove([delivery.handle for delivery in batch])

    async def remove(self, handles: Sequence[str]) -> None:
        """Ack and delete in one step, since an ack alone leaves the entry in the stream."""
        if handles:
            async with self.letting_go(handles) as client:
                await client.eval(REMOVE_ENTRIES, 1, self.key, self.group.name, *handles)

    async def hand_back(self, deliveries: Sequence[Delivery]) -> None:
        """See Stream.hand_back; a pending entry is nobody else's, so it is published again as it is acked."""
        for batch in batches(deliveries):
            handles = [delivery.handle for delivery in batch]
            async with self.letting_go(handles) as client:
                pipeline: Any = client.pipeline(transaction=True)
                for delivery in batch:
                    pipeline.xadd(self.key, fields_of(delivery.entry), nomkstream=True)
                await pipeline.xack(self.key, self.group.name, *handles).xdel(self.key, *handles).execute()

    @asynccontextmanager
    async def letting_go(self, handles: Sequence[str]) -> AsyncIterator[Redis]:
        """Hold the entries no longer, however it ends: if it fails they are read, found settled and acked again."""
        try:
            async with self.calling(self.writer, "ack") as client:
                yield client
        except (Unavailable, asyncio.CancelledError):
            self.left_behind = True
            raise
        finally:
            self.held.difference_update(handles)

    # Chores

    async def reclaim(self, min_idle_seconds: float, count: int) -> list[Delivery]:
        """See Stream.reclaim; follows the server's cursor, over several calls where one is not enough."""
        await self.group.ensure()
        while True:
            async with self.calling(self.writer, "reclaim") as client:
                self.sweep_cursor, rows, *_ = await client.xautoclaim(
                    self.key, self.group.name, self.node, int(1000 * min_idle_seconds), self.sweep_cursor, count
                )
            deliveries = await self.receive(rows)
            if deliveries:
                self.telemetry.emit("entry.reclaimed", len(deliveries))
            if deliveries or self.sweep_cursor == SWEEP_START:
                break
        if not deliveries:
            await self.deliver_orphans()
        return deliveries

    async def deliver_orphans(self) -> None:
        """Let entries be read again that were read by a consumer somebody deleted with its pending list."""
        async with self.calling(self.writer, "reclaim") as client:
            orphans = int(await client.eval(DELIVER_ORPHANS, 1, self.key, self.group.name))
        if orphans:
            self.telemetry.emit("entry.reclaimed", orphans, orphaned=True)

    async def depth(self) -> int:
        """See Stream.depth."""
        await self.group.ensure()
        async with self.calling(self.writer, "depth") as client:
            return int(await client.xlen(self.key))

    async def remove_dead_consumers(self, nodes_alive: Collection[str]) -> int:
        """See Stream.remove_dead_consumers."""
        await self.group.ensure()
        async with self.calling(self.writer, "chore") as client:
            keep = (self.node, *nodes_alive)
            return int(await client.eval(REMOVE_CONSUMERS, 1, self.key, self.group.name, *keep))

    async def stats(self) -> StreamStats:
        """See Stream.stats."""
        try:
            await self.group.ensure()
            return await self.measure()
        except (Unavailable, Refused) as error:
            return StreamStats(backend=self.name, up=False, warnings=(str(error),))

    async def measure(self) -> StreamStats:
        """Take the figures of one moment, and the time one round trip takes."""
        async with self.calling(self.writer, "stats") as client:
            started_at = monotonic()
            await client.ping()
            latency_ms = 1000 * (monotonic() - started_at)
            pipeline: Any = client.pipeline(transaction=True)
            pipeline.xlen(self.key).xpending(self.key, self.group.name)
            pipeline.xpending_range(self.key, self.group.name, "-", "+", 1)
            pipeline.xinfo_consumers(self.key, self.group.name).info("memory")
            depth, pending, oldest, consumers, memory = await pipeline.execute()
            await self.group.forget_taken_away(client)
        return StreamStats(
            backend=self.name,
            up=True,
            depth=depth,
            pending=pending["pending"],
            lag=max(0, depth - pending["pending"]),  # the server's own lag is unknown as soon as entries are deleted
            oldest_idle_seconds=oldest[0]["time_since_delivered"] / 1000 if oldest else 0.0,
            consumers=len(consumers),
            server_version=self.group.server_version,
            latency_ms=latency_ms,
            warnings=(*warnings_about(memory), *self.group.moved_aside.values()),
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
