"""A backlog of a million queued events: what does it cost in memory, and how full does the stream get?"""

import sys
import time

from bench.load import python_client
from bench.processes import daemon, directory

EVENTS_PER_REQUEST = 1000


def main(events: int) -> None:
    """Queue events behind handlers that never end, and print what the process holds."""
    with directory() as folder, daemon(folder, "--workers", "16", handler_seconds=3600) as running:
        idle = running.resident_mebibytes()
        started = time.perf_counter()
        python_client(running.url, events // EVENTS_PER_REQUEST, EVENTS_PER_REQUEST, 4)
        peak = running.resident_mebibytes()
        while running.get("/api/convergence")["received_events"]:
            time.sleep(0.05)
        seconds = time.perf_counter() - started
        depth = running.get("/health/backend/stats")["depth"]
        queued = running.get("/api/convergence")["queued_events"]
        print(f"{events:,} events queued in {seconds:.0f} s ({events / seconds:,.0f}/s): {queued:,} rows wait")
        after = running.resident_mebibytes()
        print(f"resident: idle {idle:.0f} MiB, while loading {peak:.0f} MiB, after {after:.0f} MiB")
        print(f"entries on the stream: {depth:,}")
        running.process.kill()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
