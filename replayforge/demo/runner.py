"""One demo from the start of its daemon to the proof at its end."""

import contextlib
import time

from replayforge.client.http import ClientConnection, Problem, Unreachable
from replayforge.client.terminal import counted
from replayforge.demo.child_daemon import ChildDaemon
from replayforge.demo.intake_proof import DELIVERIES, SCHEDULE, deliver, look_at_intake
from replayforge.demo.keyboard import Keyboard
from replayforge.demo.oracle import read_effects
from replayforge.demo.plan import DemoOptions
from replayforge.demo.proof import objections_to_check, objections_to_ledger
from replayforge.demo.sender import Sender
from replayforge.demo.show import KEYS, GivenUp, Show
from replayforge.demo.step_proof import look_at_steps
from replayforge.demo.story import ended, tell
from replayforge.domain.errors import Unavailable
from replayforge.offline_check import tell_findings


def perform(daemon: ChildDaemon, options: DemoOptions) -> list[str]:
    """Run the demo and return what does not add up at its end."""
    tell(f"demo of {len(options.lines):,} events; data in {daemon.data_dir}")
    daemon.start()
    daemon.wait_listening()
    tell(f"open {daemon.url} in a browser to watch")
    with ClientConnection(daemon.url) as client, Keyboard() as keyboard:
        if keyboard.present:
            tell(KEYS)
        sender = Sender(daemon.url, options.lines, options.events_per_second, say=tell)
        deadline = time.monotonic() + options.timeout_seconds
        before = client.get("api", "convergence").document()
        faults = list(options.faults)
        show = Show(daemon, client, sender, keyboard, faults, options.goes_on, deadline, ended_before=ended(before))
        made_before = look_at_intake(client, read_effects(daemon.effects)).made
        try:
            welcome_webhooks(show)
            sender.start()
            show.run()
        except KeyboardInterrupt:
            tell("interrupted")
        except (GivenUp, Unavailable) as error:
            return [str(error)]
        finally:
            show.stop_sending()
        return proven(show, before["ledger"]["accepted"] - made_before)


def welcome_webhooks(show: Show) -> None:
    """Send signed webhooks, and let a schedule go on that a former demo on this data has paused."""
    with contextlib.suppress(Problem):
        show.client.post("api", "schedules", SCHEDULE, "resume")
    deliver(show.client, str(time.time_ns()))
    tell(
        f"{DELIVERIES} webhooks came in, signed, each sent twice and known by its id; each goes to several subscribers"
    )


def proven(show: Show, accepted_before: int) -> list[str]:
    """Hold the live ledger against what was sent, stop the daemon, and check its ledger offline."""
    try:
        if show.goes_on:  # or it would make events while they are counted
            show.client.post("api", "schedules", SCHEDULE, "pause", document={"reason": "the demo ends", "by": "demo"})
        report = show.client.get("api", "convergence").document()
        effects = read_effects(show.daemon.effects)
        steps, intake = look_at_steps(show.client, effects), look_at_intake(show.client, effects)
    except (Unreachable, Problem) as error:
        return [str(error)]
    finished = report["converged"]
    tell(report["ledger_in_words"])
    objections: list[str] = []
    if finished:
        tell(steps.in_words())
        tell(intake.in_words())
        parked = report["waiting"] + report["kept"]
        accepted_before += intake.made
        objections += objections_to_ledger(report["ledger"], accepted_before, show.tally, parked=parked)
        objections += [*steps.objections, *intake.objections]
    elif not show.goes_on:
        objections.append("the demo was ended before everything had come to its end")
    if dead := report["ledger"]["dead_lettered"]:
        tell(f"{counted(dead, 'dead letter')} could be replayed, on the page or with `replayforge dead replay`")
    if parked := report["waiting"] + report["kept"]:
        tell(f"still parked, for want of what it waits for: {counted(parked, 'event')}")
    tell("stopping the daemon, checking its ledger")
    code = show.daemon.stop()
    if code:
        objections.append(f"the daemon ended with exit code {code}: {' '.join(show.daemon.last_words[-5:])}")
    ledger = report["ledger"] if finished else None
    findings, more = objections_to_check(show.daemon.configuration().config, ledger)
    tell_findings(findings)
    return objections + more
