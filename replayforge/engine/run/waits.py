"""What an attempt waits for longer than a worker is held for, and when its event is parked for it."""

import asyncio
from asyncio import current_task
from collections.abc import Callable, Sequence
from contextvars import Context as Variables
from typing import Any

from replayforge.domain.journal import AwaitedEvent, StepRecord
from replayforge.engine.run.attempt import RunningAttempt
from replayforge.engine.run.journal_records import JournalRecords
from replayforge.engine.run.reentry import waiter_of

LOOK_SECONDS = 0.1
# How long nothing of a handler with several tasks may have run before it is taken to wait for what its journal waits.
IDLE_SECONDS = 1.0
# How often an attempt that cannot be parked looks whether what it waits for has come.
POLL_SECONDS = 1.0


class StandingWait:
    """Steps that one task waits for: `future` is resolved when somebody should look whether one has come true.

    `retried` says that it is a step which is to be tried again.
    """

    def __init__(self, records: Sequence[StepRecord], future: "asyncio.Future[None]", *, retried: bool) -> None:
        self.records = records
        self.future = future
        self.retried = retried
        self.task = current_task()


def over() -> bool:
    """Stand for what an attempt is asked that has ended: it is not busy, nor can it be parked."""
    return False


class Waits:
    """The standing waits of one attempt. Once nothing else of its handler goes on, the attempt is parked.

    `is_busy` says whether a step's function, or a commit, is under way.
    """

    def __init__(
        self, attempt: RunningAttempt, records: JournalRecords, is_busy: Callable[[], bool], park: Callable[[], object]
    ) -> None:
        self.attempt = attempt
        self.records = records
        self.is_busy = is_busy
        self.park = park
        self.loop = attempt.loop
        self.standing: list[StandingWait] = []
        self.blocked: tuple[Any, ...] = ()
        self.blocked_since = 0.0
        self.polled_at = self.loop.time()
        self.timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Ask for nothing any more, since the attempt has ended; those who answer can end as well."""
        self.is_busy = self.park = over

    async def stand_until(self, record: StepRecord, due_at_us: int | None, *, retried: bool = False) -> None:
        """Return when the time is over, which it may be already; the attempt may be parked before that."""
        while self.records.seconds_until(due_at_us) > 0:
            await self.keep(record)
            await self.stand([record], retried=retried)

    async def keep(self, record: StepRecord) -> None:
        """Commit that a step waits, where others of the handler may go on for long before it can be parked."""
        alone = {current_task(), self.attempt.thread_waiter}.issuperset(self.attempt.live_tasks())
        if not alone and self.records.known.get((record.kind, record.step)) is not record:
            await self.records.commit(record)

    async def stand(self, records: Sequence[StepRecord], *, retried: bool = False) -> None:
        """Return when it is time to look whether one of these has come true; the attempt may be parked before that."""
        wait = StandingWait(records, self.loop.create_future(), retried=retried)
        self.standing.append(wait)
        self.blocked = ()
        self.look_in(0.0)
        try:
            await wait.future
        finally:
            self.standing.remove(wait)

    def look_in(self, seconds: float) -> None:
        """Look after so many seconds, in the daemon's own name."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = self.loop.call_later(seconds, self.look, context=Variables())

    def look(self) -> None:
        """Wake what is due, or park the attempt, or look again later."""
        self.timer = None
        if not self.standing or self.attempt.is_ending:
            return
        soonest = min((self.seconds_left(wait) for wait in self.standing), default=0.0)
        for wait in self.standing:
            if self.seconds_left(wait) <= 0 and not wait.future.done():
                wait.future.set_result(None)
        if soonest <= self.records.tools.in_place_seconds:
            self.look_in(max(soonest, 0.001))
        elif self.is_idle(self.loop.time()):
            self.park()
        else:
            self.poll(self.loop.time())
            self.look_in(LOOK_SECONDS)

    def poll(self, now: float) -> None:
        """Have those look now and then who wait for somebody else, since an attempt that goes on is not told."""
        if now - self.polled_at < POLL_SECONDS:
            return
        self.polled_at = now
        for wait in self.standing:
            if any(record.event_type is not None for record in wait.records) and not wait.future.done():
                wait.future.set_result(None)

    def seconds_left(self, wait: StandingWait) -> float:
        """Return for how long a wait surely stands yet."""
        dues = [record.due_at_us for record in wait.records if record.due_at_us is not None]
        return min((self.records.seconds_until(due) for due in dues), default=float("inf"))

    def is_idle(self, now: float) -> bool:
        """Tell whether nothing of the handler can go on before a wait comes true, as far as anybody can know."""
        if self.is_busy():
            self.blocked = ()
            return False
        tasks = self.attempt.live_tasks()
        waiting = {wait.task for wait in self.standing}
        if all(task in waiting or task is self.attempt.thread_waiter for task in tasks):
            return True
        blocked = tuple((task, waiter_of(task)) for task in tasks)
        if blocked != self.blocked or any(waiter is None or waiter.done() for _, waiter in blocked):
            self.blocked, self.blocked_since = blocked, now
        return now - self.blocked_since >= IDLE_SECONDS

    @property
    def is_only_waiting(self) -> bool:
        """Whether every task of the handler but its own stands in a wait, as far as anybody can tell."""
        waiting = {wait.task for wait in self.standing}
        return all(task in waiting or task is self.attempt.task for task in self.attempt.live_tasks())

    def pending(self) -> tuple[StepRecord, ...]:
        """Return the steps that wait, as they are to be recorded."""
        return tuple(record for wait in self.standing for record in wait.records)

    def awaited(self) -> tuple[AwaitedEvent, ...]:
        """Return which events of the workflow are waited for."""
        return tuple(
            AwaitedEvent(record.step, record.event_type)
            for record in self.pending()
            if record.event_type is not None and record.other_id is None
        )

    @property
    def only_retries(self) -> bool:
        """Whether all that is waited for is the next try of a step."""
        return all(wait.retried for wait in self.standing)
