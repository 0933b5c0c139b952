"""How many events a second are accepted and ended, beside what bare HTTP does in the same run?"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.load import EVENT, Sent, has_wrk, python_client, wrk
from bench.processes import Running, daemon, directory, hello
from bench.servers import settings

ROUNDS = 3
WRK_SECONDS = 5
BULK_EVENTS = 100
POLL_SECONDS = 0.05  # each look costs the daemon a millisecond; more of them would be part of what is measured


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement of the daemon: rates in events a second, processor time in microseconds an event."""

    accepted: float
    ended: float
    cpu_us: float


def wait_for_end(running: Running, events: int) -> None:
    """Return when so many events have ended in all."""
    while running.ledger()["succeeded"] < events:
        time.sleep(POLL_SECONDS)


def measure(running: Running, drive: Callable[[str], Sent]) -> Round:
    """Drive load through the daemon and wait until all of it has ended."""
    before, cpu = running.ledger()["accepted"], running.cpu_seconds()
    sent = drive(running.url)
    accepted = running.ledger()["accepted"]
    wait_for_end(running, accepted)
    events, ended = accepted - before, time.monotonic() - sent.started
    return Round(events / sent.seconds, events / ended, (running.cpu_seconds() - cpu) / events * 1e6)


class Drive:
    """One way to load a server."""

    def __init__(self, name: str, per_request: int, *, wrk: bool) -> None:
        self.name = name
        self.per_request = per_request
        self.wrk = wrk

    def __call__(self, url: str) -> Sent:
        """Drive load."""
        body = json.dumps([EVENT] * self.per_request if self.per_request > 1 else EVENT).encode()
        path = "/api/events/bulk" if self.per_request > 1 else "/api/events"
        if self.wrk:
            return wrk(url, WRK_SECONDS, body, path)
        requests = 10_000 if self.per_request == 1 else 30_000 // self.per_request
        return python_client(url, requests, self.per_request)


SINGLE = Drive("single POSTs, Python client, 64 in flight", 1, wrk=False)
BULK = Drive(f"bulk, {BULK_EVENTS} events a POST, Python client", BULK_EVENTS, wrk=False)
DRIVES = (*([Drive("single POSTs, wrk, 64 connections", 1, wrk=True)] if has_wrk() else []), SINGLE, BULK)


def measured(drive: Drive, running: Running, bare: Running) -> str:
    """Measure some rounds, bare HTTP between them; returns one line of the table."""
    greetings, rounds = [], []
    for _ in range(ROUNDS):
        greetings.append(Drive("", 1, wrk=drive.wrk)(bare.url).rate)
        rounds.append(measure(running, drive))
    accepted, ended, cpu = (
        statistics.median(getattr(one, name) for one in rounds) for name in ("accepted", "ended", "cpu_us")
    )
    bare_rate = statistics.median(greetings)
    return f"{accepted:11,.0f} {ended:9,.0f} {cpu:13,.0f} {bare_rate:13,.0f} {ended / bare_rate:13.2f}"


def main() -> None:
    """Print one line for each way to load each of the two kinds of store and stream, medians of three rounds."""
    print(
        f"{'load':46} {'accepted/s':>11} {'ended/s':>9} {'CPU us/event':>13} {'bare hello/s':>13} {'ended / hello':>13}"
    )
    with directory() as folder, hello() as bare:
        for number, drive in enumerate(DRIVES):
            with daemon(folder / str(number)) as running:
                print(f"{drive.name:46} {measured(drive, running, bare)}", flush=True)
        print("Redis (everysec) and PostgreSQL; CPU is the daemon's alone:")
        with tempfile.TemporaryDirectory() as scratch, settings(Path(scratch)) as shared:
            for number, drive in enumerate(DRIVES):
                with daemon(folder / f"shared-{number}", settings=shared) as running:
                    print(f"{drive.name:46} {measured(drive, running, bare)}", flush=True)


if __name__ == "__main__":
    main()
