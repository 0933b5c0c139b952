"""Two schedulers on one store, through a year of clock changes, outages and kills; and what else befalls one."""

import random
from collections.abc import AsyncIterator, Sequence
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from replayforge.domain.errors import NotFound, Rejected, ReplayForgeError, Unavailable
from replayforge.domain.event import EventRecord
from replayforge.domain.identity import schedule_event_id
from replayforge.domain.schedule import Missed, Schedule, Why, slot_text
from replayforge.engine.accept.intake import Receipt
from replayforge.engine.accept.scheduler import Scheduler
from replayforge.stores.projection import Projection
from replayforge.stores.store import Store
from replayforge.telemetry import Telemetry
from replayforge.testing.forge import temporary_directory
from tests.support.clock import FakeClock

SECOND_US = 1_000_000
DAY_SECONDS = 86_400


class Killed(Exception):
    """A daemon dies when its events are durable and its place has not moved."""


class Log:
    """What one daemon has made durable; `kill` has it die before it learns so."""

    def __init__(self) -> None:
        self.records: list[EventRecord] = []
        self.kill = False
        self.refuse = False

    async def accept(self, records: Sequence[EventRecord]) -> list[Receipt | ReplayForgeError]:
        if self.refuse:
            raise Unavailable
        self.records += records
        if self.kill:
            raise Killed
        return [Receipt(record, 1, duplicate=False) for record in records]


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    with temporary_directory() as directory:
        store = await Store.open(f"sqlite:///{directory}/store.db", node="node", owner="node/1")
        yield store
        await store.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(us("2026-01-01T00:00:30+00:00"))


