"""The daemon's own lines go on, and the daemon with them, whatever becomes of logging, of streams, of descriptors."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from replayforge.telemetry import CATALOG
from replayforge.whole_lines import whole_lines
from tests.support.daemon_process import REPOSITORY, DaemonProcess, HttpClient, until
from tests.support.ports import free_port

HANDLERS = """
import asyncio, gc, logging, logging.config, logging.handlers, math, os, queue, sys, threading, warnings

import structlog
from replayforge import Handlers, Permanent

handlers = Handlers()
deeds = {}


def deed(function):
    deeds[function.__name__] = function
    return function


class Raising(logging.Handler):
    def emit(self, record):
        raise RuntimeError("a handler of the user's")


def raise_always(*_):
    raise RuntimeError("a processor of the user's")


@deed
def structlog_over_stdlib(ctx):
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
        logger_factory=structlog.stdlib.LoggerFactory(), wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True)
    structlog.get_logger("mine").warning("over stdlib")
    logging.getLogger("mine").warning("by stdlib")


@deed
def structlog_raises(ctx):
    structlog.configure(processors=[raise_always], logger_factory=raise_always)


@deed
def structlog_reset(ctx):
    structlog.reset_defaults()


@deed
def contextvars_bound(ctx):
    structlog.contextvars.bind_contextvars(leaked="yes", event="yes", level="yes")


@deed
def dict_config(ctx):
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": True, "root": {"handlers": []}})


@deed
def everything_disabled(ctx):
    logging.disable(logging.CRITICAL)


@deed
def basic_config_by_force(ctx):
    logging.basicConfig(force=True, level=logging.DEBUG)


@deed
def queue_handler(ctx):
    logging.getLogger().addHandler(logging.handlers.QueueHandler(queue.Queue(1)))
    for _ in range(3):
        logging.getLogger("mine").error("into a queue that is full")


@deed
def root_handler_raises(ctx):
    logging.disable(logging.NOTSET)
    logging.getLogger().handlers = [Raising()]
    logging.captureWarnings(False)


@deed
def streams_are_none(ctx):
    sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = None


@deed
def streams_are_broken(ctx):
    class Broken:
        def write(self, text):
            raise OSError("a stream of the user's")
        flush = write
    sys.stdout = sys.stderr = Broken()


@deed
def task_left_behind(ctx):
    async def fails():
        raise RuntimeError("nobody waits for this task")
    asyncio.get_running_loop().create_task(fails())


@deed
def thread_left_behind(ctx):
    def fails():
        raise RuntimeError("nobody waits for this thread")
    thread = threading.Thread(target=fails)
    thread.start()
    thread.join()


@deed
def destructor_raises(ctx):
    class Fragile:
        def __del__(self):
            raise RuntimeError("nobody hears this destructor")
    Fragile()


@deed
def hooks_replaced(ctx):
    sys.excepthook = threading.excepthook = sys.unraisablehook = raise_always


@deed
def descriptors_closed(ctx):
    os.close(1)
    os.close(2)


@handlers.on("deed")
async def do(event, ctx):
    deeds[event.payload["name"]](ctx)
    gc.collect()


@handlers.on("dies")
async def dies(event, ctx):
    raise Permanent("as it should")


async def child(logger):
    logger.warning("from a task")


@handlers.on("speaks in a thread")
def speaks_in_a_thread(event, ctx):
    logging.getLogger("mine.plain").warning("from a plain handler")
    ctx.step("say", lambda: logging.getLogger("mine.plain").warning("from its step"), pure=True)


@handlers.on("speaks")
async def speaks(event, ctx):
    logger = logging.getLogger("mine.own")
    logger.setLevel(logging.DEBUG)
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(logger, level)("by the standard library at %s", level)
    await asyncio.to_thread(logger.warning, "from a thread")
    await asyncio.get_running_loop().run_in_executor(None, logger.warning, "from the executor")
    await asyncio.gather(child(logger))
    await ctx.step("say", child, logger, pure=True)
    await ctx.step("say", lambda: logger.warning("from a step's thread"), pure=True)
    logger.warning("%d", "wrong")
    try:
        1 / 0
    except ZeroDivisionError:
        logger.exception("divided")
        ctx.log.exception("divided by ctx.log")
    warnings.warn("a warning of the user's")

    class Shy:
        def __repr__(self):
            raise ValueError("no words")

    ring = []
    ring.append(ring)
    ctx.log.info("hostile values", shy=Shy(), ring=ring, nan=math.nan, number=10**5000, key={(1, 2): 3}, level="mine")
    ctx.log.warning("surrogate \\udc80 and \\x1b[2J and \\u2028", text="\\ud800\\x00", long="x" * 1_000_000)
    print("printed", "\\udc80")
    print("printed to stderr", file=sys.stderr)


