"""The PostgreSQL driver: each transaction on a connection of its own, and no state left on any of them."""

import asyncio
import random
import re
from asyncio import ensure_future, shield, sleep, timeout, wait
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from functools import lru_cache
from time import monotonic
from typing import Any, Self

import asyncpg
import msgspec
from msgspec.structs import asdict

from replayforge.domain.errors import ReplayForgeError, TooSlow, Unavailable
from replayforge.stores.batches import BATCHES
from replayforge.stores.driver import (
    LOOK_SECONDS,
    Batch,
    Computation,
    Result,
    Statement,
    Steps,
    Transaction,
    Writes,
)
from replayforge.stores.postgres_errors import Rivalled, mapped_errors
from replayforge.stores.postgres_link import Connections, PostgresAddress
from replayforge.stores.postgres_start import usable
from replayforge.stores.queries import GIVEN_AS_JSON, PLANNED_ONCE, load_book, text_columns
from replayforge.stores.rows import Row
from replayforge.stores.shared_columns import shared_columns
from replayforge.turns import computed

CONNECTIONS = 8
START_SECONDS = 30.0
TRIES_MAX = 8
READ_AGAIN_SECONDS = 0.5
MIGRATION_LOCK = 0x7265706C61796672  # "replayfr"
PARAMETER = re.compile(r"(?<!:):([a-z_]+)")
# A plan made for an empty table must not be used when it has grown, so most plans are made for each call.
PLANS_ANEW = "SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL enable_nestloop = on"
CHANGING = re.compile(r"\b(INSERT INTO|DELETE FROM|(?<!FOR )(?<!KEY )UPDATE)\b")


