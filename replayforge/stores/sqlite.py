"""The SQLite driver: one writer that commits in groups, readers of their own, one thread hop for a transaction."""

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import stat
from asyncio import create_task, ensure_future, get_running_loop, shield, timeout, wait
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any, TypeVar

import aiosqlite
import msgspec

from replayforge.batching import Batcher
from replayforge.descriptors import Descriptors, leading_to
from replayforge.domain.errors import Corrupt, Fatal, Refused, ReplayForgeError, TooSlow, Unavailable, Unstorable
from replayforge.stores.driver import (
    LOOK_SECONDS,
    Batch,
    Computation,
    Fetch,
    Result,
    Statement,
    Transaction,
    Writes,
)
from replayforge.stores.queries import load_book
from replayforge.stores.rows import Row
from replayforge.stores.sqlite_batches import Shapes, run_batch
from replayforge.threads import in_thread as apart

Returned = TypeVar("Returned")

SQLITE_VERSION_MIN = (3, 38, 0)  # ->> and RETURNING
BUSY_TIMEOUT_SECONDS = 5
READERS = 2  # of the engine: keys, claims, cursors
LOOKERS = 2  # of pages and lists
INTERRUPT_AGAIN_SECONDS = 0.05  # between two statements nothing hears an interrupt
WAL_BYTES_MAX = 64 << 20
TRUNCATE_SECONDS = 0.2  # how long writers may be kept waiting by readers while the write-ahead file is emptied
TRANSACTIONS_PER_COMMIT_MAX = 256
STATEMENTS_CACHED = 512
ROWS_AS_JSON = "SELECT json_group_array("
# A value out of range, too long or of no kind that SQLite knows, and a row that breaks a rule of its table.
UNSTORABLE = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
UNREADABLE = "Could not decode to UTF-8"  # what Python's module says, under the name of an operational error
WRITER_PRAGMAS = [
    "journal_mode = WAL",
    "synchronous = FULL",
    "wal_autocheckpoint = 4000",
    f"journal_size_limit = {WAL_BYTES_MAX}",
]
APPLICATION_ID = 0x52706C46  # "RplF": by this a database file says whose it is

decode_rows = msgspec.json.Decoder(list[list[Any]]).decode


class Failure:
    """The error of one transaction of a group; the others of the group are not touched by it."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class Statements:
    """Carries transactions out on connections that are lent to it, with the book of SQL for SQLite."""

    dialect = "sqlite"

    def __init__(self) -> None:
        self.book = load_book(self.dialect)
        self.shapes = Shapes()

    def in_snapshot(self, raw: sqlite3.Connection, transaction: Transaction[Result]) -> Result:
        """Carry out a reading transaction on one snapshot."""
        raw.execute("BEGIN")
        try:
            return self.carry_out(raw, transaction)
        finally:
            raw.execute("ROLLBACK")

    def carry_out(self, raw: sqlite3.Connection, transaction: Transaction[Result]) -> Result:
        """Drive the generator to its end, feeding it the rows of each statement."""
        steps = transaction()
        try:
            statement = next(steps)
            while True:
                statement = steps.send(self.run_statement(raw, statement))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # StopIteration carries the generator's return value

    def run_statement(self, raw: sqlite3.Connection, statement: Statement) -> Sequence[Row]:
        """Run one statement and return its rows."""
        if isinstance(statement, Computation):
            return [[statement.work()]]
        sql = self.book[statement.name]
        if isinstance(statement, Batch):
            return [[run_batch(raw, sql, statement.values(), self.shapes)]]
        rows = raw.execute(sql.replace("{filters}", statement.filters), encoded(statement)).fetchall()
        if ROWS_AS_JSON in sql:
            return decoded_rows(rows[0][0])
        return rows


class Look:
    """One reading transaction of somebody who looks; from outside it can be given up while it is under way.

    Nothing is called between SQLite's steps: that would take the interpreter's lock, for which a long look would wait
    hundreds of times while events arrive.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.raw: sqlite3.Connection | None = None

    def carry_out(self, raw: sqlite3.Connection, work: Callable[[], Returned]) -> Returned:
        """Do the work on one snapshot; in its thread."""
        with self.lock:
            self.raw = raw
        raw.execute("BEGIN")
        try:
            return work()
        finally:
            with self.lock:  # what ends the snapshot is not to be interrupted
                self.raw = None
            raw.execute("ROLLBACK")

    def interrupt(self) -> None:
        """Have SQLite give up the statement that is under way, if one is."""
        with self.lock:
            if self.raw is not None:
                self.raw.interrupt()


