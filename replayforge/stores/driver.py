"""The seam below the store: a transaction is a generator of statements, and a driver carries it out.

The generator decides between statements without doing I/O, so one source serves a driver that runs it in a thread
(SQLite) and one that runs it on the event loop (PostgreSQL).
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from msgspec import Struct
from msgspec.structs import astuple

from replayforge.domain.errors import Unavailable, Unstorable
from replayforge.stores.batches import BATCHES
from replayforge.stores.rows import Row

Result = TypeVar("Result")

NONE_GIVEN: Mapping[str, Any] = MappingProxyType({})


class Fetch(Struct, frozen=True):
    """A named query with named parameters; yields its rows. List parameters travel as one JSON array.

    `filters` are further conditions, already in SQL, for the query's `{filters}` place.
    """

    name: str
    parameters: Mapping[str, Any] = NONE_GIVEN
    filters: str = ""


class Batch(Struct, frozen=True):
    """A named statement over many rows, of the kind that BATCHES names, in one step; yields [[rows changed in all]].

    One that is `alone` comes first, and may be committed though nothing of what follows it is: a driver may spare it a
    transaction.
    """

    name: str
    rows: Sequence[Struct]
    alone: bool = False

    def checked(self) -> Sequence[Struct]:
        """Return the rows; those of another statement are refused."""
        if self.rows and type(self.rows[0]) is not BATCHES[self.name]:
            raise TypeError(f"{self.name} takes rows of {BATCHES[self.name].__name__}, not {self.rows[0]!r}")
        return self.rows

    def values(self) -> list[Row]:
        """Return the rows as tuples in the order of their columns."""
        return [astuple(row) for row in self.checked()]


@dataclass(frozen=True, slots=True)
class Computation:
    """No statement but work between two, over so many bytes, that must not hold the event loop; yields [[its value]].

    It must touch nothing that others change.
    """

    work: Callable[[], Any]
    size: int


Statement = Fetch | Batch | Computation
Steps = Generator[Statement, Sequence[Row], Result]
Transaction = Callable[[], Steps[Result]]


LOOK_SECONDS = 5.0


@dataclass(slots=True)
class Writes:
    """How the last write went: what stood in its way, or None, and when that was, on the monotonic clock.

    `listeners` are called at the end of each write, whether it went well or not.
    """

    error: str | None = None
    ended: float = 0.0
    listeners: list[Callable[[], None]] = field(default_factory=list)

    def listen(self, callback: Callable[[], None]) -> None:
        """Have a function called at the end of each write from now on."""
        self.listeners.append(callback)

    def note(self, error: Exception | None, *, changed: bool = True) -> None:
        """Note the end of a write; one that the database refused for what it was has reached the database.

        One that found nothing to change says nothing of the next, nor does one that we gave up ourselves, as where a
        lease is lost: a database that is read-only, or full, lets both pass.
        """
        if (changed and error is None) or isinstance(error, (Unavailable, Unstorable)):
            self.error = str(error) if isinstance(error, Unavailable) else None
            self.ended = monotonic()
        for listener in self.listeners:
            listener()


class Driver(Protocol):
    """What a database must offer; `writes` says how the last write went, for only that tells whether the next one may.

    Every method raises Unavailable while the database does not answer.
    """

    dialect: str
    look_seconds: float
    writes: "Writes"

    async def write(self, transaction: Transaction[Result]) -> Result:
        """Carry out the transaction and commit it durably; all of it happened, or none and the error is raised.

        The transaction may be started more than once, so it must not change anything but through its statements.
        """
        ...

    async def read(self, transaction: Transaction[Result]) -> Result:
        """Carry out a transaction that only fetches, on one consistent snapshot, without waiting for writers."""
        ...

    async def look(self, transaction: Transaction[Result]) -> Result:
        """Carry out a transaction that only fetches, for people: it may read much, so `read` never waits for it.

        Raises TooSlow when there is no answer within `look_seconds`, and then costs nothing any more.
        """
        ...

    def wal_bytes(self) -> int:
        """Return how long the write-ahead file is that this process looks after; 0 where a server does."""
        ...

    def shorten_wal(self) -> None:
        """Begin to empty the write-ahead file where it has become long; whoever looks waits for that, nobody else."""
        ...

    async def run_script(self, script: str, *, unless: str = "") -> None:
        """Run several statements of schema definition, all or none of them, and none when `unless` finds a row."""
        ...

    def check_place(self) -> None:
        """Raise Fatal when the store's files are no longer what their names lead to; a server looks after its own."""
        ...

    @property
    def beside(self) -> "Callable[[float], Driver] | None":
        """What opens the same database over one connection of its own, which gives a call up after so many seconds.

        For the event loop of another thread. None where one process has the database for itself.
        """
        ...

    def abandon(self) -> None:
        """Commit nothing more, not even what was handed in."""
        ...

    async def close(self) -> None:
        """Release every connection; safe to call twice."""
        ...
