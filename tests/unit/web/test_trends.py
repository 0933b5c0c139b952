"""Where things lie in the pictures of the overview, and what they say."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayforge.domain.histogram import BUCKETS, EDGES_US, bucket_of
from replayforge.domain.metrics_history import (
    OTHERS,
    RANGES,
    MetricsHistory,
    Period,
    Range,
    TypeMetrics,
    metrics_history,
)
from replayforge.web.pages.trends import COLUMNS_MIN, SPARK_HEIGHT, latency, spark, spoken, throughput, type_rows

HOUR = RANGES["1h"]
NOW_US = 1_763_800_000_123_456
NOTHING = (0,) * BUCKETS
amounts = st.integers(0, 10**9)


def of_periods(*periods: Period) -> MetricsHistory:
    return MetricsHistory(HOUR, periods, NOTHING)


def of_type(**figures: int | str | tuple[int, ...]) -> TypeMetrics:
    given = {"event_type": "order", "accepted": 0, "succeeded": 0, "retried": 0, "dead_lettered": 0}
    return TypeMetrics(**given | {"latencies": NOTHING, "settled": (0, 0)} | figures)  # type: ignore[arg-type]


def held(**counts: int) -> list[int]:
    """Return a histogram with so many in the buckets b0, b1, …"""
    histogram = [0] * BUCKETS
    for name, number in counts.items():
        histogram[int(name[1:])] = number
    return histogram


@given(st.lists(st.tuples(amounts, amounts, amounts), min_size=1, max_size=96))
def test_parts_are_stacked_without_gaps_and_fit(figures: list[tuple[int, int, int]]) -> None:
    """Each part lies on the one below, nothing leaves the picture, and what is there at all can be seen."""
    picture = throughput(of_periods(*(Period(0, 9, *figure) for figure in figures)))
    for bar, figure in zip(picture.bars, figures, strict=True):
        assert len(bar.parts) == sum(number > 0 for number in figure)
        ground = float(picture.height)
        for part in bar.parts:
            assert part.y + part.height == pytest.approx(ground, abs=0.2)
            assert part.height >= 2
            ground = part.y
        assert ground >= 0
        assert 0 <= bar.x <= bar.x + bar.width <= picture.width


@pytest.mark.parametrize("chosen", RANGES.values(), ids=lambda one: one.name)
def test_an_empty_range_is_a_picture_too(chosen: Range) -> None:
    """Without any event every bar is empty, and the picture says so."""
    picture = throughput(metrics_history(chosen, NOW_US, [], [], [], []))
    assert picture.is_empty
    assert [bar.parts for bar in picture.bars] == [[]] * (chosen.seconds // chosen.step_seconds)
    assert re.fullmatch(r"\d\d-\d\d \d\d:\d\d" if chosen.seconds >= 86_400 else r"\d\d:\d\d", picture.bars[0].label)


def test_a_crash_alone_is_not_nothing() -> None:
    """A period in which only something crashed is marked, and a worker's death is counted once."""
    picture = throughput(of_periods(Period(0), Period(60, crashed=2, restarted=2)))
    assert not picture.is_empty
    assert [bar.period.crashes for bar in picture.bars] == [0, 2]


@given(st.lists(st.integers(0, 10**11), min_size=1, max_size=50))
def test_percentiles_lie_in_the_column_of_their_bucket(values: list[int]) -> None:
    """Marks stand within the picture, in order, each in the column that holds its event."""
    counts = [0] * BUCKETS
    for value in values:
        counts[bucket_of(value)] += 1
    picture = latency(counts)
    assert sum(column.count for column in picture.columns) == picture.total == len(values)
    assert len(picture.columns) >= COLUMNS_MIN
    places = [mark.x for mark in picture.marks]
    assert places == sorted(places)
    for mark, share in zip(picture.marks, (0.5, 0.95, 0.99), strict=True):
        rank = max(1, math.ceil(len(values) * share))
        step = picture.width / len(picture.columns)
        passed, column = 0, 0
        while passed + picture.columns[column].count < rank:
            passed += picture.columns[column].count
            column += 1
        assert column * step - 0.2 <= mark.x <= (column + 1) * step + 0.2