class SqliteDriver(Statements):
    """A database file in WAL mode with synchronous=FULL: what `write` returned survives a power cut.

    One process at a time: the file has a lock of its own beside it, held until `close`.
    """

    beside = None

    def __init__(
        self,
        path: Path,
        writer: aiosqlite.Connection,
        readers: list[aiosqlite.Connection],
        lock: int,
        descriptors: Descriptors,
    ) -> None:
        super().__init__()
        self.path = path
        self.writer = writer
        self.readers, self.lookers = readers[:READERS], readers[READERS:]
        self.free_lookers: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()
        for connection in self.lookers:
            self.free_lookers.put_nowait(connection)
        self.look_seconds = LOOK_SECONDS
        self.shortening: asyncio.Task[None] | None = None
        self.lock = lock
        self.places = {place: identity(place) for place in (path, Path(f"{path}.lock"), Path(f"{path}-wal"))}
        self.descriptors = descriptors
        self.moved = False
        self.next_reader = 0
        self.writes = Writes()
        self.group: Batcher[Transaction[Any], Any] = Batcher(self.commit_group, items_max=TRANSACTIONS_PER_COMMIT_MAX)
        self.closed = False
        self.abandoned = False

    @classmethod
    async def open(cls, path: Path) -> "SqliteDriver":
        """Open or create the file; raises Refused when it is not ours alone to use or SQLite is too old."""
        check_version()
        with mapped_errors(path):
            path = await apart(examined, path)
        lock = take_lock(path)
        opened: list[aiosqlite.Connection] = []
        try:
            with mapped_errors(path):
                make_private_file(path)
                opened.append(await connect(path, [*WRITER_PRAGMAS, f"application_id = {APPLICATION_ID}"]))
                await check_encoding(path, opened[0])
                descriptors = leading_to(files_of(path))  # those of the writer, which is alone by now
                opened += [await connect(path, ["query_only = ON"]) for _ in range(READERS + LOOKERS)]
        except BaseException:
            for connection in opened:
                await connection.close()
            os.close(lock)
            raise
        return cls(path, opened[0], opened[1:], lock, descriptors)

    async def write(self, transaction: Transaction[Result]) -> Result:
        """Carry out the transaction; it shares a commit with whatever else is waiting."""
        if self.closed:
            raise Unavailable("The store is closed.")
        result = await self.group.add(transaction)
        if isinstance(result, Failure):
            raise result.error
        return result  # type: ignore[no-any-return]  # the group keeps each caller's own type

    async def read(self, transaction: Transaction[Result]) -> Result:
        """Carry out a transaction that only fetches, on a connection of its own."""
        if self.closed:
            raise Unavailable("The store is closed.")
        self.next_reader = (self.next_reader + 1) % len(self.readers)
        connection = self.readers[self.next_reader]
        with mapped_errors(self.path):
            return await in_thread(connection, lambda raw: self.in_snapshot(raw, transaction))

    async def look(self, transaction: Transaction[Result]) -> Result:
        """See Driver.look."""
        if self.closed:
            raise Unavailable("The store is closed.")
        deadline = monotonic() + self.look_seconds
        try:
            async with timeout(self.look_seconds):
                connection = await self.free_lookers.get()
        except TimeoutError:
            raise TooSlow from None
        hop = ensure_future(in_thread(connection, partial(self.looked, look := Look(), transaction)))
        # Whoever asked may be gone before the answer; the connection is free only when its thread is.
        hop.add_done_callback(lambda done: self.end_look(connection, done))
        self.give_up_after(max(0.0, deadline - monotonic()), look, hop)
        with mapped_errors(self.path):
            return await shield(hop)

    def looked(self, look: "Look", transaction: Transaction[Result], raw: sqlite3.Connection) -> Result:
        """Carry out what somebody looks for; in the connection's thread."""
        return look.carry_out(raw, lambda: self.carry_out(raw, transaction))

    def give_up_after(self, seconds: float, look: "Look", hop: asyncio.Future[Any]) -> None:
        """Give a look up after a time, unless it has ended by then."""

        def give_up() -> None:
            look.interrupt()
            self.give_up_after(INTERRUPT_AGAIN_SECONDS, look, hop)

        timer = get_running_loop().call_later(seconds, give_up)
        hop.add_done_callback(lambda _: timer.cancel())

    def end_look(self, connection: aiosqlite.Connection, done: asyncio.Future[Any]) -> None:
        """Give a connection to the next one who looks; an error that nobody waits for is let go."""
        self.free_lookers.put_nowait(connection)
        if not done.cancelled():
            done.exception()

    def wal_bytes(self) -> int:
        """See Driver.wal_bytes."""
        try:
            return Path(f"{self.path}-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def shorten_wal(self) -> None:
        """See Driver.shorten_wal.

        SQLite begins the file anew only in a moment at which nobody reads from it, and pages that follow each other
        closely may leave none for hours.
        """
        if self.wal_bytes() > WAL_BYTES_MAX and self.shortening is None and not self.closed:
            self.shortening = create_task(self.empty_wal(), name="shorten_wal")

    async def empty_wal(self) -> None:
        """Empty the write-ahead file while nobody looks."""
        held: list[aiosqlite.Connection] = []
        try:
            while len(held) < len(self.lookers):
                held.append(await self.free_lookers.get())
            await in_thread(self.writer, truncate_wal)
        except sqlite3.Error:
            pass  # a full disk, say: the next write says so, and the next look at the file tries again
        finally:
            for connection in held:
                self.free_lookers.put_nowait(connection)
            self.shortening = None

    def check_place(self) -> None:
        """See Driver.check_place."""
        moved = [str(place) for place, known in self.places.items() if known is not None and is_moved(place, known)]
        self.moved = bool(moved)
        if moved:
            raise Fatal(
                f"{' and '.join(moved)} was removed, renamed or replaced while the daemon ran, so what it writes is"
                " kept nowhere. Bring the right file back and restart: what was accepted is in the log, and a store"
                " that does not know all of it is refused by name."
            )
        try:
            self.descriptors.check_all()
        except OSError as error:
            self.moved = True
            raise Fatal(f"The files of the store {self.path} are open no more: {error.strerror}.") from error

    async def run_script(self, script: str, *, unless: str = "") -> None:
        """Run statements of schema definition, one transaction for all; there is nobody who could come between."""

        def run(raw: sqlite3.Connection) -> None:
            if not unless or raw.execute(unless).fetchone() is None:
                raw.executescript(f"BEGIN IMMEDIATE;\n{script}\nCOMMIT;")

        with mapped_errors(self.path):
            await in_thread(self.writer, run)

    def abandon(self) -> None:
        """See Driver.abandon; a commit that is under way may still happen."""
        self.abandoned = True

    async def close(self) -> None:
        """Finish what was handed in, close every connection and release the lock."""
        if self.closed:
            return
        self.closed = True
        if self.moved:
            # SQLite would remove the write-ahead file of whatever lies there now; all this ends with the process.
            os.close(self.lock)
            return
        await self.group.drain()
        if self.shortening is not None:
            self.shortening.cancel()
            await wait([self.shortening])
        for connection in self.lookers:
            await connection.interrupt()
        for connection in (*self.readers, *self.lookers, self.writer):
            await connection.close()
            connection._thread.join()  # noqa: SLF001 - it has closed the connection, and is about to end
        os.close(self.lock)

    async def commit_group(self, transactions: list[Transaction[Any]]) -> list[Any]:
        """Carry out a group of transactions in one thread hop and one commit."""
        if self.abandoned:
            raise Unavailable("The store is closed.")
        with mapped_errors(self.path):
            results, changed = await in_thread(self.writer, lambda raw: self.run_counted(raw, transactions))
        self.writes.note(results[-1].error if isinstance(results[-1], Failure) else None, changed=changed)
        return results

    def run_counted(self, raw: sqlite3.Connection, transactions: list[Transaction[Any]]) -> tuple[list[Any], bool]:
        """Return what `run_group` does, and whether that changed anything."""
        changes = raw.total_changes
        return self.run_group(raw, transactions), raw.total_changes != changes

    def run_group(self, raw: sqlite3.Connection, transactions: list[Transaction[Any]]) -> list[Any]:
        """Commit all, or when one of them fails each alone, so that a bad write never takes its neighbours along."""
        try:
            return self.run_committed(raw, transactions)
        except Exception as error:
            failure = Failure(mapped(error, self.path))
            if len(transactions) == 1 or isinstance(failure.error, Unavailable):
                return [failure] * len(transactions)
            return [self.run_group(raw, [transaction])[0] for transaction in transactions]

    def run_committed(self, raw: sqlite3.Connection, transactions: list[Transaction[Any]]) -> list[Any]:
        """Carry out the transactions inside one commit; nothing has happened when it raises."""
        try:
            self.descriptors.check_all()
        except OSError as error:
            raise Unavailable(f"The files of the store {self.path} are open no more: {error.strerror}.") from error
        raw.execute("BEGIN IMMEDIATE")
        try:
            results = [self.carry_out(raw, transaction) for transaction in transactions]
            raw.execute("COMMIT")
        except BaseException:
            if raw.in_transaction:
                raw.execute("ROLLBACK")
            raise
        return results


def decoded_rows(text: str) -> list[list[Any]]:
    """Take apart the rows that a statement gave back as one JSON array."""
    try:
        return decode_rows(text)
    except msgspec.MsgspecError as error:
        raise Unstorable(f"What the store holds cannot be read: {error}.") from error


def encoded(statement: Fetch) -> dict[str, Any]:
    """Return the parameters with every list written as a JSON array."""
    return {
        name: msgspec.json.encode(value).decode() if isinstance(value, (list, tuple)) else value
        for name, value in statement.parameters.items()
    }


async def connect(path: Path, pragmas: list[str]) -> aiosqlite.Connection:
    """Open a connection in autocommit mode; transactions are begun and ended by name."""
    connection = await aiosqlite.connect(
        path, isolation_level=None, timeout=BUSY_TIMEOUT_SECONDS, cached_statements=STATEMENTS_CACHED
    )
    try:
        for pragma in pragmas:
            # To its end: while a statement that may write has rows left to give, nothing can be committed.
            await connection.execute_fetchall(f"PRAGMA {pragma}")
    except BaseException:
        await connection.close()
        raise
    return connection


def truncate_wal(raw: sqlite3.Connection) -> None:
    """Bring everything into the database file and empty the write-ahead file, if readers let go of it soon."""
    raw.execute(f"PRAGMA busy_timeout = {int(TRUNCATE_SECONDS * 1000)}")
    try:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        raw.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_SECONDS * 1000)}")