@handlers.on("shouts")
async def shouts(event, ctx):
    for _ in range(300):
        print("x" * 1000)
        print("x" * 1000, file=sys.stderr)
        ctx.log.warning("x" * 1000)
"""

NAMES = ("event_id", "event_type", "run", "attempt")
DEEDS = re.findall(r"^@deed\ndef (\w+)", HANDLERS, re.MULTILINE)
STRAYS = {
    "task_left_behind": ("task.failed", "nobody waits for this task"),
    "thread_left_behind": ("thread.failed", "nobody waits for this thread"),
    "destructor_raises": ("destructor.failed", "nobody hears this destructor"),
}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in whole_lines(path) if line.startswith("{")]


def send(http: HttpClient, event_type: str, **payload: Any) -> str:
    answer = http.post("/api/events", {"workflow_id": "w", "event_type": event_type, "payload": payload})
    assert answer.status == 201, answer.body
    return str(answer.json()["id"])


def ended(http: HttpClient, event_id: str, state: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        event: dict[str, Any] = http.get(f"/api/events/{event_id}")
        assert event["status"] in ("received", "queued", "processing", state), event
        return event if event["status"] == state else None

    return until(look, what=f"{event_id} {state}")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    directory = tmp_path_factory.mktemp("output")
    (directory / "log_handlers.py").write_text(HANDLERS)
    with DaemonProcess(directory, directory / "log_handlers.py", settings={"logging.format": "json"}) as daemon:
        yield daemon.start()


def spoken(path: Path) -> list[dict[str, Any]] | None:
    """Return what users logged, once the last of it is there."""
    lines = [line for line in lines_of(path) if line["event"] not in CATALOG]
    return lines if any(str(line["event"]).startswith("surrogate") for line in lines) else None


def test_what_users_log(daemon: DaemonProcess) -> None:
    """Records of the standard library keep their level and name their attempt; no value spoils a line of ctx.log."""
    sent = send(daemon.http, "speaks")
    ended(daemon.http, sent, "succeeded")

    lines = until(lambda: spoken(daemon.stderr))
    assert all(list(line)[:3] == ["timestamp", "level", "event"] for line in lines)
    own = [line for line in lines if line.get("library") == "mine.own"]
    assert [line["level"] for line in own[:5]] == ["debug", "info", "warning", "error", "critical"]
    assert [line["event"] for line in own[5:]] == [
        *("from a thread", "from the executor", "from a task", "from a task", "from a step's thread"),
        *("%d % ('wrong',)", "divided"),
    ]
    assert "ZeroDivisionError" in own[11]["exception"]
    assert {tuple(map(line.get, NAMES)) for line in own} == {(sent, "speaks", 1, 1)}
    (warned,) = [line for line in lines if line.get("library") == "py.warnings"]
    assert (warned["level"], warned["event_id"]) == ("warning", sent)
    divided, hostile, strange = [line for line in lines if line.get("event_id") == sent and "library" not in line]
    assert {tuple(map(line.get, NAMES)) for line in (divided, hostile, strange)} == {(sent, "speaks", 1, 1)}
    assert "ZeroDivisionError" in divided["exception"]
    assert (hostile["event"], hostile["level"]) == ("hostile values", "info")
    assert hostile["shy"] == "<Shy whose repr raises ValueError>"
    assert strange["event"] == "surrogate \udc80 and \x1b[2J and \u2028"
    assert strange["text"] == "\ud800\x00"
    assert len(strange["long"]) < 10_000
    assert until(lambda: "printed to stderr" in daemon.stderr.read_text())
    assert until(lambda: "printed \\udc80" in daemon.announced)


def test_what_plain_handlers_log(daemon: DaemonProcess) -> None:
    """In its own thread, and in those of its steps, a plain handler's records name its attempt as well."""
    sent = send(daemon.http, "speaks in a thread")
    ended(daemon.http, sent, "succeeded")

    def said() -> list[dict[str, Any]] | None:
        lines = [line for line in lines_of(daemon.stderr) if line.get("library") == "mine.plain"]
        return lines if len(lines) == 2 else None

    assert {tuple(map(line.get, ("event", *NAMES))) for line in until(said)} == {
        ("from a plain handler", sent, "speaks in a thread", 1, 1),
        ("from its step", sent, "speaks in a thread", 1, 1),
    }


