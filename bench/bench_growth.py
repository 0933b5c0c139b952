"""A million events that have ended and are kept: do the next ones still end as fast as when there were ten thousand?"""

import statistics
import sys

from bench.bench_end_to_end import DRIVES, measure, wait_for_end
from bench.load import python_client
from bench.processes import Running, daemon, directory

FEW = 10_000
EVENTS_PER_REQUEST = 1000
ROUNDS = 3


def fill(running: Running, events: int) -> None:
    """Let events end until so many are kept."""
    missing = events - running.ledger()["succeeded"]
    python_client(running.url, missing // EVENTS_PER_REQUEST, EVENTS_PER_REQUEST, 4)
    wait_for_end(running, running.ledger()["accepted"])


def main(many: int) -> None:
    """Print the rates at few and at many kept events, and what the process and its files hold."""
    print(f"{'kept':>10} " + " ".join(f"{drive.name + ', ended/s':>52}" for drive in DRIVES))
    with directory() as folder, daemon(folder) as running:
        for kept in (FEW, many):
            fill(running, kept)
            rates = [statistics.median(measure(running, drive).ended for _ in range(ROUNDS)) for drive in DRIVES]
            print(f"{kept:10,} " + " ".join(f"{rate:52,.0f}" for rate in rates), flush=True)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20
        print(f"resident {running.resident_mebibytes():.0f} MiB; log and store {size:,.0f} MiB on disk")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
