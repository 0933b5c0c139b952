"""Schedules in the store: where each of them stands, which are paused, and what of them was left out lately."""

from collections import defaultdict
from collections.abc import Sequence

from replayforge.domain.admission import Pause
from replayforge.domain.schedule import Why
from replayforge.stores.batches import (
    AdvancedSchedule,
    KnownSchedule,
    PausedSchedule,
    ResumedSchedule,
    RunSchedule,
    ScheduleNote,
)
from replayforge.stores.driver import Batch, Fetch, Steps
from replayforge.stores.rows import StoredSchedule


def standing() -> Steps[dict[str, StoredSchedule]]:
    """Fetch where every schedule stands, by its name."""
    rows = yield Fetch("schedules")
    return {row[0]: StoredSchedule(*row) for row in rows}


def enter(known: Sequence[KnownSchedule], kept: int) -> Steps[None]:
    """Have schedules that are new, or whose timing is, begin at the place given."""
    stored = yield from standing()
    for one in known:
        before = stored.get(one.name)
        if before is None:
            yield Batch("insert_schedules", [one])
            yield from note(noted(one, Why.NEW, one.place_us), kept)
        elif before.timing != one.timing:
            yield Batch("retime_schedules", [one])
            yield from note(noted(one, Why.EDITED, before.place_us), kept)


def noted(one: KnownSchedule, why: Why, from_us: int) -> ScheduleNote:
    """Return the note of a schedule that begins anew, and from where."""
    return ScheduleNote(
        schedule=one.name,
        at_us=one.place_us,
        why=why,
        from_us=from_us,
        through_us=one.place_us,
        slots=0,
        is_capped=0,
    )


def advance(advanced: AdvancedSchedule, left_out: ScheduleNote | None, kept: int) -> Steps[bool]:
    """Move the place of a schedule, if nobody else has, and note what of it gets no event."""
    changed = yield Batch("advance_schedule", [advanced])
    if changed[0][0] and left_out is not None:
        yield from note(left_out, kept)
    return bool(changed[0][0])


def note(one: ScheduleNote, kept: int) -> Steps[None]:
    """Keep a note, and no more than so many of its schedule."""
    yield Batch("insert_schedule_notes", [one])
    yield Fetch("trim_schedule_notes", {"schedule": one.schedule, "kept": kept})


def note_run(name: str, event_id: str) -> Steps[None]:
    """Note the event of a schedule that somebody had made by hand."""
    yield Batch("note_schedule_run", [RunSchedule(name=name, event_id=event_id)])


def pause(pause: Pause) -> Steps[None]:
    """Pause a schedule; one that is paused already stays as it is."""
    row = PausedSchedule(name=pause.pattern, reason=pause.reason, paused_by=pause.by, since_us=pause.since_us)
    yield Batch("pause_schedule", [row])


def resume(resumed: ResumedSchedule, left_out: ScheduleNote | None, kept: int) -> Steps[bool]:
    """Take the pause off a schedule at its place, and note what got no event meanwhile."""
    changed = yield Batch("resume_schedule", [resumed])
    if changed[0][0] and left_out is not None:
        yield from note(left_out, kept)
    return bool(changed[0][0])


def notes() -> Steps[dict[str, list[ScheduleNote]]]:
    """Fetch what was noted of every schedule, newest first."""
    rows = yield Fetch("schedule_notes")
    found: dict[str, list[ScheduleNote]] = defaultdict(list)
    for schedule, at_us, why, from_us, through_us, slots, is_capped in rows:
        found[schedule].append(
            ScheduleNote(
                schedule=schedule,
                at_us=at_us,
                why=Why(why),
                from_us=from_us,
                through_us=through_us,
                slots=slots,
                is_capped=is_capped,
            )
        )
    return dict(found)
