"""`chaos`: kills a daemon at random, again and again while it works, and proves that nothing was lost."""

import secrets
import statistics
import time
from pathlib import Path

import click
import msgspec

from replayforge.cli.options import as_json
from replayforge.client.terminal import complain
from replayforge.demo.chaos_run import ChaosReport, load_and_kill
from replayforge.demo.session import data_directory, told_to_end
from replayforge.demo.story import tell


@click.command()
@click.option("--events", default=4_000, show_default=True, type=click.IntRange(min=1), help="How many events to send.")
@click.option("--kills", default=10, show_default=True, type=click.IntRange(min=0), help="How often to kill -9.")
@click.option("--seed", type=int, help="Repeat the kills of an earlier run.  [default: a new one]")
@click.option("--data-dir", type=click.Path(path_type=Path), help="A new directory.  [default: a temporary one]")
@click.option("--workers", default=16, show_default=True, type=click.IntRange(min=1), help="How many workers.")
@click.option("--timeout", "timeout_seconds", default=300.0, show_default=True, help="When to give up, in seconds.")
@as_json
@click.pass_context
def chaos(
    context: click.Context,
    /,
    events: int,
    kills: int,
    seed: int | None,
    data_dir: Path | None,
    workers: int,
    timeout_seconds: float,
    *,
    json_wanted: bool,
) -> None:
    """Kill a daemon at random while it works, and prove its ledger.

    It is started again each time. What was acknowledged and which effects handlers had is written down outside the
    daemon and held against its events, its ledger, and the offline check. Exit code 0: all of it agrees.
    """
    if data_dir is not None and data_dir.exists() and any(data_dir.iterdir()):
        raise click.ClickException(f"{data_dir} is not empty; chaos needs a directory of its own.")
    report = ChaosReport(secrets.randbelow(2**32) if seed is None else seed, events, kills)
    say = complain if json_wanted else tell
    with told_to_end(), data_directory(data_dir) as data:
        load_and_kill(report, data, workers, time.monotonic() + timeout_seconds, say)
        if json_wanted:
            click.echo(msgspec.json.encode({"ok": not report.objections, **msgspec.to_builtins(report)}))
        else:
            sum_up(report)
        if report.objections:
            say(f"everything is left in {data}")
            context.exit(1)


def sum_up(report: ChaosReport) -> None:
    """Say what was done, what came of it, and what is wrong."""
    ledger = report.ledger
    starts = report.start_seconds or [0.0]
    tell(f"killed {report.kills} times, {report.killed_while_starting} of them while it was still starting")
    tell(f"it listened again after {statistics.median(starts):.2f} s (median), {max(starts):.2f} s at most")
    tell(f"{report.acknowledged:,} events acknowledged; {report.sent_again:,} were sent twice and known by their keys")
    tell(f"{report.effects:,} effects of handlers, {report.effects_again:,} of them a second time after a crash")
    tell(f"{report.steps:,} steps of orders recorded, {report.steps_again:,} of them done a second time after a crash")
    if ledger:
        ended = f"succeeded {ledger['succeeded']:,} + dead_lettered {ledger['dead_lettered']:,}"
        tell(f"accepted {ledger['accepted']:,} = {ended} + open {ledger['open']:,} · lost {ledger['lost']:,}")
    for objection in report.objections:
        tell(f"✕ {objection}")
    tell("✓ everything adds up" if not report.objections else f"✕ it does not add up; repeat with --seed {report.seed}")
