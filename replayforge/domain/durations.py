"""Durations that were counted since this process began: in fixed buckets, and by event type and outcome."""

from replayforge.domain.histogram import BUCKETS, bucket_of

TYPES_MAX = 50
OTHER = "other"


class Durations:
    """How many durations fell into each bucket, and their sum."""

    __slots__ = ("counts", "sum_us")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.sum_us = 0

    def note(self, *durations_us: int) -> list[int]:
        """Count some; returns their buckets."""
        buckets = [bucket_of(duration_us) for duration_us in durations_us]
        for bucket in buckets:
            self.counts[bucket] += 1
        self.sum_us += sum(durations_us)
        return buckets

    def copy(self) -> "Durations":
        """Return the same, which changes no more."""
        same = Durations()
        same.counts, same.sum_us = self.counts.copy(), self.sum_us
        return same


class DurationsByType:
    """Durations by event type and outcome: of the first TYPES_MAX types, those of all further ones under OTHER."""

    def __init__(self) -> None:
        self.by_type: dict[str, dict[str, Durations]] = {}

    def of(self, event_type: str, outcome: str) -> Durations:
        """Return where those of a type and an outcome are counted."""
        by_outcome = self.by_type.get(event_type)
        if by_outcome is None:
            by_outcome = self.of_new_type(event_type)
        durations = by_outcome.get(outcome)
        if durations is None:
            durations = by_outcome[outcome] = Durations()
        return durations

    def of_new_type(self, event_type: str) -> dict[str, Durations]:
        """Return where a type is counted that has no place of its own yet."""
        return self.by_type.setdefault(event_type if len(self.by_type) < TYPES_MAX else OTHER, {})
