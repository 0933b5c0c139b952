"""What chaos injures: a daemon at work, the servers it relies on, and the lines between them."""

import contextlib
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replayforge.chaos.injury import Injured
from replayforge.chaos.private_postgres import MISSING as POSTGRES_MISSING
from replayforge.chaos.private_postgres import PrivatePostgres, postgres_bin, postgres_directory
from replayforge.chaos.private_redis import MISSING as REDIS_MISSING
from replayforge.chaos.private_redis import PrivateRedis, redis_binaries
from replayforge.chaos.probes import CALL_SECONDS, Probes
from replayforge.chaos.proxy_thread import ProxyThread
from replayforge.chaos.tcp_proxy import TcpProxy
from replayforge.client.http import ClientConnection, Problem, Unreachable
from replayforge.demo.child_daemon import HANDLERS, RECOVERED, ChildDaemon
from replayforge.demo.ports import free_port
from replayforge.demo.story import span_in_words
from replayforge.domain.errors import Refused, Unavailable
from replayforge.forgelog.files import make_private_directory

POLL_SECONDS = 0.02
COME_BACK_SECONDS_MAX = 60.0
DAEMON_HANDLERS = (HANDLERS, "replayforge.chaos.handlers")
# Leases are short, so that a daemon that stands still has lost them when it goes on.
OF_SEVERAL_DAEMONS: Mapping[str, Any] = {
    "workers.lease_seconds": 3,
    "workers.heartbeat_seconds": 0.5,
    "janitor.sweep_seconds": 0.5,
    "janitor.stream_reclaim_seconds": 1,
    "janitor.stream_idle_seconds": 2,
}


@dataclass
class Servers:
    """The private servers that the daemon relies on, those that there are, and the lines to them."""

    redis: PrivateRedis | None = None
    postgres: PrivatePostgres | None = None
    lines: dict[Injured, TcpProxy] = field(default_factory=dict)
    network: ProxyThread = field(default_factory=ProxyThread)

    def settings(self) -> dict[str, Any]:
        """Return what tells the daemon of them."""
        settings: dict[str, Any] = dict(OF_SEVERAL_DAEMONS) if self.redis or self.postgres else {}
        if self.redis:
            settings["redis.url"] = self.lines[Injured.REDIS_LINE].url
        if self.postgres:
            settings["store.url"] = self.postgres.url_at(self.lines[Injured.POSTGRES_LINE].port)
        return settings

    def in_words(self) -> str:
        """Say what the daemon relies on."""
        stream = "a private Redis" if self.redis else "the embedded stream"
        return f"{stream} and {'a private PostgreSQL' if self.postgres else 'SQLite'}"


def find_servers(directory: Path, *, redis: bool, postgres: bool) -> Servers:
    """Find the binaries of the servers that are wanted, and make their directories; raises Refused with a remedy."""
    redis_binary = next(iter(redis_binaries().values()), None) if redis else None
    postgres_binaries = postgres_bin() if postgres else None
    for wanted, found, missing in (
        (redis, redis_binary, REDIS_MISSING),
        (postgres, postgres_binaries, POSTGRES_MISSING),
    ):
        if wanted and not found:
            raise Refused(missing)
    servers = Servers()
    if redis_binary:
        make_private_directory(directory / "redis")
        servers.redis = PrivateRedis(directory / "redis", free_port(), redis_binary)
    if postgres_binaries:
        servers.postgres = PrivatePostgres(postgres_directory(directory), free_port(), postgres_binaries)
    return servers


@contextmanager
def running(servers: Servers) -> Iterator[None]:
    """Run the servers, with a line to each."""
    with ExitStack() as stack:
        if servers.redis:
            stack.callback(servers.redis.kill)
            servers.redis.start()
        if servers.postgres:
            stack.callback(servers.postgres.stop_at_once)
            servers.postgres.start()
        stack.enter_context(servers.network)
        for target, server in ((Injured.REDIS_LINE, servers.redis), (Injured.POSTGRES_LINE, servers.postgres)):
            if server:
                servers.lines[target] = servers.network.open(server.port)
        yield


@dataclass
class Scene:
    """The daemon and all that can be done to it. Call it from the thread that started everything.

    `start_seconds` are how long starts took until it listened, `ended_by_itself` says of ends that nobody asked for.
    """

    daemon: ChildDaemon
    servers: Servers
    probes: Probes
    say: Callable[[str], None]
    started_at: float = 0.0
    listens: bool = False
    start_seconds: list[float] = field(default_factory=list)
    ended_by_itself: list[str] = field(default_factory=list)
    killed_while_starting: int = 0

    def start(self) -> None:
        """Start the daemon, and do not wait for it."""
        self.daemon.start()
        self.started_at, self.listens = time.monotonic(), False

    def kill(self) -> None:
        """kill -9 the daemon."""
        self.killed_while_starting += not self.listens
        self.daemon.kill()

    def work(self, seconds: float) -> None:
        """Let the daemon work for so long, and start it again should it end by itself."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.hear()

    def hear(self) -> None:
        """Hear one thing that the daemon says, if it says something, or that it has ended."""
        with contextlib.suppress(queue.Empty):
            line = self.daemon.lines.get(timeout=POLL_SECONDS)
            if line.kind == "announced" and line.text.startswith(RECOVERED):
                self.listens = True
                self.start_seconds.append(round(time.monotonic() - self.started_at, 3))
        if not self.daemon.alive:
            self.daemon.close()
            last_words = " ".join(self.daemon.last_words[-3:])
            self.ended_by_itself.append(f"the daemon ended by itself with {self.daemon.exit_code}: {last_words}")
            self.say(self.ended_by_itself[-1])
            self.start()

    def come_back(self) -> None:
        """Return once the daemon listens; raises Unavailable when it does not come up."""
        deadline = time.monotonic() + COME_BACK_SECONDS_MAX
        while not self.listens:
            self.hear()
            if time.monotonic() > deadline:
                said = " ".join(self.daemon.last_words[-5:])
                raise Unavailable(f"The daemon does not come up within {span_in_words(COME_BACK_SECONDS_MAX)}: {said}")

    def ask(self, *path: str) -> Any:
        """Ask the daemon; None where it does not answer in time."""
        with self.client() as client, contextlib.suppress(Unreachable, Problem):
            return client.get(*path).document()
        return None

    def tell(self, *path: str, document: Any = None) -> bool:
        """Have the daemon do something to itself; False where it does not answer in time."""
        with self.client() as client, contextlib.suppress(Unreachable, Problem):
            client.post(*path, document=document)
            return True
        return False

    def client(self) -> ClientConnection:
        """Make a connection that does not wait long."""
        return ClientConnection(self.daemon.url, timeout_seconds=CALL_SECONDS)

    def busy(self) -> dict[str, str]:
        """Return who of the workers holds which event, nobody while the daemon cannot tell."""
        workers = (self.ask("api", "workers") or {}).get("items", [])
        return {one["worker_name"]: one["current_event_id"] for one in workers if one["current_event_id"]}
