"""How the rows of a batch reach SQLite: all of them, exactly, whatever they have in common."""

import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from typing import Any

import pytest

from replayforge.domain.lifecycle import State
from replayforge.stores.batches import BATCHES
from replayforge.stores.queries import load_book
from replayforge.stores.sqlite_batches import (
    CHUNK_SIZES,
    SHAPES_MAX,
    SHARED_ROWS_MIN,
    Shapes,
    composed,
    of_one_row,
    run_batch,
)

INSERT = """INSERT INTO kept (number, word, bytes, amount) VALUES {rows}
ON CONFLICT (number) DO UPDATE SET word = 'twice'"""
COPY = """INSERT INTO kept (word, number, bytes, amount)
SELECT g.column2, g.column1, g.column3, g.column4 FROM (VALUES {rows}) AS g"""
CHANGE = """UPDATE kept AS k SET word = g.column2 || g.column2, bytes = g.column3
FROM (VALUES {rows}) AS g WHERE k.number = g.column1 AND k.amount IS g.column4"""
JOIN = """INSERT INTO kept (number, word)
SELECT (SELECT max(number) FROM kept) + 1, g.column2 || k.word
FROM (VALUES {rows}) AS g CROSS JOIN kept AS k ON k.number = g.column1"""
REMOVE = "DELETE FROM kept WHERE number IN (VALUES {rows})"
VALUES: Sequence[Any] = ["word", "", "\x00", "ø\U0001f525", None, State.QUEUED]
BYTES: Sequence[Any] = [b"", b"null", b"\x00\xff", None, b"x" * 5000]
AMOUNTS: Sequence[Any] = [0, -1, 2**63 - 1, -(2**63), True, False, None]


WIDE = "abcdef"
INSERT_WIDE = f"INSERT INTO wide ({', '.join(WIDE)}, same) VALUES {{rows}}"


class CountingConnection(sqlite3.Connection):
    """Counts the values that it is given, and the statements that it is asked for."""

    given = asked = 0
    statements: frozenset[str] = frozenset()
    shapes = Shapes()

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        self.given += len(parameters)
        self.asked += 1
        self.statements |= {sql}
        return super().execute(sql, parameters)


@pytest.fixture
def raw() -> Iterator[CountingConnection]:
    connection = sqlite3.connect(":memory:", isolation_level=None, factory=CountingConnection)
    connection.execute("CREATE TABLE kept (number INTEGER PRIMARY KEY, word TEXT, bytes BLOB, amount INTEGER) STRICT")
    connection.execute(f"CREATE TABLE wide ({', '.join(WIDE)}, same)")
    connection.shapes = Shapes()
    yield connection
    connection.close()


def write(raw: CountingConnection, sql: str, rows: Sequence[tuple[Any, ...]]) -> int:
    return run_batch(raw, sql, rows, raw.shapes)


def kept(raw: sqlite3.Connection) -> list[Any]:
    return raw.execute("SELECT number, word, bytes, amount FROM kept ORDER BY number").fetchall()


def made(chance: random.Random, count: int) -> list[tuple[Any, ...]]:
    """Return rows, some of whose columns hold one value."""
    columns: list[Callable[[], Any]] = []
    for values in (VALUES, BYTES, AMOUNTS):
        one = chance.choice(values)
        columns.append(chance.choice([lambda one=one: one, lambda values=values: chance.choice(values)]))
    return [(number, *(column() for column in columns)) for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 3, SHARED_ROWS_MIN - 1, SHARED_ROWS_MIN, 59, 100, 300])
@pytest.mark.parametrize("insert", [INSERT, COPY])
def test_what_is_given_is_kept(raw: CountingConnection, insert: str, count: int) -> None:
    """Texts, bytes, whole numbers and nothing: what was inserted and changed is there as one row at a time would be."""
    chance = random.Random(count)
    for _ in range(12):
        rows = made(chance, count)
        assert write(raw, insert, rows) == count
        assert kept(raw) == [tuple(map(plain, row)) for row in rows]
        others = [(number, word or "-", bytes_, rows[number][3]) for number, word, bytes_, _ in made(chance, count)]
        assert write(raw, CHANGE, others) == count
        assert kept(raw) == [
            (number, plain(word) * 2, bytes_, plain(amount)) for number, word, bytes_, amount in others
        ]
        assert write(raw, REMOVE, [(number,) for number in range(count)]) == count


