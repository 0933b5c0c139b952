"""Half an hour at 70 % of what it can bear: do memory, descriptors, threads and latency end as they began?

BENCH_DRIFT_MINUTES is another time. Everything has its defaults, so all events of the run are kept. What the machine
does in that time is told apart from what the daemon does: a fixed piece of work is timed each second, and the peak is
measured again at the end, of this daemon and of one that keeps nothing yet.
"""

import contextlib
import os
import sqlite3
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from bench.bench_end_to_end import SINGLE, measure
from bench.open_loop import Second, seconds_of
from bench.processes import Running, daemon, directory

MINUTES = float(os.environ.get("BENCH_DRIFT_MINUTES", "30"))
SHARE = 0.7
ROUNDS = 9
PARTS = 10
WORK_TURNS = 100_000
RECENT = 500
RECORDED = """SELECT updated_at_us - created_at_us FROM (SELECT * FROM events ORDER BY seq DESC LIMIT ? OFFSET ?)
    WHERE state = 'succeeded'"""
CLOSING_SECONDS_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Look:
    """What one look has found; `recorded_ms` is from acceptance to outcome, of some events of about a second ago.

    `work_ms` is the processor time of a fixed piece of work in this process: what the machine gives just now.
    """

    at: float
    ended: int
    cpu_seconds: float
    work_ms: float
    mebibytes: float
    descriptors: int
    threads: int
    recorded_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the run: medians of its looks, and quantiles over all its answers and outcomes."""

    minute: float
    work_ms: float
    cpu_us: float
    busy: float
    mebibytes: float
    descriptors: float
    threads: float
    answered_p50_ms: float
    answered_p99_ms: float
    recorded_p50_ms: float
    recorded_p99_ms: float
    not_accepted: int

    def line(self) -> str:
        """Return a line of the table."""
        return (
            f"{self.minute:7.1f} {self.work_ms:8.2f} {self.cpu_us:7.0f} {self.busy:6.0%}"
            f" {self.mebibytes:9.1f} {self.descriptors:12.0f} {self.threads:8.0f}"
            f" {self.answered_p50_ms:9.1f} {self.answered_p99_ms:9.1f} {self.recorded_p50_ms:9.1f}"
            f" {self.recorded_p99_ms:9.1f} {self.not_accepted:13,}"
        )


def fixed_work_ms() -> float:
    """Return the processor time of a piece of work that is always the same."""
    started = time.process_time()
    for _ in range(WORK_TURNS):
        pass
    return (time.process_time() - started) * 1000


def looking(running: Running, store: sqlite3.Connection, rate: float, looks: list[Look]) -> Callable[[], None]:
    """Return what looks at the daemon once, from outside."""

    def look() -> None:
        recorded = tuple(sorted(row[0] / 1000 for row in store.execute(RECORDED, (RECENT, int(rate)))))
        looks.append(
            Look(
                at=time.monotonic(),
                ended=running.ledger()["succeeded"],
                cpu_seconds=running.cpu_seconds(),
                work_ms=fixed_work_ms(),
                mebibytes=running.resident_mebibytes(),
                descriptors=running.descriptors(),
                threads=running.threads(),
                recorded_ms=recorded,
            )
        )

    return look


def share(values: list[float], part: float) -> float:
    """Return a quantile."""
    ordered = sorted(values) or [float("nan")]
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def part_of(looks: list[Look], seconds: list[Second], began: float) -> Part:
    """Return what was found in one part of the run."""
    answered = [took for second in seconds for took in second.milliseconds]
    recorded = [took for look in looks for took in look.recorded_ms]
    first, last = looks[0], looks[-1]
    cpu_seconds = last.cpu_seconds - first.cpu_seconds
    return Part(
        minute=(last.at - began) / 60,
        work_ms=statistics.median(look.work_ms for look in looks),
        cpu_us=cpu_seconds / (last.ended - first.ended) * 1e6,
        busy=cpu_seconds / (last.at - first.at),
        mebibytes=statistics.median(look.mebibytes for look in looks),
        descriptors=statistics.median(look.descriptors for look in looks),
        threads=statistics.median(look.threads for look in looks),
        answered_p50_ms=share(answered, 0.5),
        answered_p99_ms=share(answered, 0.99),
        recorded_p50_ms=share(recorded, 0.5),
        recorded_p99_ms=share(recorded, 0.99),
        not_accepted=sum(second.unsent + second.refused + second.failed for second in seconds),
    )


def parts_of(looks: list[Look], seconds: list[Second]) -> list[Part]:
    """Cut the run into parts of the same length."""
    bounds = [(len(looks) * number // PARTS, len(seconds) * number // PARTS) for number in range(PARTS + 1)]
    return [
        part_of(looks[first:last], seconds[begun:ended], looks[0].at)
        for (first, begun), (last, ended) in pairwise(bounds)
    ]


def drift(parts: list[Part]) -> str:
    """Say what has changed from the second part, when everything is warm, to the last."""
    first, last = parts[1], parts[-1]
    hours = (last.minute - first.minute) / 60
    grown = last.mebibytes - first.mebibytes
    ratios = ", ".join(
        f"{said} x {getattr(last, name) / getattr(first, name):.2f}"
        for said, name in (
            ("piece of work", "work_ms"),
            ("processor time an event", "cpu_us"),
            ("answered p50", "answered_p50_ms"),
            ("answered p99", "answered_p99_ms"),
            ("recorded p50", "recorded_p50_ms"),
            ("recorded p99", "recorded_p99_ms"),
        )
    )
    return (
        f"drift from the second part to the last: {grown:+.1f} MiB ({grown / hours:+.0f} MiB an hour),"
        f" threads {last.threads - first.threads:+.0f}, {ratios}"
    )


def descriptors_at_rest(running: Running) -> int:
    """Return how many descriptors are open once no client is connected, and no more are being closed."""
    until, count = time.monotonic() + CLOSING_SECONDS_MAX, running.descriptors()
    while time.monotonic() < until:
        time.sleep(1)
        before, count = count, running.descriptors()
        if count == before:
            break
    return count


def files_mebibytes(folder: Path) -> float:
    """Return what lies on the disk."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20


