"""At fifty events a second: how long from sending an event until its outcome is in the store?

A process of its own sends, and says when each request went out. This one looks into the store itself for outcomes that
are committed, every tenth of a millisecond or so: the daemon is asked nothing, and half of that is in what is measured.
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
from typing import IO, NamedTuple

import asyncpg

from bench.processes import Running, daemon, directory
from bench.servers import settings

EVENTS_PER_SECOND = 50
SECONDS = 30.0
LOOK_SECONDS = 0.0001
WARM_UP_SECONDS = 5.0
ENDED = "SELECT seq, id FROM events WHERE state = 'succeeded' AND seq > {}"
OVERTAKING_MAX = 100  # events that end before one that was accepted before them

# Gives what has ended beyond a row, and the time by which it had.
Look = Callable[[int], Awaitable[tuple[float, list[tuple[int, str]]]]]


class Took(NamedTuple):
    """The milliseconds until outcomes were recorded, sorted: since each request went out, and since it was due."""

    since_sent: list[float]
    since_due: list[float]


async def watch(look: Look, until: float) -> dict[str, float]:
    """Return when each event that ended was first seen to have ended, slow ones left out; they end nearly in order."""
    seen: dict[str, float] = {}
    last = 0
    while time.monotonic() < until:
        time.sleep(LOOK_SECONDS)  # noqa: ASYNC251  # a timer of the loop is a millisecond late, and nobody else is here
        ended_by, found = await look(last - OVERTAKING_MAX)
        for seq, event_id in found:
            seen.setdefault(event_id, ended_by)
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
) -> Took:
    """Send for a while, and return how long it took until outcomes were recorded.

    Events are left out that have not been seen to end by then, or were overtaken by too many.
    """
    with sending(running, per_second, *options) as lines:
        seen = await watch(look, time.monotonic() + WARM_UP_SECONDS + seconds)
        lines.seek(0)
        sent = [line.split() for line in lines if line.endswith("\n")]
    first = min(float(due) for due, *_ in sent) + WARM_UP_SECONDS
    measured = [
        (seen[event_id], float(due), float(went_out))
        for due, _, _, _, event_id, went_out in sent
        if float(due) > first and event_id in seen
    ]
    return Took(
        since_sent=sorted((ended - went_out) * 1000 for ended, _, went_out in measured),
        since_due=sorted((ended - due) * 1000 for ended, due, _ in measured),
    )


def line(name: str, took: Took) -> str:
    """Return one line of the table."""
    columns = [f"{some[len(some) // 2]:9.1f} {some[len(some) * 99 // 100]:8.1f} {some[-1]:9.1f}" for some in took]
    return f"{name:32} {len(took.since_due):7,} {'  '.join(columns)}"


@contextlib.asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[tuple[Running, Look]]:
    """Run a daemon with the embedded defaults, and give the look into its store."""
    with (
        daemon(folder) as running,
        contextlib.closing(sqlite3.connect(folder / "store.db", isolation_level=None)) as store,
    ):
        version = -1

        async def look(last: int) -> tuple[float, list[tuple[int, str]]]:
            nonlocal version
            before, ((version,),) = version, store.execute("PRAGMA data_version").fetchall()
            changed_by = time.monotonic()
            rows = [] if version == before else store.execute(ENDED.format("?"), (last,)).fetchall()
            return changed_by, rows

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

        async def look(last: int) -> tuple[float, list[tuple[int, str]]]:
            rows = [tuple(row) for row in await store.fetch(ENDED.format("$1"), last)]
            return time.monotonic(), rows

        try:
            yield running, look
        finally:
            await store.close()


KINDS = {"embedded": embedded, "Redis (everysec) + PostgreSQL": shared}


async def measure() -> None:
    """Print one line for each of the two kinds of store and stream."""
    heads = f"{'p50 ms':>9} {'p99 ms':>8} {'worst ms':>9}"
    print(f"{'until the outcome was recorded':32} {'':7} {'since the request went out':>28}  {'since it was due':>28}")
    print(f"{'':32} {'events':>7} {heads}  {heads}")
    with directory() as folder:
        for name, kind in KINDS.items():
            async with kind(folder / kind.__name__) as (running, look):
                print(line(name, await latencies(running, look)), flush=True)


if __name__ == "__main__":
    asyncio.run(measure())