class PostgresDriver:
    """A PostgreSQL database, or a schema of one, that several daemons may share.

    What a transaction needs of its session is set since the connection was made, or, where a transaction pooler stands
    between, inside the transaction; that a commit waits for the disk is set inside each. Whether a transaction whose
    COMMIT got no answer has happened is not known: `write` then raises Unavailable, and every caller looks again before
    it acts.
    """

    dialect = "postgres"

    def __init__(self, address: PostgresAddress, connections: int) -> None:
        self.address = address
        self.book = load_book(self.dialect)
        self.connections = Connections(address, connections)
        self.running: set[asyncio.Task[Any]] = set()
        self.writes = Writes()
        self.changing = frozenset(name for name, sql in self.book.items() if CHANGING.search(sql))
        self.changes = 0  # statements and rows that the server has taken, in whatever transaction
        self.abandoned = False
        self.jitter = (
            random.Random()
        )  # of its own: a handler may seed that of the module, here and in every other daemon
        self.look_seconds = LOOK_SECONDS
        self.looks = asyncio.Semaphore(max(1, connections // 2))
        self.planned_once = frozenset[str]() if address.pooler else PLANNED_ONCE
        # Behind a pooler no session is ours for longer than a transaction.
        settings = address.session_settings if address.pooler else {}
        self.begin = "BEGIN ISOLATION LEVEL {}" + "".join(
            f"; SET LOCAL {name} = '{settings[name]}'" for name in settings
        )
        # Not READ WRITE: who makes a database read-only by default means us as well.
        self.begin_write = self.begin.format("READ COMMITTED") + "; SET LOCAL synchronous_commit = on"
        # Every list has an index in its order; before the first ANALYZE the planner would rather read it all and sort.
        self.begin_read = self.begin.format("REPEATABLE READ READ ONLY") + "; SET LOCAL enable_sort = off"

    @classmethod
    async def open(cls, url: str, *, connections: int = CONNECTIONS, wait_seconds: float = START_SECONDS) -> Self:
        """Connect, waiting a while for a server that is starting; raises Refused when it cannot be used."""
        return cls(await usable(PostgresAddress.parse(url), wait_seconds), connections)

    async def write(self, transaction: Transaction[Result]) -> Result:
        """Carry out the transaction and commit it; it ends even when the caller is cancelled."""
        if self.abandoned:
            raise Unavailable("The store is closed.")
        return await self.shielded(self.noted(transaction))

    async def read(self, transaction: Transaction[Result]) -> Result:
        """Carry out a transaction that only fetches, on one snapshot.

        A connection that broke while nobody used it says so only now, and all such ones are discarded then; to read
        once more does no harm.
        """
        return await self.read_twice(self.begin_read, transaction)

    async def look(self, transaction: Transaction[Result]) -> Result:
        """See Driver.look; half of the connections are kept for everybody else."""
        try:
            async with timeout(self.look_seconds):
                await self.looks.acquire()
        except TimeoutError:
            raise TooSlow from None
        milliseconds = int(min(self.look_seconds, self.address.call_seconds) * 1000)
        # The default price of a row that lies elsewhere is that of a turning disk: rather than go down the index of
        # 50,000 dead letters for the newest of them, the planner would read all events of the last days.
        more = f"; SET LOCAL statement_timeout = {milliseconds}; SET LOCAL random_page_cost = 1.1"
        try:
            return await self.read_twice(self.begin_read + more, transaction)
        except Unavailable as error:
            if isinstance(error.__cause__, asyncpg.QueryCanceledError):
                raise TooSlow from error
            raise
        finally:
            self.looks.release()

    def wal_bytes(self) -> int:
        """See Driver.wal_bytes."""
        return 0

    def shorten_wal(self) -> None:
        """See Driver.shorten_wal."""

    def check_place(self) -> None:
        """See Driver.check_place."""

    async def read_twice(self, begin: str, transaction: Transaction[Result]) -> Result:
        """Carry out a transaction that only fetches, and once more where a connection was found broken."""
        started = monotonic()
        try:
            return await self.read_once(begin, transaction)
        except Unavailable:
            if monotonic() - started > READ_AGAIN_SECONDS:
                raise
        return await self.read_once(begin, transaction)

    async def read_once(self, begin: str, transaction: Transaction[Result]) -> Result:
        """Try once to carry out a transaction that only fetches."""
        with mapped_errors(self.address.place):
            return await self.run(begin, transaction)

    async def run_script(self, script: str, *, unless: str = "") -> None:
        """Run statements of schema definition in one transaction, one daemon at a time."""
        with mapped_errors(self.address.place):
            async with self.connections.lend() as connection:
                await connection.execute(
                    f"{self.begin_write}; {PLANS_ANEW}; SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"
                )
                if not unless or not await connection.fetch(unless):
                    await connection.execute(script)
                await connection.execute("COMMIT")

    def beside(self, call_seconds: float) -> "PostgresDriver":
        """See Driver.beside."""
        return PostgresDriver(replace(self.address, call_seconds=min(call_seconds, self.address.call_seconds)), 1)

    def abandon(self) -> None:
        """See Driver.abandon; a commit that is under way may still happen."""
        self.abandoned = True

    async def close(self) -> None:
        """Finish what was handed in and let go of every connection; safe twice."""
        if self.running:
            await wait(self.running)
        await self.connections.close()

    async def shielded(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do the work in a task of its own, which ends whatever becomes of the caller."""
        task = ensure_future(work)
        self.running.add(task)
        task.add_done_callback(self.ended)
        return await shield(task)

    def ended(self, task: asyncio.Task[Any]) -> None:
        """Forget a task; a caller that was cancelled does not look at its error."""
        self.running.discard(task)
        if not task.cancelled():
            task.exception()

    async def noted(self, transaction: Transaction[Result]) -> Result:
        """Carry out a writing transaction and note how it went."""
        changes = self.changes
        try:
            result = await self.persist(transaction)
        except Exception as error:
            self.writes.note(error)
            raise
        self.writes.note(None, changed=self.changes != changes)
        return result

    async def persist(self, transaction: Transaction[Result]) -> Result:
        """Carry out a writing transaction, again where another one was faster at the same rows."""
        for number in range(1, TRIES_MAX + 1):
            try:
                with mapped_errors(self.address.place):
                    return await self.run(self.begin_write, transaction)
            except Rivalled:
                if number == TRIES_MAX:
                    raise
            await sleep(self.jitter.uniform(0, 0.01) * 2**number)
        raise AssertionError("unreachable")

    async def run(self, begin: str, transaction: Transaction[Result]) -> Result:
        """Carry out a transaction on one connection; nothing has happened when it raises before COMMIT.

        Only a statement that stands alone is committed by itself, in one round trip instead of three.
        """
        async with self.connections.lend() as connection:
            try:
                result = await self.carry_out(connection, begin, transaction())
            except (asyncpg.PostgresError, ReplayForgeError) as error:
                if not connection.is_in_transaction():
                    raise
                await connection.execute("ROLLBACK")
                failure: Exception = error
            else:
                if connection.is_in_transaction():
                    await connection.execute("COMMIT")
                return result
        raise failure

    async def carry_out(self, connection: Any, begin: str, steps: Steps[Result]) -> Result:
        """Drive the generator to its end, feeding it the rows of each statement; leaves a transaction open."""
        try:
            statement = next(steps)
            if isinstance(statement, Batch) and statement.alone and not self.address.pooler:
                statement = steps.send(await self.run_statement(connection, statement))
            anew = self.is_planned_anew(statement)
            await connection.execute(f"{begin}; {PLANS_ANEW}" if anew else begin)
            while True:
                statement = steps.send(await self.run_statement(connection, statement))
                if not anew and self.is_planned_anew(statement):
                    anew = True
                    await connection.execute(PLANS_ANEW)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # StopIteration carries the generator's return value

    def is_planned_anew(self, statement: Statement) -> bool:
        """Tell whether from this statement on a transaction needs plans that are made for each call."""
        if isinstance(statement, Computation) or (isinstance(statement, Batch) and not statement.rows):
            return False
        return statement.name not in self.planned_once

    async def run_statement(self, connection: Any, statement: Statement) -> Sequence[Row]:
        """Run one statement and return its rows."""
        if isinstance(statement, Computation):
            return [[await computed(statement.work, size=statement.size)]]
        sql = self.book[statement.name]
        if isinstance(statement, Batch):
            changed = await run_batch(connection, sql, statement)
            self.changes += len(statement.rows)
            return [[changed]]
        numbered, names = with_numbers(sql.replace("{filters}", statement.filters))
        records = await connection.fetch(numbered, *(encoded(statement.parameters[name]) for name in names))
        self.changes += statement.name in self.changing
        return [tuple(record) for record in records]


async def run_batch(connection: Any, sql: str, batch: Batch) -> int:
    """Run a statement over many rows and return how many rows it changed."""
    if not batch.rows:
        return 0
    given = [in_json(batch.checked())] if batch.name in GIVEN_AS_JSON else in_arrays(batch)
    status: str = await connection.execute(sql, *given)
    return int(status.rpartition(" ")[2])


def in_arrays(batch: Batch) -> list[Sequence[Any]]:
    """Return the rows column by column; of a column that holds one value only that, for asyncpg looks at each."""
    columns = list(zip(*batch.values(), strict=True))
    are_texts = text_columns(BATCHES[batch.name])
    given = [column[:1] if is_one else column for column, is_one in zip(columns, shared_columns(columns), strict=True)]
    return [storable_texts(column) if is_text else column for column, is_text in zip(given, are_texts, strict=True)]


def in_json(rows: Sequence[msgspec.Struct]) -> str:
    """Return the rows as one JSON array of objects; bytes are base64 in it."""
    text = msgspec.json.encode(rows).decode()
    if "\\u0000" not in text:  # where it is, it may be six characters of somebody's text as well
        return text
    return msgspec.json.encode(
        [{name: storable(value) for name, value in asdict(row).items()} for row in rows]
    ).decode()


@lru_cache(maxsize=1000)
def with_numbers(sql: str) -> tuple[str, list[str]]:
    """Return the SQL with each `:name` as `$n`, and the names in the order of their numbers."""
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        if found[1] not in names:
            names.append(found[1])
        return f"${names.index(found[1]) + 1}"

    return PARAMETER.sub(number, sql), names


def encoded(value: Any) -> Any:
    """Return a parameter as the server takes it: a list as one JSON array."""
    if isinstance(value, (list, tuple)):
        return msgspec.json.encode(value).decode().replace("\\u0000", "\\u2400")
    return storable(value)


def storable_texts(column: Sequence[str | None]) -> list[str | None]:
    """Return a column of texts as `storable` makes each of them, without a call for each."""
    return [text.replace("\0", "\u2400") if text is not None and "\0" in text else text for text in column]


def storable(value: Any) -> Any:
    """Return the value; PostgreSQL has no place in a text for NUL, so its picture stands there instead."""
    return value.replace("\0", "\u2400") if isinstance(value, str) and "\0" in value else value
