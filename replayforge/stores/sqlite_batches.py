"""Binds the rows of a batch with few statements and few values: each is bound under the interpreter's lock."""

import re
import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from operator import le
from typing import Any, NamedTuple

from replayforge.stores.rows import Row
from replayforge.stores.shared_columns import shared_columns

ROWS = "VALUES {rows}"  # what stands for the rows in the statement of a batch
READ_ROWS = f"FROM ({ROWS}) AS g"
COLUMN = re.compile(r"\bg\.column(\d+)")
OTHER_TABLE = re.compile(r"\s*(,|[A-Z]+\s+JOIN\b)")
CHUNK_SIZES = (256, 64, 16, 4, 1)
PARAMETERS_MAX = 32_766  # SQLITE_MAX_VARIABLE_NUMBER
SHARED_ROWS_MIN = 16  # of fewer rows too many columns are the same by chance, each time other ones
SHAPES_MAX = 8  # of each statement
COPIED_BYTES_MAX = 4096
STATEMENTS_COMPOSED = 512

Shape = tuple[bool, ...]


class Composed(NamedTuple):
    """A statement, and the columns whose one value it is given before its rows and after them."""

    sql: str
    before: tuple[int, ...]
    after: tuple[int, ...]


class Shapes:
    """Which columns the batches of each statement share, in a few ways: each way is a statement to be prepared.

    A batch beyond these is written in the way that suits it best.
    """

    def __init__(self) -> None:
        self.known: dict[str, set[Shape]] = {}

    def fitting(self, sql: str, shared: Shape) -> Shape:
        """Return the columns that a batch is given once, which are some of those that it shares."""
        known = self.known.setdefault(sql, {(False,) * len(shared)})
        if shared not in known and len(known) < SHAPES_MAX:
            known.add(shared)
        return shared if shared in known else max((one for one in known if is_within(one, shared)), key=sum)


def is_within(shape: Shape, shared: Shape) -> bool:
    """Tell whether all that a shape shares is shared."""
    return all(map(le, shape, shared))


def run_batch(raw: sqlite3.Connection, sql: str, rows: Sequence[Row], shapes: Shapes) -> int:
    """Run a statement over many rows and return how many rows it changed.

    A single row, which is what most batches are while little happens, has a statement of its own. More of them are cut
    into chunks of a few fixed sizes, so that each size is prepared once and found again. A column that
    holds one value in all rows is given once for a chunk: most columns of most batches do, and a value is handed over
    under Python's lock, None, bytes and members of enumerations at four times the price of a number.
    """
    if not rows:
        return 0
    if len(rows) == 1:
        alone = of_one_row(sql, len(rows[0]))
        return raw.execute(alone.sql, [rows[0][place] for place in alone.before]).rowcount
    columns = list(zip(*rows, strict=True))
    shared = (False,) * len(columns)
    if len(rows) >= SHARED_ROWS_MIN:
        shared = shapes.fitting(sql, shared_columns(columns))
    each = [as_given(column) for column, is_shared in zip(columns, shared, strict=True) if not is_shared]
    values = list(chain.from_iterable(zip(*each, strict=True)))
    first, width = rows[0], len(each)
    changed = start = 0
    while start < len(rows):
        left = len(rows) - start
        size = next(size for size in CHUNK_SIZES if size <= left and size * len(columns) <= PARAMETERS_MAX)
        statement = composed(sql, size, shared)
        own = values[start * width : (start + size) * width]
        before, after = [first[place] for place in statement.before], [first[place] for place in statement.after]
        changed += raw.execute(statement.sql, before + own + after).rowcount
        start += size
    return changed


def as_given(column: Sequence[Any]) -> Sequence[Any]:
    """Return a column in the types that are handed over fastest: for bytes Python looks for an adapter first.

    Long ones are not copied, which would take longer.
    """
    if bytes not in set(map(type, column)):
        return column
    return [bytearray(value) if type(value) is bytes and len(value) <= COPIED_BYTES_MAX else value for value in column]


@lru_cache(STATEMENTS_COMPOSED)
def composed(sql: str, size: int, shared: Shape) -> Composed:
    """Return a batch's statement over so many rows, in which marks stand for the shared columns."""
    if any(shared) and READ_ROWS not in sql:
        columns = ", ".join(f"g.column{number}" for number in range(1, len(shared) + 1))
        sql = sql.replace(ROWS, f"SELECT {columns} {READ_ROWS} WHERE true")
    before, after = sql.split(ROWS)
    row = f"({', '.join('?' * shared.count(False))})"
    rows = f"VALUES {', '.join([row] * size)}"
    return Composed(
        marked(before, shared) + rows + marked(after, shared), shared_in(before, shared), shared_in(after, shared)
    )


@lru_cache(STATEMENTS_COMPOSED)
def of_one_row(sql: str, width: int) -> Composed:
    """Return a batch's statement over a single row, with marks for its values where it would read them from rows.

    A table of one row to read from costs an update more than the update itself.
    """
    before, reads, after = sql.partition(READ_ROWS)
    if not reads or OTHER_TABLE.match(after):
        return Composed(composed(sql, 1, (False,) * width).sql, tuple(range(width)), ())
    return Composed(marked(before + after, (True,) * width), shared_in(before + after, (True,) * width), ())


def marked(text: str, shared: Shape) -> str:
    """Return a part of a statement with marks for shared columns, and the new numbers of the others."""

    def column(found: re.Match[str]) -> str:
        number = int(found[1])
        return "?" if shared[number - 1] else f"g.column{shared[:number].count(False)}"

    return COLUMN.sub(column, text)


def shared_in(text: str, shared: Shape) -> tuple[int, ...]:
    """Return which shared columns a part of a statement names, in its order."""
    places = [int(number) - 1 for number in COLUMN.findall(text)]
    return tuple(place for place in places if shared[place])
