"""One trial: a daemon takes a sample, dies at a crash point or at none, is started again; what came of it is read."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from replayforge.client.http import ClientConnection, Problem, Unreachable
from replayforge.crashpoints import EXIT_CODE
from replayforge.demo.proof import objections_to_check
from replayforge.domain.journal import StepState
from replayforge.domain.lifecycle import State
from replayforge.forked_process import ForkServer
from replayforge.prove.certificates import Certificates
from replayforge.prove.proved_daemon import ProvedDaemon, Subject
from replayforge.prove.proxy import Call
from replayforge.prove.whereabouts import Site
from replayforge.serve_process import EndedTooEarly

LOOK_SECONDS = 0.05
DYING_SECONDS_MAX = 5.0
UNDER_WAY = (State.RECEIVED, State.QUEUED, State.PROCESSING, State.RETRYING)


class GaveUp(Exception):
    """The trial was told to end."""


class EndedEvent(msgspec.Struct, frozen=True):
    """An event at the end of a trial: how it stands, how often its handler was started, and what it waits for."""

    event_type: str
    status: str
    reason: str
    starts: int
    error: str
    awaits: tuple[str, ...] = ()
    in_doubt: tuple[str, ...] = ()


class CrashTrial(msgspec.Struct, frozen=True):
    """What came of a trial. `died` says whether it came to the point; `objections` is what does not add up."""

    died: bool = False
    events: tuple[EndedEvent, ...] = ()
    calls: tuple[Call, ...] = ()
    steps: tuple[str, ...] = ()
    refused: tuple[tuple[str, Site | None], ...] = ()
    passes: Mapping[str, int] = {}
    objections: tuple[str, ...] = ()

    @property
    def starts(self) -> int:
        """How often handlers were started."""
        return sum(event.starts for event in self.events)

    @property
    def step_starts(self) -> Counter[str]:
        """How often the function of each step was called."""
        return Counter(self.steps)


class TrialRun:
    """Carries out one trial."""

    def __init__(self, daemon: ProvedDaemon, crash_at: str, deadline: float, stopping: threading.Event) -> None:
        self.daemon = daemon
        self.crash_at = crash_at
        self.deadline = deadline
        self.stopping = stopping
        self.deaths = 0
        self.objections: list[str] = []
        self.client: ClientConnection | None = None

    def carry_out(self, bodies: Sequence[Mapping[str, Any]]) -> CrashTrial:
        """Send everything, let everything end, and read what came of it."""
        events: list[dict[str, Any]] = []
        with contextlib.suppress(OutOfTime):
            for body in bodies:
                self.answered(lambda client, body=body: client.post("api", "events", document=body))
            while not (events := self.answered(settled)):
                self.pause()
        passes = self.daemon.asked().passes
        if events:
            self.judge()
        elif not self.objections:
            self.objections.append(self.blocker())
        return self.summed_up(events, passes)

    def answered(self, request: Any) -> Any:
        """Return the answer to a request, from a daemon that is started again when it dies; raises OutOfTime."""
        while True:
            self.pause(0)
            try:
                if self.client is None:
                    self.client = self.started()
                return request(self.client)
            except Unreachable:
                self.daemon.wait_dead(DYING_SECONDS_MAX)
                self.note_death()
            except EndedTooEarly as error:  # its output has ended, which is a moment before it has
                self.daemon.wait_dead(DYING_SECONDS_MAX)
                self.note_death(str(error))

    def started(self) -> ClientConnection:
        """Start the daemon: the first one is to die."""
        return self.daemon.start([self.crash_at] if self.crash_at and not self.deaths else ())

    def note_death(self, words: str = "") -> None:
        """Take note of a death; raises OutOfTime for one that nobody has asked for."""
        self.client, code = None, self.daemon.exit_code
        self.deaths += 1
        if code != EXIT_CODE or not self.crash_at or self.deaths > 1:
            said = self.daemon.last_words() or words
            self.objections.append(f"the daemon ended with exit code {code}: {said}")
            raise OutOfTime

    def pause(self, seconds: float = LOOK_SECONDS) -> None:
        """Wait a moment; raises OutOfTime when there is none left, and GaveUp when nobody wants to know any more."""
        if self.stopping.wait(seconds):
            raise GaveUp
        if monotonic() > self.deadline:
            raise OutOfTime

    def blocker(self) -> str:
        """Say what is in the way of an end."""
        with contextlib.suppress(Unreachable, Problem):
            if self.client is not None:
                for event in self.client.events({}):
                    if event["status"] in UNDER_WAY:
                        return str(self.client.get("api", "events", event["id"], "why").document()["sentence"])
        return "time was up before everything had ended"

    def judge(self) -> None:
        """Hold the ledger against the offline check, once everything has ended."""
        ledger = self.answered(lambda client: client.get("api", "convergence").document())["ledger"]
        self.daemon.kill()
        if ledger["lost"]:
            self.objections.append(f"{ledger['lost']:,} acknowledged events are lost")
        self.objections += objections_to_check(self.daemon.configuration().config, ledger)[1]

    def summed_up(self, events: list[dict[str, Any]], passes: Mapping[str, int]) -> CrashTrial:
        """Return what came of it."""
        noted = self.daemon.noted()
        return CrashTrial(
            died=self.deaths > 0 and bool(self.crash_at),
            events=tuple(map(ended, events)),
            calls=tuple(self.daemon.proxy.calls),
            steps=tuple(one.step for one in noted if one.step),
            refused=tuple((one.refused, one.site) for one in noted if one.refused)
            + tuple((address, None) for address in sorted(self.daemon.proxy.uncounted)),
            passes=passes,
            objections=tuple(self.objections),
        )


class OutOfTime(Exception):
    """A trial comes to no end of its own."""


def settled(client: ClientConnection) -> list[dict[str, Any]]:
    """Return every event with all that is known of it once nothing is under way, else nothing."""
    events = list(client.events({}))
    if not events or any(event["status"] in UNDER_WAY for event in events):
        return []
    if not client.get("api", "convergence").document()["converged"]:
        return []
    return [client.get("api", "events", event["id"]).document() for event in events]


def ended(event: Mapping[str, Any]) -> EndedEvent:
    """Return what counts of an event."""
    error = str(event.get("last_error") or "").strip().rpartition("\n")[2]
    doubts = tuple(step["name"] for step in event.get("steps") or () if step["state"] == StepState.STARTED)
    awaits = tuple(waits_of(event))
    return EndedEvent(
        event["event_type"], event["status"], event["reason"] or "", event["starts"], error, awaits, doubts
    )


def waits_of(event: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a parked event waits for."""
    for one in event.get("awaits") or ():
        what = one["event_type"] or one["name"]
        yield f"{one['kind']} {what}" + (f" until {one['until']}" if one["until"] else "")


def tried(
    directory: Path,
    subject: Subject,
    certificates: Certificates,
    server: ForkServer,
    bodies: Sequence[Mapping[str, Any]],
    crash_at: str,
    seconds: float,
    stopping: threading.Event,
) -> CrashTrial:
    """Carry out one trial in a directory of its own."""
    directory.mkdir()
    with ProvedDaemon(directory, subject, certificates, server) as daemon:
        return TrialRun(daemon, crash_at, monotonic() + seconds, stopping).carry_out(bodies)
