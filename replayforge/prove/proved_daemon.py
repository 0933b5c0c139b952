"""A real daemon with the user's handlers on a directory of its own; it dies at a crash point and is started again."""

import contextlib
import os
import queue
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any

import msgspec

from replayforge.client.http import ClientConnection
from replayforge.config import LoadedConfig, load_config
from replayforge.config.sources import ENVIRONMENT_PREFIX, environment_of
from replayforge.crashpoints import POINTS
from replayforge.forked_process import ForkServer
from replayforge.prove.certificates import Certificates
from replayforge.prove.child import RULES_VARIABLE, ChildRules, DaemonAnswer, Noted
from replayforge.prove.proxy import OutsideRules, Proxy, line_to
from replayforge.prove.whereabouts import Site
from replayforge.serve_process import ServeProcess, serve_arguments
from replayforge.whole_lines import whole_lines

ARMED_TIMES = 1_000_000_000  # never reached: it tells how often a point was passed
START_SECONDS_MAX = 30.0
WORDS_MAX = 20
SETTINGS: Mapping[str, Any] = {
    "stream.backend": "embedded",
    "redis.url": "",
    "retry.base_seconds": 0.2,
    "retry.max_seconds": 1,
    "janitor.promote_seconds": 0.05,
    "janitor.refill_seconds": 0.2,
    "workers.solo_seconds": 0.2,
    "workers.control_seconds": 0.5,
    "workers.count": 4,
    "supervisor.grace_seconds": 2,
    "logging.format": "console",
    "logging.level": "warning",
}


class Subject(msgspec.Struct, frozen=True):
    """What is proved: handlers, by the settings that belong to them, and how the world outside answers them."""

    modules: tuple[str, ...]
    roots: tuple[str, ...]
    settings: Mapping[str, Any]
    outside: OutsideRules


class ProvedDaemon:
    """At most one process at a time, and the proxy through which it calls. However the parent ends, it ends with it.

    Call `start` and the rest from one thread.
    """

    def __init__(self, directory: Path, subject: Subject, certificates: Certificates, server: ForkServer) -> None:
        self.directory = directory
        self.subject = subject
        self.server = server
        self.proxy = Proxy(subject.outside, certificates, self.sites)
        self.process: ServeProcess | None = None
        self.line: socket.socket | None = None
        self.ask: Any = bytes
        self.words: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.exit_stack = contextlib.ExitStack()

    @property
    def settings(self) -> dict[str, Any]:
        """What it is configured with."""
        return {**SETTINGS, **self.subject.settings, "store.url": f"sqlite:///{self.directory}/data/store.db"}

    @property
    def notes(self) -> Path:
        """Where the processes note what they do, one after the other."""
        return self.directory / "notes.ndjson"

    @property
    def exit_code(self) -> int | None:
        """How the newest process ended, None while it runs."""
        return None if self.process is None else self.process.exit_code

    def start(self, crash_at: Sequence[str] = ()) -> ClientConnection:
        """Start a process that dies at the given points, and return a connection to it; raises EndedTooEarly."""
        self.kill()
        ours, theirs = socket.socketpair()
        self.line, self.ask = ours, line_to(ours)
        with theirs:
            process = self.server.start_heard(
                self.arguments(crash_at), Path.cwd(), self.environment(), [theirs.fileno()]
            )
        self.process = ServeProcess(process, hear_error=self.words.put)
        return ClientConnection(self.process.wait_listening(START_SECONDS_MAX))

    def arguments(self, crash_at: Sequence[str]) -> list[str]:
        """Return the command line: no configuration file, the user's handlers, and every point armed."""
        dying = [point.partition(":")[0] for point in crash_at]
        armed = [*crash_at, *(f"{point}:{ARMED_TIMES}" for point in POINTS if point not in dying)]
        options = [part for one in self.subject.modules for part in ("--handlers", one)]
        options += [part for one in armed for part in ("--crash-at", one)]
        return serve_arguments(self.directory / "data", "--config", os.devnull, "--simulate-crashes", *options)

    def environment(self) -> dict[str, str]:
        """Return the environment: the user's, with the proxy in it and without settings of a daemon."""
        open_to = (self.proxy.address, *self.subject.outside.forwarded)
        rules = ChildRules(self.subject.roots, open_to, str(self.notes), ARMED_TIMES)
        own = {RULES_VARIABLE: msgspec.json.encode(rules).decode()}
        return {**self.proxy.environment(inherited()), **environment_of(self.settings), **own}

    def configuration(self) -> LoadedConfig:
        """Return the configuration it runs with."""
        flags = {"data_dir": str(self.directory / "data")}
        return load_config(Path(os.devnull), environment_of(self.settings), flags)

    def asked(self) -> DaemonAnswer:
        """Ask the process what it does; a dead one does nothing."""
        answer = self.ask()
        return msgspec.json.decode(answer, type=DaemonAnswer) if answer else DaemonAnswer([], {})

    def sites(self) -> list[Site]:
        """Return the lines of users' code that wait for an answer from outside."""
        return self.asked().sites

    def noted(self) -> list[Noted]:
        """Return what the processes have noted."""
        return [msgspec.json.decode(line, type=Noted) for line in whole_lines(self.notes)]

    def last_words(self) -> str:
        """Return what the processes have said on standard error, the end of it."""
        heard = []
        with contextlib.suppress(queue.Empty):
            while True:
                heard.append(self.words.get_nowait())
        return "\n".join(heard[-WORDS_MAX:])

    def wait_dead(self, seconds: float) -> bool:
        """Wait for the end of a process that is about to die; returns whether it came."""
        deadline = monotonic() + seconds
        while self.exit_code is None and monotonic() < deadline:
            sleep(0.01)
        return self.exit_code is not None

    def kill(self) -> None:
        """SIGKILL, for real, and wait until the process is gone; harmless when it has ended."""
        if self.process is not None:
            self.process.kill()
        if self.line is not None:
            self.line.close()

    def __enter__(self) -> "ProvedDaemon":
        self.exit_stack.enter_context(self.proxy)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.exit_stack.close()


def inherited() -> dict[str, str]:
    """Return the environment of the user, without settings of a daemon."""
    return {name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)}
