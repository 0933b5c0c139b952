"""The events that were in hand when their worker, or the whole process, died: what becomes of them, and how soon."""

import contextlib
from dataclasses import dataclass, field

from replayforge.client.http import ClientConnection, Problem
from replayforge.demo.child_daemon import LogLine
from replayforge.demo.story import span_in_words, tell
from replayforge.domain.clock import MICROSECONDS_PER_SECOND, SystemClock, parse_time
from replayforge.domain.lifecycle import TERMINAL

BY_KILL = "the kill"
SERIOUS = ("service.gave_up", "log.poisoned", "log.damaged", "stream.wiped")


@dataclass(frozen=True, slots=True)
class AffectedEvent:
    """One struck event."""

    struck_at_us: int
    by: str

    def after(self, at_us: int) -> str:
        """Say how long after the blow something happened."""
        return span_in_words(max(0, at_us - self.struck_at_us) / MICROSECONDS_PER_SECOND)


@dataclass
class AffectedEvents:
    """Hears of crashes, asks for the events they struck, and tells how each was taken back and how it ended."""

    by_id: dict[str, AffectedEvent] = field(default_factory=dict)

    @property
    def of_kill(self) -> list[str]:
        """The events in hand at a kill that have not ended yet."""
        return [event_id for event_id, affected in self.by_id.items() if affected.by == BY_KILL]

    def remember_busy(self, client: ClientConnection) -> None:
        """Note the events that are in workers' hands just before a kill."""
        for worker in client.get("api", "workers").document()["items"]:
            if worker["current_event_id"]:
                self.by_id[worker["current_event_id"]] = AffectedEvent(SystemClock().now_us(), BY_KILL)

    def hear(self, line: LogLine) -> None:
        """Tell what a telemetry event means."""
        event_id = str(line.fields.get("event_id", ""))
        if line.text == "worker.crashed":
            self.by_id[event_id] = AffectedEvent(line.at_us, f"the crash of {line.fields.get('worker')}")
            tell(f"{line.fields.get('worker')} died with event {event_id} in its hands")
        elif line.text == "attempt.reclaimed" and event_id in self.by_id:
            state = str(line.fields.get("verdict")).replace("_", "-")
            tell(f"event {event_id} was taken back {self.by_id[event_id].after(line.at_us)} later and is {state}")
        elif line.text in SERIOUS:
            tell(f"{line.text}: {line.fields}")

    def follow(self, client: ClientConnection) -> None:
        """See which struck events have ended, and tell how long that took; of those of a kill, when all have."""
        for event_id in list(self.by_id):
            with contextlib.suppress(Problem):
                event = client.get("api", "events", event_id).document()
                if event["status"] in TERMINAL:
                    self.end(event_id, event["status"], parse_time(event["updated_at"]))

    def end(self, event_id: str, status: str, at_us: int) -> None:
        """Tell how a struck event ended."""
        affected = self.by_id.pop(event_id)
        if affected.by != BY_KILL:
            tell(f"event {event_id} {status.replace('_', '-')} {affected.after(at_us)} after {affected.by}")
        elif not self.of_kill:
            tell(f"the last of the events in hand at the kill has ended, {affected.after(at_us)} after it")
