"""The SQL books against what they speak of: the columns of batches and of rows, and the lifecycle."""

import re
import sqlite3
from contextlib import closing
from dataclasses import fields
from enum import Enum
from importlib.resources import files

import pytest

from replayforge.domain.admission import Pause
from replayforge.domain.bulk_replay import JOB_TRANSITIONS, JobState, Member, ReplayJob
from replayforge.domain.event import Action, Attempt, Entry, Lease, RetiredKey, StoredEvent
from replayforge.domain.journal import StepKind, StepState
from replayforge.domain.lifecycle import TIMED, TRANSITIONS, Outcome, State, sources_of
from replayforge.domain.poison import Isolation
from replayforge.domain.reports import LogCursor
from replayforge.stores import postgres_link
from replayforge.stores.batches import BATCHES, StoredContent, TallyChange
from replayforge.stores.driver import Batch
from replayforge.stores.queries import DIALECTS, in_sql, load_book, parse_book
from replayforge.stores.rows import (
    IN_FLIGHT_COLUMNS,
    JOB_COLUMNS,
    NODE_COLUMNS,
    KnownContent,
    NamedEvent,
    Retirable,
    WaitingEntry,
)

CONTENT = ("payload", "metadata", "size_bytes")
EVENT = StoredEvent.__struct_fields__


def names(kind: type) -> tuple[str, ...]:
    """Return the fields of a dataclass."""
    return tuple(field.name for field in fields(kind))


# What the columns of a query are read as. One that is worked out need not have a name; where it has one it is this.
READ_AS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("event", "events_by_ids", "list_events", "workflow_events"), EVENT),
    **dict.fromkeys(("claimable_events", "claimable_suspect"), (*EVENT, "is_restarted", *CONTENT)),
    "waiting_events": (*EVENT, "is_restarted", *CONTENT, "suspect"),
    **dict.fromkeys(("event_attempts", "workflow_attempts"), names(Attempt)),
    "event_actions": names(Action),
    "known_contents": KnownContent._fields,
    "contents": StoredContent.__struct_fields__,
    "waiting_entries": WaitingEntry._fields,
    **dict.fromkeys(("in_flight", "unrenewed_leases"), IN_FLIGHT_COLUMNS),
    "retired_keys": RetiredKey.__struct_fields__,
    "retirable": Retirable._fields,
    "events_named": NamedEvent._fields,
    **dict.fromkeys(("replay", "replay_by_key", "list_replays", "active_replays"), JOB_COLUMNS),
    "lock_replay": (*JOB_COLUMNS, "wait_us"),
    "nodes": NODE_COLUMNS,
    "cursors": names(LogCursor),
    "pauses": names(Pause),
    **dict.fromkeys(("suspect_entry", "queued_entries"), Entry._fields),
    **dict.fromkeys(("waiting_members", "open_members"), names(Member)),
    **dict.fromkeys(("held_leases", "check_orphans"), Lease._fields),
}
# What a table calls differently from the value that is made of it.
CALLED = {"id": "event_id", "event_seq": "seq", "lease_token": "token", "paused_by": "by"}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", READ_AS)
def test_columns_come_in_the_order_they_are_read_in(dialect: str, name: str) -> None:
    """A query has as many columns as the value that is made of its rows, and those with a name in the same order."""
    columns = [named(column) for column in selected(parse_book(dialect)[name])]
    expected = READ_AS[name]
    assert len(columns) == len(expected)
    wrong = [(column, field) for column, field in zip(columns, expected, strict=True) if not fits(column, field)]
    assert not wrong


def fits(column: str | None, field: str) -> bool:
    return column in (None, field) or CALLED.get(str(column)) == field


def named(column: str) -> str | None:
    """Return what a column is called, unless it is worked out and has no name."""
    found = re.search(r"\bAS (\w+)$", column) or re.fullmatch(r"(?:\w+\.)?([a-z]\w*)", column)
    return found[1] if found else None


