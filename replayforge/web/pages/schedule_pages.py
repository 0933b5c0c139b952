"""The page of the schedules: when each is due, what became of it; running one by hand, pausing, resuming."""

from dataclasses import dataclass

from aiohttp import web

from replayforge.domain.acting import signed
from replayforge.domain.errors import Rejected
from replayforge.web.api.schedules import NoteShape, ScheduleShape, SlotShape, schedule_shapes
from replayforge.web.http.context import context_of
from replayforge.web.http.reading import read_form, reason_in
from replayforge.web.pages.flash import Flash, see_other
from replayforge.web.pages.handler_pages import BY_THE_PAGE
from replayforge.web.pages.rendering import PageTemplate, show
from replayforge.web.pages.views import PauseView
from replayforge.web.pages.words import plural

SECTION = "schedules"
PAUSE_CONSEQUENCE = (
    "On every daemon it makes no events until somebody resumes it, also across restarts. It then goes on with its next"
    " slot: those of its pause get no event, and are noted."
)
NOTES_SHOWN = 5
WHYS = {
    "missed": "were missed",
    "paused": "fell into its pause",
    "moved_back": "its place lay beyond now and was moved back: a clock was wrong",
    "new": "it is new, and began",
    "edited": "its timing was edited, and it began anew",
}


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """One schedule. `timing` says when it is due, `rules` what holds then, `notes` are (when, what was noted)."""

    name: str
    state: str
    why: str
    paused_at: str
    timing: str
    rules: str
    event_type: str
    next: list[SlotShape]
    last_id: str
    last_slot: str
    last_state: str
    notes: list[tuple[str, str]]
    verb: str


@dataclass(frozen=True, slots=True)
class SchedulesView:
    """Every schedule."""

    rows: list[ScheduleRow]


async def schedules(request: web.Request) -> web.Response:
    """Show how every schedule stands."""
    rows = [schedule_row(shape) for shape in await schedule_shapes(request)]
    return await show(request, PageTemplate("schedules.html", "Schedules", SECTION), SchedulesView(rows))


def schedule_row(shape: ScheduleShape) -> ScheduleRow:
    """Return a row for a schedule."""
    pause, last = shape.paused, shape.last
    why = "a daemon that was started later has another timing for it" if shape.status == "superseded" else ""
    return ScheduleRow(
        name=shape.name,
        state=shape.status,
        why=f"by {pause.by}: {pause.reason}" if pause else why,
        paused_at=pause.since if pause else "",
        timing=f"every {plural(shape.every_seconds, 'second')}" if shape.every_seconds else f"{shape.cron}",
        rules=rules_in_words(shape),
        event_type=shape.event_type,
        next=[] if pause else shape.next,
        last_id=last.event_id if last else "",
        last_slot=(last.slot or "") if last else "",
        last_state=(last.status or "") if last else "",
        notes=[(note.at, note_in_words(note)) for note in shape.notes[:NOTES_SHOWN]],
        verb="resume" if pause else "pause",
    )


def rules_in_words(shape: ScheduleShape) -> str:
    """Say where a schedule is, and what it does about what was missed and what overlaps."""
    parts = [shape.timezone, f"missed: {shape.missed}", f"overlap: {shape.overlap}"]
    return ", ".join([*parts, f"up to {shape.jitter_seconds:g} s later"] if shape.jitter_seconds else parts)


def note_in_words(note: NoteShape) -> str:
    """Say what was noted."""
    if not note.slots:
        return WHYS[note.why]
    more = " or more" if note.count_capped else ""
    first, last = note.first[:19].replace("T", " "), note.last[:19].replace("T", " ")
    return f"{plural(note.slots, 'slot')}{more} {WHYS[note.why]} and got no event: {first} to {last} UTC"


async def run(request: web.Request) -> web.Response:
    """Make an event of a schedule and say which."""
    form, context = await read_form(request), context_of(request)
    name = form.get("name", "")
    try:
        record = await context.scheduler.fire(name)
    except Rejected as error:
        return see_other(request, f"{context.base_path}/schedules", Flash("err", str(error)))
    said = Flash("ok", f"The schedule {name} has made an event.", f"/events/{record.id}")
    return see_other(request, f"{context.base_path}/schedules", said)


async def ask(request: web.Request) -> web.Response:
    """Ask why a schedule is to be paused."""
    name = context_of(request).scheduler.schedule(request.query.get("name", "")).name
    view = PauseView("schedule", name, PAUSE_CONSEQUENCE, "name", f"{context_of(request).base_path}/schedules")
    return await show(request, PageTemplate("pause.html", "Pause", SECTION), view)


async def pause(request: web.Request) -> web.Response:
    """Pause a schedule and go back to the list."""
    form, context = await read_form(request), context_of(request)
    name = form.get("name", "")
    try:
        await context.scheduler.pause(name, reason_in(form), signed(BY_THE_PAGE))
    except Rejected as error:
        return see_other(request, f"{context.base_path}/schedules", Flash("err", str(error)))
    return see_other(request, f"{context.base_path}/schedules", Flash("ok", f"Paused: the schedule {name}."))


async def resume(request: web.Request) -> web.Response:
    """Resume a schedule and go back to the list."""
    form, context = await read_form(request), context_of(request)
    name = form.get("name", "")
    try:
        await context.scheduler.resume(name)
    except Rejected as error:
        return see_other(request, f"{context.base_path}/schedules", Flash("err", str(error)))
    said = f"Resumed: the schedule {name}. What fell into its pause is noted, and gets no event."
    return see_other(request, f"{context.base_path}/schedules", Flash("ok", said))
