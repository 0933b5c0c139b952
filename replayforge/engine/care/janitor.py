"""The chores that keep promises true after crashes: each one idempotent, bounded, and due at its own interval."""

import asyncio
import math
import random
import shutil
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from replayforge import crashpoints
from replayforge.domain.clock import DRIFT_SECONDS_MAX, MICROSECONDS_PER_SECOND, Clock, to_us
from replayforge.domain.errors import Fatal, Unavailable
from replayforge.domain.event import Entry
from replayforge.domain.lifecycle import State
from replayforge.engine.service_loop import run_until
from replayforge.forgelog.log import ForgeLog
from replayforge.stores.store import Store
from replayforge.streams.stream import Stream
from replayforge.telemetry import Telemetry
from replayforge.threads import in_thread

PROMOTED_PER_STEP_MAX = 1000
RETIRED_PER_STEP_MAX = 500
NEXT_STEP_SECONDS = 0.05
CLOCK_STEP_SECONDS = 0.001  # a timer may fire so much too early, and would find nothing due yet
JITTER = 0.1
# A chore that is due within this part of its interval is done along with others, so that an idle daemon wakes up for
# all of them at once instead of for each of them.
EARLY = 0.2


@dataclass(frozen=True, slots=True)
class Intervals:
    """How often each chore is due, in seconds; how long finished events are kept, 0 for ever; how much disk is left
    free."""

    promote_seconds: float = 0.5
    refill_seconds: float = 1.0
    stream_reclaim_seconds: float = 15.0
    stream_idle_seconds: float = 60.0
    retention_seconds: float = 60.0
    mirror_seconds: float = 1.0
    disk_seconds: float = 60.0
    disk_free_bytes_min: int = 0
    succeeded_kept_seconds: float = 0.0
    dead_kept_seconds: float = 0.0
    signals_kept_seconds: float = 0.0
    keys_kept_seconds: float = 0.0


@dataclass(slots=True)
class Chore:
    """One duty: what to do, how often, when next (monotonic seconds), and how it went last.

    A chore that works in steps says how much one does at most: after a full one it goes on as soon as the other chores
    have had their turn, for at its interval alone it would fall behind whatever comes in faster than that. One that
    knows when there is something to do next says so by `seconds_left`, and does not wait for its interval.
    """

    name: str
    interval_seconds: float
    work: Callable[[], Awaitable[int]]
    step_max: int | None = None
    due_at: float = 0.0
    last_count: int = 0
    last_error: str | None = None
    seconds_left: float = math.inf

    def is_due(self, now: float) -> bool:
        """Tell whether it is time, or nearly so."""
        return self.due_at - EARLY * self.interval_seconds <= now

    @property
    def more_to_do(self) -> bool:
        """Tell whether the last step was a full one."""
        return self.last_error is None and self.step_max is not None and self.last_count >= self.step_max


