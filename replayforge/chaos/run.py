"""One chaos run: a daemon is loaded and injured as planned, and what it did is held against its ledger."""

import contextlib
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from replayforge.chaos.doubles import attempts_of, doubled, objections_to_doubles, suspects
from replayforge.chaos.handlers import events_of
from replayforge.chaos.injuries import CARRIED_OUT
from replayforge.chaos.injury import HANGS, LASTING, Injury, Plan, expected_seconds, kinds_for, planned
from replayforge.chaos.probes import Probes, Struck
from replayforge.chaos.report import ChaosReport
from replayforge.chaos.scene import DAEMON_HANDLERS, Scene, Servers, running
from replayforge.client.bulk import Tally
from replayforge.client.http import ClientConnection, Problem, Unreachable
from replayforge.demo.child_daemon import ChildDaemon
from replayforge.demo.intake_proof import look_at_intake
from replayforge.demo.oracle import AckFile, Effects, objections, read_effects
from replayforge.demo.ports import free_port
from replayforge.demo.proof import objections_to_check, objections_to_ledger
from replayforge.demo.sender import Sender, lines_of
from replayforge.demo.simulated_work import append_line
from replayforge.demo.step_proof import look_at_steps
from replayforge.demo.workload import checkout_events
from replayforge.domain.errors import Unavailable

CALM_SECONDS = 1.5
CALM_SECONDS_MAX = 15.0
# So many events that are due hold the sender back: what an injury costs is to be seen, not how long a queue is.
BACKLOG_MAX = 200
START_SECONDS = 2.0
LOOK_SECONDS = 0.2
EVENTS_PER_SECOND_MIN = 20.0


@dataclass(frozen=True, slots=True)
class ChaosOptions:
    """What somebody wants to see: how many events, kills and other injuries, and the seed that decides which."""

    seed: int
    events: int
    kills: int
    injuries: int
    workers: int
    timeout_seconds: float

    def plan(self, servers: Servers) -> Plan:
        """Decide which injuries strike when; the same options and servers always give the same."""
        kinds = kinds_for(redis=servers.redis is not None, postgres=servers.postgres is not None)
        return planned(random.Random(self.seed), self.kills, self.injuries, kinds)


NONE_YET = Effects(())


@dataclass
class ChaosFindings:
    """What is known at the end; as much as there was time for."""

    ledger: dict[str, Any] = field(default_factory=dict)
    effects: Effects = NONE_YET
    steps: int = 0
    steps_again: int = 0
    doubled: set[str] = field(default_factory=set)
    check_clean: bool = False
    objections: list[str] = field(default_factory=list)


