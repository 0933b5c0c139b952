"""Clients that bring too much to a real daemon: its memory stays what it was, and so does its willingness to serve."""

import gzip
import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from replayforge.daemon import HANDLES_WANTED
from tests.support.daemon_process import DaemonProcess, until
from tests.support.raw_http import Said

MEBIBYTE = 1 << 20
GROWTH_BYTES_MAX = 10 * MEBIBYTE
EVENT = b'{"workflow_id":"w","event_type":"t"}'
HOST = b"Host: 127.0.0.1\r\n"
POST = b"POST /api/events HTTP/1.1\r\nContent-Type: application/json\r\n" + HOST
NDJSON = b"POST /api/events/bulk HTTP/1.1\r\nContent-Type: application/x-ndjson\r\n" + HOST
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
GZIPPED = b"Content-Encoding: gzip\r\n"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that has had as much in its memory at once as a request may bring."""
    with DaemonProcess(tmp_path_factory.mktemp("heavy")).start() as daemon:
        event = b'{"workflow_id":"w","event_type":"t","payload":"%s"}' % (b"a" * (MEBIBYTE - 100))
        for _ in range(5):
            assert daemon.http.request("POST", "/api/events", event).status == 201
        until(daemon.converged, what="the events of the warming up")
        yield daemon


def status_of(daemon: DaemonProcess, name: str) -> int:
    """Return a figure of the process in bytes, as Linux gives it."""
    lines = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


class Growth:
    """How far the memory of a daemon has gone beyond what it was."""

    def __init__(self, daemon: DaemonProcess) -> None:
        Path(f"/proc/{daemon.pid}/clear_refs").write_text("5")  # the peak begins anew
        self.daemon = daemon
        self.before = status_of(daemon, "VmRSS")

    def bytes(self) -> int:
        return status_of(self.daemon, "VmHWM") - self.before


def connect(daemon: DaemonProcess) -> socket.socket:
    return socket.create_connection((daemon.http.address.hostname, daemon.http.address.port), timeout=20)


def pour(daemon: DaemonProcess, head: bytes, piece: bytes, times: int) -> Said:
    """Send a head and many pieces for as long as the daemon takes them, and return what it says."""
    answer = b""
    with connect(daemon) as connection:
        with suppress(ConnectionError, TimeoutError):
            connection.sendall(head)
            for _ in range(times):
                connection.sendall(piece)
        with suppress(ConnectionError):
            while chunk := connection.recv(65_536):
                answer += chunk
                if b"\r\n\r\n" in answer:
                    break
    return Said(answer)


def chunk(content: bytes) -> bytes:
    return b"%x\r\n" % len(content) + content + b"\r\n"


def log_end(daemon: DaemonProcess) -> int:
    return int(daemon.http.get("/forgelog/stats")["last_offset"])


BOMB = gzip.compress(bytes(MEBIBYTE), 9) * 256

HEAVY: dict[str, tuple[bytes, bytes, int, int]] = {
    "one byte too many": (POST + b"Content-Length: 1048577\r\n\r\n", b" " * 1_048_577, 1, 413),
    "length of 1 GiB, and nothing else": (POST + b"Content-Length: 1073741824\r\n\r\n", b"", 0, 413),
    "length of 64 MiB, and all of it": (POST + b"Content-Length: 67108864\r\n\r\n", b" " * MEBIBYTE, 64, 413),
    "length of an exbibyte": (POST + b"Content-Length: 1152921504606846976\r\n\r\n", b" " * MEBIBYTE, 64, 413),
    "64 MiB in chunks": (POST + CHUNKED, chunk(b" " * MEBIBYTE), 64, 413),
    "a chunk of 16 EiB": (POST + CHUNKED + b"ffffffffffffffff\r\n", b" " * MEBIBYTE, 64, 413),
    "a line of 64 MiB": (NDJSON + CHUNKED, chunk(b"a" * MEBIBYTE), 64, 413),
    "a bulk request of 64 MiB": (
        NDJSON.replace(b"x-ndjson", b"json") + b"Content-Length: 67108864\r\n\r\n", b" " * MEBIBYTE, 64, 413,
    ),
    "gzip bomb": (POST + GZIPPED + b"Content-Length: %d\r\n\r\n" % len(BOMB), BOMB, 1, 415),
    "gzip bomb in chunks": (POST + GZIPPED + CHUNKED, chunk(BOMB), 1, 415),
    "gzip bomb as lines": (NDJSON + GZIPPED + CHUNKED, chunk(BOMB), 1, 415),
    "gzip bomb to what takes no body": (
        b"GET /health HTTP/1.1\r\n" + HOST + GZIPPED + b"Content-Length: %d\r\n\r\n" % len(BOMB), BOMB, 1, 200,
    ),
    "64 MiB of address": (b"GET /", b"a" * MEBIBYTE, 64, 414),
    "64 MiB of one header": (b"GET /health HTTP/1.1\r\n" + HOST + b"X: ", b"a" * MEBIBYTE, 64, 431),
    "64 MiB of headers": (b"GET /health HTTP/1.1\r\n" + HOST, b"X: aaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 32_768, 64, 431),
    "64 MiB of rubbish": (b"\x00", b"\x00" * MEBIBYTE, 64, 400),
}  # fmt: skip


@pytest.mark.parametrize(("head", "piece", "times", "status"), HEAVY.values(), ids=HEAVY.keys())
def test_what_is_too_much_is_not_kept(
    daemon: DaemonProcess, head: bytes, piece: bytes, times: int, status: int
) -> None:
    """More than a request may bring is refused before it is in memory, and packed bodies are not unpacked."""
    end, growth = log_end(daemon), Growth(daemon)
    assert pour(daemon, head, piece, times).status == status
    assert growth.bytes() < GROWTH_BYTES_MAX
    assert log_end(daemon) == end


def test_lengths_that_lie_cost_nothing(daemon: DaemonProcess) -> None:
    """Who announces the largest event and sends nothing of it gets no memory for it, however many do so."""
    end, growth = log_end(daemon), Growth(daemon)
    with ExitStack() as stack:
        for _ in range(200):
            connection = stack.enter_context(connect(daemon))
            connection.sendall(POST + b"Content-Length: 1048576\r\n\r\n" + EVENT)
        assert daemon.http.request("GET", "/health").status == 200
        assert growth.bytes() < GROWTH_BYTES_MAX
    assert log_end(daemon) == end


def test_more_than_the_length_says_is_another_request(daemon: DaemonProcess) -> None:
    """What is sent beyond the announced length is no part of the event."""
    end = log_end(daemon)
    said = pour(daemon, POST + b"Content-Length: %d\r\n\r\n" % len(EVENT) + EVENT, b"more of it", 1)
    assert said.status in (201, 400)
    assert log_end(daemon) == end + (said.status == 201)


def handles(daemon: DaemonProcess) -> int:
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


@contextmanager
def handles_limited(daemon: DaemonProcess, count: int) -> Iterator[None]:
    """Take from a running daemon the right to open more than so many handles, for a while."""
    limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (count, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limits)


def test_no_handles_left_is_no_end(daemon: DaemonProcess) -> None:
    """When connections have taken the last handle the daemon lives, serves those it has, and takes new ones later."""
    client, before = daemon.client(), handles(daemon)
    assert client.request("GET", "/health").status == 200
    for _ in range(2):
        with handles_limited(daemon, before + 20), ExitStack() as stack:
            for _ in range(100):
                with suppress(ConnectionError):
                    stack.enter_context(connect(daemon))
            until(lambda: handles(daemon) >= before + 20, what="the daemon to have no handle left")
            assert client.post("/api/events", {"workflow_id": "w", "event_type": "t"}).status == 201
            stack.close()
            until(lambda: handles(daemon) < before + 10, what="the daemon to have let the connections go")
            assert daemon.client().request("GET", "/health").status == 200
    client.close()
    until(daemon.converged, what="the events accepted meanwhile")


def test_a_daemon_takes_all_the_handles_it_may_have(tmp_path: Path) -> None:
    """What a shell hands down is often a thousand, which a large log and its clients would use up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        daemon = DaemonProcess(tmp_path).start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with daemon:
        taken, _ = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    assert taken == min(hard, HANDLES_WANTED)


def test_connections_leave_handles_for_the_rest(tmp_path: Path) -> None:
    """A daemon that may open few handles keeps half of them from connections, and tells the others so."""
    daemon = DaemonProcess(tmp_path, handles_max=200).start()
    poll = b"GET /forgelog/read?wait_seconds=15 HTTP/1.1\r\n" + HOST + b"\r\n"
    with daemon, ExitStack() as stack:
        os.kill(daemon.pid, signal.SIGSTOP)  # it finds the connections before it has read any of them
        for _ in range(100):
            stack.enter_context(connect(daemon)).sendall(poll)
        os.kill(daemon.pid, signal.SIGCONT)
        hello = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"
        until(lambda: pour(daemon, hello, b"", 0).status == 503, what="a refusal")
        assert handles(daemon) < 150
        stack.close()
        until(lambda: daemon.client().request("GET", "/health").status == 200)
