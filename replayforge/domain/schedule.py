"""When a schedule is due: its slots, what of them was missed, and what is to be done for it at a given time."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from functools import cached_property
from itertools import count, islice, takewhile
from typing import NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from replayforge.domain.clock import MICROSECONDS_PER_SECOND, to_us

ORIGIN = "schedule:"
SLOTS_MAX = 1000  # so many missed slots are made up for at once
LATE_US = 10 * MICROSECONDS_PER_SECOND  # a slot whose event was not made by then was missed
AHEAD_US = 60 * MICROSECONDS_PER_SECOND  # clocks of daemons may be so far apart; a place beyond that is wrong
SHORT_FORMS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class Missed(StrEnum):
    """Which of the slots that were missed get their event later."""

    LAST = "last"
    ALL = "all"
    SKIP = "skip"


class Overlap(StrEnum):
    """What becomes of an event while an earlier one of its schedule is open."""

    QUEUE = "queue"
    SKIP = "skip"


class Why(StrEnum):
    """Why slots have no event, or the place of a schedule was set."""

    MISSED = "missed"
    PAUSED = "paused"
    MOVED_BACK = "moved_back"
    NEW = "new"
    EDITED = "edited"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What is made when: an event at each slot, named by `cron` in a time zone, or every so many seconds since 1970."""

    name: str
    event_type: str
    workflow: str
    cron: str = ""
    every_seconds: int = 0
    timezone: str = "UTC"
    application: str = "default"
    payload: bytes = b"{}"
    missed: Missed = Missed.LAST
    overlap: Overlap = Overlap.QUEUE
    jitter_seconds: float = 0.0

    @property
    def origin(self) -> str:
        """What its events say of who made them."""
        return ORIGIN + self.name

    @property
    def timing(self) -> str:
        """When it is due, in words; another timing is another schedule."""
        return f"every {self.every_seconds} s" if self.every_seconds else f"{self.cron} {self.timezone}"

    @cached_property
    def zone(self) -> tzinfo:
        """Where its cron expression is read."""
        return UTC if self.timezone == "UTC" else ZoneInfo(self.timezone)

    @cached_property
    def expression(self) -> str:
        """Its cron expression in five fields."""
        return SHORT_FORMS.get(self.cron, self.cron)


class Skipped(NamedTuple):
    """Slots that get no event, from the first to the last; `is_capped` says that there are more than were counted."""

    first_us: int
    last_us: int
    slots: int
    is_capped: bool


class DueSlots(NamedTuple):
    """What is to be done for a schedule: the slots whose events are to be made, and those that are passed over."""

    slots: list[int]
    skipped: Skipped | None
    place_us: int


def objection_to(schedule: Schedule) -> str:
    """Say in a clause what of a schedule cannot be meant, or nothing."""
    if bool(schedule.cron) == bool(schedule.every_seconds):
        return 'it needs either cron = "0 2 * * *" or every_seconds = 30'
    try:
        zone_offset(schedule)
    except (KeyError, OSError, ValueError):  # whatever zoneinfo has against a name, which may be a path
        return f"the time zone {schedule.timezone!r} is not known here; names are such as Europe/Berlin"
    if schedule.cron and len(schedule.expression.split()) != 5:
        return f"cron = {schedule.cron!r} must have five fields, or be one of {', '.join(SHORT_FORMS)}"
    try:
        found = next(slots_after(schedule, 0), None)
    except CronSimError as error:
        return f"cron = {schedule.cron!r} cannot be read: {error}"
    return "" if found is not None else f"cron = {schedule.cron!r} names no time at all"


def zone_offset(schedule: Schedule) -> timedelta | None:
    """Look its zone up; raises what zoneinfo does when there is none of that name."""
    return datetime.now(schedule.zone).utcoffset()


# Slots


