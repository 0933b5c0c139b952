"""Tries a handler on recorded runs, one after the other, on a loop whose time passes by itself."""

import asyncio
import random
from asyncio import sleep, wait
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import msgspec

from replayforge.domain.event import ClaimedEvent
from replayforge.domain.lifecycle import Outcome
from replayforge.domain.recorded_run import RecordedRun
from replayforge.domain.retry import RetryPolicy
from replayforge.domain.verdict import Result, error_signature
from replayforge.engine.handlers.registry import Handler, Handlers
from replayforge.engine.run.attempt import AttemptEnvironment, RunningAttempt
from replayforge.engine.run.deadlines import Deadlines
from replayforge.engine.run.journal_records import JournalLimits, JournalTools
from replayforge.event_loop import make_task
from replayforge.shadow.code_names import CodeNames
from replayforge.shadow.guard import FOREIGN, roots_of
from replayforge.shadow.moved_time import SkippingLoop
from replayforge.shadow.recorded_answers import RecordedJournaling, TrialFindings
from replayforge.shadow.replayed import End, Job, NamedStep, OutsideEffect, ReplayedRun
from replayforge.telemetry import Telemetry

NO_LIMITS = JournalLimits(result_bytes_max=1 << 40, steps_max=1 << 40, bytes_max=1 << 40)
HALTED = Result(Outcome.INTERRUPTED, "The code goes no further than what is recorded.")
THREAD_SECONDS = 1.0  # for a thread to end that was told to
TURNS_TO_END = 3  # of the loop, for tasks that were cancelled


class Silent:
    """Stands where attempts hand in what is to be recorded: nothing of this is called by what only reads."""

    asked_to_end: frozenset[str] = frozenset()

    def forget_request(self, event_id: str) -> None:
        """Note nothing."""