def selected(sql: str) -> list[str]:
    """Return the columns of a statement's first SELECT, those of one JSON array where rows travel as one."""
    packed = sql.find("json_array(")
    start = packed + len("json_array(") if packed >= 0 else sql.index("SELECT") + len("SELECT")
    columns, depth = [""], 0
    for token in re.findall(r"'[^']*'|\bFROM\b|\w+|\s+|.", sql[start:]):
        depth += (token == "(") - (token == ")")
        if depth < 0 or (depth == 0 and token == "FROM"):
            break
        if token == "," and depth == 0:
            columns.append("")
        else:
            columns[-1] += token
    return [" ".join(column.split()) for column in columns]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_batch_has_its_columns(dialect: str) -> None:
    """Whatever reads rows is a batch with columns of its own, and a batch reads no others."""
    book = parse_book(dialect)
    reading = {name for name, sql in book.items() if "{rows}" in sql or re.search(r"\bg\.\w", sql)}
    deleting = {name for name, sql in book.items() if re.search(r"ANY \(:\w+\)", sql)}
    assert reading | deleting == set(BATCHES)
    for name, kind in BATCHES.items():
        assert spoken_of(book[name]) <= set(kind.__struct_fields__), name


def test_no_column_of_a_batch_is_for_nothing() -> None:
    """One of the ledger at least speaks of every column."""
    for name, kind in BATCHES.items():
        used = {column for dialect in DIALECTS for column in spoken_of(parse_book(dialect)[name])}
        assert used == set(kind.__struct_fields__), name


def spoken_of(sql: str) -> set[str]:
    """Return the columns of its rows that a batch names; those of an insert where it takes them all in their order."""
    named = set(re.findall(r"\bg\.(\w+)", sql)) | set(re.findall(r"ANY \(:(\w+)\)", sql))
    if re.search(r"VALUES \{rows\}|SELECT \* FROM \{rows\}", sql):
        named |= set(inserted(sql) or re.findall(r"WHERE (?:event_)?(\w+) IN \(VALUES", sql))
    return named


def inserted(sql: str) -> list[str]:
    """Return the columns that an INSERT fills."""
    found = re.search(r"INSERT INTO \w+ \(([^)]*)\)", sql)
    return [column.strip() for column in found[1].split(",")] if found else []


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", [name for name in BATCHES if "INSERT" in parse_book("sqlite")[name]])
def test_what_is_inserted_goes_into_the_column_of_its_name(dialect: str, name: str) -> None:
    """Rows that are taken whole have the columns of the INSERT in their order; of others each goes to its namesake."""
    sql = parse_book(dialect)[name]
    into = inserted(sql)
    if re.search(r"VALUES \{rows\}|SELECT \* FROM \{rows\}", sql):
        assert into == list(BATCHES[name].__struct_fields__)
    else:
        values = selected(sql[sql.index("INSERT") :])
        placed = [(value, to) for value, to in zip(values, into, strict=True) if value.startswith("g.")]
        assert placed == [(f"g.{to}", to) for _, to in placed]


def test_rows_of_another_batch_are_refused() -> None:
    """A row of the wrong kind never reaches a database, whatever would fit into its columns."""
    row = TallyChange(node="node", name="queued", amount=1)
    assert Batch("add_tallies", [row]).values() == [("node", "queued", 1)]
    with pytest.raises(TypeError, match="insert_meta takes rows of MetaValue"):
        Batch("insert_meta", [row]).values()


def test_each_dialect_reads_the_rows_its_own_way() -> None:
    """SQLite is given numbered columns, PostgreSQL typed arrays, or one value, in the order of the batch's fields."""
    sqlite = load_book("sqlite")["let_wait"]
    assert "SET waits_for = g.column2 FROM (VALUES {rows}) AS g WHERE e.seq = g.column1" in sqlite
    postgres = load_book("postgres")["let_wait"]
    assert "FROM unnest($1::bigint[], $2::text[]) AS r (seq, waits_for)) AS g" in postgres
    assert "CASE cardinality($2::text[]) WHEN 1 THEN ($2::text[])[1] ELSE r.waits_for END AS waits_for" in postgres
    assert "e.seq = ANY ($1::bigint[])" in postgres


# The lifecycle

SET_STATE = re.compile(r"(?<!previous_)\bstate = ('(?P<state>\w+)'|[eg]\.\w+)")
FROM_STATE = re.compile(r"\bstate(?: \|\| '')? (?:= '(\w+)'|IN \(([^)]*)\))")
# Statements to which the caller says where an event goes, or where it was seen.
DECIDED = {"settle_events": {State.PROCESSING}, "reclaim_events": {State.PROCESSING}, "move_event": set()}