def test_nothing_has_no_percentiles() -> None:
    """Without an outcome there is no column with a height and no mark."""
    picture = latency(NOTHING)
    assert (picture.total, picture.marks, {column.height for column in picture.columns}) == (0, [], {0.0})


def test_the_longest_of_all_have_no_upper_end() -> None:
    """What is beyond the last edge is said to be longer than it."""
    picture = latency(held(b48=3))
    assert (picture.columns[-1].above, picture.columns[-1].up_to, picture.columns[-1].count) == (
        "19 h 26 min",
        "longer",
        3,
    )


def test_a_row_leads_to_the_events_behind_its_figures() -> None:
    """Every figure has a link of its own, odd names included; what stands now is not narrowed by age."""
    one = of_type(event_type="a&b=c #1", accepted=12345, succeeded=199, retried=4, dead_lettered=1)
    found = metrics_history(HOUR, NOW_US, [], [], [], [])
    (row,) = type_rows(MetricsHistory(HOUR, found.periods, NOTHING, (one,)), {"a&b=c #1": 7}, 1000)
    assert (row.accepted, row.ok, row.retried, row.dead, row.p95, row.queued) == ("12,345", "99%", "4", "1", "–", "7")
    assert row.link == "/events?type=a%26b%3Dc+%231&since=1h"
    assert row.dead_link == "/events?type=a%26b%3Dc+%231&status=dead_lettered&since=1h"
    assert row.queued_link == "/events?type=a%26b%3Dc+%231&status=queued"


def test_the_others_lead_to_a_list_of_all() -> None:
    """Types that were counted together cannot be listed by a name."""
    (row,) = type_rows(MetricsHistory(HOUR, (), NOTHING, (of_type(event_type=OTHERS),)), {}, 9)
    assert (row.event_type, row.dead_link) == (OTHERS, "/events?status=dead_lettered&since=1h")


def test_a_share_is_never_rounded_up_to_all() -> None:
    """One failure in ten thousand is not 100 %; without any end there is no share."""
    rows = type_rows(MetricsHistory(HOUR, (), NOTHING, (of_type(succeeded=9999, dead_lettered=1), of_type())), {}, 9)
    assert [row.ok for row in rows] == ["99%", "–"]


def test_a_bounded_count_says_that_there_are_more() -> None:
    """Where as many queued events were found as are looked for, each number is at least that."""
    rows = type_rows(
        MetricsHistory(HOUR, (), NOTHING, (of_type(), of_type(event_type="pay"))), {"order": 7, "pay": 3}, 10
    )
    assert [row.queued for row in rows] == ["7+", "3+"]


def test_the_highest_period_of_a_line_is_at_its_top() -> None:
    """Half of it lies in the middle, nothing on the ground, and a line of nothing is flat."""
    assert spark((0, 0)) == f"0.0,{SPARK_HEIGHT - 1:.1f} 100.0,{SPARK_HEIGHT - 1:.1f}"
    assert spark((0, 5, 10)) == f"0.0,{SPARK_HEIGHT - 1:.1f} 50.0,{SPARK_HEIGHT / 2:.1f} 100.0,1.0"


@pytest.mark.parametrize(
    ("duration_us", "words"),
    [
        (1500, "1.5 ms"),
        (2000, "2 ms"),
        (0, "0 ms"),
        (9_999, "10.0 ms"),
        (175_400, "175 ms"),
        (EDGES_US[-1], "19 h 26 min"),
    ],
)
def test_short_durations_keep_a_digit(duration_us: float, words: str) -> None:
    """A few milliseconds are told apart by their tenths, longer ones in the usual words."""
    assert spoken(duration_us) == words