def check_version() -> None:
    """Raise Refused where SQLite is too old."""
    if sqlite3.sqlite_version_info < SQLITE_VERSION_MIN:
        raise Refused(f"SQLite {sqlite3.sqlite_version} is too old: 3.38 or newer is needed.")


async def check_encoding(path: Path, connection: aiosqlite.Connection) -> None:
    """Raise Refused for a file that keeps its texts as UTF-16: a payload's bytes would be read as other characters."""
    ((encoding,),) = await connection.execute_fetchall("PRAGMA encoding")
    if encoding != "UTF-8":
        raise Refused(f"The store {path} keeps its texts as {encoding}, which cannot be used. Move it away.")


async def in_thread(connection: aiosqlite.Connection, work: Callable[[sqlite3.Connection], Returned]) -> Returned:
    """Run `work` on the connection's own thread in one hop; when the caller is cancelled the work still ends."""
    # aiosqlite offers one hop per statement. A whole transaction in one hop is put where its methods put theirs, and a
    # future that was cancelled meanwhile is left alone there; a task for it would cost three turns of the loop.
    hop: asyncio.Future[Returned] = get_running_loop().create_future()
    raw = connection._conn  # noqa: SLF001
    connection._tx.put_nowait((hop, partial(work, raw)))  # noqa: SLF001
    return await hop


