"""Commits steps in batches; a step that has returned is kept until the store has taken it."""

import asyncio
from asyncio import shield
from collections.abc import Callable
from itertools import count
from typing import Any

from replayforge import crashpoints
from replayforge.batching import Batcher
from replayforge.domain.clock import Clock
from replayforge.domain.event import StoredEvent
from replayforge.domain.journal import Journal, StepRecord
from replayforge.engine.run.recorded_steps import tell_recorded
from replayforge.engine.service_loop import Outage
from replayforge.event_loop import own_context, own_task
from replayforge.stores.journals import SignalTaken, StepCommit, StepCommitted
from replayforge.stores.store import Store
from replayforge.telemetry import Telemetry

ASKED_MAX = 10_000

Told = Callable[[StepCommit, StepCommitted | None], None]
Handed = tuple[StepCommit, Told]


class Recorder:
    """Joins the steps of all running handlers into few commits, and tries again for as long as the store is away.

    Its calls may be awaited in user code's tasks: what they begin goes on when those are cancelled.
    """

    def __init__(self, store: Store, clock: Clock, telemetry: Telemetry) -> None:
        self.store = store
        self.clock = clock
        self.telemetry = telemetry
        self.batcher: Batcher[Handed, StepCommitted] = Batcher(self.commit)
        self.outage = Outage(telemetry)
        self.giving_up = asyncio.Event()
        self.asked_to_end: set[str] = set()
        telemetry.listen(self.note_request, ["event.cancel_requested"])

    def note_request(self, _name: str, _count: int, fields: dict[str, Any]) -> None:
        """Note an event that is asked to end, so that one which runs here hears of it before its next commit."""
        if len(self.asked_to_end) >= ASKED_MAX:  # the store knows of them all
            self.asked_to_end.clear()
        self.asked_to_end.add(fields["event_id"])

    def forget_request(self, event_id: str) -> None:
        """Note that an event that was asked to end runs here no longer."""
        self.asked_to_end.discard(event_id)

    def give_up(self) -> None:
        """Try no commit again from now on: the daemon ends."""
        self.giving_up.set()

    def submit(self, commit: StepCommit, told: Told) -> "asyncio.Future[StepCommitted]":
        """Hand in steps; the future resolves once they are durable, or found fenced.

        `told` hears of it before, also where nobody awaits the future any more; of a commit that nobody knows the end
        of it hears None.
        """
        handed = (commit, told)
        if self.batcher.runner is None:  # its task is to be the daemon's own
            return own_context().run(self.batcher.submit, handed)
        return self.batcher.submit(handed)

    async def read(self, event: StoredEvent) -> Journal:
        """Return the event's journal, however long the store takes to answer."""
        reading = self.outage.outlast(lambda: self.store.read_journal(event, self.clock.now_us()), self.giving_up)
        return await shield(own_task(reading))

    async def take_signal(self, commit: StepCommit, taken: StepRecord, timed_out: StepRecord | None) -> SignalTaken:
        """Take the oldest kept signal for a wait, or record that its time is over."""
        tries = count()

        async def take() -> SignalTaken:
            again = next(tries) > 0
            return await self.store.take_signal(commit, taken, timed_out, self.clock.now_us(), again=again)

        return await shield(own_task(self.outage.outlast(take, self.giving_up)))

    async def commit(self, batch: list[Handed]) -> list[StepCommitted]:
        """Commit, however long the store takes to answer; only a daemon that ends gives up."""
        commits = [commit for commit, _ in batch]
        try:
            committed = await self.outage.outlast(lambda: self.store.record_steps(commits), self.giving_up)
            crashpoints.reach("step.committed", len(commits))
        except BaseException:
            for commit, told in batch:
                told(commit, None)
            raise
        for (commit, told), said in zip(batch, committed, strict=True):
            told(commit, said)
        self.report(commits, committed)
        return committed

    def report(self, commits: list[StepCommit], committed: list[StepCommitted]) -> None:
        """Tell how many steps came to an end, and how."""
        records = [
            record
            for commit, one in zip(commits, committed, strict=True)
            if not one.fenced
            for record in commit.records
        ]
        tell_recorded(self.telemetry, records)
