"""A million kept events, 50,000 of them dead letters, 1,000 more arriving a second: how long does each page take?

Every page and every list of the API is asked for in turn, round after round, by one client on one connection; before
that, while nothing arrives, a few times each for the processor time that it costs the daemon, which is the figure to go
by on a machine with other work. BENCH_EVENTS, BENCH_RATE (events a second) and BENCH_SECONDS (for each store) are other
numbers, BENCH_STORES names one of the stores, BENCH_ONLY a text that the paths asked for have, and BENCH_FILLED the
directory in which the filled store of SQLite is kept for the next time.
"""

import contextlib
import http.client
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench import filled_store
from bench.bench_parked import send
from bench.processes import Running, daemon, directory
from bench.servers import settings
from replayforge.web import app, status_page

EVENTS = int(os.environ.get("BENCH_EVENTS", "1000000"))
RATE = float(os.environ.get("BENCH_RATE", "1000"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "200"))
STORES = os.environ.get("BENCH_STORES", "sqlite postgres").split()
FILLED = os.environ.get("BENCH_FILLED")
ONLY = os.environ.get("BENCH_ONLY", "")
MEDIAN_MS, P99_MS = 100, 300  # what is wanted of every page
ROUNDS_MIN = 3
IDLE_ROUNDS = 4  # the first of them is not counted: what is asked for once may be remembered
SETTINGS: Mapping[str, Any] = {
    "lanes": [filled_store.LANES],
    "sources": [{"name": filled_store.SOURCE, "preset": "github", "secrets": ["secret"]}],
    "schedules": [{"name": "nightly", "event_type": "bench.nightly", "cron": "0 2 1 1 *"}],
    "alerts": [{"name": "held", "when": "held", "command": ["true"]}],
}
# What is asked for of each path: a page as it opens, and what a person filters it by.
ASKED: Mapping[str, tuple[str, ...]] = {
    "/": ("/", "/?range=7d"),
    "/events": (
        "/events",
        "/events?cursor={middle}",
        "/events?status=succeeded",
        "/events?status=dead_lettered&since=24h",
        "/events?type=order.a",
        "/events?type=order.*&status=dead_lettered",
        "/events?service=payments&since=1h",
        "/events?service=nobody",
        "/events?status=succeeded&type=parked.one",
        "/events?since=15m",
        "/events?workflow=import",
        "/events?error={error}",
        "/events?q=order-1",
        "/events?q=order-77",
        "/events?awaits=wake",
        "/events?text=nowhere",
    ),
    "/events/{id}": ("/events/{event}", "/events/{parked}"),
    "/events/{id}/{part}": ("/events/{event}/payload",),
    "/workflows": ("/workflows", "/workflows?cursor={middle}", "/workflows?application=shop"),
    "/workflows/{id}": ("/workflows/order-77", "/workflows/account-7", "/workflows/import"),
    "/dead-letters": (
        "/dead-letters",
        "/dead-letters?cursor={middle}",
        "/dead-letters?group_by=type",
        "/dead-letters?group={error}",
        "/dead-letters?group=nothing",
    ),
    "/in-doubt": ("/in-doubt",),
    "/replays": ("/replays",),
    "/replays/new": ("/replays/new", "/replays/new?error={error}", "/replays/new?since=1h"),
    "/replays/{id}": ("/replays/rpl_1",),
    "/shadow/new": ("/shadow/new?id={event}",),
    "/handlers": ("/handlers",),
    "/handlers/pause": ("/handlers/pause?pattern=bench.*",),
    "/sources": ("/sources",),
    "/sources/pause": ("/sources/pause?name=hooks",),
    "/sources/{name}/refusals": ("/sources/hooks/refusals",),
    "/schedules": ("/schedules",),
    "/schedules/pause": ("/schedules/pause?name=nightly",),
    "/lanes": ("/lanes",),
    "/runtime": ("/runtime",),
    "/search": ("/search?q=order-77",),
    "/lookup": ("/lookup?q=order-1",),
    "/send": ("/send",),
    "/confirm/{verb}": ("/confirm/discard?id={dead}", "/confirm/replay?group_by=error&group={error}"),
    "/docs": ("/docs",),
    "/guide": ("/guide",),
    "/guide/grafana.json": ("/guide/grafana.json",),
    "/guide/{name}": ("/guide/contributing",),
    "/openapi.json": ("/openapi.json",),
    "/api/events": (
        "/api/events?limit=200",
        "/api/events?limit=200&cursor={middle}",
        "/api/events?limit=200&error={error}",
        "/api/events?service_name=nobody",
        "/api/events?status=succeeded&event_type=parked.one",
        "/api/events?service_name=mail&since={hour_ago}&until={minutes_ago}",
        "/api/events?until={days_ago}",
        "/api/events?q=order-1",
        "/api/events?contains=nowhere",
    ),
    "/api/events/recent": ("/api/events/recent",),
    "/api/events/{id}": ("/api/events/{event}",),
    "/api/events/{id}/steps": ("/api/events/{parked}/steps",),
    "/api/events/{id}/why": ("/api/events/{parked}/why",),
    "/api/workflows": ("/api/workflows?limit=200",),
    "/api/workflows/{id}": ("/api/workflows/import",),
    "/api/workflows/{id}/timeline": ("/api/workflows/account-7/timeline", "/api/workflows/import/timeline"),
    "/api/deadletters": (
        "/api/deadletters?limit=200",
        "/api/deadletters?error={error}",
        "/api/deadletters?group_by=error",
        "/api/deadletters?group_by=service",
    ),
    "/api/indoubt": ("/api/indoubt",),
    "/api/replays": ("/api/replays",),
    "/api/replays/{id}": ("/api/replays/rpl_1",),
    "/api/handlers": ("/api/handlers",),
    "/api/lanes": ("/api/lanes",),
    "/api/sources": ("/api/sources",),
    "/api/sources/{name}/refusals": ("/api/sources/hooks/refusals",),
    "/api/schedules": ("/api/schedules",),
    "/api/alerts": ("/api/alerts",),
    "/api/convergence": ("/api/convergence",),
    "/api/workers": ("/api/workers",),
    "/api/supervisor": ("/api/supervisor",),
    "/api/metrics": ("/api/metrics",),
    "/metrics": ("/metrics",),
    "/api/insights/errors": ("/api/insights/errors", "/api/insights/errors?window_seconds=604800"),
    "/health": ("/health",),
    "/health/live": ("/health/live",),
    "/health/ready": ("/health/ready",),
    "/health/backend": ("/health/backend",),
    "/health/backend/stats": ("/health/backend/stats",),
    "/forgelog/read": ("/forgelog/read?offset=0&limit=100",),
    "/forgelog/health": ("/forgelog/health",),
    "/forgelog/stats": ("/forgelog/stats",),
    "/schemas/steps.json": ("/schemas/steps.json",),
}
# What leads elsewhere or waits, files, an answer as long as the store, and what only others may ask for.
BESIDE = {
    "/login",
    "/shadow/{id}",
    "/api/stream",
    "/static/{digest}/{path}",
    "/api/events/export",
    "/in/{source}",
    "/steps/{id}/{token}/{signature}/journal",
}
ANSWERS = {200, 302, 303}


