"""What a batch costs in the SQLite store: microseconds of its thread's processor time an event or a step, by statement.

The store's own transactions, nothing else: no log, no HTTP, no handler, and nobody who contends for the interpreter.
Run it as `python -m bench.bench_batches [--size 100] [--batches 100]`.
"""

import argparse
import asyncio
import sqlite3
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import thread_time

import msgspec

from bench.processes import directory
from replayforge.domain.event import ClaimedEvent, EventRecord
from replayforge.domain.identity import new_event_id
from replayforge.domain.journal import StepKind, StepRecord, StepState
from replayforge.domain.lifecycle import Outcome, State
from replayforge.domain.verdict import Verdict
from replayforge.stores.batches import OpenedCursor
from replayforge.stores.driver import Batch, Computation, Result, Statement, Steps, Transaction
from replayforge.stores.journals import StepCommit, record_steps
from replayforge.stores.migrations import migrate
from replayforge.stores.projection import Projection, project
from replayforge.stores.rows import Row
from replayforge.stores.sqlite import SqliteDriver, Statements, in_thread
from replayforge.stores.transactions import Settlement, settle_all

LOG, NODE, OWNER = "log", "node-1", "node-1/first"
PAYLOAD = msgspec.Raw(b'{"text":"' + b"x" * 150 + b'"}')
STEPS = 10
WARM_BATCHES = 3


class TimedStatements(Statements):
    """Carries transactions out on one connection and notes what each of their statements has cost."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        super().__init__()
        self.raw = raw
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.rows: defaultdict[str, int] = defaultdict(int)

    def commit(self, name: str, count: int, transaction: Transaction[Result]) -> Result:
        """Carry out a transaction over so many rows and commit it."""
        started = thread_time()
        self.raw.execute("BEGIN IMMEDIATE")
        result = self.carry_out(self.raw, transaction)
        carried_out = thread_time()
        self.raw.execute("COMMIT")
        self.note(f"  {name}: COMMIT", count, thread_time() - carried_out)
        self.note(name, count, thread_time() - started)
        return result

    def run_statement(self, raw: sqlite3.Connection, statement: Statement) -> Sequence[Row]:
        """See Statements."""
        started = thread_time()
        rows = super().run_statement(raw, statement)
        name = "computation" if isinstance(statement, Computation) else statement.name
        self.note(f"  {name}", 0, thread_time() - started)
        return rows

    def note(self, name: str, count: int, seconds: float) -> None:
        """Add to what is known of a statement or a transaction."""
        self.seconds[name] += seconds
        self.rows[name] += count


def measure(raw: sqlite3.Connection, size: int, batches: int) -> TimedStatements:
    """Project, take steps of, and settle batches of so many events."""
    statements = TimedStatements(raw)
    statements.commit("open", 1, open_cursor)
    for number in range(WARM_BATCHES + batches):
        if number == WARM_BATCHES:
            statements.seconds.clear()
            statements.rows.clear()
        stretch = stretch_of(number * size, size)
        claimed = statements.commit("events projected", size, partial(project, NODE, OWNER, stretch)).claimed
        for step in range(STEPS):
            commits = [step_of(one, step) for one in claimed]
            statements.commit("steps recorded", size, partial(record_steps, OWNER, commits))
        outcomes = [outcome_of(one) for one in claimed]
        statements.commit("outcomes settled", size, partial(settle_all, NODE, OWNER, outcomes))
    return statements


def open_cursor() -> Steps[None]:
    """Make the cursor of the log."""
    yield Batch("open_cursor", [OpenedCursor(log_id=LOG, incarnation="first", log_offset=0, updated_at_us=1)])


def stretch_of(after: int, size: int) -> Projection:
    """Return a stretch of new events, each of a workflow of its own, all to be claimed."""
    now_us = time.time_ns() // 1000
    records = [
        EventRecord(
            id=new_event_id(now_us),
            application_name="default",
            workflow_id=f"workflow-{after + place:08}",
            event_type="bench.nothing",
            created_at_us=now_us,
            payload=PAYLOAD,
        )
        for place in range(size)
    ]
    return Projection(
        log_id=LOG,
        incarnation="first",
        after=after,
        through=after + size,
        records=list(enumerate(records, start=after + 1)),
        not_events=0,
        now_us=now_us,
        claims_max=size,
    )


def step_of(one: ClaimedEvent, number: int) -> StepCommit:
    """Return a step of an event that is done."""
    started_at_us = one.event.updated_at_us
    record = StepRecord(
        kind=StepKind.STEP,
        step=f"step-{number}",
        state=StepState.DONE,
        token=one.event.lease_token,
        run=1,
        begun=2 * number + 1,
        recorded=2 * number + 2,
        tries=1,
        started_at_us=started_at_us,
        ended_at_us=started_at_us + 100,
        result=b"null",
    )
    return StepCommit(one.event, 1, (record,), started_at_us, noted=number > 0)


def outcome_of(one: ClaimedEvent) -> Settlement:
    """Return the outcome of an event that has succeeded."""
    return Settlement(
        event=one.event,
        outcome=Outcome.SUCCEEDED,
        verdict=Verdict(State.SUCCEEDED, 0, 0),
        worker=f"worker-{one.event.seq % 16}",
        started_at_us=one.event.updated_at_us,
        ended_at_us=one.event.updated_at_us + 1000,
        result=b"null",
    )


async def measured(folder: Path, size: int, batches: int) -> TimedStatements:
    """Measure on the thread of a store's own writer."""
    driver = await SqliteDriver.open(folder / "store.db")
    try:
        await migrate(driver)
        return await in_thread(driver.writer, lambda raw: measure(raw, size, batches))
    finally:
        await driver.close()


def main() -> None:
    """Print one line for each kind of transaction, and under them one for each statement."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--batches", type=int, default=100)
    given = parser.parse_args()
    with directory() as folder:
        found = asyncio.run(measured(folder, given.size, given.batches))
    count = given.size * given.batches
    for name, seconds in found.seconds.items():
        rows, unit = (found.rows[name], "each") if found.rows[name] else (count, "an event")
        print(f"{name:32} {seconds / rows * 1e6:8.2f} us {unit}")


if __name__ == "__main__":
    main()
