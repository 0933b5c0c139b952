"""Handlers that fork: a child's end is not the daemon's, and a dead daemon leaves nothing in its children's hands."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from replayforge.whole_lines import whole_lines
from tests.support.daemon_process import REPOSITORY, DaemonProcess, until
from tests.support.ports import free_port
from tests.support.processes import lives, open_files
from tests.support.sink import QUICK
from tests.support.slow import the_rest_slow

FORKING_HANDLERS = Path(__file__).parents[1] / "data" / "forking_handlers.py"
KINDS = ("pool", "process", "os", "thread", "preexec")


class Forking(DaemonProcess):
    """A daemon whose handlers fork, on the event loop of this name."""

    loop = "uvloop"

    def environment(self) -> dict[str, str]:
        """Hide uvloop where the other loop is wanted."""
        found = super().environment()
        if self.loop == "uvloop":
            return found
        hidden = self.directory / "hidden"
        hidden.mkdir(exist_ok=True)
        (hidden / "uvloop.py").write_text("raise ImportError\n")
        return {**found, "PYTHONPATH": f"{hidden}{os.pathsep}{REPOSITORY}"}

    def wait(self, timeout_seconds: float = 30) -> int:
        """Return the exit code, without waiting for the end of the output: children may have that, too."""
        assert self.served is not None
        assert self.own is not None
        self.own.close()
        return self.served.process.wait(timeout_seconds)

    def send(self, event_type: str) -> str:
        answer = self.http.post("/api/events", {"workflow_id": "w", "event_type": event_type})
        assert answer.status == 201, answer
        return str(answer.json()["id"])

    def ended(self, event_id: str) -> str | None:
        state = self.http.get(f"/api/events/{event_id}")["status"]
        return state if state in ("succeeded", "dead_lettered") else None

    def children(self) -> list[int]:
        return [int(line) for line in whole_lines(self.directory / "children.txt")]


@pytest.fixture(params=the_rest_slow(["uvloop", "asyncio"]))
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Forking]:
    daemon = Forking(tmp_path, FORKING_HANDLERS, settings=QUICK, forked=False)
    daemon.loop = request.param
    with daemon:
        yield daemon
        for child in daemon.children():
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def forked(daemon: Forking, kind: str) -> int:
    """Have a handler fork and return the child, once it lives."""
    before = set(daemon.children())
    event_id = daemon.send(f"fork.{kind}")
    until(lambda: daemon.ended(event_id), what=f"{kind} to return")
    (child,) = until(lambda: set(daemon.children()) - before, what=f"the child of {kind}")
    return child


def belongings(daemon: Forking, child: int) -> list[str]:
    """Return what a child has open that is the daemon's."""
    links, ours = open_files(child), set(open_files(daemon.pid))
    shared = [link for link in links if link in ours and (str(daemon.data_dir) in link or "[" in link)]
    # Pipes may be what the handler has to its child, but the daemon's output is not: who reads that waits for its end.
    output = {os.readlink(f"/proc/{daemon.pid}/fd/{number}") for number in (1, 2)}
    return [link for link in shared if not link.startswith("pipe:")] + [link for link in links if link in output]


def test_children_of_handlers(daemon: Forking) -> None:
    """SIGTERM ends a child and not the daemon; a child holds nothing of the daemon's, so that a daemon that is killed
    frees its clients, its port and its locks at once, and starts again while all its children live."""
    port = free_port()
    daemon.start("--port", str(port))
    for kind in KINDS:
        child = forked(daemon, kind)
        assert belongings(daemon, child) == [], kind
        os.kill(child, signal.SIGTERM)
        until(lambda child=child: not lives(child), what=f"the end of {kind}")  # type: ignore[misc]
    assert daemon.http.get("/health/ready")["status"] == "ok"
    children = [forked(daemon, kind) for kind in KINDS]
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert client.recv(65536)
    client.settimeout(10)
    daemon.kill()
    with suppress(ConnectionResetError):
        assert client.recv(65536) == b"", "an orphan keeps the connection open"
    assert all(map(lives, children))
    daemon.start("--port", str(port))
    until(daemon.converged)
    assert daemon.terminate() == 0


def test_a_child_never_goes_on_as_the_daemon(daemon: Forking) -> None:
    """A child that comes back out of the handler, or ends there, runs no line of the daemon's."""
    daemon.start()
    for kind in ("returns", "exits"):
        event = daemon.http.reaches(daemon.send(f"fork.{kind}"), "succeeded", "dead_lettered")
        assert (event["status"], event["result"]) == ("succeeded", "parent")
    plain = daemon.send("plain")
    until(lambda: daemon.ended(plain))
    assert daemon.terminate() == 0
    assert "clean stop" in " ".join(daemon.start().announced) or until(
        lambda: [line for line in daemon.announced if "clean stop" in line and "unclean" not in line]
    )
