"""How the daemon's lines look, whatever the values are, and what is taken in from the standard library."""

import asyncio
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replayforge.daemon_log import (
    LibraryHandler,
    LineWriter,
    attempt_logger,
    console_renderer,
    json_line,
    loop_exception_handler,
    output,
)
from replayforge.line_sink import LineSink
from replayforge.telemetry import Telemetry, attempt_context
from tests.support.daemon_process import DaemonProcess
from tests.support.probe import Probe
from tests.support.sink import QUICK, SINK_HANDLERS

CONTEXT = {"event_id": "evt-1", "event_type": "t", "run": 2, "attempt": 3}


class Shy:
    def __repr__(self) -> str:
        raise ValueError("no words")


class Caught:
    """What a writer wrote."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sink = LineSink("stderr", os.open(path, os.O_WRONLY | os.O_CREAT))

    def lines(self) -> list[str]:
        assert self.sink.flush(10)
        return self.path.read_text().splitlines()

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]


@pytest.fixture
def caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Caught]:
    caught = Caught(tmp_path / "lines")
    monkeypatch.setattr(output, "writer", LineWriter(caught.sink, json_line))
    yield caught
    assert caught.sink.flush(10)
    os.close(caught.sink.descriptor)


def hostile() -> dict[str, Any]:
    ring: list[Any] = []
    ring.append(ring)
    values = [Shy(), ring, float("nan"), 10**5000, {(1, 2): 3}, "\ud800\x00\x1b[2J", "x" * 10_000_000, b"\xff", None]
    return {f"value_{number}": value for number, value in enumerate(values)}


def test_no_value_spoils_a_line(caught: Caught) -> None:
    """Each value alone, and all together, give one line of valid JSON; numbers stay numbers."""
    for name, value in hostile().items():
        output.writer.write("info", "alone", {name: value, "number": 7})
    output.writer.write("info", "together", {**hostile(), "number": 7, "event": "theirs", "level": "theirs"})
    entries = caught.entries()
    assert [entry["event"] for entry in entries] == ["alone"] * len(hostile()) + ["together"]
    assert {(entry["level"], entry["number"]) for entry in entries} == {("info", 7)}
    assert max(map(len, caught.lines())) < 70_000


def test_lines_for_people(caught: Caught) -> None:
    """On a console nothing moves the cursor, only a traceback has lines of its own, and time and level come first."""
    writer = LineWriter(caught.sink, console_renderer(False))
    writer.write("warning", "one\ntwo \x1b[2J\u202e", {**hostile(), "stack": 'File "a.py"\n  line\x07'})
    lines = caught.lines()
    assert [line for line in lines if not line.isprintable()] == []
    assert lines[0].startswith("20")
    assert "[warning  ] one\\ntwo \\x1b[2J\\u202e" in lines[0]
    assert lines[1:] == ["", 'File "a.py"', "  line\\x07"] or lines[1:] == ['File "a.py"', "  line\\x07"]


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
def test_records_keep_their_level_and_name_their_attempt(caught: Caught, level: str) -> None:
    """A record of the standard library has its own level, the event and the attempt in whose context it was made."""
    record = logging.LogRecord("mine", logging.getLevelName(level.upper()), __file__, 1, "%s", ("said",), None)
    handler = LibraryHandler()
    token = attempt_context.set(CONTEXT)
    try:
        handler.emit(record)
    finally:
        attempt_context.reset(token)
    handler.emit(record)
    within, without = caught.entries()
    assert (within["level"], within["event"], within["library"]) == (level, "said", "mine")
    assert {name: within[name] for name in CONTEXT} == CONTEXT
    assert "event_id" not in without


def test_libraries_are_heard_from_warning_on(caught: Caught) -> None:
    """Below it only the user's own code is, and the loggers for which somebody has set a level."""
    library, logger = logging.__file__, logging.getLogger("loud.library")
    handler = LibraryHandler()
    for name in ("quiet.library", "loud.library"):
        logger.setLevel(logging.DEBUG)
        handler.emit(logging.LogRecord(name, logging.INFO, library, 1, name, (), None))
    handler.emit(logging.LogRecord("quiet.library", logging.WARNING, library, 1, "warned", (), None))
    logger.setLevel(logging.NOTSET)
    assert [entry["event"] for entry in caught.entries()] == ["loud.library", "warned"]


def test_a_value_that_logs_while_it_is_logged(caught: Caught) -> None:
    """A repr that logs itself does not go round in circles."""
    handler = LibraryHandler()

    class Talker:
        def __repr__(self) -> str:
            handler.emit(logging.LogRecord("mine", logging.ERROR, __file__, 1, "%r", (self,), None))
            return "talker"

    handler.emit(logging.LogRecord("mine", logging.ERROR, __file__, 1, "%r", (Talker(),), None))
    assert [entry["event"] for entry in caught.entries()] == ["talker"]


def test_users_logger(caught: Caught) -> None:
    """ctx.log has structlog's methods, binds, and tells tracebacks."""
    logger = attempt_logger(event_id="evt-1").bind(step=1)
    logger.info("%s done", "half")
    try:
        raise RuntimeError("no")
    except RuntimeError:
        logger.exception("failed")
    asyncio.run(logger.awarning("asynchronously"))
    half, failed, last = caught.entries()
    assert (half["event"], half["event_id"], half["step"]) == ("half done", "evt-1", 1)
    assert (failed["level"], "RuntimeError: no" in failed["exception"]) == ("error", True)
    assert (last["level"], last["event"]) == ("warning", "asynchronously")


async def test_tasks_that_nobody_waits_for() -> None:
    """Their errors are a telemetry event of ours, and go through no logger of the standard library."""
    telemetry = Telemetry()
    probe = Probe(telemetry)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(loop_exception_handler(telemetry))
    loop.call_soon(lambda: 1 // 0)
    await probe.saw("task.failed")
    assert "ZeroDivisionError" in probe.fields("task.failed")[0]["exception"]


@pytest.mark.parametrize("end", ["process crash", "ordered stop"])
def test_what_is_said_last_is_seen(tmp_path: Path, end: str) -> None:
    """A process that ends at once still says why."""
    with DaemonProcess(tmp_path, SINK_HANDLERS, ["--simulate-crashes"], {**QUICK, "logging.format": "json"}) as daemon:
        daemon.start()
        if end == "process crash":
            daemon.http.post("/api/events", {"workflow_id": "w", "event_type": "t", "payload": {"_force_exit": True}})
            assert daemon.wait() == 137
            assert '"crash.simulated"' in daemon.stderr.read_text()
        else:
            assert daemon.terminate() == 0
            assert '"daemon.draining"' in daemon.stderr.read_text()
