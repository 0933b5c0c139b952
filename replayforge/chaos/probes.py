"""Watches from outside how long after an injury everything ran again, and sends what chaos sends of its own."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import msgspec

from replayforge.chaos.handlers import PROBE
from replayforge.chaos.injury import Injury
from replayforge.client.bulk import Tally
from replayforge.client.http import ClientConnection, Problem, Unreachable
from replayforge.client.retry_budget import REFUSED_FOR_NOW
from replayforge.demo.oracle import AckFile
from replayforge.domain.identity import event_id_for_key
from replayforge.domain.lifecycle import TERMINAL, State

APPLICATION = "chaos"
POLL_SECONDS = 0.05
CALL_SECONDS = 2.0
COUNT_SECONDS = 0.5
# States in which an event that was in a worker's hands has not been taken up again, or is just being.
NOT_YET = frozenset({State.RECEIVED, State.QUEUED, State.PROCESSING})


@dataclass
class Struck:
    """An injury that was carried out: when, how long what it did lasted, and when everything ran again after it."""

    number: int
    kind: str
    target: str
    words: str
    at_seconds: float
    lasted_seconds: float = 0.0
    ran_again_seconds: float | None = None
    in_hand: int = 0

    def ran_again_after(self, seconds: float) -> None:
        """Note how long it took until everything ran again."""
        self.ran_again_seconds = round(seconds, 3)

    def healed_after(self, seconds: float) -> None:
        """Note how long what it did lasted."""
        self.lasted_seconds = round(seconds, 3)


@dataclass
class RecoveryWatch:
    """What must have come to its end before everything runs again: a probe, and what was in workers' hands."""

    struck: Struck
    probe_id: str
    in_hand: list[str]
    began: float = field(default_factory=time.monotonic)


class Probes(threading.Thread):
    """Sends events until each is acknowledged, and looks after injuries until everything runs again.

    A probe is sent when an injury strikes. Everything runs again when the probe has ended, and what was in workers'
    hands as it struck has ended or was parked. `backlog` is how many events were due when last
    seen, `error` is set when it gave up.
    """

    def __init__(self, url: str, batch: str, acks: AckFile) -> None:
        super().__init__(name="probes", daemon=True)
        self.client = ClientConnection(url, timeout_seconds=CALL_SECONDS)
        self.batch = batch
        self.acks = acks
        self.tally = Tally()
        self.lock = threading.Lock()
        self.unsent: dict[str, bytes] = {}
        self.watches: deque[RecoveryWatch] = deque()
        self.stopping = threading.Event()
        self.error: Exception | None = None
        self.number = 0
        self.backlog = 0
        self.next_count = 0.0

    def send(self, event_type: str, payload: Mapping[str, Any]) -> str:
        """Send an event as soon as somebody takes it; returns its id."""
        self.number += 1
        key = f"{self.batch}:{self.number}"
        body = {
            "application_name": APPLICATION, "workflow_id": f"injury_{self.number}", "event_type": event_type,
            "service_name": APPLICATION, "idempotency_key": key, "payload": payload,
        }  # fmt: skip
        event_id = event_id_for_key(APPLICATION, key)
        with self.lock:
            self.unsent[event_id] = msgspec.json.encode(body)
        return event_id

    def watch(self, struck: Struck, injury: Injury, in_hand: list[str]) -> None:
        """Note when everything runs again after an injury that strikes now."""
        watch = RecoveryWatch(struck, self.send(PROBE, {"injury": injury.kind}), in_hand)
        with self.lock:
            self.watches.append(watch)

    @property
    def done(self) -> bool:
        """Whether everything was sent, and everything runs again."""
        with self.lock:
            return not self.unsent and not self.watches

    def run(self) -> None:
        """Send and look until told to stop."""
        try:
            while not self.stopping.wait(POLL_SECONDS):
                with contextlib.suppress(Unreachable):
                    self.send_waiting()
                    self.look()
                    self.look_at_backlog()
        except Exception as error:  # whatever it is, the main thread has to know
            self.error = error
        finally:
            self.client.close()

    def send_waiting(self) -> None:
        """Send what nobody has acknowledged yet, until somebody refuses for now."""
        with self.lock:
            waiting = list(self.unsent.items())
        for event_id, body in waiting:
            try:
                reply = self.client.request("POST", "/api/events", body)
            except Problem as problem:
                if problem.status in REFUSED_FOR_NOW or problem.outcome_unknown:
                    return
                raise
            self.count(is_new=reply.status == HTTPStatus.CREATED)
            self.acks.note_id(event_id)
            with self.lock:
                del self.unsent[event_id]

    def count(self, *, is_new: bool) -> None:
        """Count an answer."""
        self.tally = Tally(self.tally.accepted + is_new, self.tally.duplicates + (not is_new))

    def look(self) -> None:
        """See whether everything runs again after one of the injuries, another one each time, so as to be no load."""
        with self.lock:
            self.watches.rotate(-1)
            watch = self.watches[-1] if self.watches else None
        if watch is not None and self.runs_again(watch):
            watch.struck.ran_again_after(time.monotonic() - watch.began)
            with self.lock:
                self.watches.remove(watch)

    def look_at_backlog(self) -> None:
        """See now and then how many events are due, as long as somebody can tell."""
        if time.monotonic() < self.next_count:
            return
        self.next_count = time.monotonic() + COUNT_SECONDS
        with contextlib.suppress(Problem):
            self.backlog = self.client.get("api", "convergence").document()["pending_events"]

    def runs_again(self, watch: RecoveryWatch) -> bool:
        """Tell whether everything that an injury held up has gone on."""
        if self.status_of(watch.probe_id) not in TERMINAL:
            return False
        while watch.in_hand:
            if self.status_of(watch.in_hand[-1]) in NOT_YET:
                return False
            watch.in_hand.pop()
        return True

    def status_of(self, event_id: str) -> str:
        """Return the state of an event, as if just received while nobody can tell."""
        try:
            return str(self.client.get("api", "events", event_id).document()["status"])
        except Problem:
            return State.RECEIVED

    def stop(self) -> None:
        """Send and look no more, and return when that is so."""
        self.stopping.set()
        if self.ident is not None:
            self.join(10)
