"""Backing off while something we depend on is away, and telling of what it can never take."""

import asyncio
from collections.abc import Sequence

from replayforge.domain.errors import Unavailable
from replayforge.domain.lifecycle import Reason
from replayforge.supervisor import wait_for_event
from replayforge.telemetry import Telemetry

FIRST_SECONDS = 0.1
MAX_SECONDS = 2.0


class Outage:
    """The outages that one actor meets; those of the store are reported here, a stream reports its own."""

    def __init__(self, telemetry: Telemetry | None = None) -> None:
        self.telemetry = telemetry
        self.reported = False
        self.delay_seconds = 0.0

    def report(self, error: Unavailable) -> None:
        """Report that the store does not answer, once for each outage."""
        if not self.reported and self.telemetry is not None:
            self.telemetry.emit("store.failed", error=str(error))
        self.reported = True

    async def wait(self, error: Unavailable, stopping: asyncio.Event) -> None:
        """Wait before the next try, longer each time; returns early when stopping."""
        self.report(error)
        self.delay_seconds = min(MAX_SECONDS, max(FIRST_SECONDS, self.delay_seconds * 2))
        await wait_for_event(stopping, self.delay_seconds)

    def over(self) -> None:
        """Note that the dependency answered."""
        if self.reported and self.telemetry is not None:
            self.telemetry.emit("store.recovered")
        self.reported = False
        self.delay_seconds = 0.0


def report_buried(telemetry: Telemetry, buried: Sequence[tuple[str, str]]) -> None:
    """Tell of each event, (id, event type), that became a dead letter because the store can never take or give it."""
    for event_id, event_type in buried:
        telemetry.emit("event.dead_lettered", event_id=event_id, event_type=event_type, reason=Reason.BAD_PAYLOAD)
