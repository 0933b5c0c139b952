"""The arithmetic of the metrics history: buckets, quantiles, steps of time, sums by type."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayforge.domain.clock import to_us
from replayforge.domain.histogram import BUCKETS, EDGES_US, bounds_us, bucket_of, quantile_us
from replayforge.domain.metrics_history import (
    ACCEPTED,
    INDEX,
    LATENCIES,
    OTHERS,
    RANGES,
    TYPES_MAX,
    Period,
    Range,
    TypeCounts,
    metrics_history,
    start_of,
)

durations = st.integers(-1000, 10**12)
NOW_US = 1_763_800_000_123_456


def counted(values: list[int]) -> list[int]:
    """Return how many values lie in each bucket."""
    counts = [0] * BUCKETS
    for value in values:
        counts[bucket_of(value)] += 1
    return counts


def test_edges_rise_by_a_half_or_so() -> None:
    """Neighbouring edges are far enough apart to be few and near enough to be told apart."""
    ratios = [high / low for low, high in itertools.pairwise(EDGES_US)]
    assert EDGES_US[0] == 1000
    assert 1.3 < min(ratios) <= max(ratios) < 1.7


@given(durations)
def test_a_duration_lies_within_its_bucket(duration_us: int) -> None:
    """It is longer than the edge before and not longer than the bucket's own; the last bucket has no end."""
    bucket = bucket_of(duration_us)
    low, high = bounds_us(bucket)
    assert bucket == 0 or duration_us > low
    assert bucket == BUCKETS - 1 or duration_us <= high


@given(st.lists(durations, min_size=1), st.sampled_from([0.01, 0.5, 0.95, 0.99, 1.0]))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[int], share: float) -> None:
    """What the histogram says is off by no more than the width of one bucket."""
    true = sorted(values)[max(1, math.ceil(len(values) * share)) - 1]
    said = quantile_us(counted(values), share)
    low, high = bounds_us(bucket_of(true))
    assert said is not None
    assert low <= said <= high


@given(st.lists(durations), st.lists(durations), st.floats(0.01, 1))
def test_histograms_add_up(first: list[int], second: list[int], share: float) -> None:
    """The sum of two histograms says what one histogram of both says."""
    added = [sum(pair) for pair in zip(counted(first), counted(second), strict=True)]
    assert quantile_us(added, share) == quantile_us(counted(first + second), share)


def test_nothing_has_no_quantile() -> None:
    """Without any duration there is no percentile, not one of 0 ms."""
    assert quantile_us([0] * BUCKETS, 0.5) is None


@pytest.mark.parametrize("chosen", RANGES.values(), ids=lambda one: one.name)
@given(now_us=st.integers(10**15, 10**16))
def test_a_range_ends_with_the_present_period(chosen: Range, now_us: int) -> None:
    """Its periods follow each other without a gap, cover the range, and the last one holds this moment."""
    periods = chosen.periods(now_us)
    step_us = to_us(chosen.step_seconds)
    assert len(periods) * chosen.step_seconds == chosen.seconds
    assert {after - before for before, after in itertools.pairwise(periods)} == {step_us}
    assert periods[-1] <= now_us < periods[-1] + step_us
    assert periods[-1] == start_of(now_us, chosen.step_seconds)


@given(st.integers(1, 2 * TYPES_MAX), st.integers(0, 4 * TYPES_MAX), st.integers())
def test_types_are_bounded_and_nothing_is_dropped(types: int, events: int, seed: int) -> None:
    """However many types there are, few are kept, and each event is counted once, if only among the others."""
    event_types = [str(number) for number in random.Random(seed).choices(range(types), k=events)]
    counts, sums = TypeCounts(), TypeCounts()
    for event_type in event_types:
        counts.of(event_type)[INDEX[ACCEPTED]] += 1
    names = sums.add(counts)
    assert names == set(sums.by_type) == set(counts.by_type)
    assert len(sums.by_type) <= TYPES_MAX + 1
    assert sum(amounts[INDEX[ACCEPTED]] for amounts in sums.by_type.values()) == len(event_types)
    assert (OTHERS in sums.by_type) == (len(set(event_types)) > TYPES_MAX)


def test_a_metrics_history_has_every_period_and_the_busiest_type_first() -> None:
    """Sums land in their periods and types; what lies beyond the range is passed over; the rest is nothing."""
    chosen = RANGES["1h"]
    starts = chosen.periods(NOW_US)
    found = metrics_history(
        chosen,
        NOW_US,
        periods=[(starts[3], "accepted", 9), (starts[3], "dead_lettered", 2), (starts[0] - 1, "accepted", 99)],
        types=[("small", "accepted", 1), ("big", "accepted", 8), ("big", "succeeded", 3), ("big", LATENCIES[4], 5)],
        latencies=[(LATENCIES[4], 5)],
        settled=[("big", starts[3], 3), ("big", starts[0] - 1, 99)],
    )
    assert found.periods[3] == Period(starts[3], accepted=9, dead_lettered=2)
    assert [period for period in found.periods if period.settled] == [found.periods[3]]
    assert len(found.periods) == 60
    assert [one.event_type for one in found.types] == ["big", "small"]
    assert found.types[0].settled == (0, 0, 0, 3, *[0] * 56)
    assert found.types[0].ok_share == 1.0
    assert found.types[1].ok_share is None
    assert found.latencies == found.types[0].latencies == (0, 0, 0, 0, 5, *[0] * (BUCKETS - 5))
