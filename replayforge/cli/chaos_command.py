"""`chaos`: kills a daemon at random, again and again while it works, and proves that nothing was lost."""

import contextlib
import queue
import random
import secrets
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import msgspec

from replayforge.cli.actions import matching
from replayforge.cli.options import as_json
from replayforge.client.http import Client, Unreachable
from replayforge.client.terminal import complain
from replayforge.demo.child_daemon import RECOVERED, ChildDaemon, port_for
from replayforge.demo.oracle import AckFile, objections, read_effects
from replayforge.demo.proof import objections_to_check, objections_to_ledger
from replayforge.demo.sender import Sender, lines_of
from replayforge.demo.session import data_directory, told_to_end
from replayforge.demo.story import span_in_words, tell
from replayforge.demo.workload import EFFECTS_VARIABLE, checkout_events
from replayforge.domain.errors import Unavailable
from replayforge.forgelog.files import make_private_directory

KILLED_WHILE_STARTING_SHARE = 0.25
START_SECONDS = 1.0
WORK_SECONDS_MAX = 1.5
POLL_SECONDS = 0.02
LOOK_SECONDS = 0.2
EVENTS_PER_SECOND_MIN = 20.0


@dataclass
class Report:
    """What chaos did and found."""

    seed: int
    events: int
    kills: int
    killed_while_starting: int = 0
    start_seconds: list[float] = field(default_factory=list)
    acknowledged: int = 0
    sent_again: int = 0
    effects: int = 0
    effects_again: int = 0
    ledger: dict[str, int] = field(default_factory=dict)
    check_clean: bool = False
    objections: list[str] = field(default_factory=list)


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
    report = Report(secrets.randbelow(2**32) if seed is None else seed, events, kills)
    say = complain if json_wanted else tell
    with told_to_end(), data_directory(data_dir) as data:
        unleash(report, data, workers, time.monotonic() + timeout_seconds, say)
        if json_wanted:
            click.echo(msgspec.json.encode({"ok": not report.objections, **msgspec.to_builtins(report)}))
        else:
            sum_up(report)
        if report.objections:
            say(f"everything is left in {data}")
            context.exit(1)


def unleash(report: Report, data: Path, workers: int, deadline: float, say: Callable[[str], None]) -> None:
    """Load, kill, restart, and fill in the report."""
    make_private_directory(data)
    effects, acks = data / "effects.txt", AckFile(data / "acknowledged.txt")
    environment = {EFFECTS_VARIABLE: str(effects.resolve())}
    say(f"chaos: {report.events:,} events, {report.kills} kills, --seed {report.seed}; data in {data}")
    with ChildDaemon(data / "data", port_for(0, 0), workers, environment) as daemon, Client(daemon.url) as client:
        rate = max(EVENTS_PER_SECOND_MIN, report.events / (WORK_SECONDS_MAX * (report.kills + 1)))
        lines = lines_of(checkout_events(report.events, str(report.seed)))
        sender = Sender(daemon.url, lines, rate, say=say, on_acknowledged=acks.note)
        try:
            daemon.start()
            sender.start()
            keep_killing(report, daemon, say)
            daemon_report = converged(client, sender, deadline)
            report.ledger = daemon_report["ledger"]
            found = read_effects(effects)
            report.effects, report.effects_again = sum(found.counts.values()), found.again
            report.objections += objections(acks.ids(), found, matching(client, {}))
            report.objections += objections_to_ledger(report.ledger, 0, sender.tally)
            daemon.stop()
            findings, more = objections_to_check(daemon.configuration().config, report.ledger)
            report.check_clean = findings.clean
            report.objections += more
        except Unavailable as error:
            report.objections.append(str(error))
        finally:
            sender.stop()
            acks.close()
        report.acknowledged, report.sent_again = len(acks.ids()), sender.tally.duplicates


def keep_killing(report: Report, daemon: ChildDaemon, say: Callable[[str], None]) -> None:
    """Kill at random moments, some of them in the middle of a start, and start again; leave a daemon that listens."""
    rng = random.Random(report.seed)
    for number in range(1, report.kills + 1):
        listened = survive(report, daemon, rng)
        lived = "" if listened is None else f" after {span_in_words(time.monotonic() - listened)} of work"
        say(f"kill {number} of {report.kills}{lived or ' in the middle of its start'}")
        daemon.kill()
        daemon.start()
    began = time.monotonic()
    say(daemon.wait_listening()[-1].text)
    report.start_seconds.append(round(time.monotonic() - began, 3))


def survive(report: Report, daemon: ChildDaemon, rng: random.Random) -> float | None:
    """Let the daemon live until its hour has come; returns when it began to listen, if it lived that long."""
    began = time.monotonic()
    if rng.random() < KILLED_WHILE_STARTING_SHARE:
        listened = watch(daemon, began + rng.uniform(0, START_SECONDS))
    else:
        daemon.wait_listening()
        listened = time.monotonic()
        watch(daemon, listened + rng.uniform(0, WORK_SECONDS_MAX))
    if listened is None:
        report.killed_while_starting += 1
    else:
        report.start_seconds.append(round(listened - began, 3))
    return listened


def watch(daemon: ChildDaemon, until: float) -> float | None:
    """Listen to the daemon until a moment; returns when it said that it listens, if it did."""
    listened = None
    while time.monotonic() < until:
        with contextlib.suppress(queue.Empty):
            line = daemon.lines.get(timeout=POLL_SECONDS)
            if line.kind == "announced" and line.text.startswith(RECOVERED):
                listened = time.monotonic()
    return listened


def converged(client: Client, sender: Sender, deadline: float) -> dict[str, Any]:
    """Return the report once everything is sent and has ended; raises Unavailable when that takes too long."""
    while time.monotonic() < deadline:
        if sender.error is not None:
            raise Unavailable(f"The sender gave up: {sender.error}")
        with contextlib.suppress(Unreachable):
            report: dict[str, Any] = client.get("api", "convergence").document()
            if sender.done and report["converged"]:
                return report
        time.sleep(LOOK_SECONDS)
    raise Unavailable("Time is up, and not everything has ended.")


def sum_up(report: Report) -> None:
    """Say what was done, what came of it, and what is wrong."""
    ledger = report.ledger
    starts = report.start_seconds or [0.0]
    tell(f"killed {report.kills} times, {report.killed_while_starting} of them while it was still starting")
    tell(f"it listened again after {statistics.median(starts):.2f} s (median), {max(starts):.2f} s at most")
    tell(f"{report.acknowledged:,} events acknowledged; {report.sent_again:,} were sent twice and known by their keys")
    tell(f"{report.effects:,} effects of handlers, {report.effects_again:,} of them a second time after a crash")
    if ledger:
        ended = f"succeeded {ledger['succeeded']:,} + dead_lettered {ledger['dead_lettered']:,}"
        tell(f"accepted {ledger['accepted']:,} = {ended} + open {ledger['open']:,} · lost {ledger['lost']:,}")
    for objection in report.objections:
        tell(f"✕ {objection}")
    tell("✓ everything adds up" if not report.objections else f"✕ it does not add up; repeat with --seed {report.seed}")
