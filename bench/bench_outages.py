"""While Redis and the database are slow, refuse, or are away: does ingest answer 201 as fast as ever, and what then?"""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bench.processes import Running, daemon, directory
from bench.servers import Line, Postgres, Redis, servers

POSTS_PER_SECOND = 200
PHASE_SECONDS = 20.0
WARM_UP_SECONDS = 5.0
LATE_SECONDS = 2.0
OPEN_MAX = POSTS_PER_SECOND // 4  # what a quarter of a second brings is no backlog

Act = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Outage:
    """Something that is done to the servers, and how it is undone."""

    name: str
    begin: Act
    end: Act


@dataclass(frozen=True, slots=True)
class Sample:
    """One POST: when it was due, how long its answer took from then, and what it was."""

    due: float
    seconds: float
    status: int
    keyed: bool


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the run; `drain_seconds` is how long it took afterwards until there was no backlog any more."""

    name: str
    began: float
    ended: float
    drain_seconds: float = 0.0

    def of(self, samples: list[Sample]) -> list[Sample]:
        """Return the POSTs that were due in it."""
        return [sample for sample in samples if self.began <= sample.due < self.ended]


def outages(redis: Redis, redis_line: Line, postgres: Postgres, postgres_line: Line, seconds: float) -> list[Outage]:
    """Return everything that is done to the servers, one after the other."""

    def kill_both() -> None:
        """Kill both."""
        redis.kill()
        postgres.kill()

    def start_both() -> None:
        """Start both."""
        redis.start()
        postgres.start()

    return [
        Outage("Redis killed", redis.kill, redis.start),
        Outage(
            "Redis out of memory (OOM)",
            lambda: redis.say("CONFIG", "SET", "maxmemory", 1),
            lambda: redis.say("CONFIG", "SET", "maxmemory", 0),
        ),
        Outage(
            "Redis a replica (READONLY)",
            lambda: redis.say("REPLICAOF", "127.0.0.1", 1),
            lambda: redis.say("REPLICAOF", "NO", "ONE"),
        ),
        Outage("Redis LOADING", lambda: redis.load(seconds), redis.loaded),
        Outage(
            f"Redis answers {LATE_SECONDS:g} s late",
            lambda: setattr(redis_line, "delay_seconds", LATE_SECONDS),
            lambda: setattr(redis_line, "delay_seconds", 0.0),
        ),
        Outage("PostgreSQL killed", postgres.kill, postgres.start),
        Outage("PostgreSQL silent (cut line)", postgres_line.cut, postgres_line.mend),
        Outage("both killed", kill_both, start_both),
    ]


@contextlib.contextmanager
def steady_load(running: Running, output: IO[str]) -> Iterator[None]:
    """Send at a constant rate until the block ends; every POST becomes a line of the output."""
    command = [sys.executable, "-m", "bench.steady", running.url, str(POSTS_PER_SECOND), "keys"]
    sender = subprocess.Popen(command, stdout=output)
    try:
        yield
    finally:
        sender.terminate()
        sender.wait()


def backlog(running: Running) -> int:
    """Return how many accepted events have not ended; raises OSError while the store, which knows it, is away."""
    report = running.get("/api/convergence")
    return int(report["received_events"] + report["ledger"]["open"])


def drain(running: Running) -> None:
    """Return when what came meanwhile has been worked off."""
    while True:
        with contextlib.suppress(OSError):
            if backlog(running) <= OPEN_MAX:
                return
        time.sleep(0.05)


def stay(name: str, seconds: float) -> Phase:
    """Let the load run for a while."""
    began = time.monotonic()
    time.sleep(seconds)
    return Phase(name, began, time.monotonic())


def suffer(running: Running, outage: Outage, seconds: float) -> Phase:
    """Let the load run through an outage, and wait until its backlog is gone."""
    began = time.monotonic()
    outage.begin()
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    outage.end()
    ended = time.monotonic()
    drain(running)
    return Phase(outage.name, began, ended, time.monotonic() - ended)


def percentile(samples: list[Sample], share: float) -> float:
    """Return the milliseconds within which this share of the POSTs was answered."""
    ordered = sorted(sample.seconds for sample in samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000


def read_samples(path: Path) -> list[Sample]:
    """Return what the load generator wrote; its last line may have been cut off."""
    lines = path.read_text().rpartition("\n")[0].splitlines()
    fields = (line.split() for line in lines)
    return [Sample(float(due), float(seconds), int(status), keyed == "1") for due, seconds, status, keyed, *_ in fields]


def print_table(phases: list[Phase], samples: list[Sample]) -> None:
    """Print a line for each phase: first events without an idempotency key, then those with one."""
    idle = {keyed: percentile(of_kind(phases[0].of(samples), keyed=keyed), 0.99) for keyed in (False, True)}
    print(f"{'':30} {'POSTs':>6} {'not 201':>7} | {'p50 ms':>6} {'p99 ms':>7} {'/ idle':>6}", end="")
    print(f" | {'keyed: p50':>10} {'p99 ms':>7} {'/ idle':>6} | {'worst ms':>8} {'drained in s':>12}")
    for phase in phases:
        own = phase.of(samples)
        bad = sum(sample.status != 201 for sample in own)
        print(f"{phase.name:30} {len(own):6,} {bad:7}", end="")
        for keyed in (False, True):
            kind = of_kind(own, keyed=keyed)
            p99 = percentile(kind, 0.99)
            print(f" | {percentile(kind, 0.5):{10 if keyed else 6}.1f} {p99:7.1f} {p99 / idle[keyed]:6.2f}", end="")
        print(f" | {max(sample.seconds for sample in own) * 1000:8.1f} {phase.drain_seconds:12.1f}")


def of_kind(samples: list[Sample], *, keyed: bool) -> list[Sample]:
    """Return those with an idempotency key, or those without."""
    return [sample for sample in samples if sample.keyed is keyed]


def main(seconds: float) -> None:
    """Go through every outage in one run of one daemon, and print what each did to the answers."""
    with directory() as folder, tempfile.NamedTemporaryFile("w+") as output:
        with servers(folder) as (redis, redis_line, postgres, postgres_line):
            settings = {
                "redis.url": f"redis://127.0.0.1:{redis_line.port}/0",
                "store.url": f"postgresql://bench@127.0.0.1:{postgres_line.port}/postgres",
            }
            with daemon(folder / "data", settings=settings) as running, steady_load(running, output):
                time.sleep(WARM_UP_SECONDS)
                phases = [stay("idle", seconds)]
                harm = outages(redis, redis_line, postgres, postgres_line, seconds)
                phases += [suffer(running, outage, seconds) for outage in harm]
                phases.append(stay("idle again", seconds))
        print_table(phases, read_samples(Path(output.name)))


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else PHASE_SECONDS)
