"""Schedules over HTTP: how each of them stands and when it is due, running one by hand, pausing and resuming."""

from datetime import datetime

import msgspec
from aiohttp import web

from replayforge.domain.acting import signed
from replayforge.domain.clock import MICROSECONDS_PER_SECOND, format_time
from replayforge.engine.accept.scheduler import ScheduleStatus
from replayforge.stores.batches import ScheduleNote
from replayforge.web.api.handlers import PauseRequest
from replayforge.web.api.shapes import PauseShape, Time, json_response, pause_shape
from replayforge.web.http.context import context_of
from replayforge.web.http.reading import read_object


class SlotShape(msgspec.Struct):
    """A time at which a schedule is due, in UTC and where the schedule is."""

    at: Time
    local: str


class LastShape(msgspec.Struct):
    """The last event of a schedule; its status is null when retention has removed it, or it has no row yet."""

    slot: str | None
    event_id: str
    status: str | None


class NoteShape(msgspec.Struct):
    """Slots that got no event, or a place that was set, and why: missed, paused, moved_back, new or edited.

    With `count_capped` there are more slots than were counted.
    """

    at: Time
    why: str
    first: str
    last: str
    slots: int
    count_capped: bool


class ScheduleShape(msgspec.Struct):
    """A schedule as the API shows it.

    Its status is `ready`, `paused`, or `superseded` when a daemon that was started later has another timing for it.
    """

    name: str
    status: str
    cron: str | None
    every_seconds: int | None
    timezone: str
    event_type: str
    application_name: str
    workflow_id: str
    missed: str
    overlap: str
    jitter_seconds: float
    next: list[SlotShape]
    last: LastShape | None
    notes: list[NoteShape]
    paused: PauseShape | None


async def list_schedules(request: web.Request) -> web.Response:
    """Answer with every schedule, when it is due next, and what became of it."""
    return json_response({"items": await schedule_shapes(request)})


async def schedule_shapes(request: web.Request) -> list[ScheduleShape]:
    """Return every schedule as it is shown."""
    return [schedule_shape(status) for status in await context_of(request).scheduler.report()]


def schedule_shape(status: ScheduleStatus) -> ScheduleShape:
    """Show one schedule."""
    schedule, stored = status.schedule, status.stored
    last = None
    if stored is not None and stored.last_event_id is not None:
        slot = None if stored.last_slot_us is None else format_time(stored.last_slot_us)
        last = LastShape(slot, stored.last_event_id, status.last_state)
    return ScheduleShape(
        name=schedule.name,
        status=word(status),
        cron=schedule.cron or None,
        every_seconds=schedule.every_seconds or None,
        timezone=schedule.timezone,
        event_type=schedule.event_type,
        application_name=schedule.application,
        workflow_id=schedule.workflow,
        missed=schedule.missed,
        overlap=schedule.overlap,
        jitter_seconds=schedule.jitter_seconds,
        next=[slot_shape(status, at_us) for at_us in status.next_us],
        last=last,
        notes=[note_shape(note) for note in status.notes],
        paused=pause_shape(status.pause) if status.pause else None,
    )


def word(status: ScheduleStatus) -> str:
    """Return the one word for a schedule."""
    if status.pause is not None:
        return "paused"
    return "ready" if status.in_force else "superseded"


def slot_shape(status: ScheduleStatus, at_us: int) -> SlotShape:
    """Show a time at which a schedule is due."""
    local = datetime.fromtimestamp(at_us // MICROSECONDS_PER_SECOND, status.schedule.zone)
    return SlotShape(format_time(at_us), local.isoformat())


def note_shape(note: ScheduleNote) -> NoteShape:
    """Show what was noted of a schedule."""
    return NoteShape(
        at=format_time(note.at_us),
        why=note.why,
        first=format_time(note.from_us),
        last=format_time(note.through_us),
        slots=note.slots,
        count_capped=bool(note.is_capped),
    )


async def run_schedule(request: web.Request) -> web.Response:
    """Make an event of a schedule now, beside its slots, whether it is paused or not."""
    record = await context_of(request).scheduler.fire(request.match_info["name"])
    return json_response({"name": request.match_info["name"], "event_id": record.id})


async def pause_schedule(request: web.Request) -> web.Response:
    """Have a schedule make no events until it is resumed."""
    asked = await read_object(request, PauseRequest)
    pause = await context_of(request).scheduler.pause(request.match_info["name"], asked.reason, signed(asked.by))
    return json_response(pause_shape(pause))


async def resume_schedule(request: web.Request) -> web.Response:
    """Have a schedule make events again, from now on."""
    name = request.match_info["name"]
    await context_of(request).scheduler.resume(name)
    return json_response({"name": name, "status": "resumed"})
