"""A real daemon in a process of its own: started, spoken to over HTTP, killed, told to stop, started again."""

import http.client
import json
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from replayforge.config.sources import environment_of
from replayforge.serve_process import EndedTooEarly, Process, ServeProcess, python_module, serve_arguments
from tests.support.forked_process import run_forked, start_forked

REPOSITORY = Path(__file__).parents[2]
START_SECONDS = 30.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the daemon answered. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that has come to its end."""

    code: int
    out: str
    err: str


class HttpClient:
    """One keep-alive connection; belongs to one thread. Raises OSError or HTTPException when the daemon goes away."""

    def __init__(self, url: str, timeout_seconds: float = 20) -> None:
        self.address = urlsplit(url)
        self.timeout_seconds = timeout_seconds
        self.connection: http.client.HTTPConnection | None = None

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request and return its answer; after an error the next request opens a new connection."""
        if self.connection is None:
            host, port = self.address.hostname or "", self.address.port
            self.connection = http.client.HTTPConnection(host, port, timeout=self.timeout_seconds)
        given = dict(headers or {})
        if body is not None:
            given.setdefault("Content-Type", "application/json")
        try:
            self.connection.request(method, self.address.path + path, body, given)
            response = self.connection.getresponse()
            content = response.read()
        except BaseException:
            self.close()
            raise
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, content)

    def get(self, path: str) -> Any:
        """Return the JSON of a 200 answer."""
        answer = self.request("GET", path)
        assert answer.status == 200, (answer.status, answer.body)
        return answer.json()

    def post(self, path: str, value: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Post a value as JSON, or no body at all."""
        return self.request("POST", path, None if value is None else json.dumps(value).encode(), headers)

    def send(self, event_type: str = "test", payload: Any = None, **fields: Any) -> str:
        """Send one event and return its id."""
        body = {"workflow_id": "workflow", "event_type": event_type, "payload": payload or {}, **fields}
        answer = self.post("/api/events", body)
        assert answer.status in (200, 201), answer
        return str(answer.json()["id"])

    def send_many(self, events: Sequence[Mapping[str, Any]]) -> list[str]:
        """Send events in one request and return their ids; all of them are taken."""
        answer = self.post("/api/events/bulk", events)
        assert (answer.status, answer.json()["rejected"]) == (200, 0), answer
        return [item["id"] for item in answer.json()["items"]]

    def event(self, event_id: str) -> dict[str, Any]:
        """Return an event with its history."""
        found: dict[str, Any] = self.get(f"/api/events/{event_id}")
        return found

    def reaches(self, event_id: str, *states: str, timeout_seconds: float = 20) -> dict[str, Any]:
        """Return the event once it stands in one of the states."""

        def look() -> dict[str, Any] | None:
            event = self.event(event_id)
            return event if event["status"] in states else None

        return until(look, timeout_seconds, f"{event_id} to be {' or '.join(states)}")

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


@dataclass
class DaemonProcess:
    """`python -m replayforge serve` on a data directory below `directory`, on a free port.

    `settings` are keys such as "workers.count", handed over in the environment with other `variables`. What every
    start writes to standard error goes to the file `stderr`, one by one. `handles_max` is how many files it may
    open. `forked`: a process that has
    loaded everything already forks instead of starting an interpreter, which takes a tenth of the time.
    """

    directory: Path
    handlers: Path | None = None
    flags: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    handles_max: int | None = None
    forked: bool = True
    served: ServeProcess | None = None
    url: str = ""
    announced: list[str] = field(default_factory=list)
    own: HttpClient | None = None

    @property
    def data_dir(self) -> Path:
        return self.directory / "data"

    @property
    def store_path(self) -> Path:
        return self.data_dir / "store.db"

    @property
    def stderr(self) -> Path:
        return self.directory / "stderr.txt"

    @property
    def running(self) -> bool:
        return self.served is not None and self.served.exit_code is None

    @property
    def pid(self) -> int:
        assert self.served is not None
        return self.served.pid

    def serve(self, *extra: str) -> list[str]:
        """Return the arguments of `replayforge` that serve."""
        handlers = ["--handlers", str(self.handlers)] if self.handlers else []
        return serve_arguments(self.data_dir, *handlers, *self.flags, *extra)

    def environment(self) -> dict[str, str]:
        """Return the environment: nothing of whoever runs the tests but the path, and the settings."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        return {**inherited, "PYTHONPATH": str(REPOSITORY), **environment_of(self.settings), **self.variables}

    def start(self, *extra: str) -> "DaemonProcess":
        """Start the daemon and return once it has said where it listens; raises AssertionError when it ends instead."""
        assert not self.running, "the daemon is running already"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.announced, self.url = [], ""
        with self.stderr.open("a") as stderr:
            process = self.launch(self.serve(*extra), stderr.fileno())
        self.served = ServeProcess(process, self.announced.append)
        try:
            self.url = self.served.wait_listening()
        except EndedTooEarly:
            raise AssertionError(f"serve ended with {self.served.wait()}: {self.stderr.read_text()[-4000:]}") from None
        self.own = HttpClient(self.url)
        return self

    def launch(self, arguments: list[str], stderr: int) -> Process:
        """Start `replayforge` with these arguments."""
        environment = self.environment()
        if self.is_forked(environment):
            return start_forked(arguments, self.directory, environment, stderr)
        return subprocess.Popen(
            python_module("replayforge", *arguments), stdout=subprocess.PIPE, stderr=stderr, cwd=self.directory,
            env=environment, preexec_fn=self.limit_handles if self.handles_max else None,
        )  # fmt: skip

    def is_forked(self, environment: Mapping[str, str]) -> bool:
        """Tell whether a fork would be no different from what a new interpreter is."""
        return self.forked and not self.handles_max and "LD_PRELOAD" not in environment

    def limit_handles(self) -> None:
        """In the child: let it open no more files than that, for good."""
        assert self.handles_max is not None
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.handles_max, self.handles_max))

    def run_refused(self, *extra: str, timeout_seconds: float = START_SECONDS) -> Ended:
        """Start a daemon that is expected to end by itself, and return how it did."""
        self.directory.mkdir(parents=True, exist_ok=True)
        return self.run_command(*self.serve(*extra), timeout_seconds=timeout_seconds)

    def run_command(self, *arguments: str, timeout_seconds: float = 60) -> Ended:
        """Run any command of `replayforge`, in the same environment."""
        environment = self.environment()
        if self.is_forked(environment):
            return Ended(*run_forked(arguments, self.directory, environment, timeout_seconds))
        done = subprocess.run(
            python_module("replayforge", *arguments), capture_output=True, text=True, check=False,
            timeout=timeout_seconds, cwd=self.directory, env=environment,
        )  # fmt: skip
        return Ended(done.returncode, done.stdout, done.stderr)

    def client(self) -> HttpClient:
        """Return a connection of one's own, for another thread."""
        return HttpClient(self.url)

    @property
    def http(self) -> HttpClient:
        """The connection of the thread that started the daemon."""
        assert self.own is not None
        return self.own

    def signal(self, number: int) -> None:
        assert self.served is not None
        self.served.signal(number)

    def wait(self, timeout_seconds: float = 30) -> int:
        """Return the exit code once the process has ended."""
        assert self.served is not None
        code = self.served.wait(timeout_seconds, drain_seconds=0.5)
        if self.own is not None:
            self.own.close()
        return code

    def kill(self) -> None:
        """kill -9; harmless when the process has ended already."""
        self.signal(signal.SIGKILL)
        self.wait()

    def terminate(self, timeout_seconds: float = 30) -> int:
        """Send SIGTERM and return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout_seconds)

    def close(self) -> None:
        """End the process, whatever state it is in."""
        if self.served is not None:
            self.kill()

    def __enter__(self) -> "DaemonProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def converged(self) -> dict[str, Any] | None:
        """Return the report when everything accepted has ended, else None."""
        report: dict[str, Any] = self.http.get("/api/convergence")
        return report if report["converged"] else None


def until(condition: Callable[[], T | None], timeout_seconds: float = 20, what: str = "") -> T:
    """Return the first true value of the condition; raises TimeoutError with the last one.

    It looks less often the longer it waits: a look makes daemon and database work, and a tenth more to wait is less.
    """
    began = time.monotonic()
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        waited = time.monotonic() - began
        if waited > timeout_seconds:
            raise TimeoutError(f"waited {timeout_seconds:g} s for {what or condition}; the last value was {value!r}")
        pause.wait(min(max(waited / 10, 0.02), 0.1))
