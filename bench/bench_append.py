"""How fast the log makes records durable, beside what the disk allows; how long a start and a deep check take.

Run it as `python -m bench.bench_append [--directory DIR] [--large-mib 2048]`.
"""

import argparse
import asyncio
import os
import platform
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from replayforge.forgelog.check import verify
from replayforge.forgelog.files import OsFiles
from replayforge.forgelog.log import ForgeLog, NewRecord
from replayforge.forgelog.stats import percentile
from replayforge.forgelog.sync_bench import SyncFigures, measure_syncs

PAYLOAD_BYTES = 1024
MEBIBYTE = 1 << 20
SMALL_MIB = 10
WRITERS = {1: 1_000, 64: 64_000, 256: 128_000}  # writers -> records in all


@dataclass(frozen=True, slots=True)
class AppendFigures:
    writers: int
    records_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    records_per_sync: float


async def measure_appends(directory: Path, writers: int, records: int) -> AppendFigures:
    """Append from many coroutines, each waiting for its own record before it sends the next."""
    log = ForgeLog.open(directory)
    latencies: list[float] = []
    payload = os.urandom(PAYLOAD_BYTES)

    async def write(count: int) -> None:
        for _ in range(count):
            started = time.perf_counter()
            await log.append([NewRecord(payload)])
            latencies.append(time.perf_counter() - started)

    await asyncio.gather(*(write(2) for _ in range(writers)))
    latencies.clear()
    batches, started, cpu = log.stats().committed_batches, time.perf_counter(), time.process_time()
    await asyncio.gather(*(write(records // writers) for _ in range(writers)))
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    batches = log.stats().committed_batches - batches
    await log.close()
    return AppendFigures(
        writers, len(latencies) / seconds, percentile(latencies, 0.5) * 1000, percentile(latencies, 0.99) * 1000,
        cpu / len(latencies) * 1e6, len(latencies) / batches,
    )  # fmt: skip


async def fill(directory: Path, mebibytes: int) -> None:
    """Write a log of so many mebibytes, in records of 16 KiB."""
    log = ForgeLog.open(directory)
    batch = [NewRecord(os.urandom(16_384 - 16)) for _ in range(64)]
    for _ in range(mebibytes):
        await log.append(batch)
    await log.close()


async def measure_start(directory: Path, rounds: int = 7) -> tuple[float, float, int]:
    """Return in milliseconds the first start, which reads the last segment, and the median of the others.

    Each start comes after a clean stop. Also returns how many segments the first one looked at.
    """
    times = []
    segments = []
    for _ in range(rounds):
        started = time.perf_counter()
        log = ForgeLog.open(directory)
        times.append((time.perf_counter() - started) * 1000)
        segments.append(log.recovery.segments)
        await log.close()
    return times[0], percentile(times[1:], 0.5), segments[0]


def measure_verification(directory: Path) -> float:
    """Return the mebibytes a second of a deep check."""
    started = time.perf_counter()
    report = verify(OsFiles(), directory, deep=True)
    assert not report.findings
    return report.bytes_checked / MEBIBYTE / (time.perf_counter() - started)


def print_appends(syncs: list[SyncFigures], appends: list[AppendFigures]) -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {time.strftime('%F')}\n")
    for one in syncs:
        print(f"fdatasync, {one.way:<34} p50 {one.p50_ms:.3f} ms  p99 {one.p99_ms:.3f} ms  {one.per_second:,.0f}/s")
    print(
        f"\nappend of {PAYLOAD_BYTES} bytes, durable when acknowledged; the limit is the sync rate x records per sync"
    )
    print("| writers | records/s | p50 ms | p99 ms | CPU us/record | records/sync | share of the limit |")
    print("|---|---|---|---|---|---|---|")
    for figures in appends:
        share = figures.records_per_second / (syncs[0].per_second * figures.records_per_sync)
        print(
            f"| {figures.writers} | {figures.records_per_second:,.0f} | {figures.p50_ms:.2f} | {figures.p99_ms:.2f} "
            f"| {figures.cpu_us:.1f} | {figures.records_per_sync:.0f} | {share:.0%} |"
        )


async def run(directory: Path, large_mib: int) -> None:
    """Measure everything and print it."""
    syncs = [measure_syncs(OsFiles(), directory, syncs=500, preallocated=way) for way in (True, False)]
    appends = [await measure_appends(directory / str(writers), writers, count) for writers, count in WRITERS.items()]
    print_appends(syncs, appends)
    await fill(directory / "small", SMALL_MIB)
    await fill(directory / "large", large_mib)
    small, large = [await measure_start(directory / name) for name in ("small", "large")]
    print()
    for name, (first, other, segments) in ((f"{SMALL_MIB} MiB", small), (f"{large_mib:,} MiB", large)):
        print(f"start, {name:>9} log: {first:.1f} ms ({segments} segments, the last one is read), again {other:.1f} ms")
    print(f"ratio: {large[0] / small[0]:.2f}, again {large[1] / small[1]:.2f}")
    print(f"deep verification, 1 KiB records: {measure_verification(directory / '256'):,.0f} MiB/s")
    print(f"deep verification, 16 KiB records: {measure_verification(directory / 'large'):,.0f} MiB/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, help="where to write; default: the system's temporary directory")
    parser.add_argument("--large-mib", type=int, default=2048)
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="bench-append-", dir=arguments.directory))
    try:
        asyncio.run(run(directory, arguments.large_mib))
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
