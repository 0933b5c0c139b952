"""A daemon as a child process: started, listened to, killed for real, started again on the same data."""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import msgspec

import replayforge
from replayforge.config import LoadedConfig, load_config
from replayforge.domain.clock import parse_time
from replayforge.domain.errors import Refused, Unavailable

ANNOUNCEMENT = "ReplayForge listens on "
RECOVERED = "recovered "
START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 40.0
HANDLERS = "replayforge.engine.run.checkout"
# What would make a demo touch somebody's real data, or behave unlike itself.
FOREIGN_VARIABLES = ("REPLAYFORGE__", "EVENT_BACKEND", "REDIS_URL", "DATABASE_URL")
# Retries come soon, so that a demo ends soon; crashes that are asked for do not end the daemon.
SETTINGS = {
    "retry.base_seconds": 0.3,
    "retry.max_seconds": 5,
    "janitor.promote_seconds": 0.1,
    "janitor.refill_seconds": 0.2,
    "workers.solo_seconds": 0.5,
    "workers.control_seconds": 1,
    "supervisor.restarts_max": 1000,
    "supervisor.grace_seconds": 5,
    "logging.format": "json",
}


class EndedTooEarly(Unavailable):
    """The daemon ended before it listened; what it said last stands in the message."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class LogLine:
    """One thing the daemon said: a line it announced, or a telemetry event of its log."""

    kind: str
    text: str
    fields: Mapping[str, Any]

    @property
    def at_us(self) -> int:
        """When it happened, by the daemon's clock."""
        return parse_time(str(self.fields["timestamp"]))


@dataclass
class ChildDaemon:
    """At most one running daemon on one data directory and one port. `said` holds what it says until it is taken.

    Call `start` and the rest from one thread. However the parent ends, the daemon ends with it.
    """

    data_dir: Path
    port: int
    workers: int = 16
    extra_environment: Mapping[str, str] = field(default_factory=dict)
    lines: "queue.SimpleQueue[LogLine]" = field(default_factory=queue.SimpleQueue)
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    last_words: list[str] = field(default_factory=list)
    readers: list[threading.Thread] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the newest daemon."""
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the process is there; it may not listen yet."""
        return self.process is not None and self.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How the newest process ended, None while it runs."""
        return None if self.process is None else self.process.poll()

    def command(self) -> list[str]:
        """Return the command line: this Python, the `serve` command, no configuration file."""
        serve = ["serve", "--config", os.devnull, "--port", str(self.port), "--data-dir", str(self.data_dir)]
        options = ["--workers", str(self.workers), "--handlers", HANDLERS, "--simulate-crashes"]
        return [sys.executable, "-m", "replayforge.cli.demo_child", *serve, *options]

    def environment(self) -> dict[str, str]:
        """Return the environment: the parent's without settings of its own, and the demo's settings."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_VARIABLES)}
        package = str(Path(replayforge.__file__).resolve().parents[1])
        path = os.pathsep.join([package, *filter(None, [inherited.get("PYTHONPATH")])])
        return {**inherited, **settings_environment(), **self.extra_environment, "PYTHONPATH": path}

    def start(self) -> None:
        """Start the process and return at once; what it announces comes in `said`."""
        assert not self.alive, "the daemon is running already"
        self.let_go()
        # A session of its own: Ctrl-C on the terminal is for the parent, which then stops the daemon in order.
        self.process = subprocess.Popen(  # noqa: S603  (this very program)
            self.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=self.environment(), start_new_session=True,
        )  # fmt: skip
        self.starts += 1
        self.last_words = []
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.readers = [
            threading.Thread(target=self.listen, args=(self.process.stdout, announced), daemon=True),
            threading.Thread(target=self.listen, args=(self.process.stderr, logged), daemon=True),
        ]
        for reader in self.readers:
            reader.start()

    def listen(self, pipe: IO[bytes], understand: Any) -> None:
        """Take down what comes through a pipe, until its end."""
        for line in pipe:
            text = line.decode("utf-8", "backslashreplace").rstrip("\n")
            self.last_words = [*self.last_words[-20:], text]
            self.lines.put(understand(text))

    def wait_listening(self, timeout_seconds: float = START_SECONDS_MAX) -> list[LogLine]:
        """Return what was said up to the line that tells what was recovered; raises EndedTooEarly."""
        deadline = time.monotonic() + timeout_seconds
        heard: list[LogLine] = []
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                heard.append(self.lines.get(timeout=0.05))
                if heard[-1].kind == "announced" and heard[-1].text.startswith(RECOVERED):
                    return heard
                continue
            if not self.alive:
                break
        for reader in self.readers:
            reader.join(1)
        raise EndedTooEarly("The daemon did not come up: " + (" ".join(self.last_words[-5:]) or "it said nothing."))

    def kill(self) -> None:
        """SIGKILL, for real, and wait until the process is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and wait for an ordered end; returns the exit code. A process that does not end is killed."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Close the pipes of a process that has ended."""
        if self.process is None:
            return
        for reader in self.readers:
            reader.join(2)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def configuration(self) -> LoadedConfig:
        """Return the configuration the daemon runs with."""
        return load_config(Path(os.devnull), settings_environment(), {"data_dir": str(self.data_dir)})

    def __enter__(self) -> "ChildDaemon":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.let_go()


def settings_environment() -> dict[str, str]:
    """Return the demo's settings as environment variables."""
    return {f"REPLAYFORGE__{key.replace('.', '__').upper()}": str(value) for key, value in SETTINGS.items()}


def announced(line: str) -> LogLine:
    """Understand a line of standard output."""
    return LogLine("announced", " ".join(line.split()), {})


def logged(line: str) -> LogLine:
    """Understand a line of standard error: a telemetry event as JSON, or plain words."""
    try:
        fields = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.MsgspecError:
        return LogLine("noise", line, {})
    return LogLine("telemetry_event", str(fields.get("event", "")), fields)


def port_for(wanted: int | None, preferred: int) -> int:
    """Return the wanted port, else the preferred one if it is free, else any free one; raises Refused when taken."""
    for port in (preferred, 0) if wanted is None else (wanted,):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise Refused(f"Port {wanted} is in use; choose another one with --port.")