class Janitor:
    """Does the chores that are due, one after another; one that fails is tried again later and stops no other.

    `projected` is how far the log is in the store, `publish` takes the entries of what was queued,
    `note_disk` hears whether the disk is nearly full, and `store_now_us` is the time by which rows may be removed, None
    while no clock can be trusted.
    """

    name = "janitor"

    def __init__(
        self,
        log: ForgeLog,
        store: Store,
        stream: Stream,
        clock: Clock,
        telemetry: Telemetry,
        *,
        intervals: Intervals,
        rng: random.Random,
        projected: Callable[[], int],
        publish: Callable[[Sequence[Entry]], None],
        note_disk: Callable[[bool], None],
        store_now_us: Callable[[], int | None],
        signals: Collection[str] = (),
        further_chores: Sequence[Chore] = (),
    ) -> None:
        self.log = log
        self.store = store
        self.stream = stream
        self.clock = clock
        self.telemetry = telemetry
        self.intervals = intervals
        self.rng = rng
        self.projected = projected
        self.publish = publish
        self.note_disk = note_disk
        self.store_now_us = store_now_us
        self.signals = signals
        self.mirrored = -1
        self.drift_seconds = 0.0
        self.disk_low = False
        self.promotion = Chore("promote", intervals.promote_seconds, self.promote, PROMOTED_PER_STEP_MAX)
        self.chores = [
            self.promotion,
            Chore("mirror", intervals.mirror_seconds, self.mirror),
            Chore("clock", intervals.mirror_seconds, self.look_at_clock),
            Chore("disk", intervals.disk_seconds, self.look_at_disk),
            Chore("low_disk", intervals.refill_seconds, self.look_at_low_disk),
            Chore("probe_store", intervals.refill_seconds, self.probe_store),
            Chore("shorten_wal", intervals.refill_seconds, self.shorten_wal),
            Chore("stream_reclaim", intervals.stream_reclaim_seconds, self.reclaim_entries),
            Chore("scrub", intervals.mirror_seconds, self.scrub),
            Chore("promote_stranded", intervals.retention_seconds, self.promote_stranded, PROMOTED_PER_STEP_MAX),
            Chore("mend", intervals.retention_seconds, self.mend),
            Chore("retain_log", intervals.retention_seconds, self.retain_log),
            Chore("retire_events", intervals.retention_seconds, self.retire_events, RETIRED_PER_STEP_MAX),
            Chore("forget_keys", intervals.retention_seconds, self.forget_keys, RETIRED_PER_STEP_MAX),
            *further_chores,
        ]

    async def run(self, stopping: asyncio.Event) -> None:
        """Do what is due until told to stop."""
        await run_until(stopping, self.tick)

    def add(self, chore: Chore) -> None:
        """Do one more chore from now on."""
        self.chores.append(chore)

    async def tick(self) -> float:
        """Do every chore that is due, or nearly so, and return the seconds until the next one is."""
        for chore in self.chores:
            if chore.is_due(self.clock.monotonic()):
                await self.carry_out(chore)
        return max(0.0, min(chore.due_at for chore in self.chores) - self.clock.monotonic())

    async def carry_out(self, chore: Chore) -> None:
        """Do one chore and note how it went."""
        try:
            chore.last_count = await chore.work()
            chore.last_error = None
        except Unavailable as error:
            chore.last_error = str(error)
        except Fatal:
            raise
        except Exception as error:
            chore.last_error = repr(error)
            self.telemetry.emit("chore.failed", chore=chore.name, error=chore.last_error)
        interval_seconds = NEXT_STEP_SECONDS if chore.more_to_do else chore.interval_seconds
        jitter = self.rng.uniform(1 - JITTER, 1 + JITTER)
        chore.due_at = self.clock.monotonic() + min(interval_seconds * jitter, chore.seconds_left)

    async def promote(self) -> int:
        """Queue what has waited for its time, and look again at the very time of what is next."""
        now_us, signals = self.clock.now_us(), sorted(self.signals)
        self.promotion.seconds_left = math.inf
        entries, due_us = await self.store.promote(now_us, PROMOTED_PER_STEP_MAX, signals=signals)
        if due_us is not None and (entries or due_us > now_us):  # else it is in the hands of another daemon
            seconds = (due_us - now_us) / MICROSECONDS_PER_SECOND + CLOCK_STEP_SECONDS
            self.promotion.seconds_left = max(seconds, NEXT_STEP_SECONDS)  # what falls due closely is queued together
        return self.publish_promoted(entries)

    async def mend(self) -> int:
        """Let go on who waits although what it waits for has come; that there is anybody is an error of ours."""
        entries = await self.store.mend(self.clock.now_us())
        if entries:
            self.telemetry.emit("event.repaired", len(entries))
            self.publish(entries)
        if lanes := await self.store.mend_lanes():
            self.telemetry.emit("event.repaired", lanes)
        return 0

    async def promote_stranded(self) -> int:
        """Queue the retries that a clock which was set back would keep waiting until it is there again.

        What was decided in a time yet to come was decided before the clock was set. A little of that is normal where
        several daemons share a store: no two clocks are quite alike.
        """
        entries = await self.store.promote_stranded(
            self.clock.now_us(), to_us(DRIFT_SECONDS_MAX), PROMOTED_PER_STEP_MAX
        )
        return self.publish_promoted(entries)

    def publish_promoted(self, entries: Sequence[Entry]) -> int:
        """Put on the stream what was just queued; returns how many."""
        if entries:
            crashpoints.reach("promote.committed")
            self.publish(entries)
            self.telemetry.emit("event.promoted", len(entries))
        return len(entries)

    async def look_at_clock(self) -> int:
        """Warn each time the wall clock was set, also when it was set right; returns how often that was now, 0 or 1."""
        drift_seconds = self.log.steady_clock.drift_seconds()
        if abs(drift_seconds - self.drift_seconds) <= DRIFT_SECONDS_MAX:
            return 0
        self.drift_seconds = drift_seconds
        remedy = "" if abs(drift_seconds) <= DRIFT_SECONDS_MAX else "set it right, or restart if it is right now"
        self.telemetry.emit("clock.jumped", drift_seconds=round(drift_seconds, 3), remedy=remedy)
        return 1

    async def mirror(self) -> int:
        """Tell the log how far the store has come, so that an older store is found out at the next start."""
        projected = self.projected()
        if projected == self.mirrored:
            return 0
        await in_thread(self.log.bind_store, self.store.store_id, projected)
        self.mirrored = projected
        return 1

    async def look_at_disk(self) -> int:
        """Close ingest while the disk is nearly full, before log and store meet its end; returns the free bytes."""
        free = shutil.disk_usage(self.log.storage.directory).free
        self.disk_low = free < self.intervals.disk_free_bytes_min
        self.note_disk(self.disk_low)
        return free

    async def look_at_low_disk(self) -> int:
        """Open ingest soon after there is room again; returns 1 while there is not enough."""
        if self.disk_low:
            await self.look_at_disk()
        return int(self.disk_low)

    async def shorten_wal(self) -> int:
        """Have the store's write-ahead file emptied when it is long; returns its bytes."""
        self.store.shorten_wal()
        return self.store.wal_bytes

    async def probe_store(self) -> int:
        """Find out whether the store can be written again, which nobody else would while there is nothing to write.

        Raises Fatal when its files are gone: that is no state to go on in.
        """
        self.store.check_place()
        return int(await self.store.probe())

    async def reclaim_entries(self) -> int:
        """Make entries available again whose reader went away between read and ack."""
        deliveries = await self.stream.reclaim(self.intervals.stream_idle_seconds, 1000)
        if deliveries:
            await self.stream.hand_back(deliveries)
        return len(deliveries)

    async def scrub(self) -> int:
        """Read a little of the log again, to find damage before somebody needs the record."""
        step = await in_thread(self.log.scrub_step)
        return step.bytes

    async def retain_log(self) -> int:
        """Remove whole segments of the log that nobody needs any more."""
        retained = await in_thread(self.log.retain, self.projected())
        if retained.segments:
            crashpoints.reach("retention.unlinked")
        return retained.segments

    async def retire_events(self) -> int:
        """Remove finished events that have been kept long enough, by a clock that can be trusted, and give up signals.

        In an embedded store, what ended while the clock was set back looks as old as the clock said it was.
        """
        now_us = self.store_now_us()
        if now_us is None:
            return 0
        kept_seconds = {
            State.SUCCEEDED: self.intervals.succeeded_kept_seconds,
            State.CANCELLED: self.intervals.succeeded_kept_seconds,
            State.DEAD_LETTERED: self.intervals.dead_kept_seconds,
            State.DISCARDED: self.intervals.dead_kept_seconds,
        }
        if (seconds := self.intervals.signals_kept_seconds) > 0:
            await self.store.discard_unclaimed(now_us - to_us(seconds), now_us, RETIRED_PER_STEP_MAX)
        retired = 0
        for state, seconds in kept_seconds.items():
            if seconds > 0:
                retired += await self.store.retire(state, now_us - to_us(seconds), RETIRED_PER_STEP_MAX, now_us=now_us)
        if retired:
            crashpoints.reach("retention.committed")
            self.telemetry.emit("event.retired", retired)
        return retired

    async def forget_keys(self) -> int:
        """Forget the keys of events that were removed long enough ago; from then on such a key makes a new event."""
        now_us, seconds = self.log.steady_clock.now_us(), self.intervals.keys_kept_seconds
        if now_us is None or seconds <= 0:
            return 0
        return await self.store.forget_keys(now_us - to_us(seconds), RETIRED_PER_STEP_MAX)
