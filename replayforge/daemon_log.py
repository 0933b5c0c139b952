"""The daemon's own log: how its lines look and where they go, whatever users configure for theirs.

Nothing here reads the configuration of structlog or of the standard library's logging, nor `sys.stdout` and
`sys.stderr` once `begin` has been called: users may set all of them.
"""

import contextlib
import io
import json
import logging
import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from time import monotonic, time_ns
from types import TracebackType
from typing import Any

import structlog

from replayforge.line_sink import LineSink, SinkStream
from replayforge.telemetry import CATALOG, LOUD, Telemetry, attempt_context
from replayforge.tracebacks import formatted

LINE_CHARACTERS_MAX = 64 * 1024
VALUE_CHARACTERS_MAX = 2_000
NUMBER_MAX = 2**63
LOOP_CLOSED = "Event loop is closed"  # what a thread meets that has an answer when everything has ended
FLUSH_SECONDS = 1.0
RANKS = {"debug": 0, "info": 1, "warning": 2, "error": 3, "critical": 4}
DETAILED = "debug"
USUAL = "info"  # with all that users log, whatever its level, for they have levels of their own
LEVELS = (
    (logging.CRITICAL, "critical"),
    (logging.ERROR, "error"),
    (logging.WARNING, "warning"),
    (logging.INFO, "info"),
)
# What these log while they serve the daemon must reach its log through no handler of the user's, which may raise.
SERVANTS = ("asyncio", "aiohttp.internal", "aiohttp.server", "aiohttp.web", "aiohttp.websocket")
FOREIGN_CODE = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))

Render = Callable[[str, dict[str, Any]], str]


# How a line looks