class InlineThreads(ThreadPoolExecutor):
    """Runs calls at once, where they are asked for, so that the stack shows whose they are."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **options: Any) -> "Future[Any]":
        """Call it, and return what came of it."""
        future: Future[Any] = Future()
        try:
            future.set_result(call(*args, **options))
        except BaseException as error:
            future.set_exception(error)
        return future


class TimeLimit:
    """The time limit of the one attempt that runs, on the loop's moved time."""

    def __init__(self) -> None:
        self.timer: asyncio.TimerHandle | None = None

    def begin(self, timed: Any, at: float, loop: asyncio.AbstractEventLoop) -> None:
        """See Deadlines.begin."""
        self.timer = loop.call_at(at, timed.time_out)

    def end(self, _: object = None) -> None:
        """Let it have all the time there is."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Trial:
    """Replays runs with what a job's modules have registered; `effects` are what the guard has refused, newest last."""

    def __init__(self, job: Job, handlers: Handlers, loop: SkippingLoop, effects: list[OutsideEffect]) -> None:
        self.job = job
        self.handlers = handlers
        self.loop = loop
        self.effects = effects
        self.attempt: RunningAttempt | None = None
        self.findings: TrialFindings | None = None
        self.refused: list[OutsideEffect] | None = None
        self.limit = TimeLimit()
        self.names: dict[str, CodeNames] = {}
        self.telemetry = Telemetry()
        loop.set_task_factory(make_task)
        loop.set_default_executor(InlineThreads(1))
        loop.skipping.ask(self.is_busy, self.rest)

    async def replay(self, run: RecordedRun) -> ReplayedRun:
        """Return what comes of a run."""
        handler = self.handlers.find(run.event.route)
        if handler is None:
            return ReplayedRun(id=run.id, end=End.NO_HANDLER)
        self.effects.clear()
        self.refused = None
        self.loop.moved.begin(run.started_at_us)
        random.seed(f"{self.job.world.random_seed} {run.id}")
        self.findings = TrialFindings(run, self.limit.end)
        self.attempt = attempt = self.attempt_of(run, handler, self.findings)
        seconds = handler.timeout_seconds or self.job.timeout_seconds
        try:
            result = await attempt.outcome(seconds, cast("Deadlines", self.limit))
            refused = self.effects if self.refused is None else self.refused
            found = replayed(run, result, self.findings, refused[0] if refused else None)
            return self.with_unnamed(found, handler)
        finally:
            await self.clear_away(attempt)

    def with_unnamed(self, found: ReplayedRun, handler: Handler) -> ReplayedRun:
        """Say of steps that may come yet which of them the code does not name at all."""
        if found.end is not End.BEGINS or not found.unreached:
            return found
        names = self.names.get(handler.identity)
        if names is None:
            names = self.names[handler.identity] = CodeNames(handler.function, roots_of(self.job), FOREIGN)
        gone = tuple(one for one in found.unreached if not names.hold(one.kind, one.step))
        return msgspec.structs.replace(found, unnamed=gone)

    def attempt_of(self, run: RecordedRun, handler: Handler, findings: TrialFindings) -> RunningAttempt:
        """Return the attempt of a run; the row of one that has ended counts its last attempt already."""
        attempts_before = run.event.attempt_count + run.is_open - 1
        event = msgspec.structs.replace(run.event, attempt_count=attempts_before)
        tools = self.tools(run)
        open_journal = lambda attempt: RecordedJournaling(attempt, findings, RetryPolicy(), tools)  # noqa: E731
        return RunningAttempt(
            ClaimedEvent.of(event, run.content), handler, AttemptEnvironment(open_journal=open_journal)
        )

    def tools(self, run: RecordedRun) -> JournalTools:
        """Return what a journal that is only read needs."""
        nothing = cast("Any", Silent())
        awaited = {one.event_type for one in run.journal.records}
        return JournalTools(
            recorder=nothing,
            children=nothing,
            is_signal=lambda name: self.handlers.is_signal(name) or name in self.job.signals or name in awaited,
            subscribers=self.handlers.subscribers,
            leases=nothing,
            deadlines=nothing,
            clock=self.loop.moved,
            rng=random.Random(0),
            limits=NO_LIMITS,
            in_place_seconds=0.0,
            telemetry=self.telemetry,
        )

    # What the loop asks

    def is_busy(self) -> bool:
        """Tell whether the thread of a plain handler is at work; one that goes no further waits until it is ended."""
        attempt, findings = self.attempt, self.findings
        if attempt is None or attempt.thread is None or findings is None:
            return False
        return not attempt.thread.done() and (attempt.is_ending or not findings.has_halted)

    def rest(self) -> bool:
        """End an attempt that goes no further; tells whether there is one."""
        attempt, findings = self.attempt, self.findings
        if attempt is None or findings is None or not findings.has_halted or attempt.is_ending:
            return False
        self.loop.call_soon(self.end, attempt)
        return True

    def end(self, attempt: RunningAttempt) -> None:
        """Have all of an attempt's code end; what it reaches for on its way out is refused, and says nothing."""
        self.refused = self.effects[:1]
        attempt.stop(HALTED)
        attempt.cancel_all()
        attempt.free_threads()

    async def clear_away(self, attempt: RunningAttempt) -> None:
        """End what an attempt has left behind, as far as it lets itself be ended."""
        attempt.cancel_all()
        if attempt.thread is not None and not attempt.thread.done():
            await wait([attempt.thread], timeout=THREAD_SECONDS)
        self.attempt = self.findings = None
        for _ in range(TURNS_TO_END if attempt.live_tasks() else 0):
            await sleep(0)
        attempt.let_go()


def replayed(run: RecordedRun, result: Result, findings: TrialFindings, effect: OutsideEffect | None) -> ReplayedRun:
    """Put together what came of a run."""
    found = ReplayedRun(
        id=run.id,
        end=End.RETURNED,
        asks=tuple(findings.asks),
        stands=tuple(findings.stands),
        unreached=findings.unreached,
        changed=tuple(findings.changed),
    )
    if effect is not None:
        return msgspec.structs.replace(found, end=End.EFFECT, effect=effect)
    if findings.has_halted:
        return msgspec.structs.replace(found, end=End.BEGINS if findings.asks else End.STANDS)
    if result.outcome is Outcome.SUCCEEDED:
        return msgspec.structs.replace(found, result=result.value)
    error = result.error or "unknown error"
    failed = tuple(NamedStep(one.kind, one.step) for one in run.expected if one.step in result.failed_steps)
    return msgspec.structs.replace(
        found, end=End.RAISED, error=error, signature=error_signature(error), failed_steps=failed
    )
