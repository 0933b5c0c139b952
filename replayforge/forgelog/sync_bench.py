"""How fast this disk makes things durable: the physical limit of every append."""

import os
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from replayforge.forgelog.files import Files
from replayforge.forgelog.stats import percentile

ROUND_BYTES = 4096


@dataclass(frozen=True, slots=True)
class SyncFigures:
    """Latencies of one way of writing, in milliseconds, and how many such writes a second the disk allows."""

    way: str
    syncs: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    per_second: float


def measure_syncs(files: Files, directory: Path, *, syncs: int, preallocated: bool) -> SyncFigures:
    """Write and sync 4 KiB again and again in a file of its own, which is removed afterwards."""
    path = directory / f"bench-sync-{os.getpid()}.tmp"
    handle = files.open(path, create=True)
    try:
        if preallocated:
            files.allocate(handle, syncs * ROUND_BYTES)
        data = os.urandom(ROUND_BYTES)
        latencies = [measure_one(files, handle, data, number * ROUND_BYTES) for number in range(syncs)]
    finally:
        files.close(handle)
        files.unlink(path)
    way = "preallocated, as ForgeLog writes" if preallocated else "growing file"
    return SyncFigures(
        way, syncs, percentile(latencies, 0.5) * 1000, percentile(latencies, 0.99) * 1000, max(latencies) * 1000,
        syncs / sum(latencies),
    )  # fmt: skip


def measure_one(files: Files, handle: int, data: bytes, position: int) -> float:
    """Return how many seconds one write and its sync take."""
    started = perf_counter()
    files.pwrite(handle, data, position)
    files.fdatasync(handle)
    return perf_counter() - started
