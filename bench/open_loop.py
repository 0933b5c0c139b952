"""Load that does not wait for answers, from a process of its own: as many requests as are due, over many connections.

What is due and finds no connection free is not sent, as with callers who have given up; it counts as unsent. Each
second is a line of the output, in JSON.
"""

import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

from bench.load import EVENT
from replayforge.event_loop import loop_factory

CONNECTIONS_MAX = 900  # the daemon takes 1,000 from one address
TICK_SECONDS = 0.002
LAST_ANSWERS_SECONDS = 5.0
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
NO_ANSWER = "none"
REFUSED = ("429", "503")


@dataclass
class Second:
    """What was due in one second, and the answers that came in it: how many of each status, and how late those of 2xx.

    `cpu_seconds` is the processor time that this client took.
    """

    due: int = 0
    unsent: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    milliseconds: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0

    @property
    def refused(self) -> int:
        """How many were refused for now."""
        return sum(self.statuses[status] for status in REFUSED)

    @property
    def failed(self) -> int:
        """How many had another answer than 2xx, or none."""
        return sum(self.statuses.values()) - len(self.milliseconds) - self.refused


class Connection(asyncio.Protocol):
    """One connection that carries one request at a time."""

    def __init__(self, sender: "Sender") -> None:
        self.sender = sender
        self.received = bytearray()
        self.due: float | None = None
        self.transport = asyncio.Transport()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are none by type

    def send(self, due: float) -> None:
        """Send the request that was due then."""
        self.due = due
        self.transport.write(self.sender.request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head = self.received.find(b"\r\n\r\n")
        if head < 0:
            return
        length = LENGTH.search(self.received, 0, head)
        if length is None or len(self.received) < head + 4 + int(length[1]):
            return
        status, closing = self.received[9:12].decode(), b"connection: close" in bytes(self.received[:head]).lower()
        self.received.clear()
        self.answered(status)
        if closing:
            self.transport.close()
        else:
            self.sender.idle.append(self)

    def connection_lost(self, _: Exception | None) -> None:
        self.sender.opened -= 1
        if self in self.sender.idle:
            self.sender.idle.remove(self)
        self.answered(NO_ANSWER)

    def answered(self, status: str) -> None:
        """Note the answer of what was sent, if anything was."""
        if self.due is not None:
            self.sender.note(status, self.due)
            self.due = None


class Sender:
    """Sends one request again and again."""

    def __init__(self, url: str, per_request: int) -> None:
        place = urlsplit(url)
        self.host, self.port = str(place.hostname), int(place.port or 80)
        bulk = per_request > 1
        body = json.dumps([EVENT] * per_request if bulk else EVENT).encode()
        self.request = (
            f"POST {'/api/events/bulk' if bulk else '/api/events'} HTTP/1.1\r\nHost: {place.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        self.idle: list[Connection] = []
        self.opened = 0
        self.second = Second()
        self.opening: set[asyncio.Task[None]] = set()

    def send(self, due: float) -> None:
        """Send one request, over a further connection if none is idle."""
        self.second.due += 1
        if self.idle:
            self.idle.pop().send(due)
        elif self.opened < CONNECTIONS_MAX:
            self.opened += 1
            task = asyncio.create_task(self.open(due))
            self.opening.add(task)
            task.add_done_callback(self.opening.discard)
        else:
            self.second.unsent += 1

    async def open(self, due: float) -> None:
        """Send one request over a new connection."""
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self), self.host, self.port
            )
        except OSError:
            self.opened -= 1
            self.note(NO_ANSWER, due)
            return
        connection.send(due)

    def note(self, status: str, due: float) -> None:
        """Count one answer."""
        self.second.statuses[status] += 1
        if status.startswith("2"):
            self.second.milliseconds.append((time.monotonic() - due) * 1000)

    def report(self) -> None:
        """Write down the second that is over, and begin the next."""
        self.second.cpu_seconds = time.process_time()
        sys.stdout.write(json.dumps(vars(self.second)) + "\n")
        sys.stdout.flush()
        self.second = Second()

    async def run(self, per_second: float, seconds: float) -> None:
        """Send for so long, and wait a little for the last answers."""
        started, sent, reported = time.monotonic(), 0, 0
        while (passed := time.monotonic() - started) < seconds:
            due = int(passed * per_second)
            for number in range(sent, due):
                self.send(started + number / per_second)
            sent = due
            if int(passed) > reported:
                reported = int(passed)
                self.report()
            await asyncio.sleep(TICK_SECONDS)
        until = time.monotonic() + LAST_ANSWERS_SECONDS
        while (self.opening or len(self.idle) < self.opened) and time.monotonic() < until:  # noqa: ASYNC110  # answers
            await asyncio.sleep(TICK_SECONDS)
        self.second.statuses[NO_ANSWER] += self.opened - len(self.idle)
        self.report()


def seconds_of(url: str, per_second: float, seconds: float, per_request: int, look: Callable[[], None]) -> list[Second]:
    """Send from another process at this rate of requests; `look` is called once a second meanwhile."""
    command = [sys.executable, "-m", "bench.open_loop", url, str(per_second), str(seconds), str(per_request)]
    with tempfile.TemporaryFile("w+") as lines:
        with subprocess.Popen(command, stdout=lines) as sender:
            try:
                while sender.poll() is None:
                    look()
                    time.sleep(1)
            finally:
                sender.kill()
        if sender.returncode != 0:
            raise RuntimeError("The client of the open loop has failed.")
        lines.seek(0)
        found = [Second(**json.loads(line)) for line in lines]
    for second in found:
        second.statuses = Counter(second.statuses)
    return found


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        chosen = Sender(sys.argv[1], int(sys.argv[4]))
        runner.run(chosen.run(float(sys.argv[2]), float(sys.argv[3])))
