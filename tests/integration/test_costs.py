"""What an event costs, counted and not timed: calls of Python functions in the daemon's main thread.

Each bound stands a fifth above what was counted when it was set: 90 to 94 calls for an event in bulk, 945 to 1,029
with ten steps; a little above for the way in, 125; and two fifths for an event alone, 390 to 431 where the disk
is quick: the slower it is, the more they are. What statements an event costs is held in test_steps.py. A change that
goes beyond one is to be cheaper, or to say in its commit why it is worth that, and to set the bound anew.
"""

import mmap
import os
import sqlite3
import statistics
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

import aiohttp
import pytest

import replayforge
from replayforge.domain.event import EventRecord
from replayforge.engine.accept.intake import Intake, Receipt
from replayforge.web.http.connection import Connection, Port
from tests.support.daemon_process import REPOSITORY, DaemonProcess, until
from tests.support.house import open_house
from tests.support.memory_transport import MemoryTransport, settle

COUNTER_BYTES = 8
EVENT = b'{"workflow_id":"workflow","event_type":"nothing"}'
REQUEST = (
    b"POST /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(EVENT), EVENT)
)
REQUESTS = 200
WAY_IN_CALLS_MAX = 128
COUNTED = (str(Path(replayforge.__file__).parent), str(Path(aiohttp.__file__).parent))
HANDLERS = """
from replayforge import Handlers

handlers = Handlers()

@handlers.on("nothing")
async def nothing(event, ctx):
    return None

async def no_op():
    return None

@handlers.on("steps")
async def steps(event, ctx):
    for number in range(10):
        await ctx.step(f"step-{number}", no_op)
"""
# Counts the calls of Python functions in the main thread, where anyone can read the number.
COUNTING = """
import mmap, os, sys
if path := os.environ.pop("CALLS_COUNTED_IN", None):
    file = open(path, "r+b")
    number = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")
    def count(frame, event, argument):
        if event == "call":
            number[0] += 1
    sys.setprofile(count)
"""


def events(event_type: str, count: int) -> list[dict[str, str]]:
    """Return events to be sent."""
    return [{"workflow_id": "workflow", "event_type": event_type}] * count


class CountedDaemon:
    """A daemon whose calls of Python functions are counted."""

    def __init__(self, directory: Path) -> None:
        counter = directory / "calls"
        counter.write_bytes(bytes(COUNTER_BYTES))
        (directory / "sitecustomize.py").write_text(COUNTING)
        handlers = directory / "handlers.py"
        handlers.write_text(HANDLERS)
        path = f"{directory}{os.pathsep}{REPOSITORY}"
        variables = {"PYTHONPATH": path, "CALLS_COUNTED_IN": str(counter)}
        self.process = DaemonProcess(directory, handlers, variables=variables, forked=False)
        with counter.open("r+b") as file:
            self.counter = memoryview(mmap.mmap(file.fileno(), COUNTER_BYTES)).cast("Q")

    def calls_each(self, events: list[dict[str, str]], *, at_once: bool) -> float:
        """Return how many calls an event needs from its request to its end."""
        client = self.process.client()
        before = self.ended()
        calls = self.counter[0]
        if at_once:
            *_, last = client.send_many(events)
        else:
            *_, last = [client.send(event["event_type"]) for event in events]
        client.get(f"/api/events/{last}?wait=20")
        until(lambda: self.ended() == before + len(events), 30, "the events to end")
        client.close()
        return (self.counter[0] - calls) / len(events)

    def ended(self) -> int:
        """Return how many events have succeeded; read from the file, since to ask the daemon costs calls as well."""
        with closing(sqlite3.connect(f"file:{self.process.store_path}?mode=ro", uri=True)) as store:
            return int(store.execute("SELECT count(*) FROM events WHERE state = 'succeeded'").fetchone()[0])


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CountedDaemon]:
    counted = CountedDaemon(tmp_path_factory.mktemp("counted"))
    with counted.process:
        counted.process.start()
        counted.calls_each(events("nothing", 50), at_once=False)
        yield counted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("event_type", "count", "at_once", "calls_max"),
    [("nothing", 200, False, 600), ("nothing", 1000, True, 112), ("steps", 100, True, 1220)],
    ids=["alone", "in bulk", "ten steps"],
)
def test_calls(daemon: CountedDaemon, event_type: str, count: int, at_once: bool, calls_max: int) -> None:
    """Sent and run one after the other, or all at once."""
    calls = daemon.calls_each(events(event_type, count), at_once=at_once)
    assert calls <= calls_max


async def test_calls_of_the_way_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the bytes of a request to those of its answer, with a log that is there at once."""

    async def logged(_: Intake, record: EventRecord) -> Receipt:
        return Receipt(record, 1, duplicate=False)

    monkeypatch.setattr(Intake, "accept_record", logged)
    async with open_house(tmp_path) as house:
        assert house.http.server is not None
        assert house.http.server.runner is not None
        port = house.http.server.runner.server
        assert isinstance(port, Port)
        connection, line = port(), MemoryTransport()
        line.protocol = connection
        connection.connection_made(line)
        await answered(connection, line)
        counts: list[int] = []
        for _ in range(REQUESTS):
            with counted_calls() as calls:
                await answered(connection, line)
            counts.append(len(calls))
        connection.force_close()
    # Services of the daemon that run meanwhile are counted with some of them: the more, the slower the machine is.
    assert statistics.median(counts) <= WAY_IN_CALLS_MAX


async def answered(connection: Connection, line: MemoryTransport) -> None:
    """Have an event sent, and wait for the answer."""
    line.said = b""
    connection.data_received(REQUEST)
    await settle()
    assert line.said.startswith(b"HTTP/1.1 201 ")


@contextmanager
def counted_calls() -> Iterator[list[str]]:
    """Note the calls of the daemon's and aiohttp's functions in this thread."""
    calls: list[str] = []

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(COUNTED):
            calls.append(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(before)
