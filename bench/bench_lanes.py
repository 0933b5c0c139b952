"""Lanes: what 100,000 events blocked behind one key cost the events that are in no lane.

Two daemons alike, one with the blocked events, are driven in turn. BENCH_BLOCKED is another number of them.
"""

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from bench.bench_parked import send
from bench.load import python_client
from bench.processes import Running, daemon, directory
from bench.servers import settings

BLOCKED = int(os.environ.get("BENCH_BLOCKED", "100000"))
LANES = {"lanes": [{"match": "parked.*", "key": "workflow_id", "order": "strict"}]}
ROUNDS = 7
REQUESTS = 10
PER_REQUEST = 1000
LOOK_SECONDS = 0.02


def block(running: Running) -> None:
    """Have one event wait for a signal, and all others of its key behind it."""
    first: dict[str, object] = {"workflow_id": "w", "event_type": "parked.one", "payload": {"seconds": 86_400}}
    send(running, [first])
    while running.get("/api/convergence")["waiting"] < 1:
        time.sleep(LOOK_SECONDS)
    send(running, [first] * BLOCKED)
    while running.get("/api/lanes?limit=1")["items"][0]["blocked"] < min(BLOCKED, 10_000):
        time.sleep(LOOK_SECONDS)


def drive(running: Running) -> tuple[float, float]:
    """Have others run; returns how many have ended a second, and microseconds of processor time for each."""
    events = REQUESTS * PER_REQUEST
    wanted, cpu, started = running.ledger()["succeeded"] + events, running.cpu_seconds(), time.perf_counter()
    python_client(running.url, REQUESTS, PER_REQUEST, 4)
    while running.ledger()["succeeded"] < wanted:
        time.sleep(LOOK_SECONDS)
    return events / (time.perf_counter() - started), (running.cpu_seconds() - cpu) / events * 1e6


def compared(name: str, folder: Path, free: Mapping[str, object], held: Mapping[str, object]) -> str:
    """Return a line of the table: ended a second and processor time, without and with blocked events, medians."""
    with (
        daemon(folder / f"{name}-free", settings={**LANES, **free}) as one,
        daemon(folder / f"{name}-held", settings={**LANES, **held}) as other,
    ):
        block(other)
        rounds = [[drive(running) for running in (one, other)] for _ in range(ROUNDS)]
    ended, cpu = ([[pair[side][at] for pair in rounds] for side in (0, 1)] for at in (0, 1))
    ratio = statistics.median(pair[1][1] / pair[0][1] for pair in rounds)
    figures = [statistics.median(values) for values in (*ended, *cpu)]
    return f"{name:24} {figures[0]:9,.0f} {figures[1]:9,.0f} {figures[2]:9,.0f} {figures[3]:9,.0f} {ratio:9.3f}"


def main() -> None:
    """Print one line for each kind of store."""
    print(f"{'':24} {'ended/s':>9} {'blocked':>9} {'CPU us':>9} {'blocked':>9} {'CPU ratio':>9}")
    with directory() as folder:
        print(compared("embedded", folder, {}, {}), flush=True)
        with contextlib.ExitStack() as stack:
            shared = [
                stack.enter_context(settings(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
                for _ in range(2)
            ]
            print(compared("Redis and PostgreSQL", folder, *shared))


if __name__ == "__main__":
    main()