class ChaosRun:
    """Loads a daemon, injures it, and finds out what came of that; `say` tells people."""

    def __init__(self, options: ChaosOptions, servers: Servers, data: Path, say: Callable[[str], None]) -> None:
        self.options = options
        self.servers = servers
        self.plan = options.plan(servers)
        self.say = say
        self.acks = AckFile(data / "acknowledged.txt")
        self.own_acks = AckFile(data / "acknowledged-own.txt")
        self.daemon = ChildDaemon(
            data / "data",
            free_port(),
            options.workers,
            servers.settings(),
            handlers=DAEMON_HANDLERS,
            keep=partial(keep_line, data / "daemon.log"),
        )
        self.probes = Probes(self.daemon.url, f"{options.seed}", self.own_acks)
        self.scene = Scene(self.daemon, servers, self.probes, say)
        rate = options.events / (CALM_SECONDS + expected_seconds(self.plan) + START_SECONDS * options.kills)
        lines = lines_of(checkout_events(options.events, str(options.seed)))
        self.sender = Sender(
            self.daemon.url,
            lines,
            max(EVENTS_PER_SECOND_MIN, rate),
            say=say,
            on_acknowledged=self.acks.note,
            is_too_fast=lambda: self.probes.backlog > BACKLOG_MAX,
        )
        self.struck: list[Struck] = []
        self.numbers = count(1)
        self.began = time.monotonic()
        self.deadline = self.began + options.timeout_seconds

    def run(self) -> ChaosReport:
        """Carry the plan out, and return what came of it."""
        found = ChaosFindings()
        with self.daemon, contextlib.closing(self.acks), contextlib.closing(self.own_acks):
            try:
                self.load_and_injure()
                found.ledger = self.converged()
                self.examine(found)
            except Unavailable as error:
                found.objections.append(str(error))
            finally:
                self.sender.stop()
                self.probes.stop()
            return self.report(found)

    def load_and_injure(self) -> None:
        """Start everything, and let each group of the plan strike in its turn."""
        self.scene.start()
        self.scene.come_back()
        self.sender.start()
        self.probes.start()
        for group in self.plan:
            if group[0].after_calm:
                self.calm_down()
            with ExitStack() as causes:
                for injury in group:
                    self.scene.work(injury.after_seconds)
                    self.injure(injury, causes)
                self.scene.work(max(one.lasts_seconds for one in group if one.kind in LASTING or one == group[0]))
            self.scene.come_back()

    def calm_down(self) -> None:
        """Return once everything runs again, or after a while."""
        until = time.monotonic() + CALM_SECONDS_MAX
        while not self.probes.done and time.monotonic() < until:
            self.scene.hear()

    def injure(self, injury: Injury, causes: ExitStack) -> None:
        """Carry out an injury, whose cause is there until the stack is unwound."""
        number, in_hand = next(self.numbers), list(self.scene.busy().values())
        at = time.monotonic()
        struck = Struck(
            number, injury.kind, injury.target, injury.in_words(), round(at - self.began, 3), in_hand=len(in_hand)
        )
        self.struck.append(struck)
        self.say(f"injury {number} of {sum(map(len, self.plan))}: {struck.words}")
        sent = [self.probes.send(*event) for event in events_of(injury, self.daemon.workers)]
        self.probes.watch(struck, injury, in_hand + sent)
        if injury.kind in LASTING:
            causes.callback(lambda: struck.healed_after(time.monotonic() - at))
        causes.enter_context(CARRIED_OUT[injury.kind](self.scene, injury))
        hangs = injury.lasts_seconds if injury.kind in HANGS else 0.0
        struck.healed_after(max(time.monotonic() - at, hangs))

    def converged(self) -> dict[str, Any]:
        """Return the ledger once everything is sent, has ended, and runs again; raises Unavailable in time."""
        with ClientConnection(self.daemon.url) as client:
            while time.monotonic() < self.deadline:
                if error := self.sender.error or self.probes.error:
                    raise Unavailable(f"The sender gave up: {error}")
                self.scene.hear()
                with contextlib.suppress(Unreachable, Problem):
                    report: dict[str, Any] = client.get("api", "convergence").document()
                    if self.sender.done and self.probes.done and report["converged"]:
                        ledger: dict[str, Any] = report["ledger"]
                        return ledger
                self.scene.work(LOOK_SECONDS)
        raise Unavailable("Time is up, and not everything has ended.")

    def examine(self, found: ChaosFindings) -> None:
        """Hold what was noted outside against what the daemon says, and stop it for the offline check."""
        found.effects = read_effects(self.daemon.effects)
        with ClientConnection(self.daemon.url) as client:
            steps = look_at_steps(client, found.effects)
            found.steps, found.steps_again = steps.recorded, steps.again
            found.doubled = doubled(found.effects, attempts_of(client, suspects(found.effects)))
            found.objections += [*steps.objections, *look_at_intake(client, found.effects).objections]
            acknowledged = self.acks.ids() | self.own_acks.ids()
            found.objections += [*objections(acknowledged, found.effects, client.events({}))]
        found.objections += objections_to_doubles(found.doubled)
        found.objections += objections_to_ledger(found.ledger, 0, self.tally)
        found.objections += self.scene.ended_by_itself
        self.daemon.stop()
        findings, more = objections_to_check(self.daemon.configuration().config, found.ledger)
        found.check_clean = findings.clean
        found.doubled |= {event_id for event_id, _, _ in findings.doubled}
        found.objections += more

    @property
    def tally(self) -> Tally:
        """What was answered to all that was sent."""
        one, other = self.sender.tally, self.probes.tally
        return Tally(one.accepted + other.accepted, one.duplicates + other.duplicates)

    def report(self, found: ChaosFindings) -> ChaosReport:
        """Sum everything up."""
        return ChaosReport(
            ok=not found.objections,
            seed=self.options.seed,
            events=self.options.events,
            kills=self.options.kills,
            relies_on=self.servers.in_words(),
            seconds=round(time.monotonic() - self.began, 3),
            injuries=self.struck,
            killed_while_starting=self.scene.killed_while_starting,
            start_seconds=self.scene.start_seconds,
            acknowledged=len(self.acks.ids() | self.own_acks.ids()),
            acknowledged_each_second=each_second(self.sender.ack_times, self.began),
            sent_again=self.tally.duplicates,
            effects=len(found.effects.had),
            effects_again=found.effects.again,
            steps=found.steps,
            steps_again=found.steps_again,
            lost=found.ledger.get("lost", 0),
            doubled_outcomes=len(found.doubled),
            ledger=found.ledger,
            check_clean=found.check_clean,
            objections=found.objections,
        )


def keep_line(path: Path, line: str) -> None:
    """Write down a line that the daemon said."""
    append_line(path, line + "\n")


def each_second(moments: list[float], began: float) -> list[int]:
    """Count moments by the second of the run in which they lie."""
    counts = [0] * (1 + int(max(moments, default=began) - began))
    for moment in moments:
        counts[int(moment - began)] += 1
    return counts


def wreak(options: ChaosOptions, servers: Servers, data: Path, say: Callable[[str], None]) -> ChaosReport:
    """Run chaos in a directory, with private servers if some are wanted."""
    with running(servers):
        say(
            f"chaos: {options.events:,} events, {options.kills} kills, {options.injuries} other injuries, on"
            f" {servers.in_words()}, --seed {options.seed}; data in {data}"
        )
        return ChaosRun(options, servers, data, say).run()