def us(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * SECOND_US


def hourly(**fields: Any) -> Schedule:
    return Schedule(**{"name": "hourly", "event_type": "hour", "workflow": "hours", "cron": "@hourly", **fields})


async def started(log: Log, store: Store, clock: FakeClock, *schedules: Schedule) -> Scheduler:
    """Start the scheduler of a daemon."""
    scheduler = Scheduler(schedules, store, log.accept, clock, Telemetry(), notes_kept=10_000)
    await scheduler.enter()
    return scheduler


async def whys(store: Store, name: str = "hourly") -> list[Why]:
    return [note.why for note in reversed((await store.schedule_notes())[name])]


YEARLY = {
    "Europe/Berlin": ("30 2", Missed.LAST),
    "America/New_York": ("30 1", Missed.ALL),
    "Australia/Lord_Howe": ("0 2", Missed.SKIP),
}


def first_instant(day: date, hours: int, minutes: int, zone: ZoneInfo) -> int:
    """Find by trying when clocks first show a local time or, where they never do, a later one of that day."""
    wanted = datetime(day.year, day.month, day.day, hours, minutes)
    at = datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()
    while datetime.fromtimestamp(at, zone).replace(tzinfo=None) < wanted:
        at += 1800
    return int(at) * SECOND_US


def slots_of(zone: str, time: str) -> set[int]:
    """Return the slots of the year by a way of their own."""
    minutes, hours = map(int, time.split())
    days = [date(2026, 1, 2) + timedelta(days=number) for number in range(363)]
    days = [day for day in days if day.isoweekday() == 7]  # clocks change on Sundays
    return {first_instant(day, hours, minutes, ZoneInfo(zone)) for day in days}


async def test_in_a_year_every_slot_has_one_event_or_is_noted_as_missed(store: Store, clock: FakeClock) -> None:
    """Over both changes of the clocks in three zones, with two daemons, outages at random, and kills after appends."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    schedules = [
        Schedule(
            name=f"zone-{number}",
            event_type="day.began",
            workflow="days",
            cron=f"{time} * * 0",
            timezone=zone,
            missed=missed,
            jitter_seconds=90 * number,
        )
        for number, (zone, (time, missed)) in enumerate(YEARLY.items())
    ]
    logs, ends_us = [Log(), Log()], us("2027-01-01T00:00:00+00:00")
    daemons = [await started(log, store, clock, *schedules) for log in logs]
    back_us, kills = [0, 0], 0
    while clock.now_us() < ends_us:
        for number in range(2):
            if clock.now_us() < back_us[number]:
                continue
            if back_us[number]:
                daemons[number] = await started(logs[number], store, clock, *schedules)
                back_us[number] = 0
            logs[number].kill = chance.random() < 0.2
            try:
                await daemons[number].tick()
                dies = chance.random() < 0.2
            except Killed:
                dies, kills = True, kills + 1
            if dies:
                days = 7 * 10 ** chance.uniform(-1, 1)
                back_us[number] = clock.now_us() + round(days * DAY_SECONDS) * SECOND_US
        away = [at for at in back_us if at]
        dues = [daemon.next_us() or 0 for daemon, at in zip(daemons, back_us, strict=True) if not at]
        clock.wall_us = max(clock.now_us() + SECOND_US, min([*away, *dues]))
    logs[0].kill = False
    await (await started(logs[0], store, clock, *schedules)).tick()

    for number, log in enumerate(logs):
        await store.open_cursor(f"log-{number}", "one", 0, 0)
        numbered = list(enumerate(log.records, start=1))
        await store.project(Projection(f"log-{number}", "one", 0, len(numbered), numbered, 0, clock.now_us()))
    notes, made, missed = await store.schedule_notes(), 0, 0
    for one, (zone, (time, _)) in zip(schedules, YEARLY.items(), strict=True):
        expected = slots_of(zone, time)
        ids = {schedule_event_id(one.name, slot_text(slot)): slot for slot in expected}
        found = {ids[event_id] for event_id in await store.events_by_ids(list(ids))}
        ranges = [(note.from_us, note.through_us) for note in notes[one.name] if note.why is Why.MISSED]
        skipped = {slot for slot in expected - found if any(begin <= slot <= end for begin, end in ranges)}
        assert found | skipped == expected, f"seed {seed}: {sorted(map(slot_text, expected - found - skipped))}"
        made, missed = made + len(found), missed + len(skipped)
    copies = sum(len(log.records) for log in logs) - len({record.id for log in logs for record in log.records})
    assert min(made, missed, copies, kills) > 0, f"seed {seed}: nothing was put to the test"


async def test_a_place_beyond_now_is_moved_back_and_nothing_is_made_twice(store: Store, clock: FakeClock) -> None:
    """A clock that jumped makes events too early, and once it is right again those are not made a second time."""
    log = Log()
    scheduler = await started(log, store, clock, hourly())
    clock.set_by(2 * 3600)
    await scheduler.tick()
    clock.set_by(-2 * 3600)
    await scheduler.tick()
    assert await whys(store) == [Why.NEW, Why.MISSED, Why.MOVED_BACK]
    for _ in range(3):
        clock.advance(3600)
        await scheduler.tick()
    slots = [record.idempotency_key for record in log.records]
    assert slots == [f"schedule:hourly:2026-01-01T0{hour}:00:00Z" for hour in (2, 1, 2, 3)]
    assert len({record.id for record in log.records}) == 3


async def test_a_schedule_that_is_new_or_edited_starts_now(store: Store, clock: FakeClock) -> None:
    """Nothing is made for the time before; another payload is no other schedule; an older daemon leaves it alone."""
    log = Log()
    old = await started(log, store, clock, hourly())
    assert log.records == []
    clock.advance(7200)
    edited = hourly(cron="30 * * * *")
    new = await started(log, store, clock, edited)
    await new.tick()
    await old.tick()
    assert log.records == []
    assert await whys(store) == [Why.NEW, Why.EDITED]
    assert [status.in_force for status in await old.report()] == [False]
    await started(log, store, clock, hourly(cron="30 * * * *", payload=b"[]"))
    assert await whys(store) == [Why.NEW, Why.EDITED]
    clock.advance(1800)
    await old.tick()
    await new.tick()
    assert [record.idempotency_key for record in log.records] == ["schedule:hourly:2026-01-01T02:30:00Z"]


async def test_a_paused_schedule_makes_nothing_and_what_was_left_out_is_noted(store: Store, clock: FakeClock) -> None:
    """It goes on with the next slot, on every daemon; the pause that came first stands."""
    log = Log()
    scheduler, other = [await started(log, store, clock, hourly()) for _ in range(2)]
    await scheduler.pause("hourly", "moving", "me")
    assert (await other.pause("hourly", "again", "you")).reason == "moving"
    clock.advance(3 * 3600)
    await other.tick()
    assert other.next_us() is None
    assert log.records == []
    await other.resume("hourly")
    await scheduler.tick()
    assert log.records == []
    note = (await store.schedule_notes())["hourly"][0]
    assert (note.why, note.slots) == (Why.PAUSED, 3)
    clock.advance(3600)
    await scheduler.tick()
    assert len(log.records) == 1
    with pytest.raises(NotFound):
        await other.resume("hourly")
    with pytest.raises(Rejected):
        await other.pause("hourly", " ", "me")
    with pytest.raises(NotFound):
        await other.pause("daily", "because", "me")


async def test_a_place_stays_while_events_cannot_be_accepted(store: Store, clock: FakeClock) -> None:
    """They are made once they can be."""
    log = Log()
    scheduler = await started(log, store, clock, hourly())
    clock.advance(3600)
    log.refuse = True
    with pytest.raises(Unavailable):
        await scheduler.tick()
    log.refuse = False
    await scheduler.tick()
    assert len(log.records) == 1


async def test_an_event_made_by_hand_moves_no_place(store: Store, clock: FakeClock) -> None:
    """It is beside the slots: it has no key, and names its schedule."""
    log = Log()
    scheduler = await started(log, store, clock, hourly())
    record = await scheduler.fire("hourly")
    assert (record.idempotency_key, record.origin, record.parent_id) == (None, "schedule:hourly", None)
    clock.advance(3600)
    await scheduler.tick()
    assert len(log.records) == 2
    (status,) = await scheduler.report()
    assert status.stored is not None
    assert status.stored.last_event_id == log.records[1].id
    assert slot_text(status.next_us[0]) == "2026-01-01T02:00:00Z"