def examined(path: Path) -> Path:
    """Return the file behind links, where SQLite keeps its WAL and our lock must lie; changes nothing.

    Raises Refused for one that is not a database of ours, or that has a second name.
    """
    path = path.resolve()
    remedy = "Name another file in store.url, or move this one away."
    try:
        found = path.stat()
    except FileNotFoundError:
        return path
    except OSError as error:
        raise Refused(f"The store {path} cannot be opened: {error.strerror}.") from None
    if not stat.S_ISREG(found.st_mode):
        raise Refused(f"The store {path} is not a regular file. {remedy}")
    if found.st_nlink > 1:
        raise Refused(
            f"The store {path} has {found.st_nlink} names (hard links): opened under two of them, SQLite would ruin it."
            " Remove the other names, or name a file of its own in store.url."
        )
    with contextlib.closing(reading(path)) as raw:
        ((application_id,),) = raw.execute("PRAGMA application_id").fetchall()
        if application_id == APPLICATION_ID:
            return path
        tables = [name for (name,) in raw.execute("SELECT name FROM sqlite_master ORDER BY name LIMIT 3")]
    if application_id or tables:
        whose = f"application_id {application_id:#x}" if application_id else f"tables such as {', '.join(tables)}"
        raise Refused(f"The store {path} is the database of another application ({whose}). {remedy}")
    return path


