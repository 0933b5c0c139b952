"""Retention: which whole segments may go, decided without touching them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from replayforge.forgelog.segment import Segment

SEGMENTS_PER_STEP = 16


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """What asks for removal (age, size) and what stands against it (who has not read yet)."""

    retention_seconds: float | None
    retention_bytes_max: int | None


@dataclass(frozen=True, slots=True)
class Retained:
    """What one step of retention removed."""

    segments: int
    first_offset: int


def deletable(
    segments: Sequence[Segment], rule: RetentionRule, *, projected_offset: int, slowest_consumer: int | None,
    now_ns: int | None,
) -> list[Segment]:  # fmt: skip
    """Return the oldest sealed segments that may go now, oldest first, a bounded number.

    No segment goes before the dispatcher has passed it. Age waits for every consumer too; the limit on bytes does not.
    `now_ns` is None when the clock cannot be trusted; then age removes nothing.
    """
    gone: list[Segment] = []
    total = sum(segment.end for segment in segments)
    for segment, successor in pairwise(segments):
        if segment.last_offset > projected_offset or len(gone) == SEGMENTS_PER_STEP:
            break
        too_many = rule.retention_bytes_max is not None and total > rule.retention_bytes_max
        read_by_all = slowest_consumer is None or segment.last_offset <= slowest_consumer
        if not too_many and not (read_by_all and is_old(successor, rule.retention_seconds, now_ns)):
            break
        gone.append(segment)
        total -= segment.end
    return gone


def is_old(successor: Segment, retention_seconds: float | None, now_ns: int | None) -> bool:
    """Tell whether the youngest record in front of `successor` is past its age."""
    if retention_seconds is None or now_ns is None:
        return False
    return now_ns - successor.header.created_ns > retention_seconds * 1e9
