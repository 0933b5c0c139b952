"""Makes the events of schedules when they are due: once each, however many daemons there are and whenever they die."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import msgspec

from replayforge import crashpoints
from replayforge.domain.admission import Pause
from replayforge.domain.clock import MICROSECONDS_PER_SECOND, Clock
from replayforge.domain.errors import NotFound, ReplayForgeError
from replayforge.domain.event import Content, EventRecord, StoredEvent
from replayforge.domain.identity import new_event_id, schedule_event_id
from replayforge.domain.schedule import (
    Schedule,
    Skipped,
    Why,
    is_ahead,
    next_due_us,
    passed_over,
    slot_text,
    slots_after,
    turn,
)
from replayforge.engine.accept.intake import KeyReused, Receipt
from replayforge.engine.service_loop import UNTIL_WOKEN, run_until
from replayforge.stores.batches import AdvancedSchedule, KnownSchedule, ResumedSchedule, ScheduleNote
from replayforge.stores.rows import StoredSchedule
from replayforge.stores.store import Store
from replayforge.telemetry import Telemetry
from replayforge.turns import computed

LOOK_SECONDS = 1.0  # so often is looked whether somebody has paused one, or the clock was set
SOON_SECONDS = 0.001
NOTES_KEPT = 100  # of each schedule
NEXT_SLOTS = 5
SLOT_SIZE = 256  # what one slot costs to find is as much as so many bytes cost
TRIES = 5

Accept = Callable[[Sequence[EventRecord]], Awaitable[list[Receipt | ReplayForgeError]]]


@dataclass(frozen=True, slots=True)
class ScheduleStatus:
    """A schedule as people see it: its place, its next slots, its last event, and what was noted of it lately.

    It is not `in_force` when a daemon that was started later has another timing under the same name.
    """

    schedule: Schedule
    stored: StoredSchedule | None
    next_us: list[int]
    last_state: str | None
    notes: list[ScheduleNote]

    @property
    def pause(self) -> Pause | None:
        """The pause that somebody has put on it."""
        return None if self.stored is None else self.stored.pause

    @property
    def in_force(self) -> bool:
        """Whether this daemon makes its events."""
        return self.stored is not None and self.stored.timing == self.schedule.timing


class Scheduler:
    """Makes what schedules want, through `accept`, which returns once all of it is durable.

    The place of a schedule, in the store, moves only after that, so a daemon that dies in between makes the same events
    once more, which their ids prevent. A place beyond now came from a clock that was wrong; it is moved back.
    """

    name = "scheduler"

    def __init__(
        self,
        schedules: Sequence[Schedule],
        store: Store,
        accept: Accept,
        clock: Clock,
        telemetry: Telemetry,
        *,
        notes_kept: int = NOTES_KEPT,
    ) -> None:
        self.by_name = {schedule.name: schedule for schedule in schedules}
        self.store = store
        self.accept = accept
        self.clock = clock
        self.telemetry = telemetry
        self.notes_kept = notes_kept
        self.due: dict[str, tuple[int, int | None]] = {}  # for a place, when the next slot beyond it is due
        self.wake = asyncio.Event()

    @property
    def exclusive(self) -> frozenset[str]:
        """The origins of which no event may be queued while an earlier one is open."""
        return frozenset(one.origin for one in self.by_name.values() if one.overlap == "skip")

    async def enter(self) -> None:
        """Enter the schedules of this daemon in the store; one that is new there, or whose timing is, starts now."""
        now_us = self.clock.now_us()
        known = [KnownSchedule(name=one.name, timing=one.timing, place_us=now_us) for one in self.by_name.values()]
        if known:
            await self.store.enter_schedules(known, self.notes_kept)

    async def run(self, stopping: asyncio.Event) -> None:
        """Make events when they are due until told to stop."""
        await run_until(stopping, self.tick, wake=self.wake)

    async def tick(self) -> float:
        """Make what is due now; returns the seconds until somebody has to look again."""
        if not self.by_name:
            return UNTIL_WOKEN
        standing = await self.store.schedules()
        for name, schedule in self.by_name.items():
            stored = standing.get(name)
            if stored is not None and stored.timing == schedule.timing and stored.pause is None:
                await self.turn(schedule, stored.place_us)
            else:
                self.due.pop(name, None)
        return self.seconds_to_wait()

    def seconds_to_wait(self) -> float:
        """Return how long nothing is due, but never so long that nobody sees a pause or a clock that was set."""
        next_us = self.next_us()
        if next_us is None:
            return LOOK_SECONDS
        wait_us = next_us - self.clock.now_us()
        return min(LOOK_SECONDS, max(SOON_SECONDS, wait_us / MICROSECONDS_PER_SECOND))

    def next_us(self) -> int | None:
        """Return when the next slot of any schedule is due, as far as is known."""
        return min((due_us for _, due_us in self.due.values() if due_us is not None), default=None)

    async def turn(self, schedule: Schedule, place_us: int) -> None:
        """Do what is due for one schedule now, and then move its place."""
        now_us = self.clock.now_us()
        if is_ahead(place_us, now_us):
            self.due.pop(schedule.name, None)
            await self.move_back(schedule, place_us, now_us)
            return
        if not self.is_due(schedule, place_us, now_us):
            return
        size = SLOT_SIZE * (now_us - place_us) // MICROSECONDS_PER_SECOND
        wanted = await computed(turn, schedule, place_us, now_us, size=size)
        if wanted is None:
            return
        records = [slot_record(schedule, slot, now_us) for slot in wanted.slots]
        await self.make(records)
        if records:
            crashpoints.reach("schedule.appended", len(records))
        last = (wanted.slots[-1], records[-1].id) if records else (None, None)
        note = None if wanted.skipped is None else note_of(schedule, now_us, Why.MISSED, wanted.skipped)
        advanced = AdvancedSchedule(
            name=schedule.name,
            timing=schedule.timing,
            before_us=place_us,
            place_us=wanted.place_us,
            slot_us=last[0],
            event_id=last[1],
        )
        if not await self.store.advance_schedule(advanced, note, self.notes_kept):
            return
        crashpoints.reach("schedule.moved")
        self.due[schedule.name] = (wanted.place_us, next_due_us(schedule, wanted.place_us))
        if records:
            self.telemetry.emit("schedule.fired", len(records), schedule=schedule.name, event_id=records[-1].id)
        if note is not None:
            self.telemetry.emit("schedule.missed", note.slots, schedule=schedule.name)

    def is_due(self, schedule: Schedule, place_us: int, now_us: int) -> bool:
        """Tell whether a slot beyond its place is due."""
        known = self.due.get(schedule.name)
        if known is None or known[0] != place_us:
            known = self.due[schedule.name] = (place_us, next_due_us(schedule, place_us))
        return known[1] is not None and known[1] <= now_us

    async def make(self, records: Sequence[EventRecord]) -> None:
        """Return once the records are durable, or known; raises Unavailable while they cannot be accepted.

        Of one whose id is known the first stands, whatever it was then.
        """
        for outcome in await self.accept(records) if records else []:
            if isinstance(outcome, ReplayForgeError) and not isinstance(outcome, KeyReused):
                raise outcome

    async def move_back(self, schedule: Schedule, place_us: int, now_us: int) -> None:
        """Set a place to now that lies beyond it, and say so: what was made already is not made twice."""
        moved = AdvancedSchedule(
            name=schedule.name,
            timing=schedule.timing,
            before_us=place_us,
            place_us=now_us,
            slot_us=None,
            event_id=None,
        )
        note = note_of(schedule, now_us, Why.MOVED_BACK, Skipped(place_us, now_us, 0, is_capped=False))
        if await self.store.advance_schedule(moved, note, self.notes_kept):
            self.telemetry.emit(
                "schedule.moved_back", schedule=schedule.name, seconds=(place_us - now_us) / MICROSECONDS_PER_SECOND
            )

    # What people do

    def schedule(self, name: str) -> Schedule:
        """Return a schedule; raises NotFound."""
        found = self.by_name.get(name)
        if found is None:
            raise NotFound(f"There is no schedule {name!r}; add it as [[schedules]] to replayforge.toml.")
        return found

    async def fire(self, name: str) -> EventRecord:
        """Make an event of a schedule now, beside its slots; raises NotFound or Unavailable."""
        schedule, now_us = self.schedule(name), self.clock.now_us()
        record = record_of(schedule, new_event_id(now_us), None, now_us)
        await self.make([record])
        await self.store.note_schedule_run(name, record.id)
        self.telemetry.emit("schedule.fired", schedule=name, event_id=record.id)
        return record

    async def pause(self, name: str, reason: str, by: str) -> Pause:
        """Have a schedule make no events until somebody resumes it, on every daemon; raises NotFound, or Rejected.

        One that is paused already stays as it is.
        """
        wanted = Pause(self.schedule(name).name, reason, by, self.clock.now_us())
        await self.store.pause_schedule(wanted)
        pause = (await self.store.schedules())[name].pause or wanted
        if pause == wanted:
            self.telemetry.emit("schedule.paused", schedule=name, reason=reason, by=by)
        return pause

    async def resume(self, name: str) -> None:
        """Have a schedule go on from now; its slots meanwhile get no event, and are noted. Raises NotFound."""
        schedule = self.schedule(name)
        for _ in range(TRIES):
            stored, now_us = (await self.store.schedules()).get(name), self.clock.now_us()
            if stored is None or stored.pause is None:
                break
            size = SLOT_SIZE * (now_us - stored.place_us) // MICROSECONDS_PER_SECOND
            left_out = await computed(passed_over, schedule, stored.place_us, now_us, size=size)
            note = None if left_out is None else note_of(schedule, now_us, Why.PAUSED, left_out)
            resumed = ResumedSchedule(name=name, before_us=stored.place_us, place_us=now_us)
            if await self.store.resume_schedule(resumed, note, self.notes_kept):
                self.telemetry.emit("schedule.resumed", schedule=name)
                self.wake.set()
                return
        raise NotFound(f"The schedule {name!r} is not paused.")

    async def report(self) -> list[ScheduleStatus]:
        """Return how every schedule stands."""
        if not self.by_name:
            return []
        standing, notes = await self.store.schedules(), await self.store.schedule_notes()
        last_ids = [one.last_event_id for one in standing.values() if one.last_event_id is not None]
        events = await self.store.events_by_ids(last_ids)
        now_us = self.clock.now_us()
        return [
            ScheduleStatus(
                schedule=schedule,
                stored=(stored := standing.get(name)),
                next_us=list(islice(slots_after(schedule, now_us), NEXT_SLOTS)),
                last_state=last_state(stored, events),
                notes=notes.get(name, []),
            )
            for name, schedule in self.by_name.items()
        ]


def last_state(stored: StoredSchedule | None, events: Mapping[str, tuple[StoredEvent, Content]]) -> str | None:
    """Return how the last event of a schedule stands; None when it has none, or retention has removed it."""
    found = None if stored is None or stored.last_event_id is None else events.get(stored.last_event_id)
    return None if found is None else found[0].state


def slot_record(schedule: Schedule, slot_us: int, now_us: int) -> EventRecord:
    """Return the event of a slot: whoever makes it, it has the same id and key."""
    return record_of(schedule, schedule_event_id(schedule.name, slot_text(slot_us)), slot_us, now_us)


def record_of(schedule: Schedule, event_id: str, slot_us: int | None, now_us: int) -> EventRecord:
    """Return an event of a schedule; its metadata says of which, and for which slot unless it was made by hand."""
    slot = None if slot_us is None else slot_text(slot_us)
    return EventRecord(
        id=event_id,
        application_name=schedule.application,
        workflow_id=schedule.workflow,
        event_type=schedule.event_type,
        created_at_us=now_us,
        idempotency_key=None if slot is None else f"{schedule.origin}:{slot}",
        metadata=msgspec.Raw(msgspec.json.encode({"schedule": {"name": schedule.name, "slot": slot}})),
        origin=schedule.origin,
        payload=msgspec.Raw(schedule.payload),
    )


def note_of(schedule: Schedule, now_us: int, why: Why, left_out: Skipped) -> ScheduleNote:
    """Return the note of slots that get no event."""
    return ScheduleNote(
        schedule=schedule.name,
        at_us=now_us,
        why=why,
        from_us=left_out.first_us,
        through_us=left_out.last_us,
        slots=left_out.slots,
        is_capped=int(left_out.is_capped),
    )
