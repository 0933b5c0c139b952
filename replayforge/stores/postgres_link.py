"""Connections to PostgreSQL: where to, how patiently, and a small stock of them that forgets broken ones."""

import asyncio
import contextlib
from asyncio import timeout
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

from replayforge.domain.errors import Refused, Unavailable
from replayforge.stores.postgres_errors import mapped_errors

CONNECT_SECONDS = 5.0
CALL_SECONDS = 10.0
STATEMENTS_CACHED = 200
NAME = "replayforge"  # by which other daemons know our sessions


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """A database by its URL. Options of ours stand in the query and are not handed on to the server.

    Behind a transaction pooler nothing is left prepared on a connection; `pgbouncer=true` says that there is one that
    cannot be told from a server. A call that has no answer after `call_seconds` has failed.
    """

    url: str
    place: str
    pooler: bool
    call_seconds: float

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read the URL; raises Refused for an option that makes no sense."""
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        pooler = options.pop("pgbouncer", "false").lower() in ("true", "1", "yes")
        try:
            call_seconds = float(options.pop("call_seconds", CALL_SECONDS))
        except ValueError:
            raise Refused("The store URL's call_seconds must be a number of seconds.") from None
        plain = urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(options), ""))
        where = parts.netloc.rpartition("@")[2] or options.get("host", "this machine")
        return cls(plain, f"PostgreSQL at {where}{parts.path}", pooler, call_seconds)

    async def connect(self) -> asyncpg.Connection:
        """Return a new connection; raises Unavailable."""
        with mapped_errors(self.place):
            return await asyncpg.connect(
                self.url,
                timeout=min(CONNECT_SECONDS, self.call_seconds),
                # The server gives a statement up first, so that its own word comes before our impatience.
                command_timeout=self.call_seconds * 1.5,
                statement_cache_size=0 if self.pooler else STATEMENTS_CACHED,
                server_settings=None if self.pooler else self.session_settings,
            )

    @property
    def session_settings(self) -> dict[str, str]:
        """What holds for each statement, unless a transaction sets it differently for itself.

        A plan is made once for each connection (`PLANNED_ONCE`): whatever the size of their tables by then, rows are
        found by keys alone if no table is read whole, and in a time that grows as their number if these are not looked
        through anew for each.
        Compiling never pays, and that is said by the price: asyncpg switches `jit` itself while it asks for a type, and
        puts back for good what it found.
        """
        milliseconds = int(self.call_seconds * 1000)
        return {
            "application_name": NAME,
            "statement_timeout": str(milliseconds),
            "lock_timeout": str(milliseconds // 2),
            "idle_in_transaction_session_timeout": str(milliseconds),
            "synchronous_commit": "on",
            "plan_cache_mode": "force_generic_plan",
            "enable_seqscan": "off",
            "enable_nestloop": "off",
            "jit_above_cost": "-1",
        }


class Connections:
    """At most `size` connections, made when they are needed and kept while they work."""

    def __init__(self, address: PostgresAddress, size: int) -> None:
        self.address = address
        self.free = asyncio.Semaphore(size)
        self.idle: list[Any] = []
        self.closed = False

    @contextlib.asynccontextmanager
    async def lend(self) -> AsyncIterator[Any]:
        """Lend a connection for one transaction; one that fails is thrown away, and every idle one with it."""
        async with self.place():
            connection = self.take_idle() or await self.address.connect()
            try:
                yield connection
            except BaseException as error:
                connection.terminate()
                if isinstance(error, (OSError, TimeoutError, asyncpg.PostgresConnectionError)):
                    self.forget_idle()
                raise
            if self.closed:
                connection.terminate()
            elif not connection.is_closed():
                self.idle.append(connection)

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait until fewer than `size` connections are lent; raises Unavailable when that takes too long."""
        try:
            async with timeout(self.address.call_seconds):
                await self.free.acquire()
        except TimeoutError:
            raise Unavailable(f"{self.address.place} is busy: every connection is in use.") from None
        try:
            if self.closed:
                raise Unavailable("The store is closed.")
            yield
        finally:
            self.free.release()

    def take_idle(self) -> Any | None:
        """Return an idle connection that is still open."""
        while self.idle:
            connection = self.idle.pop()
            if not connection.is_closed():
                return connection
        return None

    def forget_idle(self) -> None:
        """Throw away every idle connection: where one is broken, the others are."""
        while self.idle:
            self.idle.pop().terminate()

    async def close(self) -> None:
        """Let go of every connection, politely where that is quick."""
        self.closed = True
        while self.idle:
            with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await self.idle.pop().close(timeout=1)
