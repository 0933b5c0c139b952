"""Twice the rate that it can bear: does it go on doing what it can, refuse the rest, stay small, and recover?

BENCH_OVERLOAD_SECONDS is how long each kind of load lasts.
"""

import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.bench_end_to_end import BULK, SINGLE, Drive, measure
from bench.open_loop import seconds_of
from bench.processes import Running, daemon, directory
from bench.servers import settings

SECONDS = float(os.environ.get("BENCH_OVERLOAD_SECONDS", "30"))
TIMES = 2.0
START_LOOKS = 2  # a second each, in which the client starts
ROUNDS = 3
DRAIN_SECONDS_MAX = 300.0
HEADINGS = (
    f"{'load':32} {'peak/s':>8} {'due/s':>8} {'accepted':>8} {'ended/s':>8} {'/ peak':>6} {'refused':>8} {'unsent':>7}"
    f" {'failed':>7} {'client':>7} {'MiB: idle':>9} {'at 1/4':>7} {'at 1/2':>7} {'at 3/4':>7} {'end':>7} {'after':>7}"
    f" {'drained s':>9} {'/ peak':>6}"
)


@dataclass(frozen=True, slots=True)
class Look:
    """What the daemon had done and held at one moment."""

    at: float
    accepted: int
    ended: int
    mebibytes: float


def look(running: Running) -> Look:
    """Look once."""
    ledger = running.ledger()
    return Look(time.monotonic(), ledger["accepted"], ledger["succeeded"], running.resident_mebibytes())


def peak(running: Running, drive: Drive) -> float:
    """Return how many events end in a second where each client waits for its answer."""
    return statistics.median(measure(running, drive).ended for _ in range(ROUNDS))


def drained(running: Running) -> str:
    """Return how many seconds it takes until all that was accepted has ended."""
    started = time.monotonic()
    while True:
        ledger = running.ledger()
        if ledger["succeeded"] >= ledger["accepted"]:
            return f"{time.monotonic() - started:.1f}"
        if time.monotonic() - started > DRAIN_SECONDS_MAX:
            return f">{DRAIN_SECONDS_MAX:.0f}"
        time.sleep(0.2)


def line(name: str, drive: Drive, running: Running) -> str:
    """Measure the peak, overload it, let it recover, measure again; returns one line of the table."""
    before = peak(running, drive)
    idle, looks = look(running), list[Look]()
    seconds = seconds_of(
        running.url, TIMES * before / drive.per_request, SECONDS, drive.per_request, lambda: looks.append(look(running))
    )
    until_drained = drained(running)
    due, refused, unsent, failed = (
        sum(getattr(one, name) for one in seconds) for name in ("due", "refused", "unsent", "failed")
    )
    # From when the client sends for certain until it ends; then it waits for its last answers.
    first, *_, last = loaded = [one for one in looks[START_LOOKS:] if one.at < looks[0].at + SECONDS]
    took = last.at - first.at
    accepted, ended = (last.accepted - first.accepted) / took, (last.ended - first.ended) / took
    sizes = [idle.mebibytes, *(loaded[(len(loaded) - 1) * part // 4].mebibytes for part in (1, 2, 3, 4))]
    again = peak(running, drive)
    shares = (f"{count / due:{width}.1%}" for count, width in ((refused, 8), (unsent, 7), (failed, 7)))
    return (
        f"{name:32} {before:8,.0f} {due * drive.per_request / SECONDS:8,.0f} {accepted:8,.0f} {ended:8,.0f}"
        f" {ended / before:6.2f} {' '.join(shares)} {seconds[-1].cpu_seconds / SECONDS:7.0%} {sizes[0]:9.0f} "
        + " ".join(f"{size:7.0f}" for size in (*sizes[1:], running.resident_mebibytes()))
        + f" {until_drained:>9} {again / before:6.2f}"
    )


def main() -> None:
    """Print one line for each way to load each of the two kinds of store and stream."""
    print(f"{TIMES:.0f} times the peak for {SECONDS:.0f} s each; shares are of what was due; client: cores it took")
    print(HEADINGS)
    with directory() as folder, tempfile.TemporaryDirectory() as scratch, settings(Path(scratch)) as shared:
        for kind, chosen in (("embedded", {}), ("Redis + PostgreSQL", shared)):
            for drive, name in ((SINGLE, "single POSTs"), (BULK, "bulk of 100")):
                with daemon(folder / f"{kind}-{name}", settings=chosen) as running:
                    print(line(f"{kind}, {name}", drive, running), flush=True)


if __name__ == "__main__":
    main()
