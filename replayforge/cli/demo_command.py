"""`demo`: a daemon, a workload with failures, crashes, a real kill, and the proof that nothing was lost."""

from pathlib import Path

import click

from replayforge.client.http import DEFAULT_URL
from replayforge.demo.child_daemon import ChildDaemon, port_for
from replayforge.demo.intake_proof import SCHEDULED
from replayforge.demo.plan import (
    EVENTS_DEFAULT,
    WATCHABLE_EVENTS_PER_SECOND,
    DemoOptions,
    lines_for,
    next_batch,
    paced,
    planned,
)
from replayforge.demo.runner import perform
from replayforge.demo.session import data_directory, told_to_end
from replayforge.demo.story import tell

DEFAULT_PORT = int(DEFAULT_URL.rpartition(":")[2])


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
    with (
        told_to_end(),
        data_directory(data_dir) as data,
        ChildDaemon(data, port_for(port, DEFAULT_PORT), workers, {} if exit_when_done else SCHEDULED) as daemon,
    ):
        lines = list(lines_for(events, path, next_batch(data)))
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