def peak(running: Running) -> float:
    """Return how many events end in a second where each client waits for its answer."""
    return statistics.median(measure(running, SINGLE).ended for _ in range(ROUNDS))


def main() -> None:
    """Print a line for each tenth of the run, the drift, and the peak before and after."""
    with directory() as folder, daemon(folder / "kept") as running:
        capacity = peak(running)
        rate = SHARE * capacity
        print(f"{MINUTES:g} minutes at {rate:,.0f} single POSTs/s, {SHARE:.0%} of {capacity:,.0f} ended/s", flush=True)
        looks: list[Look] = []
        descriptors = descriptors_at_rest(running)
        with contextlib.closing(sqlite3.connect(folder / "kept" / "store.db", isolation_level=None)) as store:
            seconds = seconds_of(running.url, rate, MINUTES * 60, 1, looking(running, store, rate, looks))
        print(
            f"{'':7} {'a piece':>8} {'CPU us':>7} {'':6} {'':9} {'':12} {'':8} {'answered':>19}"
            f" {'accepted to outcome':>19}\n{'minute':>7} {'of work':>8} {'/event':>7} {'busy':>6} {'MiB':>9}"
            f" {'descriptors':>12} {'threads':>8} {'p50 ms':>9} {'p99 ms':>9} {'p50 ms':>9} {'p99 ms':>9}"
            f" {'not accepted':>13}"
        )
        parts = parts_of(looks, seconds)
        print("\n".join(part.line() for part in parts))
        print(drift(parts))
        print(f"descriptors at rest: {descriptors} before, {descriptors_at_rest(running)} after")
        kept, size = running.ledger(), files_mebibytes(folder)
        print(f"{kept['succeeded']:,} of {kept['accepted']:,} ended; {size:,.0f} MiB on disk", flush=True)
        with daemon(folder / "fresh") as fresh:
            peaks = f"{peak(running):,.0f} of this daemon, {peak(fresh):,.0f} of a fresh one"
        print(f"peak, ended/s: {capacity:,.0f} before; after it {peaks}")


if __name__ == "__main__":
    main()