def entry_of(level: str, event: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line as a mapping: time, level and event first, then the fields, an exception as its traceback."""
    now = datetime.fromtimestamp(time_ns() / 1e9, UTC).isoformat().replace("+00:00", "Z")
    head = {"timestamp": now, "level": level, "event": event}
    entry = {**head, **fields, **head}
    trace = trace_of(entry.pop("exc_info", None))
    return {**entry, "exception": trace} if trace else entry


def trace_of(error: Any) -> str:
    """Return the traceback of what may stand in `exc_info`: an exception, its triple, or True for the current one."""
    if error and not isinstance(error, (BaseException, tuple)):
        error = sys.exc_info()
    if isinstance(error, tuple):
        error = error[1] if len(error) > 1 else None
    return formatted(error) if isinstance(error, BaseException) else ""


def json_line(_: str, entry: dict[str, Any]) -> str:
    """Return an entry as one line of JSON."""
    return json.dumps(entry, default=described, allow_nan=False)


def console_renderer(colours: bool) -> Render:
    """Return what makes an entry a line for people, in which nothing moves the cursor."""
    renderer = structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)

    def console_line(level: str, entry: dict[str, Any]) -> str:
        shown = {
            printable(str(name)): value if isinstance(value, (int, float)) else text_for_people(str(name), value)
            for name, value in entry.items()
        }
        return str(renderer(None, level, shown))

    return console_line


def text_for_people(name: str, value: Any) -> str:
    """Return a value as text for a terminal; only a traceback has lines of its own."""
    text = value if isinstance(value, str) else described(value)
    if name in ("exception", "stack"):
        return "\n".join(printable(line) for line in text.split("\n"))
    return printable(text)


def printable(text: str) -> str:
    """Return text as a terminal shows and never obeys it."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def described(value: Any) -> str:
    """Return what a value says of itself, in short; its class may be the user's, so even that may raise."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception as error:
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"
    return text if len(text) <= VALUE_CHARACTERS_MAX else f"{text[:VALUE_CHARACTERS_MAX]}… ({len(text):,} characters)"


def in_short(value: Any) -> Any:
    """Return what certainly can be written: numbers that JSON has, else text."""
    is_number = isinstance(value, (int, float)) and abs(value) < NUMBER_MAX
    return value if is_number or value is None else described(value)


class LineWriter:
    """Makes lines and hands them to a sink; never waits and never raises, whatever the values are."""

    def __init__(self, sink: LineSink, render: Render, least: str = USUAL) -> None:
        self.sink = sink
        self.render = render
        self.detailed = least == DETAILED
        self.rank = 0 if least == USUAL else RANKS[least]
        sink.say_dropped_by(self.notice)

    def write(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write one line, unless its level is below the least."""
        if RANKS.get(level, 0) >= self.rank:
            self.sink.write(self.encoded(level, event, fields))

    def encoded(self, level: str, event: str, fields: Mapping[str, Any]) -> bytes:
        """Return a line as bytes; one that cannot be made, or is too long, has its values in short."""
        entry = entry_of(level, event, fields)
        try:
            line = self.render(level, entry)
        except Exception:
            line = ""
        if not 0 < len(line) <= LINE_CHARACTERS_MAX:
            line = self.render(level, {described(name): in_short(value) for name, value in entry.items()})
        return line.encode("utf-8", "backslashreplace") + b"\n"

    def notice(self, count: int) -> bytes:
        """Return the line that says how many were dropped."""
        return self.encoded(CATALOG["output.dropped"].level, "output.dropped", {"count": count})


# Where lines go


class Output:
    """The standard output and error of this process, each behind a sink that never holds anybody up."""

    def __init__(self) -> None:
        self.out = LineSink("stdout", 1)
        self.err = LineSink("stderr", 2)
        self.writer = LineWriter(self.err, json_line)
        self.begun = False

    def begin(self, form: str, least: str = USUAL) -> None:
        """Write through copies of the descriptors from now on, and so does every `print`; twice changes form and level.

        `form` is json, console, or auto: for people on a terminal, JSON elsewhere.
        `least` is the lowest level written; "info" leaves out no line of users.
        """
        console = form == "console" or (form == "auto" and os.isatty(self.err.descriptor))
        render = console_renderer(os.isatty(self.err.descriptor)) if console else json_line
        self.writer = LineWriter(self.err, render, least)
        if self.begun:
            return
        self.begun = True
        for sink in (self.out, self.err):
            with contextlib.suppress(OSError):  # it is closed: every write will say so, and be counted
                sink.write_to(os.dup(sink.descriptor))
        sys.stdout, sys.stderr = text_stream(self.out, 1), text_stream(self.err, 2)
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]

    def flush(self, timeout_seconds: float = FLUSH_SECONDS) -> None:
        """Let what was said get out, within a time limit."""
        deadline = monotonic() + timeout_seconds
        for sink in (self.err, self.out):
            sink.flush(max(0.0, deadline - monotonic()))

    def issues(self) -> list[str]:
        """Say in words which output takes nothing, and why."""
        return [
            f"Nothing can be written to {sink.name} ({trouble}): {sink.dropped:,} lines were dropped."
            for sink in (self.out, self.err)
            if (trouble := sink.trouble())
        ]


def text_stream(sink: LineSink, descriptor: int) -> io.TextIOWrapper:
    """Return a text stream like `sys.stdout` that writes to a sink."""
    stream = SinkStream(sink, descriptor)
    buffer = io.BufferedWriter(stream)  # type: ignore[type-var]  # it is a RawIOBase, which only writes
    return io.TextIOWrapper(buffer, encoding="utf-8", errors="backslashreplace", line_buffering=True)


output = Output()


def leave(code: int) -> None:
    """End the process here and now, but let what was said get out."""
    output.flush()
    os._exit(code)


# Who writes lines


def listen_to(telemetry: Telemetry) -> None:
    """Write telemetry events to the log from now on at the level the catalog gives them, as far as any are wanted.

    Which these are is asked once, not for each event: say so again when the level has changed.
    """
    telemetry.listen_only(write_event, CATALOG if output.writer.detailed else LOUD)


def write_event(name: str, count: int, fields: dict[str, Any]) -> None:
    """Write one telemetry event."""
    output.writer.write(CATALOG[name].level, name, {**({"count": count} if count != 1 else {}), **fields})


