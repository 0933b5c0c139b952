"""A real, private redis-server on a free port, started and killed by tests."""

import os
import signal
from pathlib import Path
from typing import Any, Self

from replayforge.chaos import private_redis
from replayforge.chaos.private_redis import MISSING as MISSING
from replayforge.chaos.private_redis import PrivateRedis
from tests.support.ports import free_port

MORE_SERVERS = "REPLAYFORGE_TEST_REDIS_SERVERS"  # name=path,name=path: further versions to run every test on


def redis_binaries() -> dict[str, str]:
    """Return every server at hand by where it comes from, the one on PATH first."""
    named = os.environ.get(MORE_SERVERS, "")
    return private_redis.redis_binaries() | dict(server.split("=", 1) for server in named.split(",") if server)


class RedisServer(PrivateRedis):
    """One redis-server process; keeps its port over restarts, and by default nothing on disk."""

    admin: Any

    def __init__(self, binary: str, directory: Path, *options: str) -> None:
        super().__init__(directory, free_port(), binary, *options)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

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
        self.settings = directory / "sentinel.conf"

    def prepare(self) -> None:
        self.settings.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.directory}\n"
            f"sentinel monitor main 127.0.0.1 {self.primary_port} 1\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
        )

    def command_line(self) -> list[str]:
        return [self.binary, str(self.settings), "--sentinel"]
