"""At fifty events a second: how long from sending an event until its outcome is in the store?

A process of its own sends. This one looks into the store itself for outcomes that are committed, every half a
millisecond: the daemon is asked nothing, and what is measured includes the look.
"""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO

import asyncpg

from bench.processes import Running, daemon, directory
from bench.servers import settings

EVENTS_PER_SECOND = 50
SECONDS = 30.0
LOOK_SECONDS = 0.0005
WARM_UP_SECONDS = 5.0
ENDED = "SELECT seq, id FROM events WHERE state = 'succeeded' AND seq > {}"
OVERTAKING_MAX = 100  # events that end before one that was accepted before them

Look = Callable[[int], Awaitable[list[tuple[int, str]]]]


async def watch(look: Look, until: float) -> dict[str, float]:
    """Return when each event that ended was first seen to have ended, slow ones left out; they end nearly in order."""
    seen: dict[str, float] = {}
    last = 0
    while time.monotonic() < until:
        await asyncio.sleep(LOOK_SECONDS)
        found = await look(last - OVERTAKING_MAX)
        now = time.monotonic()
        for seq, event_id in found:
            seen.setdefault(event_id, now)
            last = max(last, seq)
    return seen


@contextlib.contextmanager
def sending(running: Running, per_second: float, *options: str) -> Iterator[IO[str]]:
    """Let events be sent until the block ends, as bench.steady does; gives where each of them becomes a line."""
    command = [sys.executable, "-m", "bench.steady", running.url, str(per_second), *options]
    with (
        tempfile.TemporaryFile("w+") as lines,
        subprocess.Popen(command, stdout=lines, stderr=subprocess.DEVNULL) as sender,
    ):
        try:
            yield lines
        finally:
            sender.terminate()


async def latencies(
    running: Running,
    look: Look,
    *options: str,
    per_second: float = EVENTS_PER_SECOND,
    seconds: float = SECONDS,
) -> list[float]:
    """Send for a while, and return the milliseconds from when each event was due until its outcome was recorded.

    Events are left out that have not been seen to end by then, or were overtaken by too many.
    """
    with sending(running, per_second, *options) as lines:
        seen = await watch(look, time.monotonic() + WARM_UP_SECONDS + seconds)
        lines.seek(0)
        sent = [line.split() for line in lines if line.endswith("\n")]
    first = min(float(due) for due, *_ in sent) + WARM_UP_SECONDS
    measured = [(float(due), event_id) for due, _, _, _, event_id in sent if float(due) > first]
    return sorted((seen[event_id] - due) * 1000 for due, event_id in measured if event_id in seen)


def line(name: str, took: list[float]) -> str:
    """Return one line of the table."""
    p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
    return f"{name:32} {len(took):7,} {p50:8.1f} {p99:8.1f} {took[-1]:9.1f}"


@contextlib.asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[tuple[Running, Look]]:
    """Run a daemon with the embedded defaults, and give the look into its store."""
    with (
        daemon(folder) as running,
        contextlib.closing(sqlite3.connect(folder / "store.db", isolation_level=None)) as store,
    ):

        async def look(last: int) -> list[tuple[int, str]]:
            return store.execute(ENDED.format("?"), (last,)).fetchall()

        yield running, look


@contextlib.asynccontextmanager
async def shared(folder: Path) -> AsyncIterator[tuple[Running, Look]]:
    """Run a daemon with Redis and PostgreSQL, and give the look into its store."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        settings(Path(scratch)) as chosen,
        daemon(folder, settings=chosen) as running,
    ):
        store = await asyncpg.connect(chosen["store.url"])

        async def look(last: int) -> list[tuple[int, str]]:
            return [tuple(row) for row in await store.fetch(ENDED.format("$1"), last)]

        try:
            yield running, look
        finally:
            await store.close()


KINDS = {"embedded": embedded, "Redis (everysec) + PostgreSQL": shared}


async def measure() -> None:
    """Print one line for each of the two kinds of store and stream."""
    print(f"{'submit -> outcome recorded':32} {'events':>7} {'p50 ms':>8} {'p99 ms':>8} {'worst ms':>9}")
    with directory() as folder:
        for name, kind in KINDS.items():
            async with kind(folder / kind.__name__) as (running, look):
                print(line(name, await latencies(running, look)), flush=True)


if __name__ == "__main__":
    asyncio.run(measure())
