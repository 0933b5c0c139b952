"""Which statements the way of an event takes: one whose handler remembers nothing pays for nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from replayforge.domain.lifecycle import State
from replayforge.stores import transactions
from replayforge.stores.driver import Batch, Fetch, Steps
from replayforge.stores.projection import Projection, project
from replayforge.stores.transactions import Settlement
from tests.support.builders import claimed_event, record, success

Rows = Mapping[str, Sequence[Sequence[Any]]]
PLAIN = ["settle_events", "insert_attempts", "add_tallies"]


def statements(steps: Steps[Any], answers: Rows) -> list[str]:
    """Return the names of the statements that a transaction makes, which are answered so."""
    names = []
    rows: Sequence[Sequence[Any]] | None = None
    try:
        while True:
            statement = steps.send(rows) if rows is not None else next(steps)
            assert isinstance(statement, Fetch | Batch)
            names.append(statement.name)
            rows = answers.get(statement.name, [[1]])
    except StopIteration:
        return names


def settled(settlements: Sequence[Settlement]) -> list[str]:
    """Return the statements that settling these takes, which are all held."""
    steps = transactions.settle_all("node-1", "node-1/first", settlements)
    return statements(steps, {"settle_events": [[len(settlements)]], "pending_calls": (), "events_named": ()})


def test_a_handler_without_steps_is_settled_by_the_same_statements_as_ever() -> None:
    """Neither journals nor steps nor waits are looked at, however many settle at once."""
    assert settled([success(claimed_event(seq)) for seq in range(1, 50)]) == PLAIN


def test_an_outcome_whose_lease_is_lost_lets_nothing_be_written_beside_it() -> None:
    """One of two events has moved, and nobody knows which: that is found out in a transaction of its own."""
    steps = transactions.settle_all("node-1", "node-1/first", [success(claimed_event(seq)) for seq in (1, 2)])
    with pytest.raises(transactions.LeaseLost):
        statements(steps, {"settle_events": [[1]]})


def test_a_neighbour_with_a_journal_costs_only_itself() -> None:
    """Journals are written in as many statements for one as for all of a batch."""
    plain = [success(claimed_event(seq)) for seq in range(1, 50)]
    journaled = [replace(success(claimed_event(seq)), journal=1) for seq in range(50, 60)]
    assert settled([*plain, *journaled]) == [*PLAIN, "write_steps", "note_journals", "delete_waits"]


def test_a_child_looks_for_its_parent() -> None:
    """Its parent is locked before anything is written."""
    child = success(claimed_event(7, origin="parent", state=State.PROCESSING))
    assert settled([child]) == ["events_named", "lock_events", *PLAIN, "pending_calls"]


def test_events_that_are_no_signals_are_inserted_by_the_same_statements_as_ever() -> None:
    """Where none of a stretch is a signal no workflow is locked and no waiter is looked for."""
    stretch = Projection("log-1", "i", 0, 1, [(1, record("event-1"))], 0, 0, signals=["parcel.scanned"])
    answers: Rows = {"known_contents": (), "reserve_seqs": [[1, 0]]}
    written = ["known_contents", "advance_cursor", "reserve_seqs", "insert_events", "insert_contents", "add_tallies"]
    assert statements(project("node-1", "owner", stretch), answers) == written


@pytest.mark.parametrize("lane", [None, '["*",null,"key"]'])
def test_lanes_cost_the_insert_no_statement(lane: str | None) -> None:
    """Where there are lanes, events in none are inserted by the same statements as ever, and so are those in one."""
    stretch = Projection("log-1", "i", 0, 1, [(1, record("event-1"))], 0, 0, lane_of=lambda _: lane)
    answers: Rows = {"known_contents": (), "reserve_seqs": [[1, 0]]}
    written = ["known_contents", "advance_cursor", "reserve_seqs", "insert_events", "insert_contents", "add_tallies"]
    assert statements(project("node-1", "owner", stretch), answers) == written
