"""A worker: takes one event at a time from the claim buffer, runs its handler, settles the outcome."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from replayforge.domain.clock import format_time
from replayforge.domain.errors import Unavailable
from replayforge.domain.event import ClaimedEvent
from replayforge.domain.lifecycle import ATTEMPT_SPENDING, Outcome, State
from replayforge.domain.reclaim import InFlight, after_crash
from replayforge.domain.verdict import Result
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.handler_limits import HandlerLimits
from replayforge.engine.dispatch.publisher import Publisher
from replayforge.engine.handlers.registry import Handlers
from replayforge.engine.run.attempt import AttemptEnvironment, NotBegun
from replayforge.engine.run.execution import (
    Execution,
    Rules,
    begin,
    execute,
    interruption,
    left_by,
    settle,
    with_open_journal,
)
from replayforge.engine.run.interpreter_guard import InterpreterGuard
from replayforge.engine.run.settler import Settler
from replayforge.engine.run.strays import Strays
from replayforge.engine.service_loop import Outage
from replayforge.stores.store import Store
from replayforge.stores.transactions import Settlement
from replayforge.telemetry import Telemetry

MayGoOn = Callable[[ClaimedEvent], Awaitable[bool]]


class Worker:
    """One of N coroutines that run handlers. `busy_since_us` is set while a handler runs."""

    def __init__(
        self,
        name: str,
        *,
        buffer: ClaimBuffer,
        handlers: Handlers,
        handler_limits: HandlerLimits,
        settler: Settler,
        store: Store,
        publisher: Publisher,
        rules: Rules,
        telemetry: Telemetry,
        strays: Strays,
        interpreter_guard: InterpreterGuard,
        environment: AttemptEnvironment,
    ) -> None:
        self.name = name
        self.may_go_on: MayGoOn | None = None  # set where what changed code would break is held
        self.buffer = buffer
        self.handlers = handlers
        self.handler_limits = handler_limits
        self.settler = settler
        self.store = store
        self.publisher = publisher
        self.rules = rules
        self.telemetry = telemetry
        self.strays = strays
        self.interpreter_guard = interpreter_guard
        self.environment = environment
        self.busy_since_us: int | None = None
        self.execution: Execution | None = None
        self.settled_count = 0

    @property
    def details(self) -> Mapping[str, Any]:
        """What the handler that runs says of itself."""
        return self.execution.details if self.execution is not None else {}

    def ask_first(self, may_go_on: MayGoOn | None) -> None:
        """Ask before an event that was claimed is run; None: nobody is asked."""
        self.may_go_on = may_go_on

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until told to stop and the buffer is closed; the attempt that is running then may still finish."""
        while not stopping.is_set():
            claimed = await self.buffer.take(self.name)
            if claimed is None:
                return
            if self.handler_limits.blocks(claimed) or (
                self.may_go_on is not None and not await self.may_go_on(claimed)
            ):
                await self.hand_back(claimed)
                continue
            await self.work(claimed)

    async def work(self, claimed: ClaimedEvent) -> None:
        """Run one attempt and hand its outcome in; the next event may be taken while that one is being committed."""
        execution = begin(claimed, self.name, self.handlers, self.rules, self.environment)
        self.execution, self.busy_since_us = execution, execution.started_at_us
        self.telemetry.emit("attempt.started")
        self.interpreter_guard.attend()
        try:
            settlement = await execute(execution, self.rules)
        except NotBegun:
            self.execution = self.busy_since_us = None
            await self.hand_back(claimed)
            return
        self.conclude(execution, settlement)
        await self.settler.hand_in(settlement)
        self.settled_count += 1
        self.buffer.detach(self.name)

    def conclude(self, execution: Execution, settlement: Settlement) -> None:
        """Tell what an attempt came to, and what it has left running."""
        self.execution = self.busy_since_us = None
        if settlement.parked:
            self.report_park(execution)
        elif settlement.outcome in ATTEMPT_SPENDING:
            self.report(settlement)
        if (attempt := execution.attempt) is not None:
            if attempt.cut_short is not None:
                self.strays.take(attempt)
            attempt.let_go()
        self.handler_limits.note(settlement)

    def report_park(self, execution: Execution) -> None:
        """Tell of what a parked handler has lost, by no fault of the daemon."""
        attempt, left, row = execution.attempt, left_by(execution), execution.claimed.event
        if left is not None and left.parked is not None and left.parked.work_cut:
            self.telemetry.emit("park.work_cut", event_id=row.id, event_type=row.event_type)
        if attempt is not None and attempt.succeeded:
            self.telemetry.emit("park.result_dropped", event_id=row.id, event_type=row.event_type)

    def report(self, settlement: Settlement) -> None:
        """Tell of an attempt that failed: what, why, and when it goes on."""
        row, verdict, error = settlement.event, settlement.verdict, settlement.error or ""
        message, _, trace = error.partition("\n\n")
        due_at_us = verdict.due_at_us
        shown: dict[str, Any] = {"exception": trace} if trace else {}
        self.telemetry.emit(
            "attempt.failed",
            event_id=row.id,
            event_type=row.event_type,
            outcome=settlement.outcome,
            attempt=row.attempt_count + 1,
            attempts_max=self.handlers.policy(row.route, row.max_attempts, self.rules.retry).max_attempts,
            error=message,
            next_at=None if due_at_us is None else format_time(due_at_us),
            **shown,
        )

    async def hand_back(self, claimed: ClaimedEvent) -> None:
        """Return an event that may not begin now; what the store does not take is found by the sweep."""
        try:
            await self.store.hand_back([claimed.lease], self.rules.clock.now_us())
        except Unavailable:
            return
        finally:
            self.buffer.detach(self.name)
            self.buffer.release(claimed.lease)
        self.publisher.offer([claimed.event.entry])

    async def interrupt(self) -> None:
        """Settle the attempt that the daemon's end cut short, as `interrupted` unless it came to its end in that very
        moment; call it once `run` has ended."""
        execution, claimed = self.execution, self.buffer.running.get(self.name)
        if claimed is None:
            return
        if execution is not None and execution.attempt is not None and execution.attempt.succeeded:
            settlement = settle(execution, execution.attempt.concluded(), self.rules)
        else:
            settlement = self.cut_short(claimed)
        self.buffer.detach(self.name)
        await self.settler.hand_in(settlement)

    def abandon(self, reason: str) -> bool:
        """Cut the running attempt short, because its lease is lost or in doubt; False when no handler runs.

        It is settled as `interrupted`, which counts if the lease stands after all and is fenced if not.
        """
        attempt = self.execution.attempt if self.execution is not None else None
        return attempt is not None and attempt.cut(Result(Outcome.INTERRUPTED, reason))

    def cut_short(self, claimed: ClaimedEvent) -> Settlement:
        """Return what to settle for an attempt that could not end by itself."""
        now_us = self.rules.clock.now_us()
        settlement = interruption(claimed, self.name, self.busy_since_us or now_us, now_us)
        return settlement if self.execution is None else with_open_journal(settlement, self.execution)

    async def charge_crash(self, error: BaseException) -> bool:
        """Charge a crash to the event that was in hand and take the event back; False when there was none.

        Until the store has taken this, the worker stays away: the event must not be forgotten.
        """
        claimed = self.buffer.running.get(self.name)
        if claimed is None:
            return False
        row = claimed.event
        self.telemetry.emit(
            "worker.crashed",
            worker=self.name,
            event_id=row.id,
            event_type=row.event_type,
            attempt=row.attempt_count + 1,
            error=f"{type(error).__name__}: {error}",
        )
        outage = Outage(self.telemetry)
        try:
            while not await self.taken_back(claimed, error, outage):
                continue
        finally:
            # Whatever became of it, the event leaves this worker's hands; the sweep finds what was not committed.
            self.buffer.detach(self.name)
            self.buffer.release(claimed.lease)
            self.execution = self.busy_since_us = None
        return True

    async def taken_back(self, claimed: ClaimedEvent, error: BaseException, outage: Outage) -> bool:
        """Try once to commit what becomes of the event; True when there is nothing more to try."""
        try:
            await self.take_back(claimed, f"The worker died: {type(error).__name__}: {error}")
        except Unavailable as unavailable:
            await outage.wait(unavailable, self.settler.giving_up)
            return self.settler.giving_up.is_set()
        except Exception as defect:
            self.telemetry.emit("attempt.unsettled", event_id=claimed.event.id, error=repr(defect))
        return True

    async def take_back(self, claimed: ClaimedEvent, reason: str) -> None:
        """Commit what becomes of the event whose worker died, and publish it again if it is to run again."""
        row, now_us = claimed.event, self.rules.clock.now_us()
        lost = InFlight(
            seq=row.seq,
            event_id=row.id,
            event_type=row.event_type,
            run=row.run,
            token=row.lease_token,
            attempt_count=row.attempt_count,
            crashes=row.crashes,
            owner=self.store.owner,
            started_at_us=self.busy_since_us or now_us,
            worker=self.name,
        )
        decided = after_crash(lost, hold=self.handlers.holds_on_crash(row.route))
        await self.store.reclaim([decided], reason, now_us)
        state, types = decided.verdict.state, {row.event_type: 1}
        self.telemetry.emit("attempt.reclaimed", event_id=row.id, verdict=state, types=types)
        if state is State.DEAD_LETTERED:
            poison = decided.verdict.reason
            self.telemetry.emit("event.dead_lettered", event_id=row.id, event_type=row.event_type, reason=poison)
        if state is State.QUEUED:
            self.publisher.offer([row.entry])