class Times(list[float]):
    """How many milliseconds each answer took that was given to one question, and how many bytes the last one had.

    `busy` is how many milliseconds of processor time one of them cost the daemon while nothing arrived.
    """

    size = 0
    busy = 0.0

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self)

    @property
    def p99(self) -> float:
        """What one of a hundred exceeds."""
        return sorted(self)[len(self) * 99 // 100]


class Viewer:
    """One client that looks at everything, on one connection; `refused` counts the answers that were none."""

    def __init__(self, url: str) -> None:
        self.connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
        self.refused: Counter[str] = Counter()

    def ask(self, path: str, times: Times) -> bytes:
        """Ask for a path, and note how long the answer took."""
        began = time.perf_counter()
        self.connection.request("GET", path)
        answer = self.connection.getresponse()
        body = answer.read()
        times.append((time.perf_counter() - began) * 1000)
        times.size = len(body)
        if answer.status not in ANSWERS:
            self.refused[f"{answer.status} {path}"] += 1
        return body


def questions() -> list[str]:
    """Return everything to ask for, as patterns; a path of the daemon that nobody asks for is an error."""
    table = [route.definition for route in (*status_page.routes(), *app.routes())]
    paths = {re.sub(r"{(\w+):(?:[^{}]|{[^{}]*})*}", r"{\1}", route.path) for route in table if route.method == "GET"}
    if paths != ASKED.keys() | BESIDE:
        raise ValueError(f"Say what to ask for of {paths ^ (ASKED.keys() | BESIDE)}")
    return [path for asked in ASKED.values() for path in asked]


def known_names(running: Running) -> dict[str, str]:
    """Return what the patterns name: events of several kinds, a row number in the middle, and times."""

    def one(query: str) -> str:
        return str(running.get(f"/api/events?limit=1&{query}")["items"][0]["id"])

    def ago(seconds: float) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds))

    return {
        "event": one("status=succeeded"),
        "parked": one("status=waiting"),
        "dead": one("status=dead_lettered"),
        "middle": str(EVENTS // 2),
        "error": quote(filled_store.ERRORS[0]),
        "hour_ago": ago(3600),
        "minutes_ago": ago(600),
        "days_ago": ago(3 * 86_400),
    }


def fill(folder: Path, name: str, given: Mapping[str, Any]) -> None:
    """Make the data directory of a daemon that has worked for a week, with the settings that it will have."""
    with daemon(folder, settings={**SETTINGS, **given}) as running:
        send(running, [{"workflow_id": "first", "event_type": "parked.one", "payload": {"seconds": 86_400}}])
        while running.get("/api/convergence")["waiting"] < 1:
            time.sleep(0.02)
    began = time.perf_counter()
    open_writer = (
        filled_store.sqlite_writer(folder) if name == "sqlite" else filled_store.postgres_writer(given["store.url"])
    )
    with open_writer as (write, label, last_seq):
        filled_store.Filling(EVENTS, last_seq, label, time.time_ns() // 1000).fill(write)
    print(f"{EVENTS:,} events written in {time.perf_counter() - began:.0f} s", flush=True)


@contextlib.contextmanager
def filled(folder: Path, name: str) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Give a filled data directory and the settings that go with it."""
    if name == "postgres":
        with tempfile.TemporaryDirectory() as servers_folder, settings(Path(servers_folder)) as given:
            fill(folder / name, name, given)
            yield folder / name, given
        return
    kept = Path(FILLED) if FILLED else folder / "kept"
    if not kept.exists():
        fill(kept, name, {})
    if FILLED:
        shutil.copytree(kept, folder / name)
    yield folder / name if FILLED else kept, {}


@contextlib.contextmanager
def arriving(url: str, folder: Path) -> Iterator[Path]:
    """Have events arrive at a constant rate until the block ends; what became of each is a line of the file given."""
    lines = folder / "arrived"
    command = [sys.executable, "-m", "bench.steady", url, str(RATE), "workflows"]
    with lines.open("w") as output, subprocess.Popen(command, stdout=output) as sender:
        yield lines
        sender.terminate()


def look_alone(running: Running, viewer: Viewer, times: Mapping[str, Times]) -> None:
    """Ask for everything while nothing else happens, and note what that costs."""
    for path, noted in times.items():
        costs = []
        for _ in range(IDLE_ROUNDS):
            before = running.busy_milliseconds()
            viewer.ask(path, Times())
            costs.append(running.busy_milliseconds() - before)
        noted.busy = statistics.median(costs[1:])


def look_around(viewer: Viewer, times: Mapping[str, Times]) -> None:
    """Ask for everything in turn until the time is over."""
    began = time.monotonic()
    rounds = 0
    while rounds < ROUNDS_MIN or time.monotonic() - began < SECONDS:
        for path, noted in times.items():
            viewer.ask(path, noted)
        rounds += 1


def report(times: Mapping[str, Times], viewer: Viewer) -> None:
    """Print a line for each question, those that take longest first, and how many keep within what is wanted."""
    print(f"{'milliseconds':60} {'CPU':>8} {'median':>8} {'p99':>8} {'worst':>8} {'KiB':>8}")
    for path, taken in sorted(times.items(), key=lambda item: -item[1].p99):
        flag = "" if taken.median <= MEDIAN_MS and taken.p99 <= P99_MS else "  !"
        figures = f"{taken.busy:8.1f} {taken.median:8.1f} {taken.p99:8.1f} {max(taken):8.1f} {taken.size / 1024:8.1f}"
        print(f"{path[:60]:60} {figures}{flag}")
    missed = sum(taken.median > MEDIAN_MS or taken.p99 > P99_MS for taken in times.values())
    everything = Times(one for taken in times.values() for one in taken)
    rounds = len(next(iter(times.values())))
    print(
        f"{len(times)} questions, {rounds} rounds: median {everything.median:.1f}, p99 {everything.p99:.1f} ms of all"
    )
    print(f"{missed} questions miss {MEDIAN_MS} / {P99_MS} ms (median / p99)")
    for words, number in viewer.refused.most_common():
        print(f"refused: {number} times {words}")


def measure(name: str, folder: Path) -> None:
    """Print what the pages cost on one kind of store."""
    print(f"\n### {name}: {EVENTS:,} events kept, {RATE:,.0f} arriving a second\n", flush=True)
    with filled(folder, name) as (data_dir, given):
        began = time.perf_counter()
        with daemon(data_dir, settings={**SETTINGS, **given}) as running:
            print(f"listens after {time.perf_counter() - began:.2f} s", flush=True)
            viewer, first = Viewer(running.url), Times()
            viewer.ask("/", first)
            viewer.ask("/", first)
            print(f"first page {first[0]:.0f} ms, second {first[1]:.0f} ms")
            names = known_names(running)
            times = {path: Times() for path in (one.format(**names) for one in questions()) if ONLY in path}
            look_alone(running, viewer, times)
            idle_mebibytes = running.resident_mebibytes()
            with arriving(running.url, folder) as lines:
                before, cpu, started = running.ledger(), running.cpu_seconds(), time.perf_counter()
                look_around(viewer, times)
                seconds, after = time.perf_counter() - started, running.ledger()
                cpu = running.cpu_seconds() - cpu
            accepted, ended = ((after[key] - before[key]) / seconds for key in ("accepted", "succeeded"))
            late = sum(not line.split()[2].startswith("20") for line in lines.read_text().splitlines()[:-1])
            report(times, viewer)
            print(f"{accepted:,.0f} events accepted and {ended:,.0f} ended a second, {late} refused")
            print(f"resident {idle_mebibytes:.0f} MiB before, {running.resident_mebibytes():.0f} MiB after")
            print(f"{cpu / seconds:.2f} processors for the daemon", flush=True)


def main() -> None:
    """Print one table for each kind of store."""
    questions()
    for name in STORES:
        with directory() as folder:
            measure(name, folder)


if __name__ == "__main__":
    main()
