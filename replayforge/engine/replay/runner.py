"""Carries bulk replays on: batch after batch at their rate, watching how the replayed events end."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from replayforge import crashpoints
from replayforge.domain.bulk_replay import AT_WORK, JobState, Move, ReplayJob, Take, next_step
from replayforge.domain.clock import MICROSECONDS_PER_SECOND, Clock
from replayforge.domain.errors import Unavailable
from replayforge.domain.lifecycle import State
from replayforge.engine.dispatch.publisher import Publisher
from replayforge.engine.service_loop import run_until
from replayforge.stores.store import Store
from replayforge.stores.tallies import deferred_of
from replayforge.telemetry import Telemetry

BATCH_MAX = 500
BATCH_SECONDS = 0.25  # how much of its rate a job takes at once
LOOK_MAX = 1_000
LOOK_SECONDS = 0.25
CATCH_UP_SECONDS = 0.05
IDLE_SECONDS = 1.0
# Without a rate a job goes as fast as the workers do: replayed events are older than what comes in, so a larger queue
# of them would only make fresh events wait.
QUEUED_MAX = 1_000
QUEUE_SECONDS = 0.1


@dataclass(slots=True)
class JobPosition:
    """Where this process is with a job; forgotten without harm. Times are seconds of the monotonic clock."""

    take_at: float = 0.0
    look_at: float = 0.0
    looked_through: int = 0


class ReplayRunner:
    """Every step is one transaction decided by the job's row alone, so any daemon may take it, after any crash."""

    name = "replays"

    def __init__(
        self, store: Store, publisher: Publisher, signals: Collection[str], clock: Clock, telemetry: Telemetry
    ) -> None:
        self.store = store
        self.publisher = publisher
        self.signals = signals
        self.clock = clock
        self.telemetry = telemetry
        self.news = asyncio.Event()
        self.places: dict[int, JobPosition] = {}

    def wake(self) -> None:
        """Say that a job was made or moved."""
        self.news.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Carry on whatever job there is until told to stop."""
        await run_until(stopping, self.tick, wake=self.news)

    async def tick(self) -> float:
        """Give every job its turn and return the seconds until the next one is due."""
        try:
            return await self.carry_all_on()
        except Unavailable:
            # A batch whose answer was lost may have been committed, and nobody published it.
            self.publisher.fall_behind()
            raise

    async def carry_all_on(self) -> float:
        """Do so once."""
        jobs = await self.store.active_replays()
        self.places = {job.seq: self.places.get(job.seq) or JobPosition() for job in jobs}
        return min([await self.carry_on(job, self.places[job.seq]) for job in jobs], default=IDLE_SECONDS)

    async def carry_on(self, job: ReplayJob, place: JobPosition) -> float:
        """Do what the job has to do next, look after what it has replayed, and return when it wants its next turn."""
        pause_seconds = await self.step(job, place)
        if job.open:
            pause_seconds = min(pause_seconds, await self.follow(job, place))
        return pause_seconds

    async def step(self, job: ReplayJob, place: JobPosition) -> float:
        """Do what the job has to do next; returns the seconds until it may have more to do."""
        match next_step(job):
            case Take():
                return await self.take(job, place)
            case Move(target, note):
                now_us = self.clock.now_us()
                # The only state to pause in by itself is the canary; whoever resumes it means the rest.
                if await self.store.move_replay(job, target, resumes_as=JobState.RUNNING, note=note, now_us=now_us):
                    self.telemetry.emit("replay.moved", replay=job.id, state=target.value, note=note)
                return 0.0
        return IDLE_SECONDS

    async def take(self, job: ReplayJob, place: JobPosition) -> float:
        """Replay the next members, unless the job's rate or the queue asks for patience."""
        if (patience := place.take_at - self.clock.monotonic()) > 0:
            return patience
        if job.rate_per_second is None and await self.queue_is_long():
            return QUEUE_SECONDS
        done = await self.store.advance_replay(
            job.seq, batch_size(job.rate_per_second), self.clock.now_us(), self.signals
        )
        if done is None:
            return LOOK_SECONDS
        if done.entries or done.skipped:
            crashpoints.reach("replay.committed")
            self.publisher.offer([*done.entries, *done.besides])
            self.telemetry.emit("replay.advanced", len(done.entries), replay=job.id, skipped=done.skipped)
        pause_seconds = done.wait_us / MICROSECONDS_PER_SECOND
        place.take_at = self.clock.monotonic() + pause_seconds
        return pause_seconds

    async def queue_is_long(self) -> bool:
        """Tell whether the workers have enough to do already."""
        _, tallies = await self.store.ledger_snapshot()
        return tallies.get(State.QUEUED, 0) - sum(deferred_of(tallies).values()) >= QUEUED_MAX

    async def follow(self, job: ReplayJob, place: JobPosition) -> float:
        """Count those of the next replayed members that came to their ends; returns when to look again."""
        if (patience := place.look_at - self.clock.monotonic()) > 0:
            return patience
        after_seq, ended = place.looked_through, 0
        any_ended, place.looked_through = await self.store.any_replay_ended(job.seq, after_seq, LOOK_MAX)
        if any_ended:
            followed = await self.store.follow_replay(job.seq, after_seq, LOOK_MAX, self.clock.now_us())
            ended, place.looked_through = followed.ended, followed.next_seq
            self.telemetry.emit("replay.followed", ended, replay=job.id)
        pause_seconds = look_again_seconds(job, ended)
        place.look_at = self.clock.monotonic() + pause_seconds
        return pause_seconds


def look_again_seconds(job: ReplayJob, ended: int) -> float:
    """Return when to look at a job's open members again, after a look that found so many at their ends."""
    if ended > LOOK_MAX / 2:
        return CATCH_UP_SECONDS
    return LOOK_SECONDS if ended or job.state in AT_WORK else IDLE_SECONDS


def batch_size(rate_per_second: float | None) -> int:
    """Return how many members a job takes at once."""
    if rate_per_second is None:
        return BATCH_MAX
    return max(1, min(BATCH_MAX, int(rate_per_second * BATCH_SECONDS)))
