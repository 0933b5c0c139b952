"""An event as a test sees it: what the store says of it at the moment it is asked."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from replayforge.domain.clock import format_time
from replayforge.domain.event import Attempt, EventRecord, StoredEvent
from replayforge.domain.journal import StepRecord
from replayforge.domain.lifecycle import TERMINAL, State
from replayforge.testing.store_view import StoreView


class NotEnded(AssertionError):
    """Nothing is due any more, and the event has not ended."""


class SentEvent:
    """One event. Its attributes have the names of the API, and are read anew each time, from the store.

    `duplicate` says that it was known before it was sent. A daemon that has died is asked all the same.
    """

    def __init__(
        self,
        record: EventRecord | StoredEvent,
        view: Callable[[], StoreView],
        settle: Callable[[], Awaitable[None]],
        *,
        duplicate: bool,
    ) -> None:
        self.id = record.id
        self.workflow_id = record.workflow_id
        self.event_type = record.event_type
        self.duplicate = duplicate
        self.view = view
        self.settle = settle

    def __repr__(self) -> str:
        return f"<event {self.id} ({self.event_type}): {self.status}>"

    @property
    def row(self) -> StoredEvent | None:
        """The event as the store has it; None while it is in the log alone."""
        found = self.view().event(self.id)
        return None if found is None else found[0]

    @property
    def status(self) -> str:
        """Where it stands: `received`, `scheduled`, `queued`, `processing`, `retrying`, `waiting`, `kept`, `held`,
        `succeeded`, `dead_lettered`, `discarded` or `cancelled`."""
        row = self.row
        return State.RECEIVED.value if row is None else row.state.value

    @property
    def result(self) -> Any:
        """What the handler returned, once it has succeeded."""
        row = self.row
        return None if row is None or row.result is None else msgspec.json.decode(row.result)

    @property
    def last_error(self) -> str | None:
        """What went wrong last, with the traceback."""
        row = self.row
        return None if row is None else row.last_error

    @property
    def reason(self) -> str | None:
        """Why it is a dead letter, or held."""
        row = self.row
        return None if row is None or row.reason is None else str(row.reason)

    @property
    def run(self) -> int:
        """Which run it is in; each replay begins one."""
        row = self.row
        return 1 if row is None else row.run

    @property
    def starts(self) -> int:
        """How often it was handed to a worker, for whatever reason."""
        row = self.row
        return 0 if row is None else row.starts

    @property
    def attempt_count(self) -> int:
        """How many attempts of this run have failed or timed out."""
        row = self.row
        return 0 if row is None else row.attempt_count

    @property
    def next_run_at(self) -> str | None:
        """When it is due, if it waits for a time."""
        row = self.row
        return None if row is None or row.due_at_us is None else format_time(row.due_at_us)

    @property
    def attempts(self) -> list[Attempt]:
        """Its attempts that have ended, of all runs, the oldest first; each has `outcome`, `error`, `run`, `number`."""
        found = self.view().event(self.id)
        return [] if found is None else found[1][::-1]

    @property
    def steps(self) -> list[StepRecord]:
        """What its handler has recorded: each has `step`, `state`, `tries`, `result`."""
        row = self.row
        return [] if row is None else self.view().steps(row)

    async def ended(self) -> "SentEvent":
        """Return this event once it has ended; raises NotEnded when nothing is due any more and it has not."""
        await self.settle()
        if self.status not in TERMINAL:
            due = f" until {self.next_run_at}: `await forge.advance(…)`" if self.next_run_at else ""
            raise NotEnded(f"Nothing is due any more, and event {self.id} ({self.event_type}) is {self.status}{due}.")
        return self
