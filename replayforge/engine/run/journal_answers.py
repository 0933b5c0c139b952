"""The answers of one attempt's journal: each step is answered from its record, or taken, or waited for."""

from asyncio import sleep
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import msgspec

from replayforge.domain.document import decode_exactly
from replayforge.domain.event import StoredEvent
from replayforge.domain.identity import hashed_id
from replayforge.domain.journal import (
    RECORDED,
    WAITS,
    StepError,
    StepKind,
    StepRecord,
    StepState,
    due_in,
    objection_to_name,
    step_name,
)
from replayforge.domain.lifecycle import Reason
from replayforge.domain.retry import RetryPolicy
from replayforge.domain.step_errors import Cancelled, Parking, StepFailed, WaitTimedOut
from replayforge.engine.handlers.context import ChildEvent, Signal, StepCall
from replayforge.engine.handlers.step_messages import Remembered, ReportedStep
from replayforge.engine.run.attempt import RunningAttempt
from replayforge.engine.run.durable_waits import DurableWait, resumed, sent
from replayforge.engine.run.journal_ends import CANCELLED, Left, Park, ended, in_doubt
from replayforge.engine.run.journal_records import JournalRecords, JournalTools
from replayforge.engine.run.step_runner import StepRunner
from replayforge.engine.run.waits import Waits

RANDOM_NAMESPACE = b"replayforge/random/1"
BUSY_SECONDS = 0.02  # before another look whether the steps that run have ended
CANCEL_NOTE = "cancelled"  # where an endpoint is told of a cancel that waits for nothing

KnownAs = tuple[StepKind, str, str | None]


class Named:
    """A step by its name in the journal, from when it is asked for until it is answered."""

    __slots__ = ("answers", "known_as")

    def __init__(self, answers: "JournalAnswers", known_as: KnownAs) -> None:
        self.answers = answers
        self.known_as = known_as

    def __enter__(self) -> str:
        return self.answers.enter(self.known_as)

    def __exit__(self, *_: object) -> None:
        self.answers.at_work.discard(self.known_as)