def files_of(path: Path) -> list[Path]:
    """Return the files that SQLite keeps open for a database."""
    return [path, Path(f"{path}-wal"), Path(f"{path}-shm")]


def reading(path: Path) -> sqlite3.Connection:
    """Open a file to look at it, and make nothing beside it: that would belong to whoever looks, not to the daemon."""
    at_rest = not Path(f"{path}-wal").exists()
    return sqlite3.connect(f"{path.as_uri()}?mode=ro{'&immutable=1' if at_rest else ''}", uri=True)


def identity(path: Path) -> tuple[int, int] | None:
    """Return what tells the file under a name from any other; None when there is none."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def is_moved(path: Path, known: tuple[int, int]) -> bool:
    """Tell whether a name surely leads to another file by now; a file system that does not say is no proof."""
    try:
        return identity(path) != known
    except OSError:
        return False


def make_private_file(path: Path) -> None:
    """Make the file for this user alone, whatever the umask; what SQLite puts beside it has the same mode."""
    with contextlib.suppress(FileExistsError):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.fchmod(handle, 0o600)
        os.close(handle)


def take_lock(path: Path) -> int:
    """Lock the file beside the database for this process; raises Refused when another one has it."""
    try:
        make_private_file(path.with_name(f"{path.name}.lock"))
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(f"The store {path} cannot be opened for writing: {error.strerror}.") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(lock, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise Refused(f"The data directory {path.parent} is in use by another process, pid {holder}.") from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


@contextlib.contextmanager
def mapped_errors(path: Path) -> Iterator[None]:
    """Let no error of SQLite's pass but as one of ours."""
    try:
        yield
    except (sqlite3.Error, ValueError, OverflowError) as error:
        raise mapped(error, path) from error


def mapped(error: Exception, path: Path) -> Exception:
    """Name an error by its remedy: a damaged file is Corrupt, a busy or full one Unavailable.

    What would come to nothing every time is Unstorable.
    """
    if isinstance(error, ReplayForgeError):
        return error
    if isinstance(error, (*UNSTORABLE, OverflowError, UnicodeError)) or UNREADABLE in str(error):
        return Unstorable(f"The store {path} can never take it: {error}.")
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Corrupt(f"The store {path} is damaged: {error}. Restore it from a backup or move it away.")
    if code == sqlite3.SQLITE_INTERRUPT:
        return TooSlow()
    if isinstance(error, sqlite3.OperationalError):
        return Unavailable(f"The store {path} does not answer: {error}.")
    return error
