"""Reads the store of a Forge where the test stands, without the loop having to turn."""

import sqlite3

from replayforge.domain.event import Attempt, StoredEvent
from replayforge.domain.journal import StepRecord
from replayforge.stores import journals, lookups
from replayforge.stores.driver import Result, Transaction
from replayforge.stores.sqlite import SqliteDriver
from replayforge.stores.store import Store


class StoreView:
    """A connection of the test's own, opened when it is first needed; a daemon that has died can be looked at, too."""

    def __init__(self, store: Store) -> None:
        assert isinstance(store.driver, SqliteDriver)
        self.driver = store.driver
        self.connection: sqlite3.Connection | None = None

    def event(self, event_id: str) -> tuple[StoredEvent, list[Attempt]] | None:
        """Return the row of an event and its attempts, newest first; None while it has no row."""
        found = self.read(lambda: lookups.history(event_id))
        return None if found is None else (found[0], found[2])

    def steps(self, event: StoredEvent) -> list[StepRecord]:
        """Return the steps of the event's journal."""
        return list(self.read(lambda: journals.read_journal(event, event.updated_at_us)).records)

    def read(self, transaction: Transaction[Result]) -> Result:
        """Carry out a transaction that only fetches."""
        if self.connection is None:
            place = f"{self.driver.path.as_uri()}?mode=ro"
            self.connection = sqlite3.connect(place, uri=True, isolation_level=None)
        return self.driver.in_snapshot(self.connection, transaction)

    def close(self) -> None:
        """Let go of the file; the next look opens it again."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
