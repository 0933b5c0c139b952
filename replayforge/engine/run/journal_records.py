"""What is recorded in the journal of one attempt's event, and how more of it becomes durable under its lease."""

import asyncio
import math
import random
from asyncio import ensure_future, shield, wait
from collections.abc import Awaitable, Callable
from contextvars import Context as Variables
from typing import Any, NoReturn, TypeVar

import msgspec

from replayforge.domain.clock import MICROSECONDS_PER_SECOND, Clock
from replayforge.domain.errors import Unavailable
from replayforge.domain.event import StoredEvent
from replayforge.domain.journal import RECORDED, Journal, StepError, StepKind, StepRecord, StepState
from replayforge.domain.lifecycle import Outcome
from replayforge.domain.step_errors import Parking
from replayforge.domain.verdict import Result
from replayforge.engine.dispatch.leases import Leases
from replayforge.engine.run.attempt import RunningAttempt
from replayforge.engine.run.children import Children
from replayforge.engine.run.deadlines import Deadlines
from replayforge.engine.run.recorded_steps import tell_recorded
from replayforge.engine.run.recorder import Recorder
from replayforge.engine.run.reentry import Reentry
from replayforge.stores.journals import StepCommit, StepCommitted
from replayforge.telemetry import Telemetry

FOR_EVER = math.inf
LEASE_LOST = Result(Outcome.INTERRUPTED, "The lease was lost: another daemon took the event over.")

Answer = TypeVar("Answer")
Key = tuple[StepKind, str]


class JournalLimits(msgspec.Struct, frozen=True):
    """How much a journal may hold."""

    result_bytes_max: int
    steps_max: int
    bytes_max: int


class JournalTools(msgspec.Struct, frozen=True, kw_only=True):
    """What the journals of all attempts share. `is_signal` says of an event type whether it is awaited, not handled,
    `subscribers` to whom events of it go.

    Waits of up to `in_place_seconds` keep their worker.
    """

    recorder: Recorder
    children: Children
    is_signal: Callable[[str], bool]
    subscribers: Callable[[str], str | None]
    leases: Leases
    deadlines: Deadlines
    clock: Clock
    rng: random.Random
    limits: JournalLimits
    in_place_seconds: float
    telemetry: Telemetry