def plain(value: Any) -> Any:
    """Return what SQLite gives back for a value."""
    return str(value) if isinstance(value, str) else int(value) if isinstance(value, bool) else value


def test_what_all_rows_share_is_given_once(raw: CountingConnection) -> None:
    """A hundred rows that differ in their numbers cost a hundred values, and a few for each statement."""
    rows = [(number, "word", None, 5) for number in range(100)]
    before = raw.given
    write(raw, INSERT, rows)
    assert raw.given - before == 100 + 4 * 3


def test_rows_that_are_all_the_same_are_as_many(raw: CountingConnection) -> None:
    """The same row, many times over, is inserted once and changed as often as it comes again."""
    assert write(raw, INSERT, [(7, "word", None, 5)] * 20) == 20
    assert kept(raw) == [(7, "twice", None, 5)]


def test_a_batch_meets_few_statements(raw: CountingConnection) -> None:
    """Batches of any length that share the same columns need one statement for each size of a chunk."""
    before = raw.statements
    for count in range(SHARED_ROWS_MIN, 300):
        write(raw, INSERT, [(number, "word", b"%d" % number, 5) for number in range(count)])
    assert len(raw.statements - before) == 5


def test_batches_of_all_kinds_meet_few_statements(raw: CountingConnection) -> None:
    """Whichever columns differ now and then, a few ways are prepared; what is the same in all rows is given once."""
    before = raw.statements
    chance = random.Random(1)
    for _ in range(200):
        differs = [chance.random() < 0.5 for _ in WIDE]
        rows = [(*(number * one for one in differs), "same") for number in range(20)]
        asked, given = raw.asked, raw.given
        assert write(raw, INSERT_WIDE, rows) == 20
        assert raw.given - given <= 20 * len(WIDE) + raw.asked - asked
        assert raw.execute("SELECT * FROM wide").fetchall() == rows
        raw.execute("DELETE FROM wide")
    assert len(raw.statements - before) <= SHAPES_MAX * len(CHUNK_SIZES) + 2


def test_a_statement_is_made_once() -> None:
    """The text of a statement is the same object each time, which is found among the prepared ones without a look."""
    first = composed(INSERT, 64, (False, True, False, True))
    assert composed(INSERT, 64, (False, True, False, True)) is first
    assert of_one_row(COPY, 4) is of_one_row(COPY, 4)


def test_a_single_row_is_read_from_no_table(raw: CountingConnection) -> None:
    """Its values stand in the statement itself, as often as it names them, unless it joins them with a table."""
    write(raw, COPY, [(1, "word", b"bytes", 5)])
    write(raw, CHANGE, [(1, "twice", b"more", 5)])
    assert not any("AS g" in sql for sql in raw.statements)
    assert kept(raw) == [(1, "twicetwice", b"more", 5)]
    write(raw, JOIN, [(1, "+")])
    assert kept(raw)[1:] == [(2, "+twicetwice", None, None)]


@pytest.mark.parametrize("name", sorted(BATCHES))
def test_every_batch_can_be_of_one_row(name: str) -> None:
    """Each statement of the book is one that SQLite can prepare over a single row as well."""
    raw = sqlite3.connect(":memory:", isolation_level=None)
    raw.executescript(resources.files("replayforge.stores").joinpath("sql/sqlite/0001_initial.sql").read_text())
    alone = of_one_row(load_book("sqlite")[name], len(BATCHES[name].__struct_fields__))
    raw.execute(f"EXPLAIN {alone.sql}", [None] * len(alone.before)).fetchall()
    raw.close()
