"""Durations in buckets on a logarithmic scale: always the same ones, so that counts of any time and daemon add up."""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial

# Six steps a decade from 1 ms to 19 h, in numbers that can be read on an axis; neighbours are a half apart.
EDGES_US = tuple(step * 10**decade for decade in range(8) for step in (1000, 1500, 2000, 3000, 5000, 7000))
BUCKETS = len(EDGES_US) + 1
# Gives the number of the bucket of a duration: it holds what is longer than the edge before it, up to its own edge. The
# first one begins at nothing, negative durations included, and the last one has no end. It is asked for every event.
bucket_of: Callable[[int], int] = partial(bisect_left, EDGES_US)
# Those that are shown, by name.
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def bounds_us(bucket: int) -> tuple[int, int]:
    """Return between which durations a bucket lies; the last one ends where it begins."""
    return (EDGES_US[bucket - 1] if bucket else 0, EDGES_US[min(bucket, BUCKETS - 2)])


def quantile_us(counts: Sequence[int], share: float) -> float | None:
    """Return the duration that this share of all stays below, to within the width of a bucket; None of nothing."""
    rank = max(1, math.ceil(sum(counts) * share))
    passed = 0
    for bucket, count in enumerate(counts):
        if passed + count >= rank:
            low, high = bounds_us(bucket)
            return low + (high - low) * (rank - passed) / count
        passed += count
    return None
