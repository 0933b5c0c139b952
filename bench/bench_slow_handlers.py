"""One event of a hundred runs a handler of two seconds, while workers are free: do the others end as soon as without?

Each round is one without and one with them, on the same daemon. BENCH_SLOW_SECONDS is how long each half of it takes.
"""

import asyncio
import os
import statistics

from bench.bench_latency import KINDS, latencies
from bench.processes import directory

EVENTS_PER_SECOND = 200  # of which 2 are slow, so that some 4 of 16 workers are held
SECONDS = float(os.environ.get("BENCH_SLOW_SECONDS", "20"))
ROUNDS = 3


def quantiles(took: list[float]) -> tuple[float, float]:
    """Return p50 and p99 of what is sorted."""
    return took[len(took) // 2], took[len(took) * 99 // 100]


async def measure() -> None:
    """Print one line for each of the two kinds of store and stream, medians of the rounds."""
    print(f"{EVENTS_PER_SECOND} events/s; of the 99 % that are not slow, submit -> outcome recorded, in ms")
    print(
        f"{'':32} {'events':>7} {'p50':>7} {'with':>7} {'p99':>7} {'with':>7} {'p99 with / without':>19}  each round's"
    )
    with directory() as folder:
        for name, kind in KINDS.items():
            without: list[tuple[float, float]] = []
            beside: list[tuple[float, float]] = []
            events = 0
            async with kind(folder / kind.__name__) as (running, look):
                for _ in range(ROUNDS):
                    for options, found in (([], without), (["slow"], beside)):
                        took = await latencies(running, look, *options, per_second=EVENTS_PER_SECOND, seconds=SECONDS)
                        found.append(quantiles(took.since_due))
                        events += len(took.since_due)
            ratios = [slow[1] / plain[1] for plain, slow in zip(without, beside, strict=True)]
            (p50, p99), (p50_with, p99_with) = (
                (statistics.median(one[0] for one in found), statistics.median(one[1] for one in found))
                for found in (without, beside)
            )
            print(
                f"{name:32} {events:7,} {p50:7.1f} {p50_with:7.1f} {p99:7.1f} {p99_with:7.1f}"
                f" {statistics.median(ratios):19.2f}  {', '.join(f'{ratio:.2f}' for ratio in ratios)}",
                flush=True,
            )


if __name__ == "__main__":
    asyncio.run(measure())
