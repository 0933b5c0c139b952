"""What people do with bulk replays: look what one would take, make one, pause it, resume it, cancel it."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from replayforge import crashpoints
from replayforge.domain.acting import acting, signed
from replayforge.domain.bulk_replay import IDS_MAX, JOB_TRANSITIONS, JobState, Preview, ReplayJob, ReplayOrder, Skip
from replayforge.domain.clock import Clock, to_us
from replayforge.domain.errors import Conflict, NotFound, Rejected
from replayforge.domain.lifecycle import REPLAYABLE, REPLAYABLE_WITHOUT_FORCE, State, held_way_out
from replayforge.domain.reports import EventFilter
from replayforge.stores.store import Store
from replayforge.telemetry import Telemetry

ID_FORM = re.compile(r"rpl_([1-9][0-9]{0,17})")
RETIRED_PER_STEP_MAX = 5_000
RETIRE_STEPS_MAX = 20


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which events are meant: those that pass a filter, or those named. Succeeded ones are meant only with `force`."""

    wanted: EventFilter | None = None
    ids: tuple[str, ...] = ()
    force: bool = False

    @property
    def states(self) -> frozenset[State]:
        """The states from which the named events may be replayed."""
        return REPLAYABLE if self.force else REPLAYABLE_WITHOUT_FORCE

    def check(self) -> None:
        """Raise Rejected when a bulk replay of these events makes no sense."""
        if self.wanted is None:
            if not 0 < len(self.ids) <= IDS_MAX:
                raise Rejected(f"Name 1 to {IDS_MAX:,} events by their ids, or choose them by a filter.")
            return
        state = self.wanted.state
        if state not in REPLAYABLE:
            finished = ", ".join(sorted(REPLAYABLE))
            way_out = f" {held_way_out('ID')}" if state is State.HELD else ""
            raise Rejected(f"Only finished events can be replayed: filter by one of the states {finished}.{way_out}")
        if state not in self.states:
            raise Rejected("Succeeded events run once more only with force; say so if that is meant.")


class ReplayJobs:
    """Makes bulk replays and moves them by hand; `wake` tells whoever carries them on that there is news."""

    def __init__(self, store: Store, wake: Callable[[], None], clock: Clock, telemetry: Telemetry) -> None:
        self.store = store
        self.wake = wake
        self.clock = clock
        self.telemetry = telemetry

    async def preview(self, chosen: Chosen, begins_from: str | None = None) -> Preview:
        """Return what a bulk replay of these events from there would take; raises Rejected."""
        chosen.check()
        if chosen.wanted is not None:
            return await self.store.preview_replay(chosen.wanted, begins_from)
        return await self.store.preview_replay_of(chosen.ids, chosen.states, begins_from)

    async def create(self, chosen: Chosen, order: ReplayOrder) -> tuple[ReplayJob, bool]:
        """Make a bulk replay of these events with its membership frozen; returns it, and whether it is new.

        A request key that has made one before returns that one. Raises Rejected, or Conflict when another number of
        events fits than was expected; nothing was done then.
        """
        chosen.check()
        if not order.reason.strip():
            raise Rejected("A bulk replay needs a reason, so that the next person knows why.")
        order = replace(order, digest=digest(chosen, order), acted_by=acting.get())
        job, is_new = await self.store.create_replay(
            order, chosen.wanted, ids=chosen.ids, states=chosen.states, now_us=self.clock.now_us()
        )
        if job.digest != order.digest:
            raise Rejected(f"The key {order.request_key!r} has made {job.id} of other content; use a key of its own.")
        if is_new:
            crashpoints.reach("replay.created")
            self.telemetry.emit("replay.created", replay=job.id, members=job.total, reason=job.reason)
        self.wake()
        return job, is_new

    async def find(self, job_id: str) -> tuple[ReplayJob, list[Skip]]:
        """Return a bulk replay and why members of it were left alone; raises NotFound."""
        named = ID_FORM.fullmatch(job_id)
        found = await self.store.find_replay(int(named[1])) if named else None
        if found is None:
            raise NotFound(f"There is no bulk replay {job_id!r}.")
        return found

    async def list(self, before_seq: int | None, limit: int) -> list[ReplayJob]:
        """Return bulk replays, newest first."""
        return await self.store.list_replays(before_seq=before_seq, limit=limit)

    async def pause(self, job_id: str) -> ReplayJob:
        """Let a bulk replay rest where it is; what it has replayed runs on."""
        job, _ = await self.find(job_id)
        return await self.move(job, JobState.PAUSED, resumes_as=job.state, note=signed("Paused by hand") + ".")

    async def resume(self, job_id: str) -> ReplayJob:
        """Let a paused bulk replay go on where it was."""
        job, _ = await self.find(job_id)
        if job.state is not JobState.PAUSED:
            raise Conflict(f"Bulk replay {job.id} is {job.state}; only a paused one can be resumed.")
        return await self.move(job, job.resumes_as, resumes_as=job.resumes_as, note="")

    async def cancel(self, job_id: str) -> ReplayJob:
        """End a bulk replay for good; what it has replayed runs on, and the rest stays as it is."""
        job, _ = await self.find(job_id)
        return await self.move(job, JobState.CANCELLED, resumes_as=job.state, note=signed("Cancelled by hand") + ".")

    async def move(self, job: ReplayJob, target: JobState, *, resumes_as: JobState, note: str) -> ReplayJob:
        """Move a job and return it as it is now; Conflict when it cannot be, or moved meanwhile."""
        if target not in JOB_TRANSITIONS[job.state]:
            raise Conflict(f"Bulk replay {job.id} is {job.state} and cannot become {target}.")
        now_us = self.clock.now_us()
        if not await self.store.move_replay(job, target, resumes_as=resumes_as, note=note, now_us=now_us):
            raise Conflict(f"Bulk replay {job.id} moved on a moment ago; look at it again.")
        self.telemetry.emit("replay.moved", replay=job.id, state=target.value, note=note)
        self.wake()
        return (await self.find(job.id))[0]

    async def retire(self, now_us: int | None, kept_seconds: float) -> int:
        """Remove bulk replays that came to their ends so long ago, piece by piece; 0 keeps them for ever.

        Nothing is removed while the time is not known for sure.
        """
        if now_us is None or kept_seconds <= 0:
            return 0
        before_us = now_us - to_us(kept_seconds)
        retired = 0
        for _ in range(RETIRE_STEPS_MAX):
            step = await self.store.retire_replays(before_us, RETIRED_PER_STEP_MAX)
            retired += step
            if not step:
                break
        return retired


def digest(chosen: Chosen, order: ReplayOrder) -> str:
    """Return what tells whether two requests ask for the same."""
    begins_from = order.selection.get("from")
    asked = (chosen, order.reason, order.members_max, order.canary, order.rate_per_second, begins_from)
    return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()
