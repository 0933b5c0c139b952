"""What SQLite makes of the queries that work looks for its next event with: each goes down an index of its own."""

import re
import sqlite3
from contextlib import closing
from importlib.resources import files

import pytest

from replayforge.stores.lookups import FILTERS
from replayforge.stores.queries import load_book

BOOK = load_book("sqlite")
SCHEMA = files("replayforge.stores").joinpath("sql/sqlite/0001_initial.sql").read_text()
INDEXES = {
    "queued_entries": "events_ready",
    "oldest_queued": "events_ready",
    "ready_types": "events_ready",
    "next_suspect": "events_suspect",
    "set_aside": "events_suspect",
    "suspicions": "events_suspect",
    "claimable_suspect": "events_suspect",
    "waiting_events": "events_by_handler",
    "waiting_entries": "events_by_handler",
    "next_due": "events_waiting",
    "promote_due": "events_waiting",
    "due_soon": "events_waiting",
    "due_signals": "events_waiting",
    "missed_wakes": "steps_calling",
    "unplaced": "events_unplaced",
    "blocked_events": "events_blocked",
    "lanes_by_backlog": "events_blocked",
    "lane_figures": "events_in_lane",
    "lane_problems": "events_released",
    "edited_replays": "events_replaying",
    "new_errors": "events_dead_by_error",
    "errors_of_letters": "events_dead_by_error",
    "count_letters": "events_dead_by_error",
    "seqs_undecided": "events_undecided",
    "seqs_in_doubt": "attempts_cut_short",
    "open_of_schedules": "events_of_schedules",
    "open_members": "replay_members_open",
    "error_insights": "attempts_failed",
}


@pytest.mark.parametrize(("name", "index"), INDEXES.items())
def test_next_events_are_found_by_an_index_of_their_own(name: str, index: str) -> None:
    """However much waits for a handler or for its turn, is parked or has ended, nobody else who looks walks over it."""
    sql = BOOK[name]
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(SCHEMA)
        plan = database.execute(f"EXPLAIN QUERY PLAN {sql}", dict.fromkeys(re.findall(r":([a-z_]+)", sql), 0))
        steps = [step for *_, step in plan]
    assert any(step.endswith(f"INDEX {index}") or f"INDEX {index} " in step for step in steps), steps
    assert not any("events_by_state" in step for step in steps), steps


@pytest.mark.parametrize("name", ["list_events", "seq_behind", "preview_matching"])
@pytest.mark.parametrize("filters", [("error_signature",), ("error_signature", "state")], ids=" and ".join)
def test_events_of_one_error_are_found_by_it(name: str, filters: tuple[str, ...]) -> None:
    """Few events have an error, and of these a page reads those alone that have the one that is asked for."""
    sql = BOOK[name].replace("{filters}", " ".join(FILTERS[one] for one in filters))
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(SCHEMA)
        plan = database.execute(f"EXPLAIN QUERY PLAN {sql}", dict.fromkeys(re.findall(r":([a-z_]+)", sql), 0))
        steps = [step for *_, step in plan]
    assert any("INDEX events_by_error (error_signature=?" in step for step in steps), steps
    assert not any("events_by_state" in step or step == "SCAN events" for step in steps), steps
