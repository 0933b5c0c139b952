"""Parked workflows: what 100,000 of them cost a daemon that has other work, and how soon each is woken.

BENCH_PARKED is another number of them.
"""

import json
import os
import statistics
import threading
import time
from urllib.request import Request, urlopen

from bench.bench_end_to_end import wait_for_end
from bench.processes import Running, daemon, directory

PARKED = int(os.environ.get("BENCH_PARKED", "100000"))
PER_REQUEST = 1000
BUSY = 2
BUSY_SECONDS = 0.2  # what each of their events takes, see handlers.py
WARM = 2000
SIGNALS = 200
DUE = 200
DUE_IN_SECONDS = 10.0
SECONDS_MAX = 1800.0
HEADERS = {"Content-Type": "application/json"}


def send(running: Running, events: list[dict[str, object]]) -> None:
    """Send events, many in a request."""
    for start in range(0, len(events), PER_REQUEST):
        body = json.dumps(events[start : start + PER_REQUEST]).encode()
        with urlopen(Request(f"{running.url}/api/events/bulk", body, HEADERS), timeout=60) as answer:
            answer.read()


def waiting(running: Running) -> int:
    """Return how many events are parked."""
    return int(running.get("/api/convergence")["waiting"])


def wait_until_parked(running: Running, low: int, high: int) -> None:
    """Return once so many events are parked."""
    started = time.perf_counter()
    while not low <= (count := waiting(running)) <= high:
        if time.perf_counter() - started > SECONDS_MAX:
            raise TimeoutError(f"{count:,} events are parked instead of {low:,} to {high:,}")
        time.sleep(0.2)


def busy(running: Running, over: threading.Event) -> None:
    """Keep two workers busy with other events until it is over."""
    while not over.wait(BUSY_SECONDS):
        send(running, [{"workflow_id": "busy", "event_type": "busy.one"}] * BUSY)


def woken(running: Running, workflows: range) -> list[float]:
    """Return how many milliseconds each took from what it waited for to its own next line of code, sorted."""
    took = []
    for number in workflows:
        (event,) = running.get(f"/api/events?workflow_id=parked-{number}&event_type=parked.one")["items"]
        result = running.get(f"/api/events/{event['id']}")["result"]
        took.append((result["woken_at"] - result["due_at"]) * 1000)
    return sorted(took)


def line(name: str, took: list[float]) -> str:
    """Return one line of the table."""
    return f"{name:32} {statistics.median(took):9.1f} {took[len(took) * 99 // 100]:9.1f} {took[-1]:9.1f}"


def parked(numbers: range, seconds: float) -> list[dict[str, object]]:
    """Return events that wait for a signal, for so many seconds."""
    return [
        {"workflow_id": f"parked-{number}", "event_type": "parked.one", "payload": {"seconds": seconds}}
        for number in numbers
    ]


def park(running: Running) -> None:
    """Have events parked, and print what that costs."""
    send(running, [{"workflow_id": "warm", "event_type": "bench.one"}] * WARM)
    wait_for_end(running, WARM)
    before, started = running.resident_mebibytes(), time.perf_counter()
    send(running, parked(range(PARKED), 86_400))
    wait_until_parked(running, PARKED, PARKED)
    seconds, after = time.perf_counter() - started, running.resident_mebibytes()
    print(f"{PARKED:,} events parked in {seconds:.0f} s ({PARKED / seconds:,.0f}/s)")
    print(f"memory {before:.0f} MiB before, {after:.0f} after: {(after - before) * 2**20 / PARKED:,.0f} bytes each")


def wake_by_signals(running: Running) -> list[float]:
    """Wake some by signals, one after the other, and return how long each took."""
    for number in range(SIGNALS):
        signal: dict[str, object] = {
            "workflow_id": f"parked-{number}",
            "event_type": "wake",
            "payload": {"sent_at": time.time()},
        }
        send(running, [signal])
        time.sleep(0.02)
    wait_until_parked(running, 0, PARKED - SIGNALS)
    return woken(running, range(SIGNALS))


def wake_by_time(running: Running) -> list[float]:
    """Have more parked whose time comes soon, and return how late each was."""
    due = range(PARKED, PARKED + DUE)
    send(running, parked(due, DUE_IN_SECONDS))
    time.sleep(DUE_IN_SECONDS)
    wait_until_parked(running, 0, PARKED - SIGNALS)
    return woken(running, due)


def main() -> None:
    """Print what the parked cost in memory, and how late those are whose time or signal has come."""
    with directory() as folder, daemon(folder / "data") as running:
        park(running)
        over = threading.Event()
        others = threading.Thread(target=busy, args=(running, over))
        others.start()
        try:
            print(f"{'milliseconds until it is woken':32} {'p50':>9} {'p99':>9} {'max':>9}", flush=True)
            print(line("by a signal", wake_by_signals(running)), flush=True)
            print(line("by its time", wake_by_time(running)))
            print(f"memory {running.resident_mebibytes():.0f} MiB at the end")
        finally:
            over.set()
            others.join()


if __name__ == "__main__":
    main()
