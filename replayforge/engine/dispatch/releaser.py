"""Releases the events of lanes when their turn comes, whichever daemon has moved those before them."""

import asyncio
from collections.abc import Callable, Sequence

from replayforge import crashpoints
from replayforge.domain.clock import MICROSECONDS_PER_SECOND, Clock
from replayforge.domain.event import Entry
from replayforge.domain.lane import Lanes
from replayforge.engine.service_loop import Outage, run_until
from replayforge.stores.store import Store
from replayforge.telemetry import Telemetry

POLL_SECONDS = 0.5


class Releaser:
    """Gives events of lanes their places and their turn, for whichever daemon they came by.

    `hand_on` takes the entries of what may run, how many are to run alone, and whether a rate has released any. A wake
    that is lost costs half a second: what has happened stands in the store until a releaser has looked at it.
    """

    name = "releaser"

    def __init__(
        self,
        store: Store,
        lanes: Lanes,
        hand_on: Callable[[Sequence[Entry], int, bool], None],
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self.store = store
        self.lanes = lanes
        self.hand_on = hand_on
        self.clock = clock
        self.telemetry = telemetry
        self.wake = asyncio.Event()
        self.outage = Outage(telemetry)

    async def run(self, stopping: asyncio.Event) -> None:
        """Release until told to stop."""
        await run_until(stopping, self.tick, wake=self.wake, outage=self.outage)

    async def tick(self) -> float:
        """Look at the lanes in which something has happened; returns the seconds until the next look."""
        news, wake_us = await self.store.lane_news(self.clock.now_us())
        if not news:
            return POLL_SECONDS if wake_us is None else min(POLL_SECONDS, max(0, wake_us) / MICROSECONDS_PER_SECOND)
        released = await self.store.release_lanes(self.lanes.rules_of, self.clock.now_us())
        if released.entries or released.suspects:
            crashpoints.reach("lane.released", len(released.entries) + released.suspects)
            self.telemetry.emit("event.released", len(released.entries) + released.suspects)
            self.hand_on(released.entries, released.suspects, released.paced)
        return 0.0
