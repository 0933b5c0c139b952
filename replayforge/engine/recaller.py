"""Claims the events that waited for a handler, oldest first, once it may be given events again."""

import asyncio
from asyncio import create_task, ensure_future, wait

from replayforge import crashpoints
from replayforge.domain.clock import Clock
from replayforge.domain.errors import Unavailable
from replayforge.engine.gates import Gate, Gates
from replayforge.engine.outage import Outage, report_buried
from replayforge.engine.publisher import Publisher
from replayforge.engine.workbench import Workbench
from replayforge.stores.store import Store
from replayforge.stores.waiting import Recalled
from replayforge.supervisor import wait_for_event
from replayforge.telemetry import Telemetry

RECALL_MAX = 256
ROOM_SECONDS = 0.25
IDLE_SECONDS = 60.0  # whoever has news says so


class Recaller:
    """Gives each willing handler its turn, as far as there is room on the bench.

    What waits goes straight from the store to the bench, without the stream, so it is never in the way of others, and
    they are not in its way. Several daemons share what waits.
    """

    name = "recaller"

    def __init__(
        self,
        store: Store,
        bench: Workbench,
        gates: Gates,
        publisher: Publisher,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self.store = store
        self.bench = bench
        self.gates = gates
        self.publisher = publisher
        self.clock = clock
        self.telemetry = telemetry
        self.outage = Outage(telemetry)

    async def run(self, stopping: asyncio.Event) -> None:
        """Recall until told to stop; a claim that has begun is finished all the same."""
        stop = create_task(stopping.wait())
        stop.add_done_callback(lambda _: self.gates.news.set())
        try:
            while not stopping.is_set():
                self.gates.news.clear()
                try:
                    pause_seconds = await self.tick()
                except Unavailable as error:
                    await self.outage.wait(error, stopping)
                else:
                    self.outage.over()
                    await wait_for_event(self.gates.news, pause_seconds)
        finally:
            stop.cancel()

    async def tick(self) -> float:
        """Recall for every willing handler once; returns the seconds until more may be recalled without any news."""
        for gate in self.gates.willing():
            reserved = self.bench.reserve(RECALL_MAX, fresh=False)
            if not reserved:
                await self.wait_for_room()
                return 0.0
            try:
                await self.recall_for(gate, reserved)
            finally:
                self.bench.release(reserved)
        if self.gates.willing():
            return 0.0
        seconds = self.gates.seconds_until_probe()
        return IDLE_SECONDS if seconds is None else max(0.0, seconds)

    async def wait_for_room(self) -> None:
        """Return when a worker may have become free, so that it is taken in turns with the reader, or on news."""
        self.bench.changed.clear()
        waits = [ensure_future(event.wait()) for event in (self.bench.changed, self.gates.news)]
        try:
            await wait(waits, timeout=ROOM_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    async def recall_for(self, gate: Gate, reserved: int) -> None:
        """Claim what the handler may have of the events that wait for it, as far as the bench has room."""
        room = gate.room(self.clock.monotonic())
        count = reserved if room is None else min(reserved, room)
        if not count:
            return
        self.gates.promise({gate.pattern: count}, 1)
        try:
            await self.recall(gate, count)
        finally:
            self.gates.promise({gate.pattern: count}, -1)

    async def recall(self, gate: Gate, count: int) -> None:
        """Claim the oldest events that wait for a handler and lay them on the bench."""
        turned_away, now_us = gate.turned_away, self.clock.now_us()
        with self.bench.leases.claiming() as claim:
            recalled = await self.store.recall(gate.pattern, self.gates.pattern_of, count, now_us)
            crashpoints.reach("recall.committed")
            self.gates.seat(recalled.taken)
            self.bench.put(recalled.taken, claim)
        self.telemetry.emit("event.recalled", recalled.found, handler=gate.pattern)
        self.hand_on(recalled)
        report_buried(self.telemetry, recalled.buried)
        # What began to wait while the store was asked has not been seen by it, maybe.
        if recalled.found < count and not recalled.left and gate.turned_away == turned_away:
            self.gates.note_waiting(gate.pattern, waiting=False)

    def hand_on(self, recalled: Recalled) -> None:
        """Have those run that are no longer this handler's, and the suspects, which run alone."""
        self.publisher.offer(recalled.entries)
        if recalled.suspects:
            self.bench.suspects_first = True