def moves_of(dialect: str) -> dict[str, tuple[set[str], str | None]]:
    """Return each statement that moves events: out of which states it names, and into which if it says."""
    moves: dict[str, tuple[set[str], str | None]] = {}
    for name, sql in parse_book(dialect).items():
        if found := re.search(r"UPDATE events\b.*?SET (previous_state = .*?)\b(?:FROM|WHERE)\b(.*)", sql, re.DOTALL):
            target = SET_STATE.search(found[1])
            assert target, name
            conditions = FROM_STATE.findall(sql[: sql.index("UPDATE")] + found[2])
            sources = [set((one or many.replace("'", "")).split(", ")) for one, many in conditions]
            moves[name] = set.intersection(*sources) if sources else set(), target["state"]
    return moves


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_move_in_a_book_is_one_of_the_lifecycle(dialect: str) -> None:
    """Each statement that moves events leaves only states from which the lifecycle leads to where it moves them."""
    found = moves_of(dialect)
    assert {name for name, (_, target) in found.items() if target is None} == set(DECIDED)
    for name, (sources, target) in found.items():
        if target is None:
            assert sources == DECIDED[name], name
        else:
            assert {State(source) for source in sources} <= sources_of(State(target)), name
    assert {"claim_events", "bury_event", "hand_back_events", "promote_due", "promote_stranded"} <= found.keys()


def test_books_move_alike() -> None:
    """Both dialects move events by the same statements, out of the same states into the same."""
    assert moves_of("sqlite") == moves_of("postgres")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_book_lists_states_of_its_own(dialect: str) -> None:
    """Where a statement means several states it uses a list that the domain gives it, and its index is on the same."""
    text = files("replayforge.stores").joinpath("sql", f"{dialect}.sql").read_text()
    assert not re.findall(r"\b(?:state|outcome)(?: \|\| '')? IN \('", text)
    schema = files("replayforge.stores").joinpath("sql", dialect, "0001_initial.sql").read_text()
    assert re.search(rf"ON events \(due_at_us\) WHERE .*state IN \({re.escape(in_sql(TIMED))}\)", schema)


@pytest.mark.parametrize(
    ("table", "column", "members"),
    [
        ("attempts", "outcome", Outcome),
        ("steps", "kind", StepKind),
        ("steps", "state", StepState),
        ("events", "suspect", Isolation),
    ],
    ids=["outcomes", "kinds of steps", "states of steps", "isolation"],
)
def test_schema_of_sqlite_allows_what_the_domain_knows(table: str, column: str, members: type[Enum]) -> None:
    """A rule of a table allows exactly the members of an enumeration: none is missing, and nothing else passes."""
    schema = files("replayforge.stores").joinpath("sql/sqlite/0001_initial.sql").read_text()
    found = re.search(rf"CREATE TABLE {table} \(.*?\n    {column} [A-Z ]*CHECK \(([^)]*)\)", schema, re.DOTALL)
    assert found is not None
    other = 3 if issubclass(members, int) else "other"
    with closing(sqlite3.connect(":memory:")) as database:
        allowed = [
            value
            for value in [*(member.value for member in members), other]
            if database.execute(f"SELECT {found[1]} FROM (SELECT ? AS {column})", [value]).fetchone()[0]
        ]
    assert allowed == [member.value for member in members]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_schema_allows_what_the_lifecycle_allows(dialect: str) -> None:
    """The constraint on events allows exactly the transitions of the lifecycle, that on bulk replays those of a job."""
    schema = files("replayforge.stores").joinpath("sql", dialect, "0001_initial.sql").read_text()
    events = {f"{source}>{target}" for source, targets in TRANSITIONS.items() for target in targets}
    jobs = {f"{source}>{target}" for source, targets in JOB_TRANSITIONS.items() for target in targets}
    assert allowed(schema, "lifecycle") == events
    assert allowed(schema, "job_lifecycle") == jobs | {f"new>{JobState.PENDING}"}


def test_sessions_are_known_by_the_name_that_they_give() -> None:
    """Whoever ends the stalled transactions of other daemons looks for the name that our connections go by."""
    named = re.findall(
        r"application_name = '([^']*)'", files("replayforge.stores").joinpath("sql/postgres.sql").read_text()
    )
    assert named == [postgres_link.NAME]


def allowed(schema: str, constraint: str) -> set[str]:
    """Return the transitions that a constraint names."""
    text = schema[schema.index(f"CONSTRAINT {constraint} ") :]
    return set(re.findall(r"\w+>\w+", text[: text.index("previous_state ||")]))


def test_jobs_are_read_whole() -> None:
    """The columns of a bulk replay are the fields of its value."""
    assert names(ReplayJob) == JOB_COLUMNS
