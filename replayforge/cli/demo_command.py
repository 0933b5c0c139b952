"""`demo`: a daemon, a workload with failures, crashes, a real kill, and the proof that nothing was lost."""

import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import click

from replayforge.cli.address import DEFAULT_URL
from replayforge.cli.bulk import Line, read_lines
from replayforge.cli.check_command import tell as tell_findings
from replayforge.cli.client import Client, Problem, Unreachable
from replayforge.cli.demo_daemon import ChildDaemon, port_for
from replayforge.cli.demo_keys import Keyboard
from replayforge.cli.demo_proof import objections_to_check, objections_to_ledger
from replayforge.cli.demo_sender import Sender, lines_of, with_keys
from replayforge.cli.demo_show import KEYS, Fault, GivenUp, Show
from replayforge.cli.demo_story import ended, tell
from replayforge.cli.output import counted
from replayforge.domain.errors import Unavailable
from replayforge.engine.run.checkout import workload

EVENTS_DEFAULT = 1_000
WATCHABLE_EVENTS_PER_SECOND = 25.0
SENDING_SECONDS = 5.0
FAULTS_SHARE = 0.8
EVENTS_PER_SECOND_MIN = 50.0
DEFAULT_PORT = int(DEFAULT_URL.rpartition(":")[2])


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What somebody wants to see."""

    lines: list[Line]
    events_per_second: float
    faults: list[Fault]
    goes_on: bool
    timeout_seconds: float


@click.command()
@click.option("--events", type=click.IntRange(min=1), help=f"How many.  [default: {EVENTS_DEFAULT}, or the file's]")
@click.option("--file", "path", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Send these events.")
@click.option("--exit-when-done", is_flag=True, help="End with a proof instead of going on; exit 0 if it adds up.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help=f"Port of the pages.  [default: {DEFAULT_PORT} if it is free]"
)
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where data stays.  [default: a temporary directory]")
@click.option("--kills", default=1, show_default=True, type=click.IntRange(min=0), help="How often to kill -9 it.")
@click.option("--worker-crashes", default=3, show_default=True, type=click.IntRange(min=0), help="Workers to crash.")
@click.option("--workers", default=16, show_default=True, type=click.IntRange(min=1), help="How many workers.")
@click.option("--rate", type=click.FloatRange(min=0.1), help="Events sent a second.")
@click.option("--timeout", "timeout_seconds", default=180.0, show_default=True, help="When to give up, in seconds.")
@click.pass_context
def demo(
    context: click.Context,
    /,
    events: int | None,
    path: Path | None,
    exit_when_done: bool,
    port: int | None,
    data_dir: Path | None,
    kills: int,
    worker_crashes: int,
    workers: int,
    rate: float | None,
    timeout_seconds: float,
) -> None:
    """Show a daemon being crashed and killed while it works, losing nothing.

    On a terminal: c crashes a worker, k kills the process, q quits.
    """
    with told_to_end(), directory(data_dir) as data, ChildDaemon(data, port_for(port, DEFAULT_PORT), workers) as daemon:
        lines = list(lines_for(events, path, str(last_offset(data))))
        pace = rate or (paced(len(lines)) if exit_when_done else WATCHABLE_EVENTS_PER_SECOND)
        faults = planned(len(lines), kills, worker_crashes)
        options = DemoOptions(lines, pace, faults, not exit_when_done, timeout_seconds)
        objections = perform(daemon, options)
        for objection in objections:
            tell(f"✕ {objection}")
        if objections:
            tell(f"everything is left in {data}")
            context.exit(1)
        if data_dir is None:
            tell(f"{data} is removed; --data-dir keeps what a demo leaves")


def lines_for(events: int | None, path: Path | None, batch: str) -> Iterator[Line]:
    """Return the events to send, each with a key: of the file, or made up."""
    if path is None:
        yield from lines_of(workload(events or EVENTS_DEFAULT, batch))
        return
    with path.open("rb") as file:
        for number, line in enumerate(with_keys(read_lines(file), path.name)):
            if events is not None and number >= events:
                return
            yield line


def paced(number: int) -> float:
    """Return how many events to send a second, so that there is time to break things meanwhile."""
    return max(EVENTS_PER_SECOND_MIN, number / SENDING_SECONDS)


def planned(number: int, kills: int, worker_crashes: int) -> list[Fault]:
    """Spread kills and crashes over the work; the last fifth is left alone."""
    wanted = (("crash", worker_crashes), ("kill", kills))
    faults = [
        Fault(int(FAULTS_SHARE * number * place / (times + 1)), kind)
        for kind, times in wanted
        for place in range(1, times + 1)
    ]
    return sorted(faults, key=lambda fault: (fault.after_events, fault.kind))


def perform(daemon: ChildDaemon, options: DemoOptions) -> list[str]:
    """Run the demo and return what does not add up at its end."""
    tell(f"demo of {len(options.lines):,} events; data in {daemon.data_dir}")
    daemon.start()
    daemon.wait_listening()
    tell(f"open {daemon.url} in a browser to watch")
    with Client(daemon.url) as client, Keyboard() as keyboard:
        if keyboard.present:
            tell(KEYS)
        sender = Sender(daemon.url, options.lines, options.events_per_second, say=tell)
        deadline = time.monotonic() + options.timeout_seconds
        show = Show(daemon, client, sender, keyboard, list(options.faults), options.goes_on, deadline)
        before = client.get("api", "convergence").document()
        show.ended_before = ended(before)
        try:
            sender.start()
            show.run()
        except KeyboardInterrupt:
            tell("interrupted")
        except (GivenUp, Unavailable) as error:
            return [str(error)]
        finally:
            show.stop_sending()
        return proven(show, before["ledger"]["accepted"])


def proven(show: Show, accepted_before: int) -> list[str]:
    """Hold the live ledger against what was sent, stop the daemon, and check its ledger offline."""
    try:
        report = show.client.get("api", "convergence").document()
    except (Unreachable, Problem) as error:
        return [str(error)]
    finished = report["converged"]
    tell(report["ledger_in_words"])
    objections: list[str] = []
    if finished:
        objections += objections_to_ledger(report["ledger"], accepted_before, show.tally)
    elif not show.goes_on:
        objections.append("the demo was ended before everything had come to its end")
    if dead := report["ledger"]["dead_lettered"]:
        tell(f"{counted(dead, 'dead letter')} could be replayed, on the page or with `replayforge dead replay`")
    tell("stopping the daemon, checking its ledger")
    code = show.daemon.stop()
    if code:
        objections.append(f"the daemon ended with exit code {code}: {' '.join(show.daemon.last_words[-5:])}")
    ledger = report["ledger"] if finished else None
    findings, more = objections_to_check(show.daemon.configuration().config, ledger)
    tell_findings(findings)
    return objections + more


def last_offset(data_dir: Path) -> int:
    """Return a number that grows with what the data directory holds, so that each demo on it has events of its own."""
    store = data_dir / "store.db"
    return store.stat().st_mtime_ns if store.exists() else 0


@contextlib.contextmanager
def directory(data_dir: Path | None) -> Iterator[Path]:
    """Return the data directory; one that nobody named is removed at the end, but for what a failed run left in it."""
    if data_dir is not None:
        yield data_dir
        return
    made = Path(tempfile.mkdtemp(prefix="replayforge-demo-"))
    try:
        yield made
    except BaseException:
        with contextlib.suppress(OSError):
            made.rmdir()  # only an empty one
        raise
    shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def told_to_end() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the program as Ctrl-C does, so that everything is cleaned up."""

    def hear(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    former = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
