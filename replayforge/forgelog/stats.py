"""Figures of an open log, for status pages and metrics."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogStats:
    """The log at one moment. Latencies are those of the last 1,024 syncs of data."""

    log_id: str
    first_offset: int
    last_offset: int
    durable_offset: int
    projected_offset: int
    consumers: dict[str, int]
    wal_bytes: int
    segment_count: int
    appended_records: int
    committed_batches: int
    queued_records: int
    queued_bytes: int
    sync_p50_ms: float
    sync_p99_ms: float
    sync_count: int
    slow_syncs: int
    stalled_seconds: float
    torn_bytes_repaired: int
    full: bool
    spare_missing: bool
    poisoned: bool
    writable: bool
    reason: str
    scrubbed_bytes: int
    scrub_errors: int
    scrub_passes: int
    damaged_reads: int


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value below which `share` of the values lie; 0 when there are none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0
