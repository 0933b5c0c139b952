"""Workflows of ten steps that do nothing: how many steps a second with 64 at once, and how long a lone step takes."""

import json
import statistics
import tempfile
import time
from pathlib import Path
from urllib.request import Request, urlopen

from bench.bench_end_to_end import wait_for_end
from bench.processes import Running, daemon, directory
from bench.servers import settings

STEPS = 10
AT_ONCE = 64
WORKFLOWS = 1920
PER_REQUEST = 960
LONE = 60
ROUNDS = 3


def send(running: Running, events: list[dict[str, str]]) -> None:
    """Send events in one request."""
    headers = {"Content-Type": "application/json"}
    with urlopen(Request(f"{running.url}/api/events/bulk", json.dumps(events).encode(), headers)) as answer:
        answer.read()


def rate(running: Running) -> tuple[float, float]:
    """Return steps a second with 64 workflows at once, and microseconds of processor time a step."""
    before, cpu, started = running.ledger()["succeeded"], running.cpu_seconds(), time.perf_counter()
    for _ in range(WORKFLOWS // PER_REQUEST):
        send(running, [{"workflow_id": "w", "event_type": "steps.ten"}] * PER_REQUEST)
    wait_for_end(running, before + WORKFLOWS)
    count = WORKFLOWS * STEPS
    return count / (time.perf_counter() - started), (running.cpu_seconds() - cpu) / count * 1e6


def lone(running: Running) -> list[float]:
    """Return how many milliseconds each step of a workflow took that runs alone."""
    took: list[float] = []
    for number in range(LONE):
        before = running.ledger()["succeeded"]
        send(running, [{"workflow_id": f"lone-{number}", "event_type": "steps.ten"}])
        wait_for_end(running, before + 1)
        (event,) = running.get(f"/api/events?workflow_id=lone-{number}")["items"]
        took += running.get(f"/api/events/{event['id']}")["result"]["milliseconds"]
    return sorted(took)


def line(name: str, running: Running) -> str:
    """Measure and return one line of the table."""
    rates = [rate(running) for _ in range(ROUNDS)]
    steps, cpu_us = (statistics.median(one[index] for one in rates) for index in (0, 1))
    took = lone(running)
    return f"{name:32} {steps:9,.0f} {cpu_us:9,.0f} {took[len(took) // 2]:8.2f} {took[len(took) * 99 // 100]:8.2f}"


def main() -> None:
    """Print one line for each of the two kinds of store and stream."""
    print(f"{'ten steps a workflow':32} {'steps/s':>9} {'CPU us':>9} {'p50 ms':>8} {'p99 ms':>8}")
    chosen = {"workers.count": str(AT_ONCE)}
    with directory() as folder, daemon(folder / "embedded", settings=chosen) as running:
        print(line("embedded", running), flush=True)
    with (
        directory() as folder,
        tempfile.TemporaryDirectory() as scratch,
        settings(Path(scratch)) as shared,
        daemon(folder / "shared", settings=chosen | shared) as running,
    ):
        print(line("Redis (everysec) + PostgreSQL", running), flush=True)


if __name__ == "__main__":
    main()
