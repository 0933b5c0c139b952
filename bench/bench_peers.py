"""The same job on other systems, in one run with ReplayForge: how fast, at what durability, and what after kill -9?

A no-op job with a small JSON payload, 16 at once; a producer of its own sends by the library, up to 64 in flight, while
a worker works; what has ended is counted from outside, on the server. Then, with jobs of 50 ms, the worker is killed
and started again at once. Names as arguments choose peers; BENCH_PEERS_JOBS is another number of jobs.
"""

import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import redis

from bench import bench_steps
from bench.bench_end_to_end import BULK, SINGLE, measure
from bench.bench_recovery import started
from bench.load import Sent, python_client
from bench.peers.environments import NotInstalled, environment
from bench.processes import TICKS_PER_SECOND, Running, daemon, directory
from bench.servers import USER, Postgres, Redis, Server, settings

JOBS = int(os.environ.get("BENCH_PEERS_JOBS", "3000"))
WORKFLOWS = max(1, JOBS // 20)  # of ten steps each
ROUNDS = 3
WARM_UP_JOBS = 200
KILL_JOBS = 1000
KILL_SECONDS = 0.05
KILL_AFTER_JOBS = 100
AFTER_KILL_SECONDS = 30.0
SECONDS_MAX = 60.0  # for one round, and for a worker to start
LOOK_SECONDS = 0.02
ROOT = Path(__file__).parent.parent

Words = tuple[str, ...]


class PeerFailed(Exception):
    """A peer did not do its work; says what was seen."""


class Queue:
    """Looks at the server of a peer, from outside: how many jobs have not ended."""

    def __init__(self, open_jobs: Callable[[], int], close: Callable[[], None]) -> None:
        self.open_jobs = open_jobs
        self.close = close


def redis_queue(server: Server, count: Callable[[redis.Redis], int]) -> Queue:
    """Return the look into a Redis."""
    client = redis.Redis(port=server.port)
    return Queue(lambda: count(client), client.close)


def postgres_queue(server: Server, query: str) -> Queue:
    """Return the look into a PostgreSQL."""
    runner = asyncio.Runner()
    connection = runner.run(asyncpg.connect(address_of(server)))

    def close() -> None:
        runner.run(connection.close())
        runner.close()

    return Queue(lambda: int(runner.run(connection.fetchval(query))), close)


def in_stream(client: redis.Redis) -> int:
    """Return how many entries of taskiq's stream are not acknowledged."""
    groups: list[dict[str, Any]] = client.xinfo_groups("taskiq") if client.exists("taskiq") else []
    read = sum(int(group["entries-read"] or 0) - int(group["pending"]) for group in groups)
    return int(client.xlen("taskiq")) - read


@dataclass(frozen=True, slots=True)
class Peer:
    """One system: what is started in its environment, and how its open jobs are counted."""

    name: str
    work: Words
    send: Words
    queue: Callable[[Server], Queue]
    on_redis: bool
    durability: str
    prepare: Words = ()
    ways: dict[str, Words] = field(default_factory=dict)  # further ways to send: by name, before the number


def module(name: str, *words: str) -> Words:
    """Return the arguments that run a peer's module."""
    return ("-m", f"bench.peers.with_{name}", *words)


PEERS = (
    Peer(
        name="dramatiq",
        work=("-m", "dramatiq", "bench.peers.with_dramatiq", "--processes", "2", "--threads", "8"),
        send=module("dramatiq"),
        queue=lambda server: redis_queue(server, lambda client: int(client.hlen("dramatiq:default.msgs"))),
        on_redis=True,
        durability="what Redis has synced; acknowledged when done; no result kept; heartbeat_timeout 60 s",
    ),
    Peer(
        name="arq",
        work=module("arq", "work"),
        send=module("arq"),
        queue=lambda server: redis_queue(server, lambda client: int(client.zcard("arq:queue"))),
        on_redis=True,
        durability="what Redis has synced; removed when done; result kept for an hour; poll 20 ms, job_timeout 300 s",
    ),
    Peer(
        name="taskiq",
        work=(
            *("-m", "taskiq", "worker", "bench.peers.with_taskiq:broker"),
            *("--workers", "2", "--max-async-tasks", "8", "--log-level", "WARNING"),
        ),
        send=module("taskiq"),
        queue=lambda server: redis_queue(server, in_stream),
        on_redis=True,
        durability="what Redis has synced; acknowledged when done; no result kept; idle_timeout 600 s",
    ),
    Peer(
        name="procrastinate",
        work=module("procrastinate", "work"),
        send=module("procrastinate"),
        queue=lambda server: postgres_queue(
            server, "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
        ),
        on_redis=False,
        durability="each job committed (synchronous_commit on), outcome too; nothing retries what a killed worker held"
        " unless a task of one's own asks for stalled jobs",
        prepare=module("procrastinate", "prepare"),
        ways={"bulk of 100": ("bulk",)},
    ),
    Peer(
        name="dbos",
        work=module("dbos", "work"),
        send=module("dbos"),
        queue=lambda server: postgres_queue(
            server, "SELECT count(*) FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'PENDING')"
        ),
        on_redis=False,
        durability="each workflow and step committed (synchronous_commit on), outcome too; poll 50 ms; what an executor"
        " held is taken up when one of its name starts again",
        prepare=module("dbos", "prepare"),
        ways={"ten steps": ("steps",)},
    ),
)


def address_of(server: Server) -> str:
    """Return the address by which a client reaches a server."""
    if isinstance(server, Redis):
        return f"redis://127.0.0.1:{server.port}/0"
    return f"postgresql://{USER}@127.0.0.1:{server.port}/postgres"


def tree_of(pid: int) -> Iterator[int]:
    """Yield a process and all below it."""
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree_of(int(child))


def cpu_seconds(*pids: int) -> float:
    """Return the processor time of processes and of all below them, those that have ended included."""
    ticks = 0
    for pid in pids:
        for one in tree_of(pid):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:15]))
    return ticks / TICKS_PER_SECOND


