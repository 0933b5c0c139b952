"""The demo's daemon: a child that is listened to, killed for real, and started again on the same data."""

import contextlib
import os
import queue
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

import replayforge
from replayforge.config import LoadedConfig, load_config
from replayforge.config.sources import ENVIRONMENT_PREFIX, environment_of
from replayforge.demo import intake_proof
from replayforge.demo.ports import free_port
from replayforge.demo.simulated_work import EFFECTS_VARIABLE
from replayforge.domain.clock import parse_time
from replayforge.domain.errors import Refused
from replayforge.serve_process import EndedTooEarly, ServeProcess, python_module, serve_arguments

RECOVERED = "recovered "
START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 40.0
HANDLERS = "replayforge.demo.workload"
CHILD = "replayforge.demo.child"
# What would make a demo touch somebody's real data, or behave unlike itself.
FOREIGN_VARIABLES = (ENVIRONMENT_PREFIX, "EVENT_BACKEND", "REDIS_URL", "DATABASE_URL")
# Retries come soon, so that a demo ends soon; crashes that are asked for do not end the daemon.
SETTINGS: dict[str, Any] = {
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
    """At most one running daemon on one data directory and one port. `lines` holds what it says until it is taken.

    `keep` is told each line, in a thread of its own.

    Call `start` and the rest from one thread. However the parent ends, the daemon ends with it.
    """

    data_dir: Path
    port: int
    workers: int = 16
    further_settings: Mapping[str, Any] = field(default_factory=dict)
    handlers: Sequence[str] = (HANDLERS,)
    keep: Callable[[str], object] = lambda line: None
    lines: "queue.SimpleQueue[LogLine]" = field(default_factory=queue.SimpleQueue)
    newest: ServeProcess | None = None
    last_words: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> dict[str, Any]:
        """What it is configured with: those of every demo, and further ones."""
        return {**SETTINGS, **intake_proof.SETTINGS, **self.further_settings}

    @property
    def effects(self) -> Path:
        """Where the handlers write down which effects they had."""
        return self.data_dir / "effects.txt"

    @property
    def pid(self) -> int:
        """The process id of the newest daemon."""
        assert self.newest is not None
        return self.newest.pid

    @property
    def alive(self) -> bool:
        """Whether the process is there; it may not listen yet."""
        return self.newest is not None and self.newest.exit_code is None

    @property
    def exit_code(self) -> int | None:
        """How the newest process ended, None while it runs."""
        return None if self.newest is None else self.newest.exit_code

    def command(self) -> list[str]:
        """Return the command line: no configuration file, the demo's handlers, crashes on demand."""
        options = ["--config", os.devnull, "--workers", str(self.workers), "--simulate-crashes"]
        options += [option for module in self.handlers for option in ("--handlers", module)]
        return python_module(CHILD, *serve_arguments(self.data_dir, *options, port=self.port))

    def environment(self) -> dict[str, str]:
        """Return the environment: the parent's without settings of its own, and the demo's settings."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_VARIABLES)}
        package = str(Path(replayforge.__file__).resolve().parents[1])
        path = os.pathsep.join([package, *filter(None, [inherited.get("PYTHONPATH")])])
        own = {EFFECTS_VARIABLE: str(self.effects.resolve()), "PYTHONPATH": path}
        return {**inherited, **environment_of(self.settings), **own}

    def start(self) -> None:
        """Start the process and return at once; what it announces comes in `lines`."""
        assert not self.alive, "the daemon is running already"
        self.close()
        self.last_words = []
        # A session of its own: Ctrl-C on the terminal is for the parent, which then stops the daemon in order.
        process = subprocess.Popen(  # noqa: S603  (this very program)
            self.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=self.environment(), start_new_session=True,
        )  # fmt: skip
        self.newest = ServeProcess(process, partial(self.hear, announced), partial(self.hear, logged))

    def hear(self, understand: Callable[[str], LogLine], line: str) -> None:
        """Take down a line."""
        self.last_words = [*self.last_words[-20:], line]
        self.keep(line)
        self.lines.put(understand(line))

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
                self.close()
                break
        raise EndedTooEarly("The daemon did not come up: " + (" ".join(self.last_words[-5:]) or "it said nothing."))

    def signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.newest is not None:
            self.newest.signal(number)

    def kill(self) -> None:
        """SIGKILL, for real, and wait until the process is gone."""
        if self.newest is not None:
            self.newest.kill()

    def stop(self) -> int:
        """SIGTERM, and wait for an ordered end; returns the exit code. A process that does not end is killed."""
        assert self.newest is not None
        try:
            return self.newest.terminate(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def close(self) -> None:
        """Hear what a process that has ended said last."""
        if self.newest is not None:
            self.newest.drain()

    def configuration(self) -> LoadedConfig:
        """Return the configuration the daemon runs with."""
        return load_config(Path(os.devnull), environment_of(self.settings), {"data_dir": str(self.data_dir)})

    def __enter__(self) -> "ChildDaemon":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


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
    named = preferred if wanted is None else wanted
    if named and may_be_bound(named):
        return named
    if wanted:
        raise Refused(f"Port {wanted} is in use; choose another one with --port.")
    return free_port()


def may_be_bound(port: int) -> bool:
    """Tell whether a daemon can listen on a port."""
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False