def slots_after(schedule: Schedule, after_us: int) -> Iterator[int]:
    """Yield the slots beyond a time, earliest first, without end where the schedule has none."""
    if schedule.every_seconds:
        step_us = schedule.every_seconds * MICROSECONDS_PER_SECOND
        yield from count((after_us // step_us + 1) * step_us, step_us)
    start = local_time(schedule, after_us)
    for slot in instants(schedule, CronSim(schedule.expression, start)):
        if slot > after_us:
            yield slot
            after_us = slot  # several local times of a gap are one instant


def slots_through(schedule: Schedule, through_us: int) -> Iterator[int]:
    """Yield the slots up to a time, latest first."""
    if schedule.every_seconds:
        step_us = schedule.every_seconds * MICROSECONDS_PER_SECOND
        yield from count(through_us // step_us * step_us, -step_us)
    # In the second pass of a fold local times that are still to come were instants of the first.
    margin = timedelta(seconds=1) if goes_by_instants(schedule) else timedelta(hours=3)
    start = local_time(schedule, through_us) + margin
    before_us = through_us + 1
    for slot in instants(schedule, CronSim(schedule.expression, start, reverse=True)):
        if slot < before_us:
            yield slot
            before_us = slot


def goes_by_instants(schedule: Schedule) -> bool:
    """Tell whether it is due in every hour, so in both passes of a fold; any other is due at a local time, once."""
    return schedule.expression.split()[1] == "*"


def local_time(schedule: Schedule, at_us: int) -> datetime:
    """Return the second of a time where the schedule is; a plain local time, where local times are what counts."""
    local = datetime.fromtimestamp(at_us // MICROSECONDS_PER_SECOND, schedule.zone)
    return local if goes_by_instants(schedule) else local.replace(tzinfo=None)


def instants(schedule: Schedule, moments: Iterator[datetime]) -> Iterator[int]:
    """Yield the instant of each local time: the first valid one for a time in a gap, the first of two in a fold."""
    for moment in moments:
        aware = moment
        if moment.tzinfo is None:
            aware = moment.replace(tzinfo=schedule.zone)
            while is_in_gap(aware):
                aware += timedelta(minutes=1)
        yield int(aware.timestamp()) * MICROSECONDS_PER_SECOND


def is_in_gap(local: datetime) -> bool:
    """Tell whether clocks never show this local time."""
    return local.astimezone(UTC).astimezone(local.tzinfo).replace(tzinfo=None) != local.replace(tzinfo=None)


def due_us(schedule: Schedule, slot_us: int) -> int:
    """Return when the event of a slot is made: at the slot, or later by its jitter, but before the next one is due."""
    if not schedule.jitter_seconds:
        return slot_us
    following_us = next(slots_after(schedule, slot_us), slot_us)
    room_us = min(to_us(schedule.jitter_seconds), following_us - slot_us)
    digest = hashlib.sha256(f"{schedule.name}\0{slot_us}".encode()).digest()
    return slot_us + room_us * int.from_bytes(digest[:4], "big") // (1 << 32)


def next_due_us(schedule: Schedule, place_us: int) -> int | None:
    """Return when the first slot beyond a place is due, or None where there is none."""
    slot_us = next(slots_after(schedule, place_us), None)
    return None if slot_us is None else due_us(schedule, slot_us)


# What is to be done


def is_ahead(place_us: int, now_us: int) -> bool:
    """Tell whether a place can only come from a clock that was wrong."""
    return place_us > now_us + AHEAD_US


def between(schedule: Schedule, place_us: int, now_us: int) -> list[int]:
    """Return the last slots beyond a place up to a time, earliest first: one more than can be made up for, at most."""
    latest = takewhile(lambda slot: slot > place_us, slots_through(schedule, now_us))
    return list(islice(latest, SLOTS_MAX + 1))[::-1]


def turn(schedule: Schedule, place_us: int, now_us: int) -> DueSlots | None:
    """Return what is to be done now for a schedule whose slots up to its place are done; None when nothing is due.

    A slot that is late was missed, as while no daemon ran: then its event is made according to `missed`. What gets
    none comes before all that get one, so that it is one range.
    """
    slots = between(schedule, place_us, now_us)
    if slots and due_us(schedule, slots[-1]) > now_us:
        slots.pop()
    if not slots:
        return None
    made = chosen(schedule, slots, now_us)
    return DueSlots(made, range_of(schedule, place_us, slots[: len(slots) - len(made)]), slots[-1])


def chosen(schedule: Schedule, slots: list[int], now_us: int) -> list[int]:
    """Return which of the slots that are due get their events: those in time, and what is made up for."""
    if schedule.missed is Missed.ALL:
        return slots[-SLOTS_MAX:]
    in_time = [slot for slot in slots if now_us - due_us(schedule, slot) <= LATE_US]
    return in_time or (slots[-1:] if schedule.missed is Missed.LAST else [])


def passed_over(schedule: Schedule, place_us: int, now_us: int) -> Skipped | None:
    """Return the slots beyond a place up to a time as one range, for a schedule that was paused meanwhile."""
    return range_of(schedule, place_us, between(schedule, place_us, now_us))


def range_of(schedule: Schedule, place_us: int, slots: list[int]) -> Skipped | None:
    """Return slots beyond a place as one range, from the first one there is to the last of them."""
    if not slots:
        return None
    first_us = next(slots_after(schedule, place_us))
    return Skipped(first_us, slots[-1], len(slots), first_us != slots[0])


def slot_text(slot_us: int) -> str:
    """Write a slot in UTC, as the keys of events do."""
    return datetime.fromtimestamp(slot_us // MICROSECONDS_PER_SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def schedule_of(origin: str | None) -> str | None:
    """Return the name of the schedule that has made an event, or None where none has."""
    return origin.removeprefix(ORIGIN) if origin is not None and origin.startswith(ORIGIN) else None
