"""Loads the book of SQL of a dialect: every statement has a name and a sentence, and both books have the same names."""

import re
from collections.abc import Callable, Collection
from enum import Enum
from functools import cache
from importlib import resources
from typing import get_args, get_type_hints

from msgspec import Struct

from replayforge.domain.bulk_replay import AT_WORK, JOB_ENDED
from replayforge.domain.errors import Corrupt
from replayforge.domain.lifecycle import (
    ANSWERING,
    CUT_SHORT,
    HOLDING,
    OPEN,
    PLACED,
    TIMED,
    UNDECIDED,
    UNDER_WAY,
    UNSUCCESSFUL,
    Outcome,
    State,
)
from replayforge.domain.replay_plan import EFFECTS
from replayforge.stores.batches import BATCHES

HEADING = re.compile(r"^-- (fragment )?([a-z_]+) --$", re.MULTILINE)
DIALECTS = ("sqlite", "postgres")
ROWS = "FROM {rows}"  # where a statement reads its own rows, which it calls g
COLUMN = re.compile(r"\bg\.([a-z_]+)")
COLUMN_ARRAY = re.compile(r"(?<!:):([a-z_]+)")
# Many columns of small rows go to PostgreSQL as one text: as many arrays take far longer to put together.
GIVEN_AS_JSON = frozenset({"record_held_steps"})
# PostgreSQL plans these once for each connection, which would else take a third of its time. They insert, or find their
# rows by keys that are given, so that a plan made for empty tables is as good when these have grown.
PLANNED_ONCE = frozenset(
    {
        "known_contents",
        "advance_cursor",
        "reserve_seqs",
        "insert_events",
        "insert_contents",
        "add_tallies",
        "settle_events",
        "insert_attempts",
        "record_held_steps",
        "write_steps",
        "note_journals",
        "delete_waits",
    }
)
SQL_TYPES: tuple[tuple[type, str], ...] = ((int, "bigint"), (str, "text"), (bytes, "bytea"))


def in_sql(members: Collection[Enum]) -> str:
    """Return some members of an enumeration as SQL, in their own order: an index on them is found by the same text."""
    kind = type(next(iter(members)))
    return ", ".join(f"'{member}'" for member in kind if member in members)


# What both books call alike and the domain decides.
SHARED_FRAGMENTS = {
    "timed_states": in_sql(TIMED),
    "open_states": in_sql(OPEN),
    "answering_states": in_sql(ANSWERING),
    "states_under_way": in_sql(UNDER_WAY),
    "placed_states": in_sql(PLACED),
    "holding_states": in_sql(HOLDING),
    "cut_short": f"outcome IN ({in_sql(CUT_SHORT)}) AND (outcome = '{Outcome.CRASHED}' OR ended_run = 0)",
    "undecided": f"state = '{State.HELD}' AND (reason IS NULL OR reason IN ({in_sql(UNDECIDED)}))",
    "unsuccessful_outcomes": in_sql(UNSUCCESSFUL),
    "kinds_of_effects": in_sql(EFFECTS),
    "job_states_at_work": in_sql(AT_WORK),
    "job_states_ended": in_sql(JOB_ENDED),
}


@cache
def load_book(dialect: str) -> dict[str, str]:
    """Return name -> SQL for the dialect; raises Corrupt when the books of the dialects do not have the same names."""
    for other in DIALECTS:
        if book_exists(other) and list(parse_book(other)) != list(parse_book(dialect)):
            raise Corrupt(f"The SQL books of {dialect} and {other} do not hold the same names in the same order.")
    return {
        name: rows_given(dialect, name)(sql, BATCHES[name]) if name in BATCHES else sql
        for name, sql in parse_book(dialect).items()
    }


def book_exists(dialect: str) -> bool:
    """Tell whether the package carries a book for the dialect."""
    return resources.files(__package__).joinpath("sql", f"{dialect}.sql").is_file()


@cache
def parse_book(dialect: str) -> dict[str, str]:
    """Split the dialect's file at its headings and put fragments where statements name them."""
    text = resources.files(__package__).joinpath("sql", f"{dialect}.sql").read_text(encoding="utf-8")
    headings = list(HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    fragments = dict(SHARED_FRAGMENTS)
    book: dict[str, str] = {}
    for heading, end in zip(headings, ends, strict=True):
        body = without_comments(text[heading.end() : end])
        for name, fragment in fragments.items():
            body = body.replace(f"{{{name}}}", fragment)
        (fragments if heading[1] else book)[heading[2]] = body
    return book


def without_comments(text: str) -> str:
    """Return the SQL without its comment lines."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("--")).strip()


def with_values(sql: str, row: type[Struct]) -> str:
    """Let a batch for SQLite read its rows from VALUES, whose columns have numbers in place of names."""
    place = {name: f"g.column{number}" for number, name in enumerate(row.__struct_fields__, start=1)}
    return COLUMN.sub(lambda found: place[found[1]], sql).replace(ROWS, "FROM (VALUES {rows}) AS g")


def with_arrays(sql: str, row: type[Struct]) -> str:
    """Let a batch for PostgreSQL read its rows from typed arrays, one for each column; `:name` is one of them alone.

    An array of one value holds that of all rows. Where the plan is made it is known which arrays these are.
    """
    names = row.__struct_fields__
    hints = get_type_hints(row)
    array = {name: f"${number}::{sql_type(hints[name])}[]" for number, name in enumerate(names, start=1)}
    columns = ", ".join(
        f"CASE cardinality({given}) WHEN 1 THEN ({given})[1] ELSE r.{name} END AS {name}"
        for name, given in array.items()
    )
    rows = f"FROM (SELECT {columns} FROM unnest({', '.join(array.values())}) AS r ({', '.join(names)})) AS g"  # noqa: S608
    return COLUMN_ARRAY.sub(lambda found: array[found[1]], sql).replace(ROWS, rows)


def with_json(sql: str, row: type[Struct]) -> str:
    """Let a batch for PostgreSQL read its rows from one JSON array of objects, in which bytes are base64."""
    hints = get_type_hints(row)
    types = {name: sql_type(hints[name]) for name in row.__struct_fields__}
    given = ", ".join(f"{name} {'text' if kind == 'bytea' else kind}" for name, kind in types.items())
    columns = ", ".join(f"decode({name}, 'base64') AS {name}" if types[name] == "bytea" else name for name in types)
    return sql.replace(ROWS, f"FROM (SELECT {columns} FROM json_to_recordset($1::json) AS r ({given})) AS g")  # noqa: S608


@cache
def text_columns(row: type[Struct]) -> tuple[bool, ...]:
    """Say of each column of a batch whether it holds text."""
    hints = get_type_hints(row)
    return tuple(sql_type(hints[name]) == "text" for name in row.__struct_fields__)


def sql_type(hint: type) -> str:
    """Return the type of a column, which may be NULL besides, after that of its field."""
    kind = next((one for one in get_args(hint) if one is not type(None)), hint)
    return next(name for python_type, name in SQL_TYPES if issubclass(kind, python_type))


def rows_given(dialect: str, name: str) -> Callable[[str, type[Struct]], str]:
    """Return what says in the SQL of a batch how its rows are given."""
    if dialect == "sqlite":
        return with_values
    return with_json if name in GIVEN_AS_JSON else with_arrays
