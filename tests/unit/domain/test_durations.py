"""Durations in memory: counted by type and outcome, bounded in types."""

from replayforge.domain.durations import OTHER, TYPES_MAX, DurationsByType
from replayforge.domain.histogram import bucket_of


def test_durations_are_counted_by_type_and_outcome() -> None:
    """Each is in the bucket of its length, and in the sum."""
    durations = DurationsByType()
    assert durations.of("order", "succeeded").note(10) == [0]
    assert durations.of("order", "failed").note(4_000_000, 6) == [bucket_of(4_000_000), 0]
    assert {outcome: (sum(one.counts), one.sum_us) for outcome, one in durations.by_type["order"].items()} == {
        "succeeded": (1, 10),
        "failed": (2, 4_000_006),
    }


def test_further_types_are_counted_together() -> None:
    """However many types there are, there are no more than one beyond the limit, and nothing is left out."""
    durations = DurationsByType()
    for number in range(2 * TYPES_MAX):
        durations.of(f"type {number}", "succeeded").note(1)
    durations.of("type 0", "succeeded").note(1)
    assert len(durations.by_type) == TYPES_MAX + 1
    assert sum(durations.by_type[OTHER]["succeeded"].counts) == TYPES_MAX
    assert sum(durations.by_type["type 0"]["succeeded"].counts) == 2