class JournalRecords:
    """The records of one attempt's journal, in memory and on their way into the store.

    `progressed` says that this attempt has recorded something; `uncommitted` is what may not be durable. Where the
    lease has been lost, the attempt ends at the next commit.
    """

    def __init__(self, attempt: RunningAttempt, event: StoredEvent, tools: JournalTools) -> None:
        self.attempt = attempt
        self.event = event
        self.lease = event.lease
        self.tools = tools
        self.loop = attempt.loop
        self.journal: Journal | None = None
        self.opening: asyncio.Future[Journal] | None = None
        self.known: dict[Key, StepRecord] = {}
        self.uncommitted: dict[Key, StepRecord] = {}
        self.riding: list[StepRecord] = []
        self.is_half_full = False
        self.noted = -1
        self.reentry = Reentry(self.loop, attempt.live_tasks)
        self.place = 0
        self.bytes = 0
        self.committing = 0
        self.progressed = False
        self.activation = 0
        self.cancel_requested = False
        self.read_at, self.read_at_us = tools.clock.monotonic(), tools.clock.now_us()

    # What is there

    @property
    def number(self) -> int:
        """Which of the event's journals this is."""
        return 1 if self.journal is None else self.journal.number

    @property
    def run_started_at_us(self) -> int:
        """When the run began, on the store's clock."""
        return self.event.updated_at_us if self.journal is None else self.journal.run_started_at_us

    @property
    def is_cancelled(self) -> bool:
        """Whether the code was told that its event is cancelled, in this pass or an earlier one."""
        return any(record.error_type == "Cancelled" for record in self.known.values())

    async def open(self) -> None:
        """Have the journal read, once, and not at all for an event that was never started before."""
        if self.journal is not None:
            return
        if self.event.lease_token == 1 and self.event.run == 1:
            self.take_in(Journal(run_started_at_us=self.event.updated_at_us, now_us=self.now_us()))
            return
        if self.opening is None:
            self.opening = ensure_future(self.tools.recorder.read(self.event))
        self.take_in(await self.patiently(shield(self.opening)))

    async def read_again(self, record: StepRecord) -> StepRecord | None:
        """Return what the store holds of a step by now, if it has come to its end there."""
        journal = await self.patiently(self.tools.recorder.read(self.event))
        found = (one for one in journal.records if (one.kind, one.step) == (record.kind, record.step))
        return next((one for one in found if one.state in RECORDED), None)

    def take_in(self, journal: Journal) -> None:
        """Begin with what is recorded, unless that was done."""
        if self.journal is not None:
            return
        self.read_at, self.read_at_us = self.tools.clock.monotonic(), journal.now_us
        self.journal = journal
        self.cancel_requested = journal.cancel_requested
        self.activation = journal.activation
        self.known = {(record.kind, record.step): record for record in journal.records}
        self.place = max((max(record.begun, record.recorded) for record in journal.records), default=0)
        self.bytes = sum(record.size for record in journal.records)
        self.is_half_full = self.is_beyond_half
        self.reentry.begin(key for key, record in self.known.items() if record.state in RECORDED)

    def pending(self) -> list[StepRecord]:
        """Return the steps that wait for something, or for their next try."""
        return [record for record in self.known.values() if record.state is StepState.PENDING and record.begun]

    def heard(self, kind: StepKind, step: str) -> StepRecord | None:
        """Return what is recorded of a step, which the code hears of now; nothing of one that is to be done again."""
        self.reentry.heard((kind, step))
        record = self.known.get((kind, step))
        return None if record is None or record.begun == 0 else record

    # Time, on the store's clock

    def now_us(self) -> int:
        """Return what time it is."""
        return self.read_at_us + round((self.tools.clock.monotonic() - self.read_at) * MICROSECONDS_PER_SECOND)

    def seconds_until(self, at_us: int | None) -> float:
        """Return how long it is until a time, 0 when there is none or it is over."""
        return max(0.0, ((at_us or 0) - self.now_us()) / MICROSECONDS_PER_SECOND)

    # New records

    def begun(self, kind: StepKind, step: str, state: StepState = StepState.STARTED, **fields: Any) -> StepRecord:
        """Return the record of a step that begins."""
        self.place += 1
        return StepRecord(
            kind=kind,
            step=step,
            generation=self.generation(kind, step),
            state=state,
            token=self.event.lease_token,
            run=self.event.run,
            begun=self.place,
            started_at_us=self.now_us(),
            label=self.attempt.handler.label,
            **fields,
        )

    def generation(self, kind: StepKind, step: str) -> int:
        """Return how often replays have had a step done again."""
        known = self.known.get((kind, step))
        return 0 if known is None else known.generation

    def ended(
        self, record: StepRecord, state: StepState, *, result: bytes | None = None, error: StepError | None = None
    ) -> StepRecord:
        """Return the record of a step of which something is known now: its result, or its failure."""
        self.place += state in RECORDED
        return msgspec.structs.replace(
            record,
            state=state,
            token=self.event.lease_token,
            recorded=self.place if state in RECORDED else 0,
            ended_at_us=self.now_us(),
            result=result,
            error_type=None if error is None else error.type,
            error=None if error is None else error.message,
            trace=None if error is None else error.trace,
        )

    def ride(self, record: StepRecord) -> None:
        """Have a record committed together with the next one."""
        self.note(record)
        self.riding.append(record)

    def count_answer(self) -> None:
        """Have it committed with the next record that an endpoint has said what is next."""
        self.activation += 1

    def note(self, record: StepRecord) -> None:
        """Answer further calls from a record."""
        key = (record.kind, record.step)
        self.known[key] = self.uncommitted[key] = record
        self.bytes += record.size
        if not self.is_half_full and self.is_beyond_half:
            self.is_half_full = True
            whose: dict[str, Any] = {"event_id": self.event.id, "event_type": self.event.event_type}
            self.tools.telemetry.emit("journal.half_full", steps=len(self.known), bytes=self.bytes, **whose)

    @property
    def is_beyond_half(self) -> bool:
        """Whether the journal holds more than half of what it may hold."""
        limits = self.tools.limits
        return 2 * len(self.known) > limits.steps_max or 2 * self.bytes > limits.bytes_max

    def take_committed(self, record: StepRecord) -> None:
        """Answer further calls from a record that the store holds already."""
        self.known[record.kind, record.step] = record
        self.bytes += record.size
        self.place = max(self.place, record.recorded)

    # Commits

    async def commit(self, record: StepRecord) -> None:
        """Make a record durable, with those that ride with it; see commit_riding."""
        self.ride(record)
        await self.commit_riding()

    async def commit_riding(self) -> None:
        """Make durable what rides with the next commit; returns when it is, and never for a fenced attempt.

        The handler's time stands still meanwhile, and begins anew. When the caller is cancelled the commit goes on.
        """
        future = self.tools.recorder.submit(self.commit_of(), self.committed)
        self.hold_time()
        try:
            committed = await future
        except Unavailable:
            await self.never()
        if committed.fenced:
            await self.end(LEASE_LOST)

    def commit_of(self) -> StepCommit:
        """Return what is to be committed: all that rides."""
        riding, self.riding = self.riding, []
        spent = bool(self.event.attempt_count or self.event.crashes)
        return StepCommit(
            event=self.event,
            journal=self.number,
            records=tuple(riding),
            run_started_at_us=self.run_started_at_us,
            reset=spent and not self.progressed and any(one.state in RECORDED for one in riding),
            activation=self.activation,
            noted=self.noted >= self.activation,
            label=self.attempt.handler.label,
        )

    def committed(self, commit: StepCommit, committed: StepCommitted | None) -> None:
        """Take in what became of a commit, None where nobody knows that, whoever still waits for it."""
        self.release_time()
        if committed is None or committed.fenced:
            return
        self.noted = max(self.noted, commit.activation)
        if committed.cancel_requested:
            self.cancel_requested = True
        for record in commit.records:
            key = (record.kind, record.step)
            if record.state in RECORDED:
                self.progressed = True
            if self.uncommitted.get(key) is record:
                del self.uncommitted[key]

    async def take_signal(self, taken: StepRecord, timed_out: StepRecord | None) -> StepRecord | None:
        """Take the oldest kept signal that fits a wait, by a commit of its own; None when there is none.

        Then `timed_out` is recorded instead, where it is given. What rides is committed as well.
        """
        commit = self.commit_of()
        self.hold_time()
        try:
            answer = await self.patiently(self.tools.recorder.take_signal(commit, taken, timed_out))
        finally:
            self.release_time()
        if answer.fenced:
            await self.end(LEASE_LOST)
        if answer.record is None:
            self.riding = [*commit.records, *self.riding]
            return None
        self.progressed = True
        for record in commit.records:
            self.uncommitted.pop((record.kind, record.step), None)
        self.take_committed(answer.record)
        tell_recorded(self.tools.telemetry, (*commit.records, answer.record))
        return answer.record

    async def patiently(self, work: Awaitable[Answer]) -> Answer:
        """Await what waits while the store is away; never returns once the daemon ends meanwhile."""
        try:
            return await work
        except Unavailable:
            await self.never()

    def hold_time(self) -> None:
        """Let the handler's time stand still."""
        self.committing += 1
        if self.committing == 1 and not self.attempt.is_ending:
            self.tools.deadlines.begin(self.attempt, FOR_EVER, self.loop)
            self.tools.leases.end(self.lease)

    def release_time(self) -> None:
        """Give the handler its whole time again."""
        self.committing -= 1
        if self.committing == 0 and not self.attempt.is_ending:
            self.tools.deadlines.begin(self.attempt, self.loop.time() + self.attempt.timeout_seconds, self.loop)
            self.tools.leases.resume(self.lease)

    # Ends

    async def end(self, result: Result) -> NoReturn:
        """End the attempt with a result, whatever its code would say."""
        Variables().run(self.attempt.stop, result)
        await self.never()

    async def never(self) -> NoReturn:
        """Wait for the cancellation that is on its way; a task that the attempt leaves behind ends after it."""
        self.attempt.free_threads()
        await wait([self.attempt.ended])
        raise Parking
