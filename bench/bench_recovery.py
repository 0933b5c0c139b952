"""After kill -9 with a thousand events open: how long from restart until all have ended, and how many extra starts?"""

import statistics
import time

from bench.load import python_client
from bench.processes import Running, daemon, directory

OPEN_EVENTS = 1000
ROUNDS = 3


def starts(running: Running) -> int:
    """Return how often a handler was started in this incarnation."""
    return int(running.get("/api/metrics")["counters"].get("attempt.started", 0))


def main() -> None:
    """Print the median of three rounds."""
    seconds, extra = [], []
    for _ in range(ROUNDS):
        with directory() as folder:
            with daemon(folder, handler_seconds=0.05) as running:
                python_client(running.url, OPEN_EVENTS // 100, 100, 4)
                started_before = starts(running)
                running.process.kill()
            started = time.perf_counter()
            with daemon(folder) as running:
                while running.ledger()["succeeded"] < OPEN_EVENTS:
                    time.sleep(0.005)
                seconds.append(time.perf_counter() - started)
                extra.append(started_before + starts(running) - OPEN_EVENTS)
    print(f"restart to all of {OPEN_EVENTS:,} ended: {statistics.median(seconds):.2f} s (with the process's own start)")
    print(f"starts beyond one an event: {statistics.median(extra):.0f}")


if __name__ == "__main__":
    main()
