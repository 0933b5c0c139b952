"""The waits that outlast a worker: for a time, for an event of the workflow, for the end of a child event."""

from abc import ABC, abstractmethod

import msgspec

from replayforge.domain.event import EventRecord
from replayforge.domain.identity import subscriber_event_id
from replayforge.domain.journal import StepError, StepKind, StepRecord, StepState, child_id, due_in
from replayforge.engine.handlers.context import ChildEvent
from replayforge.engine.run.journal_records import JournalRecords

WHITE_SPACE = b" \t\r\n"


class DurableWait(ABC):
    """One wait of a handler: what it is called, how it is begun, and how one finds out whether it came true."""

    kind: StepKind

    def __init__(self, records: JournalRecords, name: str, key: str | None) -> None:
        self.records = records
        self.name = name
        self.key = key

    def objection(self) -> str:
        """Say in a clause what is wrong with it, or nothing."""
        return ""

    @abstractmethod
    async def begin(self, step: str) -> StepRecord:
        """Return the pending record of the wait, which begins now."""

    @abstractmethod
    async def came_true(self, pending: StepRecord) -> StepRecord | None:
        """Return the record of what came, which is durable or rides with the next commit; None when nothing has."""


class SleepWait(DurableWait):
    """A wait for a time on the store's clock, given as how long it is from its beginning, or as it is."""

    kind = StepKind.SLEEP

    def __init__(self, records: JournalRecords, name: str, *, seconds: float = 0.0, at_us: int | None = None) -> None:
        super().__init__(records, name, None)
        self.seconds = seconds
        self.at_us = at_us

    async def begin(self, step: str) -> StepRecord:
        """See DurableWait.begin."""
        due_at_us = due_in(self.records.now_us(), self.seconds) if self.at_us is None else self.at_us
        return self.records.begun(self.kind, step, StepState.PENDING, due_at_us=due_at_us)

    async def came_true(self, pending: StepRecord) -> StepRecord | None:
        """See DurableWait.came_true."""
        if self.records.seconds_until(pending.due_at_us) > 0:
            return None
        done = self.records.ended(pending, StepState.DONE)
        self.records.ride(done)
        return done


class SignalWait(DurableWait):
    """A wait for the oldest event of a type in the same workflow that nobody has taken, for some time or for ever."""

    kind = StepKind.WAIT

    def __init__(
        self, records: JournalRecords, name: str, key: str | None, event_type: str, seconds: float | None
    ) -> None:
        super().__init__(records, name, key)
        self.event_type = event_type
        self.seconds = seconds

    def objection(self) -> str:
        """See DurableWait.objection."""
        if self.records.tools.is_signal(self.event_type):
            return ""
        return (
            f"nobody has declared that {self.event_type!r} is awaited and not handled: say"
            f" handlers.signal({self.event_type!r}), or list it in [handlers] signals"
        )

    async def begin(self, step: str) -> StepRecord:
        """See DurableWait.begin."""
        due_at_us = None if self.seconds is None else due_in(self.records.now_us(), self.seconds)
        return self.records.begun(self.kind, step, StepState.PENDING, event_type=self.event_type, due_at_us=due_at_us)

    async def came_true(self, pending: StepRecord) -> StepRecord | None:
        """Take the signal by a commit of its own; when none is there and the time is over, that is recorded."""
        timed_out = None
        if pending.due_at_us is not None and self.records.seconds_until(pending.due_at_us) <= 0:
            error = StepError("WaitTimedOut", f"No event of type {self.event_type!r} came in time.")
            timed_out = self.records.ended(pending, StepState.FAILED, error=error)
        return await self.records.take_signal(self.records.ended(pending, StepState.DONE), timed_out)


class CallWait(DurableWait):
    """A child event, and then the wait for its end."""

    kind = StepKind.CALL

    def __init__(self, records: JournalRecords, child: ChildEvent, seconds: float | None) -> None:
        super().__init__(records, child.step_name, child.key)
        self.child = child
        self.seconds = seconds

    async def begin(self, step: str) -> StepRecord:
        """Send the child; its record is durable when it is returned."""
        due_at_us = None if self.seconds is None else due_in(self.records.now_us(), self.seconds)
        event_type = self.child.event_type
        pending = self.records.begun(self.kind, step, StepState.PENDING, event_type=event_type, due_at_us=due_at_us)
        pending = await sent(self.records, pending, self.child)
        await self.records.commit(pending)
        return pending

    async def came_true(self, pending: StepRecord) -> StepRecord | None:
        """Look whether the child's end was recorded here; when it was not and the time is over, that is recorded."""
        found = await self.records.read_again(pending)
        if found is not None:
            self.records.take_committed(found)
            return found
        if pending.due_at_us is None or self.records.seconds_until(pending.due_at_us) > 0:
            return None
        error = StepError("WaitTimedOut", f"The child event {pending.other_id} did not end in time.")
        timed_out = self.records.ended(pending, StepState.FAILED, error=error)
        await self.records.commit(timed_out)
        return timed_out


def resumed(records: JournalRecords, pending: StepRecord) -> DurableWait:
    """Return a wait that began in an earlier attempt, as far as its end needs it."""
    event_type = pending.event_type or ""
    match pending.kind:
        case StepKind.WAIT:
            return SignalWait(records, pending.step, None, event_type, None)
        case StepKind.CALL:
            return CallWait(records, ChildEvent(event_type, b"", name=pending.step), None)
        case _:
            return SleepWait(records, pending.step, at_us=pending.due_at_us)


async def sent(records: JournalRecords, record: StepRecord, child: ChildEvent) -> StepRecord:
    """Send the child event of a step, which is the same one however often that is done; returns the step with its id.

    The child's row is in the store when this returns: else the parent could go on elsewhere while its child lies on
    the disk of a machine that is gone.
    """
    parent, document = records.event, child.payload.strip(WHITE_SPACE)
    before, _, after = child.payload.partition(document)
    if child.subscriber is None:
        identity = child_id(parent.id, records.number, record.kind, record.step, record.generation)
    else:
        identity = subscriber_event_id(parent.id, child.subscriber)
    event = EventRecord(
        id=identity,
        application_name=parent.application_name,
        workflow_id=child.workflow_id or parent.workflow_id,
        event_type=child.event_type,
        created_at_us=records.tools.clock.now_us(),
        service_name=parent.service_name,
        run_at_us=child.run_at_us,
        metadata=msgspec.Raw(child.metadata),
        max_attempts=None if child.subscriber is None else parent.max_attempts,
        origin=parent.id,
        subscriber=child.subscriber,
        trace=records.attempt.current_trace(),
        payload=msgspec.Raw(document),
        before_payload=before.decode(),
        after_payload=after.decode(),
    )
    await records.patiently(records.tools.children.send(event))
    return msgspec.structs.replace(record, other_id=identity)
