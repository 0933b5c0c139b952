"""What crash points cost where none is armed: a pass of one, how many an event makes, and their share of its time."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from bench.bench_end_to_end import wait_for_end
from bench.bench_steps import send
from bench.processes import Running, daemon, directory
from replayforge import crashpoints

PASSES = 200_000
ROUNDS = 5
COUNTING = Path(__file__).with_name("counting_handlers.py")
# What is sent: type, how many requests, how many events a request.
LOADS = {
    "one event at a time": ("bench.one", 1000, 1),
    "100 events a request": ("bench.one", 20, 100),
    "ten steps, one at a time": ("steps.ten", 200, 1),
}


def nothing(point: str) -> None:
    """Cost what any call costs."""


def nanoseconds(call: Callable[[str], None]) -> float:
    """Return what a call takes, the median of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(PASSES):
            call("settle.committed")
        rounds.append((time.perf_counter() - started) / PASSES * 1e9)
    return statistics.median(rounds)


def cpu_microseconds(running: Running, event_type: str, requests: int, each: int) -> float:
    """Return what an event costs in processor time of the daemon; each request is sent when all before have ended."""
    before, cpu = running.ledger()["succeeded"], running.cpu_seconds()
    for number in range(1, requests + 1):
        send(running, [{"workflow_id": "w", "event_type": event_type}] * each)
        if each > 1 or number == requests:
            wait_for_end(running, before + number * each)
    return (running.cpu_seconds() - cpu) / (requests * each) * 1e6


def passes(running: Running) -> int:
    """Return how often the daemon has come to points."""
    before = running.ledger()["succeeded"]
    send(running, [{"workflow_id": "passes", "event_type": "passes"}])
    wait_for_end(running, before + 1)
    newest = running.get("/api/events?event_type=passes&limit=1")["items"][0]["id"]
    return int(running.get(f"/api/events/{newest}")["result"])


def main() -> None:
    """Print what a pass takes, and a line for each load."""
    pass_ns, call_ns = nanoseconds(crashpoints.reach), nanoseconds(nothing)
    print(f"a pass of an unarmed point {pass_ns:.0f} ns; a call that does nothing {call_ns:.0f} ns\n")
    print(f"{'embedded':26} {'passes an event':>16} {'CPU us an event':>16} {'share':>8}")
    with directory() as folder, daemon(folder / "plain") as plain:
        cpu_us = {name: cpu_microseconds(plain, *load) for name, load in LOADS.items()}
    with directory() as folder, daemon(folder / "counting", "--handlers", str(COUNTING)) as counting:
        for name, (event_type, requests, each) in LOADS.items():
            before = passes(counting)
            cpu_microseconds(counting, event_type, requests, each)
            own = (passes(counting) - before) / (requests * each)
            share = own * pass_ns / 1000 / cpu_us[name]
            print(f"{name:26} {own:16.1f} {cpu_us[name]:16.0f} {share:8.2%}", flush=True)


if __name__ == "__main__":
    main()
