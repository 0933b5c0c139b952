"""The course of a demo: load comes in, workers crash and the process is killed at set points, and all recovers."""

import contextlib
import queue
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

from replayforge.client.bulk import Tally
from replayforge.client.http import ClientConnection, Problem, Unreachable
from replayforge.client.terminal import counted
from replayforge.demo.affected_events import AffectedEvents
from replayforge.demo.child_daemon import ChildDaemon
from replayforge.demo.keyboard import Keyboard
from replayforge.demo.plan import Fault
from replayforge.demo.sender import Sender, lines_of
from replayforge.demo.story import ended, how_it_stands, span_in_words, tell
from replayforge.demo.workload import EVENTS_PER_CHECKOUT, checkout_events
from replayforge.serve_process import EndedTooEarly

TICK_SECONDS = 0.1
LOOK_SECONDS = 0.25
SUMMARY_SECONDS = 2.0
# How long a crash waits for somebody to be at work, so that there is something to recover.
WORK_SECONDS_MAX = 2.0
WORK_POLL_SECONDS = 0.005
# An event that kills the process runs alone from the second time on, and is buried after the third of those.
FAST_DEATHS_MAX = 10
LONG_LIFE_SECONDS = 10.0
TRICKLE_EVENTS_PER_SECOND = 2.0
# So many at a time, whose parcels are scanned at the end: until then there are parked orders to look at.
TRICKLE_CHECKOUTS = 5
KEYS = "keys: c crashes a worker, k kills the process, q quits"


class GivenUp(Exception):
    """The demo cannot go on."""


