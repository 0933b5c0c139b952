"""When schedules are due: local times in gaps and folds, jitter, what was missed, what cannot be meant."""

from datetime import datetime
from itertools import islice
from typing import Any

import pytest

from replayforge.domain.schedule import (
    SLOTS_MAX,
    Missed,
    Schedule,
    due_us,
    is_ahead,
    objection_to,
    passed_over,
    slot_text,
    slots_after,
    slots_through,
    turn,
)

SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US


def us(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * SECOND_US


def schedule(cron: str = "", **fields: Any) -> Schedule:
    return Schedule(name="nightly", event_type="report.wanted", workflow="reports", cron=cron, **fields)


def first(count: int, one: Schedule, after: str) -> list[str]:
    return [slot_text(slot) for slot in islice(slots_after(one, us(after)), count)]


def test_a_local_time_in_a_gap_is_the_first_valid_instant() -> None:
    """Clocks in Berlin go from 2:00 to 3:00; several local times of the gap are one slot."""
    at_half = schedule("30 2 * * *", timezone="Europe/Berlin")
    assert first(2, at_half, "2026-03-28T12:00:00+01:00") == ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
    often = schedule("*/20 2,3 * * *", timezone="Europe/Berlin")
    assert first(3, often, "2026-03-28T12:00:00+01:00") == [
        "2026-03-29T01:00:00Z",
        "2026-03-29T01:20:00Z",
        "2026-03-29T01:40:00Z",
    ]
    by_half_an_hour = schedule("15 2 * * *", timezone="Australia/Lord_Howe")
    assert first(1, by_half_an_hour, "2026-10-03T12:00:00+00:00") == ["2026-10-03T15:30:00Z"]


def test_a_local_time_in_a_fold_is_one_slot_but_an_hourly_schedule_has_both_hours() -> None:
    """What is due at a time of day is due once a day; what is due in every hour, in every hour that passes."""
    at_half = schedule("30 1 * * *", timezone="America/New_York")
    assert first(2, at_half, "2026-10-31T12:00:00+00:00") == ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]
    hourly = schedule("@hourly", timezone="America/New_York")
    assert first(3, hourly, "2026-11-01T04:30:00+00:00") == [
        "2026-11-01T05:00:00Z",
        "2026-11-01T06:00:00Z",
        "2026-11-01T07:00:00Z",
    ]


@pytest.mark.parametrize("at", ["2026-10-25T00:45:00+00:00", "2026-10-25T01:10:00+00:00", "2026-03-29T01:00:00+00:00"])
def test_the_slots_are_the_same_forwards_and_backwards(at: str) -> None:
    """Whatever time one begins at, also between the two passes of a fold."""
    for cron in ("30 2 * * *", "*/7 1-3 * * *", "*/20 * * * *", "0 0 1 * 1"):
        one = schedule(cron, timezone="Europe/Berlin")
        back = list(islice(slots_through(one, us(at)), 30))
        assert list(islice(slots_after(one, back[-1] - 1), 30)) == back[::-1]


def test_seconds_are_counted_from_the_epoch() -> None:
    """Every daemon finds the same multiples."""
    one = schedule(every_seconds=90)
    slots = list(islice(slots_after(one, 100 * SECOND_US), 2))
    assert slots == [180 * SECOND_US, 270 * SECOND_US]
    assert list(islice(slots_through(one, slots[1]), 2)) == slots[::-1]


def test_jitter_is_the_same_everywhere_and_never_reaches_the_next_slot() -> None:
    """However large, slots keep their order, and they do not all have the same."""
    one = schedule("*/5 * * * *", jitter_seconds=86_400)
    slots = list(islice(slots_after(one, 0), 50))
    delays = [due_us(one, slot) - slot for slot in slots]
    assert delays == [due_us(schedule("*/5 * * * *", jitter_seconds=86_400), slot) - slot for slot in slots]
    assert all(0 <= delay < 300 * SECOND_US for delay in delays)
    assert len(set(delays)) > 40
    undone = turn(one, slots[0], due_us(one, slots[1]) - 1)
    assert undone is None
    done = turn(one, slots[0], due_us(one, slots[1]))
    assert done is not None
    assert done.slots == [slots[1]]


@pytest.mark.parametrize(
    ("missed", "made", "left_out"), [("last", [5], 4), ("all", [1, 2, 3, 4, 5], 0), ("skip", [], 5)]
)
def test_what_was_missed_is_made_up_for_as_the_schedule_says(missed: str, made: list[int], left_out: int) -> None:
    """What gets no event is one range, and the place is behind all of it."""
    one = schedule("@hourly", missed=Missed(missed))
    done = turn(one, 0, 5 * HOUR_US + 30 * 60 * SECOND_US)
    assert done is not None
    assert [slot // HOUR_US for slot in done.slots] == made
    assert (done.skipped.slots if done.skipped else 0) == left_out
    assert done.place_us == 5 * HOUR_US


@pytest.mark.parametrize("missed", list(Missed))
def test_a_slot_in_time_is_made_whatever_was_missed_before(missed: Missed) -> None:
    """A second late is in time."""
    done = turn(schedule("@hourly", missed=missed), 0, 3 * HOUR_US + SECOND_US)
    assert done is not None
    assert done.slots[-1] == 3 * HOUR_US


def test_no_more_than_a_thousand_are_made_up_for() -> None:
    """The latest ones; the others are one range, counted no further than that."""
    one = schedule(every_seconds=1, missed=Missed.ALL)
    done = turn(one, 0, 5000 * SECOND_US)
    assert done is not None
    assert len(done.slots) == SLOTS_MAX
    assert done.slots[-1] == 5000 * SECOND_US
    assert done.skipped is not None
    assert (done.skipped.first_us, done.skipped.last_us) == (SECOND_US, 4000 * SECOND_US)
    assert done.skipped.is_capped
    paused = passed_over(schedule(every_seconds=1), 0, 10 * SECOND_US)
    assert paused == (SECOND_US, 10 * SECOND_US, 10, False)
    assert passed_over(schedule("@yearly"), 0, SECOND_US) is None


def test_clocks_of_daemons_may_differ_a_little() -> None:
    """Only a place that no honest clock can have set is wrong."""
    assert not is_ahead(30 * SECOND_US, 0)
    assert is_ahead(HOUR_US, 0)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "either cron"),
        ({"cron": "@daily", "every_seconds": 5}, "either cron"),
        ({"cron": "* * * *"}, "five fields"),
        ({"cron": "0 0 0 * * *"}, "five fields"),
        ({"cron": "61 * * * *"}, "cannot be read"),
        ({"cron": "0 0 31 2 *"}, "cannot be read"),
        ({"cron": "@daily", "timezone": "Europe/Atlantis"}, "time zone"),
        ({"cron": "@daily", "timezone": "../etc/passwd"}, "time zone"),
        ({"cron": "@daily", "timezone": "Europe"}, "time zone"),
    ],
)
def test_what_cannot_be_meant_is_said(fields: dict[str, Any], words: str) -> None:
    assert words in objection_to(schedule(**fields))


def test_short_forms_and_seconds_can_be_meant() -> None:
    for fields in ({"cron": "@daily"}, {"cron": "0 2 * * mon-fri"}, {"every_seconds": 30}):
        assert objection_to(schedule(**fields)) == ""