class JournalAnswers:
    """Answers what the code of one attempt asks its journal, in the tasks of whoever asks."""

    def __init__(
        self,
        attempt: RunningAttempt,
        event: StoredEvent,
        policy: RetryPolicy,
        tools: JournalTools,
    ) -> None:
        self.attempt = attempt
        self.event = event
        self.handler = attempt.handler
        self.tools = tools
        self.records = JournalRecords(attempt, event, tools)
        self.waits = Waits(attempt, self.records, self.is_busy, self.park)
        self.runner = StepRunner(self.records, self.waits, policy)
        self.at_work: set[KnownAs] = set()
        self.passes: dict[KnownAs, int] = {}
        self.closed = False
        self.parked: Park | None = None
        self.restarted_with: bytes | None = None
        self.reported_at_us = 0

    def check_usable(self) -> None:
        """Raise what a call must hear that comes too late."""
        if self.closed:
            raise RuntimeError(
                f"The attempt of event {self.event.id} that this ctx belongs to has ended; nothing can be done in its"
                " journal any more."
            )
        if self.attempt.is_ending:
            raise Parking

    def close(self) -> None:
        """Answer nothing from now on."""
        self.closed = True
        self.waits.close()
        self.tools.recorder.forget_request(self.event.id)

    # Steps and waits

    async def take_step(self, call: StepCall) -> Any:
        """Answer a step from its record, or run it."""
        with self.named(StepKind.STEP, call.name, call.key) as step:
            record = await self.recorded(StepKind.STEP, step)
            if record is None or record.state not in RECORDED:
                if record is not None and record.state is StepState.STARTED:
                    await self.records.end(in_doubt(step))
                if not self.records.reentry.over:
                    await self.records.reentry.wait()
                record = await self.runner.run(call, step, record)
            return answer(record, call.type)

    async def take_wait(self, wait: DurableWait) -> Any:
        """Answer a wait from its record, or wait."""
        check(wait)
        with self.named(wait.kind, wait.name, wait.key) as step:
            record = await self.recorded(wait.kind, step)
            if record is None or record.state not in RECORDED:
                await self.records.reentry.wait()
                record = await self.came_true(wait, record or await wait.begin(step))
            return answer(record, None)

    async def came_true(self, wait: DurableWait, pending: StepRecord) -> StepRecord:
        """Return the record of what came of a wait; the attempt may be parked before that."""
        while (record := await wait.came_true(pending)) is None:
            await self.waits.keep(pending)
            await self.waits.stand([pending])
        return record

    async def take_first(self, waits: dict[str, DurableWait]) -> tuple[str, Any]:
        """Return which of several waits came true first, and its answer; in doubt the one that was named first."""
        for wait in waits.values():
            check(wait)
        with ExitStack() as names:
            step = names.enter_context(self.named(StepKind.FIRST, ",".join(waits)))
            record = await self.recorded(StepKind.FIRST, step)
            steps = {
                name: names.enter_context(self.named(wait.kind, wait.name, wait.key)) for name, wait in waits.items()
            }
            for name, wait in waits.items():
                await self.come_to(wait, steps[name])
            won = None if record is None else self.winner(waits, steps, str(answer(record, str)))
            if record is None or won is None:
                record = await self.decide(waits, step, steps)
                won = self.winner(waits, steps, str(answer(record, str)))
            assert won is not None
            return str(answer(record, str)), answer(won, None)

    async def come_to(self, wait: DurableWait, step: str) -> None:
        """End the attempt at a wait among several if it is not to go on."""
        await self.check_end(wait.kind, step)

    async def decide(self, waits: dict[str, DurableWait], step: str, steps: dict[str, str]) -> StepRecord:
        """Return the record of which wait came true first, once one has."""
        await self.records.reentry.wait()
        pending = {
            name: self.records.heard(wait.kind, steps[name]) or await wait.begin(steps[name])
            for name, wait in waits.items()
        }
        begun = self.records.begun(StepKind.FIRST, step)
        winner = await self.came_first(waits, pending)
        record = self.records.ended(begun, StepState.DONE, result=msgspec.json.encode(winner))
        self.records.ride(record)
        return record

    def winner(self, waits: dict[str, DurableWait], steps: dict[str, str], name: str) -> StepRecord | None:
        """Return what the wait came to that won; None where a replay has cleared it, so that it is decided anew."""
        won = self.records.heard(waits[name].kind, steps[name]) if name in waits else None
        return won if won is not None and won.state in RECORDED else None

    async def came_first(self, waits: dict[str, DurableWait], pending: dict[str, StepRecord]) -> str:
        """Return the name of the wait that came true first."""
        while True:
            for name, wait in waits.items():
                if pending[name].state in RECORDED or await wait.came_true(pending[name]) is not None:
                    return name
            await self.waits.stand(list(pending.values()))

    async def take_send(self, child: ChildEvent) -> str:
        """Return the id of the child event, which is sent once."""
        with self.named(StepKind.SEND, child.step_name, child.key) as step:
            record = await self.recorded(StepKind.SEND, step)
            if record is None:
                await self.records.reentry.wait()
                begun = self.records.begun(StepKind.SEND, step, event_type=child.event_type)
                begun = await sent(self.records, begun, child)
                record = self.records.ended(begun, StepState.DONE, result=msgspec.json.encode(begun.other_id))
                await self.records.commit(record)
            return str(answer(record, str))

    async def take_subscribers(self) -> list[str]:
        """Return whom the event was for when it was dispatched.

        One for whose type nobody had a handler then goes to those that subscribe to it when it runs first.
        """
        if self.event.subscribers is not None:
            return self.event.subscriber_names
        with self.named(StepKind.NOW, "subscribers") as step:
            record = await self.recorded(StepKind.NOW, step)
            if record is None:
                begun = self.records.begun(StepKind.NOW, step)
                names = self.tools.subscribers(self.event.event_type) or "[]"
                record = self.records.ended(begun, StepState.DONE, result=names.encode())
                self.records.ride(record)
            return list(answer(record, list[str]))

    async def take_now(self, name: str) -> datetime:
        """Return the time that was recorded, or is."""
        with self.named(StepKind.NOW, name) as step:
            record = await self.recorded(StepKind.NOW, step)
            if record is None:
                begun = self.records.begun(StepKind.NOW, step)
                now_us = str(self.records.now_us()).encode()
                record = self.records.ended(begun, StepState.DONE, result=now_us)
                self.records.ride(record)
            return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(answer(record, int)))

    async def take_restart(self, payload: bytes) -> NoReturn:
        """Have the attempt end to go on with the next journal, once no step's function runs and no commit is under way.

        Who has cancelled the event is heard at the next journal's first step.
        """
        self.check_usable()
        await self.records.open()
        await self.check_deadline()
        await self.records.reentry.wait()
        while self.is_busy():  # noqa: ASYNC110 - rare, and short; an event would cost every step
            await sleep(BUSY_SECONDS)
        self.restarted_with = payload
        self.end_to_go_on(Park((), (), None, only_retries=False, work_cut=False, last_error=None))
        await self.records.never()

    async def derive(self, what: str, name: str, make: Callable[[str], Any]) -> Any:
        """Return a value that follows from the event, its journal and the name, and needs no record."""
        with self.named(StepKind.NOW, f"{what}:{name}") as step:
            await self.recorded(StepKind.NOW, step)
            parts = (self.event.id, str(self.records.number), step)
            return make(hashed_id(RANDOM_NAMESPACE, *(part.encode() for part in parts)))

    async def take_stock(self) -> Remembered:
        """Return what is recorded, once everything that the journal waits for has come to its end."""
        await self.records.open()
        for pending in self.records.pending():
            with suppress(StepFailed, Cancelled):  # which is recorded
                if pending.kind is StepKind.STEP:
                    await self.check_cancel(pending.kind, pending.step)
                    await self.waits.stand_until(pending, pending.due_at_us, retried=True)
                else:
                    await self.take_wait(resumed(self.records, pending))
        await self.check_deadline()
        with suppress(Cancelled):
            await self.check_cancel(StepKind.NOW, CANCEL_NOTE)
        self.reported_at_us = self.records.now_us()
        for record in self.records.known.values():
            self.records.heard(record.kind, record.step)
        return Remembered(
            self.records.number,
            self.records.activation,
            tuple(self.records.known.values()),
            cancelled=self.records.is_cancelled,
        )

    async def take_reports(self, did: tuple[ReportedStep, ...], answered: bool) -> int:
        """Record steps that are not recorded yet and return how many these are; each began when the last one ended."""
        fresh = 0
        for report in did:
            known = self.records.heard(StepKind.STEP, report.step)
            if known is not None and known.state in RECORDED:
                continue
            await self.check_room(report.step)
            self.records.ride(self.runner.reported(report, known, self.reported_at_us))
            fresh += 1
        self.reported_at_us = self.records.now_us()
        if answered:
            self.records.count_answer()
        if fresh or answered:
            await self.records.commit_riding()
        return fresh

    # Names, and whether to go on at all

    def named(self, kind: StepKind, name: str, key: str | None = None) -> Named:
        """Give a step its name in the journal while it is taken; raises what is wrong with it."""
        return Named(self, (kind, name, key))

    def enter(self, known_as: KnownAs) -> str:
        """Return the name of a step that is taken from now on."""
        _, name, key = known_as
        self.check_usable()
        if objection := objection_to_name(name, key):
            raise ValueError(f"A step cannot be taken: {objection}.")
        if known_as in self.at_work:
            raise RuntimeError(
                f"Two steps {name!r} at the same time cannot be told apart on a later pass: give each a key=."
            )
        self.at_work.add(known_as)
        nth = self.passes[known_as] = self.passes.get(known_as, 0) + 1
        return step_name(name, key, nth)

    async def recorded(self, kind: StepKind, step: str) -> StepRecord | None:
        """Return what is recorded of a step, which the code hears of now; ends the attempt that is not to go on."""
        if self.records.journal is None:
            await self.records.open()
        await self.check_end(kind, step)
        return self.records.heard(kind, step)

    async def check_end(self, kind: StepKind, step: str) -> None:
        """End the attempt here if its time is over, its journal full, or it is to be cancelled."""
        if self.handler.deadline_seconds is not None:
            await self.check_deadline()
        known = self.records.known.get((kind, step))
        if known is not None and known.state in RECORDED:
            return
        if self.is_full:
            await self.check_room(step)
        if self.is_asked_to_end:
            await self.check_cancel(kind, step)

    async def check_cancel(self, kind: StepKind, step: str) -> None:
        """End the attempt here if its event is cancelled; where its code is to be told, that is recorded and raised."""
        if not self.is_asked_to_end or self.records.is_cancelled:
            return
        if self.handler.on_cancel == "end":
            await self.records.end(CANCELLED)
        begun, error = self.records.begun(kind, step), StepError("Cancelled", "")
        await self.records.commit(self.records.ended(begun, StepState.FAILED, error=error))
        raise Cancelled(f"The event {self.event.id} was cancelled.")

    async def check_deadline(self) -> None:
        """End the attempt here if the time of its run is over."""
        seconds = self.handler.deadline_seconds
        if seconds is not None and self.records.now_us() >= due_in(self.records.run_started_at_us, seconds):
            await self.records.end(ended(Reason.DEADLINE, f"The run did not end within its {seconds:g} s."))

    async def check_room(self, step: str) -> None:
        """End the attempt here if its journal takes no further step."""
        if self.is_full:
            words = (
                f"The journal holds {len(self.records.known):,} steps and {self.records.bytes:,} bytes and takes no"
                f" more: the step {step!r} was not recorded. All that was recorded is intact."
            )
            await self.records.end(ended(Reason.JOURNAL_FULL, words))

    @property
    def is_asked_to_end(self) -> bool:
        """Whether somebody has cancelled the event."""
        return self.records.cancel_requested or self.event.id in self.tools.recorder.asked_to_end

    @property
    def is_full(self) -> bool:
        """Whether the journal takes no further step."""
        limits = self.tools.limits
        return len(self.records.known) >= limits.steps_max or self.records.bytes > limits.bytes_max

    # Ends

    def is_busy(self) -> bool:
        """Tell whether a step's function runs, or a commit is under way."""
        return self.runner.is_busy or self.records.committing > 0

    def park(self) -> None:
        """Have the attempt parked for what its waits wait for."""
        pending = self.waits.pending()
        dues = [self.records.seconds_until(record.due_at_us) for record in pending if record.due_at_us is not None]
        if self.handler.deadline_seconds is not None:
            deadline_us = due_in(self.records.run_started_at_us, self.handler.deadline_seconds)
            dues.append(self.records.seconds_until(deadline_us))
        errors = [f"{record.error_type}: {record.error}" for record in pending if record.error_type is not None]
        due = min(dues, default=None)
        self.end_to_go_on(
            Park(
                pending=pending,
                waits=self.waits.awaited(),
                due_in_seconds=due,
                only_retries=self.waits.only_retries,
                work_cut=not self.waits.is_only_waiting,
                last_error=next(iter(errors), None),
            )
        )

    def end_to_go_on(self, park: Park) -> None:
        """Have all of the handler's code end, for its event to go on later."""
        self.parked = park
        self.attempt.park()
        self.attempt.free_threads()

    def left_behind(self) -> Left:
        """Return what is to be committed with the attempt's end: all that is not known to be durable."""
        # A park writes what it waits for under its own lease: by that it is told from waits that have lost before.
        token = self.event.lease_token
        parked = self.parked.pending if self.parked is not None else ()
        pending = [msgspec.structs.replace(record, token=token) for record in parked]
        records = {(record.kind, record.step): record for record in pending} | self.records.uncommitted
        started = (one.step for one in self.records.known.values() if one.state is StepState.STARTED)
        fresh = self.records.uncommitted.values()
        return Left(
            number=self.records.number,
            records=tuple(records.values()),
            progressed=self.records.progressed
            or self.restarted_with is not None
            or any(one.state in RECORDED for one in fresh),
            cancelled=self.records.is_cancelled,
            waited=any(kind in WAITS for kind, _ in self.records.known),
            in_doubt=next(started, None),
            parked=self.parked,
            restart=self.restarted_with,
            label=self.attempt.handler.label,
        )


def check(wait: DurableWait) -> None:
    """Raise ValueError for a wait that cannot come true."""
    if objection := wait.objection():
        raise ValueError(f"A wait cannot begin: {objection}.")


def answer(record: StepRecord, kind: Any) -> Any:
    """Return the value that a step's record holds, or raise the failure that it holds."""
    if record.state is StepState.DONE:
        encoded = b"null" if record.result is None else record.result
        if record.kind is StepKind.WAIT:
            return Signal(**decode_exactly(encoded))
        return decode_exactly(encoded) if kind is None else msgspec.json.decode(encoded, type=kind)
    error_type, message = record.error_type or "", record.error or ""
    if error_type == "Cancelled":
        raise Cancelled("The event was cancelled.")
    failure = WaitTimedOut if error_type == "WaitTimedOut" else StepFailed
    raise failure(record.step, error_type, message, record.trace or "")