@pytest.mark.parametrize("deed", DEEDS)
def test_the_daemons_lines_go_on(daemon: DaemonProcess, deed: str) -> None:
    """After each deed, and all those before it, the daemon tells of a dead letter as ever, in its own words only."""
    send(daemon.http, "deed", name=deed)
    until(daemon.converged)
    dead = send(daemon.http, "dies")
    ended(daemon.http, dead, "dead_lettered")
    told = until(
        lambda: [
            line
            for line in lines_of(daemon.stderr)
            if line.get("event_id") == dead and line["event"] == "event.dead_lettered"
        ]
    )
    assert "leaked" not in told[0]
    if deed in STRAYS:
        event, words = STRAYS[deed]
        found = until(lambda: [line for line in lines_of(daemon.stderr) if line["event"] == event])
        assert words in found[0]["exception"]


@contextmanager
def served(
    directory: Path, shell: str, **streams: int | IO[bytes] | None
) -> Iterator[tuple[subprocess.Popen[bytes], HttpClient]]:
    """Run `serve` on a free port; `shell` are redirections."""
    (directory / "log_handlers.py").write_text(HANDLERS)
    port = free_port()
    serve = f"-m replayforge serve --port {port} --data-dir data --handlers log_handlers.py"
    process = subprocess.Popen(
        ["sh", "-c", f"exec {sys.executable} {serve} {shell}"], cwd=directory, **streams,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)},
    )  # type: ignore[call-overload]  # fmt: skip
    http = HttpClient(f"http://127.0.0.1:{port}")

    def ready() -> bool:
        assert process.poll() is None, f"serve ended with {process.returncode}"
        try:
            return http.request("GET", "/health/ready").status == 200
        except OSError:
            return False

    try:
        until(ready, 60)
        yield process, http
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        http.close()
        if process.poll() is None:
            process.kill()
            process.wait()


def works(http: HttpClient) -> str:
    """See a handler that prints and logs a lot succeed, and another one end as it should; returns the metrics."""
    for _ in range(3):
        ended(http, send(http, "shouts"), "succeeded")
    ended(http, send(http, "dies"), "dead_lettered")
    return http.request("GET", "/metrics").body.decode()


def dropped(metrics: str, stream: str) -> float:
    head = f'replayforge_output_lines_dropped_total{{stream="{stream}"}} '
    return float(next(line for line in metrics.splitlines() if line.startswith(head)).removeprefix(head))


def test_closed_at_the_start(tmp_path: Path) -> None:
    """Started without standard descriptors, no file of the log or the store takes their numbers, and all works."""
    with served(tmp_path, "0<&- 1>&- 2>&-") as (process, http):
        works(http)
        for descriptor in (0, 1, 2):
            assert os.readlink(f"/proc/{process.pid}/fd/{descriptor}") == os.devnull


def test_full_disk(tmp_path: Path) -> None:
    """With no room for any output everything works; what was dropped is counted, and people are told why."""
    with served(tmp_path, ">/dev/full 2>&1") as (_, http):
        metrics = works(http)
        assert dropped(metrics, "stdout") > 900
        assert dropped(metrics, "stderr") > 900
        issues = http.get("/api/convergence")["issues"]
        assert any("stderr" in issue and "No space left" in issue for issue in issues), issues


@pytest.mark.parametrize("blocking", [True, False])
def test_pipes_that_nobody_reads(tmp_path: Path, blocking: bool) -> None:
    """With pipes that are full and unread everything works, even for handlers that print, and the end is no later."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"full" * 1024)
    except BlockingIOError:
        os.set_blocking(writing, blocking)
    try:
        with served(tmp_path, "", stdout=writing, stderr=writing) as (_, http):
            for _ in range(4):
                works(http)
            assert dropped(http.request("GET", "/metrics").body.decode(), "stderr") > 0
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.slow
def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    """With pipes whose reader has ended everything works."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with served(tmp_path, "", stdout=writing, stderr=writing) as (_, http):
            assert dropped(works(http), "stdout") > 900
    finally:
        os.close(writing)
