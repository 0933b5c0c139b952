"""One chaos run: a daemon is loaded, killed at random and started again, and what it did is held against its ledger."""

import contextlib
import queue
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replayforge.client.http import ClientConnection, Unreachable
from replayforge.demo.child_daemon import RECOVERED, ChildDaemon, port_for
from replayforge.demo.intake_proof import look_at_intake
from replayforge.demo.oracle import AckFile, objections, read_effects
from replayforge.demo.proof import objections_to_check, objections_to_ledger
from replayforge.demo.sender import Sender, lines_of
from replayforge.demo.step_proof import look_at_steps
from replayforge.demo.story import span_in_words
from replayforge.demo.workload import checkout_events
from replayforge.domain.errors import Unavailable
from replayforge.forgelog.files import make_private_directory

KILLED_WHILE_STARTING_SHARE = 0.25
START_SECONDS = 1.0
WORK_SECONDS_MAX = 1.5
POLL_SECONDS = 0.02
LOOK_SECONDS = 0.2
EVENTS_PER_SECOND_MIN = 20.0


@dataclass
class ChaosReport:
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
    steps: int = 0
    steps_again: int = 0
    ledger: dict[str, int] = field(default_factory=dict)
    check_clean: bool = False
    objections: list[str] = field(default_factory=list)


def load_and_kill(report: ChaosReport, data: Path, workers: int, deadline: float, say: Callable[[str], None]) -> None:
    """Load a daemon, kill and restart it until everything has ended, and fill in the report; `say` tells people."""
    make_private_directory(data)
    acks = AckFile(data / "acknowledged.txt")
    say(f"chaos: {report.events:,} events, {report.kills} kills, --seed {report.seed}; data in {data}")
    with ChildDaemon(data / "data", port_for(0, 0), workers) as daemon, ClientConnection(daemon.url) as client:
        rate = max(EVENTS_PER_SECOND_MIN, report.events / (WORK_SECONDS_MAX * (report.kills + 1)))
        lines = lines_of(checkout_events(report.events, str(report.seed)))
        sender = Sender(daemon.url, lines, rate, say=say, on_acknowledged=acks.note)
        try:
            daemon.start()
            sender.start()
            keep_killing(report, daemon, say)
            daemon_report = converged(client, sender, deadline)
            report.ledger = daemon_report["ledger"]
            found = read_effects(daemon.effects)
            report.effects, report.effects_again = len(found.had), found.again
            steps = look_at_steps(client, found)
            report.steps, report.steps_again = steps.recorded, steps.again
            report.objections += [*steps.objections, *look_at_intake(client, found).objections]
            report.objections += [*objections(acks.ids(), found, client.events({}))]
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


def keep_killing(report: ChaosReport, daemon: ChildDaemon, say: Callable[[str], None]) -> None:
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


def survive(report: ChaosReport, daemon: ChildDaemon, rng: random.Random) -> float | None:
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


def converged(client: ClientConnection, sender: Sender, deadline: float) -> dict[str, Any]:
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
