"""Keeps one stream and its consumer group in being, and notices when they are not the ones we knew."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from replayforge.domain.errors import Refused, Unavailable
from replayforge.streams.redis_link import WRONG_TYPE, GroupGone, RedisLink
from replayforge.streams.redis_scripts import PREPARE
from replayforge.telemetry import Telemetry

VERSION_MIN = (6, 2)
CHECK_SECONDS = 1.0
NEVER = float("-inf")


class RedisGroup:
    """The keys of one installation's stream, and what is known of the server that holds them.

    Beside the entries lies the *generation*, a random word written whenever the group is made. A generation or a
    server run id other than the one known means that entries may be lost (FLUSHALL, an eviction, an old snapshot,
    an empty failover): `on_wiped` is called. Looked at once a second at most, and after every failure.
    """

    def __init__(
        self,
        link: RedisLink,
        *,
        stream_key: str,
        store_id: str,
        name: str,
        telemetry: Telemetry,
        on_wiped: Callable[[], None],
    ) -> None:
        self.link = link
        self.name = name
        self.telemetry = telemetry
        self.on_wiped = on_wiped
        self.entries_key = f"{stream_key}:{{{store_id}}}:entries"  # the braces keep both keys on one cluster node
        self.generation_key = f"{stream_key}:{{{store_id}}}:generation"
        self.making = asyncio.Lock()
        self.identity: tuple[str, str] | None = None  # generation, server run id
        self.server_version = ""
        self.checked_at = NEVER
        self.gone = False
        self.failing: set[str] = set()
        self.moved_aside: dict[str, str] = {}  # what somebody else's keys are called now, with a sentence on each

    async def ensure(self) -> None:
        """Make the group when it is known to be gone; look again when the last look is old or something failed."""
        if self.gone or monotonic() - self.checked_at > CHECK_SECONDS:
            await self.make()

    async def make(self) -> None:
        """Make the stream and its group at 0 where they are missing, and compare with what was known.

        Writes only when it must, so that a Redis without memory can still be read empty.
        """
        async with self.making:
            async with self.calling(self.link, "connect") as client:
                pipeline: Any = client.pipeline(transaction=False)
                pipeline.get(self.generation_key).info("server")
                generation, server = await pipeline.execute(raise_on_error=False)
                if isinstance(generation, RedisError) and WRONG_TYPE in str(generation):
                    generation = None
                for answer in (generation, server):
                    if isinstance(answer, RedisError):
                        raise answer
            self.check_version(server)
            if generation is None or self.gone:
                generation = await self.prepare()
            self.gone = False
            self.checked_at = monotonic()
            self.recognise((generation, server.get("run_id", "")))

    async def prepare(self) -> str:
        """Run the PREPARE script, say what it moved aside, and return the generation it found or wrote."""
        keys = (self.entries_key, self.generation_key)
        async with self.calling(self.link, "connect") as client:
            answer: Any = await client.eval(PREPARE, len(keys), *keys, self.name, uuid.uuid4().hex)
        generation, moved = answer
        for key, kind, moved_to in zip(*[iter(moved)] * 3, strict=True):
            self.moved_aside[moved_to] = f"A {kind} of somebody else's had the key {key}; it is {moved_to} now"
            self.telemetry.emit("stream.key_moved_aside", key=key, kind=kind, moved_to=moved_to)
        return str(generation)

    async def forget_taken_away(self, client: Redis) -> None:
        """Forget the keys that were moved aside and that somebody has taken away since."""
        for key in list(self.moved_aside):
            if not await client.exists(key):
                del self.moved_aside[key]

    def recognise(self, identity: tuple[str, str]) -> None:
        """Compare with the stream as it was known; another one means that entries may be lost."""
        if self.identity not in (None, identity):
            self.on_wiped()
            self.telemetry.emit("stream.wiped", entries_key=self.entries_key)
        self.identity = identity

    def doubt(self, *, generation: str | None, gone: bool) -> None:
        """Take in what another call has seen on its way; the next call looks closely if it does not fit."""
        if gone:
            self.gone = True
        if self.identity and generation != self.identity[0]:
            self.checked_at = NEVER

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
            self.gone = True
            raise
        except Unavailable as error:
            self.checked_at = NEVER
            if operation not in self.failing:
                self.failing.add(operation)
                self.telemetry.emit("stream.failed", operation=operation, error=str(error))
            raise
        if operation in self.failing:
            self.failing.remove(operation)
            self.telemetry.emit("stream.recovered", operation=operation)