@dataclass
class Show:
    """Runs one demo on a daemon that has been started. `report` is the newest convergence report."""

    daemon: ChildDaemon
    client: ClientConnection
    sender: Sender
    keyboard: Keyboard
    faults: list[Fault]
    goes_on: bool
    deadline: float
    affected_events: AffectedEvents = field(default_factory=AffectedEvents)
    report: dict[str, Any] | None = None
    ended_before: int = 0
    killed_at: float | None = None
    deaths: int = 0
    started_at: float = field(default_factory=time.monotonic)
    next_look: float = 0.0
    next_summary: float = 0.0
    quitting: bool = False
    trickle: Sender | None = None

    def run(self) -> None:
        """Let the show take its course until everything has converged, or somebody quits."""
        while not self.quitting:
            self.obey(self.keyboard.wait(TICK_SECONDS))
            self.keep_alive()
            self.hear()
            if time.monotonic() >= self.next_look:
                self.next_look = time.monotonic() + LOOK_SECONDS
                with contextlib.suppress(Unreachable, Problem):
                    self.look()

    def obey(self, key: str) -> None:
        """Do what a key asks for."""
        if key == "q":
            self.quitting = True
        elif key == "k":
            self.kill_process()
        elif key == "c":
            with contextlib.suppress(Unreachable, Problem):
                self.crash_worker()

    def look(self) -> None:
        """See how far the daemon is, and do what is due at this point."""
        self.report = report = self.client.get("api", "convergence").document()
        if self.faults and ended(report) - self.ended_before >= self.faults[0].after_events:
            fault = self.faults.pop(0)
            self.kill_process() if fault.kind == "kill" else self.crash_worker()
            return
        self.affected_events.follow(self.client)
        if time.monotonic() >= self.next_summary and self.trickle is None:
            self.next_summary = time.monotonic() + SUMMARY_SECONDS
            tell(how_it_stands(report))
        self.see_the_end(report)

    def see_the_end(self, report: Mapping[str, Any]) -> None:
        """Notice that all has converged, or that it does not."""
        if self.sender.error is not None:
            raise GivenUp(f"The sender gave up: {self.sender.error}")
        if self.trickle is None and self.sender.done and report["converged"]:
            self.converged()
        elif time.monotonic() > self.deadline and not self.goes_on:
            raise GivenUp("Time is up and not everything has ended: " + " ".join(report["issues"]))

    def converged(self) -> None:
        """Say so, then end, or go on with a trickle of new events for people who watch."""
        again = self.sender.tally.duplicates
        resent = f"; {again:,} were sent twice and known by their keys" if again else ""
        tell(f"everything has ended: {self.sender.tally.sent:,} events were sent{resent}")
        if not self.goes_on:
            self.quitting = True
            return
        assert self.report is not None
        tell(str(self.report["ledger_in_words"]))
        tell(f"a trickle of new events goes on; look around at {self.daemon.url}, Ctrl-C or q ends it")
        batches = (f"{time.time_ns()}-{number}" for number in count())
        events = chain.from_iterable(
            checkout_events(TRICKLE_CHECKOUTS * EVENTS_PER_CHECKOUT, batch) for batch in batches
        )
        self.trickle = Sender(self.daemon.url, lines_of(events), TRICKLE_EVENTS_PER_SECOND, say=tell)
        self.trickle.start()

    @property
    def tally(self) -> Tally:
        """What was answered to all that was sent, the trickle included."""
        first, later = self.sender.tally, self.trickle.tally if self.trickle else Tally()
        return Tally(
            first.accepted + later.accepted, first.duplicates + later.duplicates, first.rejected + later.rejected
        )

    def stop_sending(self) -> None:
        """Send nothing more."""
        self.sender.stop()
        if self.trickle is not None:
            self.trickle.stop()

    # What is broken

    def crash_worker(self) -> None:
        """Crash a worker that holds an event, if one does before long."""
        busy, workers = self.wait_for_work()
        choice = busy or workers
        worker = choice[len(self.faults) % len(choice)]
        holds = f" while it works on {worker['current_event_type']}" if busy else ", which is idle"
        tell(f"crashing {worker['worker_name']}{holds}")
        self.client.post("api", "chaos", "workers", worker["worker_name"], "crash")

    def wait_for_work(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the workers that hold an event, as soon as one does or after a moment, and all workers."""
        deadline = time.monotonic() + WORK_SECONDS_MAX
        while True:
            workers = self.client.get("api", "workers").document()["items"]
            busy = [worker for worker in workers if worker["current_event_id"]]
            if busy or time.monotonic() >= deadline:
                return busy, workers
            time.sleep(WORK_POLL_SECONDS)

    def kill_process(self) -> None:
        """kill -9 the daemon while it works, and start it again."""
        if not self.daemon.alive:
            return
        with contextlib.suppress(Unreachable, Problem):
            self.wait_for_work()
            self.affected_events.remember_busy(self.client)
        in_hand = counted(len(self.affected_events.of_kill), "event")
        tell(f"kill -9 of the whole process {self.daemon.pid} with {in_hand} in hand")
        self.killed_at = time.monotonic()
        self.daemon.kill()
        self.restart()

    # What recovers

    def keep_alive(self) -> None:
        """Start the daemon again if it died of itself."""
        if self.daemon.alive:
            return
        if time.monotonic() - self.started_at > LONG_LIFE_SECONDS:
            self.deaths = 0
        self.count_death()
        self.killed_at = time.monotonic()
        self.restart()

    def count_death(self) -> None:
        """Say that the process ended by itself; raises GivenUp when it does nothing else."""
        tell(f"the process ended by itself with exit code {self.daemon.exit_code}")
        self.deaths += 1
        if self.deaths > FAST_DEATHS_MAX:
            raise GivenUp("The daemon died too often: " + " ".join(self.daemon.last_words[-5:]))

    def restart(self) -> None:
        """Start the daemon on the same data and say what it recovered; again if it dies of what it recovered."""
        while True:
            self.started_at = time.monotonic()
            self.daemon.start()
            try:
                heard = self.daemon.wait_listening()
            except EndedTooEarly:
                self.count_death()
                continue
            took = span_in_words(time.monotonic() - self.started_at)
            tell(f"started again, it listens after {took}; {heard[-1].text}")
            return

    def hear(self) -> None:
        """Take up what the daemon said, and how soon the first event was acknowledged after a kill."""
        with contextlib.suppress(queue.Empty):
            while True:
                self.affected_events.hear(self.daemon.lines.get_nowait())
        if self.killed_at is None:
            return
        first = self.sender.first_ack_after(self.killed_at)
        if first is not None:
            tell(f"the first event after the kill was acknowledged {span_in_words(first - self.killed_at)} after it")
        if first is not None or self.sender.done:
            self.killed_at = None
