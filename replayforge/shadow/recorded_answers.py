"""The calls to a journal that is only read: what is recorded answers, and what is not ends the run there."""

from asyncio import wait as wait_for
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec

from replayforge.domain.document import same_json
from replayforge.domain.journal import RECORDED, StepKind, StepRecord
from replayforge.domain.recorded_run import RecordedRun
from replayforge.domain.retry import RetryPolicy
from replayforge.domain.step_errors import Parking
from replayforge.engine.handlers.context import ChildEvent, StepCall
from replayforge.engine.handlers.results import arguments_in_words
from replayforge.engine.run.attempt import RunningAttempt
from replayforge.engine.run.durable_waits import CallWait, DurableWait
from replayforge.engine.run.journal_answers import JournalAnswers, answer, check
from replayforge.engine.run.journal_records import JournalTools
from replayforge.engine.run.journaling import Journaling
from replayforge.shadow.replayed import Asked, ChangedArguments, NamedStep

RESTART = "restart"


class TrialFindings:
    """What one run's code has come to so far. `halted` is called once some of it goes no further."""

    def __init__(self, run: RecordedRun, halted: Callable[[], None]) -> None:
        self.run = run
        self.halted = halted
        self.reached: set[tuple[str, str]] = set()
        self.asks: list[Asked] = []
        self.stands: list[NamedStep] = []
        self.changed: list[ChangedArguments] = []

    @property
    def has_halted(self) -> bool:
        """Whether some of the code goes no further, for it came to what is not recorded, or has not come."""
        return bool(self.asks or self.stands)

    @property
    def unreached(self) -> tuple[NamedStep, ...]:
        """The recorded steps that the code has not come to."""
        return tuple(
            NamedStep(one.kind, one.step) for one in self.run.expected if (one.kind, one.step) not in self.reached
        )

    def ask(self, kind: str, step: str, arguments: str) -> None:
        """Note a step that is not recorded."""
        kinds = {one.step: str(one.kind) for one in self.run.expected}
        self.asks.append(Asked(kind, step, arguments, kinds.get(step)))

    def stand(self, kind: str, step: str) -> None:
        """Note a step that has no answer yet."""
        self.stands.append(NamedStep(kind, step))

    def reach(self, kind: str, step: str) -> None:
        """Note that the code has come to a step."""
        self.reached.add((kind, step))

    def compare(self, record: StepRecord, arguments: str) -> None:
        """Note it if a step is asked for with other arguments than those recorded."""
        before = record.arguments
        if before != arguments and not same_json(before.encode(), arguments.encode()):
            self.changed.append(ChangedArguments(record.kind, record.step, before, arguments))

    def compare_child(self, record: StepRecord, child: ChildEvent) -> None:
        """Note it if a step sends another payload than that of its child, where that is known."""
        before = self.run.children.get(record.other_id or "")
        if before is not None and not same_json(before, child.payload):
            self.changed.append(ChangedArguments(record.kind, record.step, before.decode(), child.payload.decode()))


class RecordedAnswers(JournalAnswers):
    """Answers from what is recorded; whatever else is asked for is noted, and never answered.

    It is answered in the order in which a daemon would: what is not recorded is noted when all that is has had its
    consequences.
    """

    def __init__(
        self, attempt: RunningAttempt, findings: TrialFindings, policy: RetryPolicy, tools: JournalTools
    ) -> None:
        super().__init__(attempt, findings.run.event, policy, tools)
        self.findings = findings
        self.records.take_in(msgspec.structs.replace(findings.run.journal, cancel_requested=False))

    async def recorded(self, kind: StepKind, step: str) -> StepRecord | None:
        """See JournalAnswers.recorded."""
        self.findings.reach(kind, step)
        return await super().recorded(kind, step)

    async def check_deadline(self) -> None:
        """Let the run have all the time that it had."""

    async def halt(self, note: Callable[[], None]) -> NoReturn:
        """Go no further, once everything recorded has been heard."""
        await self.records.reentry.wait()
        note()
        self.findings.halted()
        await wait_for([self.attempt.ended])
        raise Parking

    async def halt_at(self, kind: StepKind, step: str, record: StepRecord | None, arguments: str) -> NoReturn:
        """Go no further than a step that has no answer: it stands, or it is new."""
        if record is None:
            await self.halt(lambda: self.findings.ask(kind, step, arguments))
        await self.halt(lambda: self.findings.stand(kind, step))

    async def take_step(self, call: StepCall) -> Any:
        """Answer a step from its record; its function is not called."""
        with self.named(StepKind.STEP, call.name, call.key) as step:
            arguments = arguments_in_words(call.args, call.kwargs)
            record = await self.recorded(StepKind.STEP, step)
            if record is not None:
                self.findings.compare(record, arguments)
            if record is None or record.state not in RECORDED:
                await self.halt_at(StepKind.STEP, step, record, arguments)
            return answer(record, call.type)

    async def take_wait(self, wait: DurableWait) -> Any:
        """Answer a wait from its record."""
        check(wait)
        with self.named(wait.kind, wait.name, wait.key) as step:
            record = await self.recorded(wait.kind, step)
            self.compare_call(wait, record)
            if record is None or record.state not in RECORDED:
                await self.halt_at(wait.kind, step, record, arguments_of(wait))
            return answer(record, None)

    async def come_to(self, wait: DurableWait, step: str) -> None:
        """Note a wait among several."""
        self.compare_call(wait, await self.recorded(wait.kind, step))

    async def decide(self, waits: dict[str, DurableWait], step: str, steps: dict[str, str]) -> NoReturn:
        """Go no further: which of several waits comes true first is not decided."""

        def undecided() -> None:
            for name, wait in waits.items():
                if (wait.kind, steps[name]) in self.records.known:
                    self.findings.stand(wait.kind, steps[name])
                else:
                    self.findings.ask(wait.kind, steps[name], arguments_of(wait))

        await self.halt(undecided)

    async def take_send(self, child: ChildEvent) -> str:
        """Answer with the id of the child event that was sent."""
        with self.named(StepKind.SEND, child.step_name, child.key) as step:
            record = await self.recorded(StepKind.SEND, step)
            if record is None:
                await self.halt_at(StepKind.SEND, step, None, child.payload.decode())
            self.findings.compare_child(record, child)
            return str(answer(record, str))

    async def take_restart(self, payload: bytes) -> NoReturn:
        """Go no further: the next journal is another story."""
        self.check_usable()
        await self.halt(lambda: self.findings.ask(RESTART, RESTART, payload.decode()))

    def compare_call(self, wait: DurableWait, record: StepRecord | None) -> None:
        """Note it if the child that is waited for is another one."""
        if record is not None and isinstance(wait, CallWait):
            self.findings.compare_child(record, wait.child)


class RecordedJournaling(Journaling):
    """The calls of a handler that is only tried."""

    def __init__(
        self, attempt: RunningAttempt, findings: TrialFindings, policy: RetryPolicy, tools: JournalTools
    ) -> None:
        super().__init__(attempt, findings.run.event, policy, tools)
        self.answers: RecordedAnswers = RecordedAnswers(attempt, findings, policy, tools)


def arguments_of(wait: DurableWait) -> str:
    """Return what a wait says of itself beside its name: the payload of its child."""
    return wait.child.payload.decode() if isinstance(wait, CallWait) else ""
