"""Recorded runs held against unchanged code: how many a second, read from the store and replayed in a child process?

Run it as `python -m bench.bench_shadow [RUNS]`.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from replayforge.domain.reports import EventFilter
from replayforge.engine.handlers.loading import load_handlers
from replayforge.shadow.comparing import Question, compare
from replayforge.shadow.replayed import Job
from replayforge.shadow.report import report_of
from replayforge.stores.recordings import COMPARABLE, recorded_runs
from replayforge.stores.snapshot import read_snapshot
from replayforge.testing import Forge

RUNS = 3000
TOGETHER = 100
KINDS = {"bare": "async, without steps", "order": "async, three steps", "plain": "a plain function, one step"}
HANDLERS = """
from replayforge import Handlers

handlers = Handlers()


def same(number):
    return number


@handlers.on("bare")
async def bare(event, ctx):
    return {"fee": 2.5 if event.payload["number"] % 2 else 1}


@handlers.on("order")
async def order(event, ctx):
    total = [await ctx.step(f"step {number}", same, number) for number in range(3)]
    return {"fee": 2.5 if event.payload["number"] % 2 else 1, "total": sum(total)}


@handlers.on("plain")
def plain(event, ctx):
    return ctx.step("one", same, 1)
"""


async def record(forge: Forge, event_type: str, count: int) -> None:
    """Have so many events of a type handled."""
    for start in range(0, count, TOGETHER):
        numbers = range(start, min(start + TOGETHER, count))
        await asyncio.gather(
            *(forge.send(event_type, {"number": number}, workflow_id=f"w-{number}") for number in numbers)
        )
        await forge.settled()


async def measure(forge: Forge, event_type: str, file: Path, count: int) -> str:
    """Compare the runs of a type with the code that they were recorded with; returns one line of the table."""
    began = time.perf_counter()
    wanted = EventFilter(event_type=event_type)
    runs = await read_snapshot(forge.config.store.url, lambda: recorded_runs(wanted, COMPARABLE, count))
    read = time.perf_counter()
    report = report_of(await compare(Question(Job((str(file),))), runs))
    ended = time.perf_counter()
    assert report["verdicts"]["same"] == count, report["verdicts"]
    return f"{KINDS[event_type]:28} {count:7,} {read - began:7.2f} {ended - read:10.2f} {count / (ended - began):9,.0f}"


async def main(count: int) -> None:
    """Print one line for each kind of handler."""
    print(f"{'handlers':28} {'runs':>7} {'read s':>7} {'replayed s':>10} {'runs/s':>9}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "shadow_handlers.py"
        file.write_text(HANDLERS)
        async with Forge(load_handlers([str(file)]), patience_seconds=600) as forge:
            for event_type in KINDS:
                await record(forge, event_type, count)
                print(await measure(forge, event_type, file, count), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS))
