"""A worker: takes one event at a time from the workbench, runs its handler, settles the outcome."""

import asyncio
from typing import Any

from replayforge.domain.errors import Unavailable
from replayforge.domain.event import Claimed
from replayforge.domain.lifecycle import State
from replayforge.domain.recovery import InFlight, after_crash
from replayforge.engine.chaos import Chaos
from replayforge.engine.execution import Rules, execute, interruption
from replayforge.engine.gates import Gates
from replayforge.engine.handlers import Handlers
from replayforge.engine.outage import Outage
from replayforge.engine.publisher import Publisher
from replayforge.engine.settler import Settler
from replayforge.engine.workbench import Workbench
from replayforge.stores.store import Store
from replayforge.stores.transactions import Settlement
from replayforge.telemetry import Telemetry

# A handler that never waits keeps the loop to itself; after so many in a row the others have their turn.
TURN_ATTEMPTS = 16


class Worker:
    """One of N coroutines that run handlers. `busy_since_us` is set while a handler runs."""

    def __init__(
        self,
        name: str,
        bench: Workbench,
        handlers: Handlers,
        gates: Gates,
        settler: Settler,
        store: Store,
        publisher: Publisher,
        rules: Rules,
        telemetry: Telemetry,
        chaos: Chaos | None = None,
    ) -> None:
        self.name = name
        self.bench = bench
        self.handlers = handlers
        self.gates = gates
        self.settler = settler
        self.store = store
        self.publisher = publisher
        self.rules = rules
        self.telemetry = telemetry
        self.chaos = chaos
        self.busy_since_us: int | None = None
        self.task: asyncio.Task[Any] | None = None
        self.abandoned: str | None = None
        self.settled_count = 0
        self.details: dict[str, Any] = {}

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until told to stop and the bench is closed; the attempt that is running then may still finish."""
        self.task = asyncio.current_task()
        self.abandoned = None
        while not stopping.is_set():
            claimed = await self.bench.take(self.name)
            if claimed is None:
                return
            # A lease that could not be renewed in time may be somebody else's by now, whatever kept us from looking.
            if self.gates.shuts_out(claimed) or not self.bench.leases.begin(claimed.lease):
                await self.hand_back(claimed)
                continue
            await self.work(claimed)
            if self.settled_count % TURN_ATTEMPTS == 0:
                await asyncio.sleep(0)

    async def work(self, claimed: Claimed) -> None:
        """Run one attempt and hand its outcome in; the next event may be taken while that one is being committed."""
        self.busy_since_us = self.rules.clock.now_us()
        self.details = {}
        try:
            settlement, thread = await execute(
                claimed, self.name, self.handlers, self.rules, self.chaos, self.telemetry, self.details
            )
        except asyncio.CancelledError:
            if self.abandoned is None:
                raise
            settlement, thread = self.cut_short(claimed, self.abandoned), None
        if self.abandoned is not None and self.task is not None:
            self.task.uncancel()
            self.abandoned = None
        self.busy_since_us = None
        self.gates.note(settlement)
        await self.settler.hand_in(settlement)
        self.settled_count += 1
        self.bench.let_go(self.name)
        if thread is not None:
            await self.wait_for_thread(thread, claimed.event.event_type)

    async def hand_back(self, claimed: Claimed) -> None:
        """Return an event that may not begin now; what the store does not take is found by the sweep."""
        try:
            await self.store.hand_back([claimed.lease], self.rules.clock.now_us())
        except Unavailable:
            return
        finally:
            self.bench.let_go(self.name)
            self.bench.put_away(claimed.lease)
        self.publisher.offer([(claimed.event.id, claimed.event.run)])

    async def wait_for_thread(self, thread: asyncio.Future[Any], event_type: str) -> None:
        """Keep the slot taken until a plain function returns that ran on after its time-out: it cannot be stopped."""
        self.bench.hanging += 1
        try:
            with self.gates.lingering(event_type):
                await asyncio.wait([thread])
        finally:
            self.bench.hanging -= 1

    async def interrupt(self) -> None:
        """Settle the attempt that the daemon's end cut short as `interrupted`; call it once `run` has ended."""
        claimed = self.bench.let_go(self.name)
        if claimed is not None:
            await self.settler.hand_in(self.cut_short(claimed))

    def abandon(self, reason: str) -> bool:
        """Cut the running attempt short, because its lease is lost or in doubt; False when no handler runs.

        It is settled as `interrupted`, which counts if the lease stands after all and is fenced if not.
        """
        if self.busy_since_us is None or self.task is None or self.abandoned is not None:
            return False
        self.abandoned = reason
        self.task.cancel()
        return True

    def cut_short(self, claimed: Claimed, *reason: str) -> Settlement:
        """Return what to settle for an attempt that could not end by itself."""
        now_us = self.rules.clock.now_us()
        return interruption(claimed, self.name, self.busy_since_us or now_us, now_us, *reason)

    async def charge_crash(self, error: BaseException) -> bool:
        """Charge a crash to the event that was in hand and take the event back; False when there was none.

        Until the store has taken this, the worker stays away: the event must not be forgotten.
        """
        claimed = self.bench.in_hands.get(self.name)
        if claimed is None:
            return False
        self.telemetry.emit("worker.crashed", worker=self.name, event_id=claimed.event.id, error=repr(error))
        outage = Outage(self.telemetry)
        try:
            while not await self.taken_back(claimed, error, outage):
                continue
        finally:
            # Whatever became of it, the event leaves this worker's hands; the sweep finds what was not committed.
            self.bench.let_go(self.name)
            self.bench.put_away(claimed.lease)
            self.busy_since_us = None
        return True

    async def taken_back(self, claimed: Claimed, error: BaseException, outage: Outage) -> bool:
        """Try once to commit what becomes of the event; True when there is nothing more to try."""
        try:
            await self.take_back(claimed, f"The worker died: {type(error).__name__}: {error}")
        except Unavailable as unavailable:
            await outage.wait(unavailable, self.settler.giving_up)
            return self.settler.giving_up.is_set()
        except Exception as defect:
            self.telemetry.emit("attempt.unsettled", event_id=claimed.event.id, error=repr(defect))
        return True

    async def take_back(self, claimed: Claimed, reason: str) -> None:
        """Commit what becomes of the event whose worker died, and publish it again if it is to run again."""
        row, now_us = claimed.event, self.rules.clock.now_us()
        lost = InFlight(
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
        decided = after_crash(lost, hold=self.handlers.holds_on_crash(row.event_type))
        await self.store.reclaim([(row.seq, decided)], reason, now_us)
        state, types = decided.verdict.state, {row.event_type: 1}
        self.telemetry.emit("attempt.reclaimed", event_id=row.id, verdict=state, types=types)
        if state is State.DEAD_LETTERED:
            poison = decided.verdict.reason
            self.telemetry.emit("event.dead_lettered", event_id=row.id, event_type=row.event_type, reason=poison)
        if state is State.QUEUED:
            self.publisher.offer([(row.id, row.run)])