class LineLogger:
    """What structlog's bound loggers hand their finished entries to."""

    def debug(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write one line."""
        output.writer.write(level, event, fields)

    info = warning = error = critical = notset = debug


def finish(_: Any, level: str, entry: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Hand an entry of structlog on to LineLogger, with what the user's code has bound to its context."""
    fields = {**structlog.contextvars.get_contextvars(), **entry}
    return (level, str(fields.pop("event", "")), fields), {}


def attempt_logger(**bound: Any) -> Any:
    """Return a structlog logger for users that writes to the daemon's log, whatever structlog is configured to do."""
    kind: Any = structlog.make_filtering_bound_logger(logging.NOTSET)
    return kind(LineLogger(), [finish], bound)


class LibraryHandler(logging.Handler):
    """Writes what libraries and users log through the standard library as lines of ours, at their level.

    What was logged within an attempt names its event. Below warning only the user's own code is heard, and what a
    level was set for. It has no lock of its own, and whatever it meets while it writes is not logged again.
    """

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.writing = threading.local()

    def createLock(self) -> None:  # noqa: N802 - the standard library's name
        """Need no lock: a sink can be used by any thread."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; its traceback, if any, becomes one field."""
        if getattr(self.writing, "now", False) or not is_heard(record):
            return
        self.writing.now = True
        try:
            fields = {"library": record.name, **(attempt_context.get() or {}), "exc_info": record.exc_info}
            output.writer.write(level_name(record.levelno), message_of(record), fields)
        finally:
            self.writing.now = False


def is_heard(record: logging.LogRecord) -> bool:
    """Tell whether a record is worth a line."""
    if record.levelno >= logging.WARNING or not record.pathname.startswith(FOREIGN_CODE):
        return True
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None and logger.level == logging.NOTSET:
        logger = logger.parent
    return logger is not None and logger.parent is not None


def level_name(number: int) -> str:
    """Return the name of a level; numbers between two are those of the lower one."""
    return next((name for least, name in LEVELS if number >= least), "debug")


def message_of(record: logging.LogRecord) -> str:
    """Return the message of a record, whatever its arguments are."""
    try:
        return record.getMessage()
    except Exception:
        return f"{described(record.msg)} % {described(record.args)}"


def listen_to_libraries(least: str = USUAL) -> None:
    """Take in what is logged through the standard library, until users configure it otherwise."""
    handler = LibraryHandler()
    logging.basicConfig(handlers=[handler], level=logging.DEBUG if least == DETAILED else logging.INFO, force=True)
    logging.captureWarnings(True)
    for name in SERVANTS:
        servant = logging.getLogger(name)
        servant.handlers, servant.propagate = [handler], False
        servant.setLevel(logging.WARNING)
    # Anybody can make aiohttp write a traceback by sending rubbish; the answer is 400, and nobody needs the rest.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)


def report_strays(telemetry: Telemetry) -> None:
    """Report errors that nobody catches: of the main thread, of other threads, and of destructors."""

    def of_process(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        telemetry.emit("process.failed", error=kind.__name__, exception=trace_of(error))

    def of_thread(found: threading.ExceptHookArgs) -> None:
        late = isinstance(found.exc_value, RuntimeError) and str(found.exc_value) == LOOP_CLOSED
        if found.exc_type is not SystemExit and not late:
            name = found.thread.name if found.thread is not None else ""
            telemetry.emit(
                "thread.failed", thread=name, error=found.exc_type.__name__, exception=trace_of(found.exc_value)
            )

    def of_destructor(found: "sys.UnraisableHookArgs") -> None:
        where = found.err_msg or f"in {described(found.object)}"
        telemetry.emit(
            "destructor.failed", where=where, error=found.exc_type.__name__, exception=trace_of(found.exc_value)
        )

    sys.excepthook, threading.excepthook, sys.unraisablehook = of_process, of_thread, of_destructor


def loop_exception_handler(telemetry: Telemetry) -> Callable[[Any, dict[str, Any]], None]:
    """Return what reports the errors of tasks and callbacks that nobody waits for."""

    def report(_: Any, found: dict[str, Any]) -> None:
        who = found.get("task") or found.get("future") or found.get("handle") or found.get("transport")
        error, attempt = trace_of(found.get("exception")), dict(attempt_context.get() or {})
        telemetry.emit("task.failed", message=found.get("message"), who=described(who), exception=error, **attempt)

    return report