class Bench:
    """One peer in its environment, beside its server."""

    def __init__(self, peer: Peer, python: Path, server: Server, folder: Path) -> None:
        self.peer = peer
        self.python = python
        self.server = server
        self.said = folder / "said"
        self.variables = os.environ | {"BENCH_SERVER": address_of(server), "PYTHONPATH": str(ROOT)}

    def last_words(self) -> str:
        """Return the last line that the peer wrote."""
        lines = self.said.read_text(errors="replace").splitlines() if self.said.exists() else []
        return next((line for line in reversed(lines) if line.strip()), "it said nothing")

    def run(self, *words: str) -> str:
        """Run a command to its end and return what it wrote; raises PeerFailed."""
        try:
            with self.said.open("w") as errors:
                done = subprocess.run(
                    [self.python, *words], stdout=subprocess.PIPE, stderr=errors, env=self.variables, text=True,
                    check=False, timeout=SECONDS_MAX,
                )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise PeerFailed(f"{' '.join(words)} took longer than {SECONDS_MAX:.0f} s") from None
        if done.returncode != 0:
            raise PeerFailed(f"{' '.join(words)}: {self.last_words()}")
        return done.stdout

    @contextlib.contextmanager
    def worker(self, **variables: str) -> Iterator[int]:
        """Run a worker until the block ends; it and all below it are killed then. Gives its process."""
        with self.said.open("w") as errors:
            process = subprocess.Popen(
                [self.python, *self.peer.work], stdout=errors, stderr=errors, env=self.variables | variables,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield process.pid
        finally:
            for pid in [*tree_of(process.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()

    def send(self, count: int, *way: str) -> Sent:
        """Send so many jobs from a producer, and say how that went."""
        begun, seconds = map(float, self.run(*self.peer.send, *way, str(count)).split()[-2:])
        return Sent(begun, seconds, count)

    def wait(self, queue: Queue, left: int, seconds: float) -> None:
        """Return once no more than `left` jobs are open; raises PeerFailed."""
        until = time.monotonic() + seconds
        while (count := queue.open_jobs()) > left:
            if time.monotonic() > until:
                raise PeerFailed(f"{count:,} jobs were open after {seconds:.0f} s; {self.last_words()}")
            time.sleep(LOOK_SECONDS)

    def rate(self, queue: Queue, worker: int, count: int, *way: str) -> tuple[float, float, float]:
        """Return accepted and ended a second, and milliseconds of processor time a job, the server's included."""
        assert self.server.process is not None
        pids = (worker, self.server.process.pid)
        cpu = cpu_seconds(*pids)
        sent = self.send(count, *way)
        self.wait(queue, 0, SECONDS_MAX)
        return sent.rate, count / (time.monotonic() - sent.started), (cpu_seconds(*pids) - cpu) / count * 1000

    def rates(self, name: str, queue: Queue, worker: int, count: int, *way: str) -> str:
        """Return a line of the table."""
        rounds = [self.rate(queue, worker, count, *way) for _ in range(ROUNDS)]
        accepted, ended, cpu = (statistics.median(one[index] for one in rounds) for index in (0, 1, 2))
        if way == ("steps",):
            name, ended, cpu = f"{name}, steps/s", ended * bench_steps.STEPS, cpu / bench_steps.STEPS
        return line(name, accepted, ended, cpu)

    def killed(self, queue: Queue, folder: Path) -> str:
        """Kill the worker among jobs that take a while, start another one, and say what became of them."""
        file = folder / "starts"
        variables = {"BENCH_SECONDS": str(KILL_SECONDS), "BENCH_STARTS": str(file)}
        with self.worker(**variables):
            self.send(KILL_JOBS)
            self.wait(queue, KILL_JOBS - KILL_AFTER_JOBS, SECONDS_MAX)
        open_jobs, restarted = queue.open_jobs(), time.monotonic()
        with self.worker(**variables), contextlib.suppress(PeerFailed):
            self.wait(queue, 0, AFTER_KILL_SECONDS)
        return fate(file, open_jobs, queue.open_jobs(), time.monotonic() - restarted)


def fate(file: Path, open_jobs: int, left: int, seconds: float) -> str:
    """Say what became of the jobs after the kill."""
    starts = started(file)
    again = sum(map(len, starts.values())) - len(starts)
    ended = f"all ended {seconds:.1f} s after the restart" if not left else f"{left} not ended after {seconds:.0f} s"
    return (
        f"kill -9 with {open_jobs} of {KILL_JOBS:,} jobs of {KILL_SECONDS * 1000:.0f} ms open: {ended};"
        f" {KILL_JOBS - len(starts)} never started, {again} started again"
    )


def line(name: str, accepted: float | None, ended: float, cpu_ms: float) -> str:
    """Return a line of the table."""
    taken_in = "" if accepted is None else f"{accepted:,.0f}"
    return f"{name:52} {taken_in:>10} {ended:9,.0f} {cpu_ms:9.2f}"


@contextlib.contextmanager
def server_of(peer: Peer, folder: Path, synced: str) -> Iterator[Server]:
    """Run the server that a peer wants, a new one."""
    folder.chmod(0o711)  # for whoever runs PostgreSQL
    server: Server
    if peer.on_redis:
        server = redis_server = Redis(folder / "redis")
        redis_server.synced = synced
    else:
        server = Postgres(folder / "postgres")
    with server:
        yield server


def measure_peer(peer: Peer, python: Path, synced: str, *, kill: bool) -> None:
    """Print what a peer does, and what after a kill if asked; raises PeerFailed."""
    with tempfile.TemporaryDirectory() as scratch, server_of(peer, Path(scratch), synced) as server:
        bench = Bench(peer, python, server, Path(scratch))
        if peer.prepare:
            bench.run(*peer.prepare)
        queue = peer.queue(server)
        name = f"{peer.name}, Redis {synced}" if peer.on_redis else f"{peer.name}, PostgreSQL"
        try:
            with bench.worker() as worker:
                bench.send(WARM_UP_JOBS)
                bench.wait(queue, 0, SECONDS_MAX)
                print(bench.rates(name, queue, worker, JOBS), flush=True)
                for way, words in peer.ways.items():
                    count = WORKFLOWS if words == ("steps",) else JOBS
                    print(bench.rates(f"{name}, {way}", queue, worker, count, *words), flush=True)
            if kill:
                print(f"    {bench.killed(queue, Path(scratch))}", flush=True)
        finally:
            queue.close()


def measure_replayforge(name: str, folder: Path, chosen: dict[str, Any]) -> None:
    """Print what ReplayForge does: events one by one and in bulk from the Python client, steps, and after a kill."""
    with daemon(folder / "rates", settings=chosen) as running:
        for drive, way in ((SINGLE, "single POSTs"), (BULK, "bulk of 100")):
            rounds = [measure(running, drive) for _ in range(ROUNDS)]
            accepted, ended, cpu = (
                statistics.median(getattr(one, figure) for one in rounds) for figure in ("accepted", "ended", "cpu_us")
            )
            print(line(f"ReplayForge, {name}, {way}", accepted, ended, cpu / 1000), flush=True)
    with daemon(folder / "steps", settings=chosen | {"workers.count": str(bench_steps.AT_ONCE)}) as running:
        steps = [bench_steps.rate(running) for _ in range(ROUNDS)]
        rate, cpu = (statistics.median(one[index] for one in steps) for index in (0, 1))
        print(line(f"ReplayForge, {name}, ten steps, steps/s", None, rate, cpu / 1000), flush=True)
    print(f"    {replayforge_killed(folder, chosen)}", flush=True)


def open_events(running: Running) -> int:
    """Return how many events have not ended."""
    ledger = running.ledger()
    return ledger["accepted"] - ledger["succeeded"]


def replayforge_killed(folder: Path, chosen: dict[str, Any]) -> str:
    """Kill the daemon as the peers' workers are killed."""
    starts = folder / "starts"
    with daemon(folder / "killed", handler_seconds=KILL_SECONDS, starts=starts, settings=chosen) as running:
        python_client(running.url, KILL_JOBS, 1)
        while open_events(running) > KILL_JOBS - KILL_AFTER_JOBS:
            time.sleep(LOOK_SECONDS)
        open_jobs = open_events(running)
        running.process.kill()
    restarted = time.monotonic()
    with daemon(folder / "killed", handler_seconds=KILL_SECONDS, starts=starts, settings=chosen) as running:
        while (left := open_events(running)) and time.monotonic() - restarted < AFTER_KILL_SECONDS:
            time.sleep(LOOK_SECONDS)
        return fate(starts, open_jobs, left, time.monotonic() - restarted)


def measure_peers(names: list[str]) -> None:
    """Print what each of the peers does, or why it does not."""
    for peer in PEERS:
        if names and peer.name not in names:
            continue
        for synced in ("everysec", "always") if peer.on_redis else ("",):
            try:
                measure_peer(peer, environment(peer.name), synced, kill=synced != "everysec")
            except (NotInstalled, PeerFailed, RuntimeError) as error:
                print(f"{peer.name}, {synced or 'PostgreSQL'}: not measured: {error}", flush=True)
        print(f"    durable: {peer.durability}", flush=True)


def main(names: list[str]) -> None:
    """Print ReplayForge's lines and the peers', medians of three rounds."""
    print(
        f"peers: {JOBS:,} jobs or {WORKFLOWS:,} workflows of ten steps, CPU of worker and server;"
        " ReplayForge: as in end_to_end and steps, CPU of the daemon"
    )
    print(f"{'':52} {'accepted/s':>10} {'ended/s':>9} {'CPU ms':>9}")
    if not names or "replayforge" in names:
        with directory() as folder, tempfile.TemporaryDirectory() as scratch, settings(Path(scratch)) as shared:
            measure_replayforge("embedded", folder / "embedded", {})
            measure_replayforge("Redis everysec + PostgreSQL", folder / "shared", dict(shared))
        print("    durable: each event fsynced before its 2xx, SQLite FULL or synchronous_commit on, outcome too")
    measure_peers(names)


if __name__ == "__main__":
    main(sys.argv[1:])
