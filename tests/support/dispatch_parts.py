"""The parts that claim events, over a real store and log in a folder: built, ticked by hand, and looked at."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec

from replayforge.domain.event import EventRecord, Lease
from replayforge.domain.identity import new_event_id
from replayforge.domain.lifecycle import State
from replayforge.engine.accept.intake import new_record
from replayforge.engine.accept.window import Window
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.claim_desk import ClaimDesk
from replayforge.engine.dispatch.dispatcher import Dispatcher
from replayforge.engine.dispatch.handler_limits import HandlerLimits
from replayforge.engine.dispatch.publisher import Publisher
from replayforge.engine.handlers.registry import Handler, Handlers
from replayforge.forgelog.log import ForgeLog, LogOptions
from replayforge.stores.projection import Projected
from replayforge.stores.store import Store
from replayforge.streams.embedded_stream import EmbeddedStream
from replayforge.telemetry import Telemetry
from tests.contract.store_backends import claimed, put
from tests.support.builders import now_us, record
from tests.support.clock import FakeClock
from tests.support.probe import Probe

OWNER = "node-1/first"
INCARNATION = "first"


@dataclass
class Parts:
    """A store, a stream, and what claims between them; nothing runs by itself."""

    directory: Path
    clock: FakeClock
    telemetry: Telemetry
    probe: Probe
    store: Store
    stream: EmbeddedStream
    limits: HandlerLimits
    buffer: ClaimBuffer
    publisher: Publisher
    desk: ClaimDesk

    @property
    def lying_ready(self) -> list[str]:
        """The ids of the events that a worker would take next."""
        return [one.event.id for one in self.buffer.unstarted]

    @property
    def idle(self) -> bool:
        """Whether no claim is under way, and nothing is reserved or promised."""
        promised = [limit.promised for limit in self.limits.by_pattern.values()]
        return not (self.buffer.leases.claims or self.buffer.reserved or any(promised))

    async def states(self, ids: Sequence[str]) -> list[State]:
        """Return where events stand."""
        rows = await self.store.events_by_ids(ids)
        return [rows[event_id][0].state for event_id in ids]

    async def queue(self, count: int, **fields: object) -> Projected:
        """Put events into the store as queued rows, which have no entry yet."""
        return await put(self.store, [record(f"event-{number}", **fields) for number in range(count)])  # type: ignore[arg-type]

    async def claim(self, count: int) -> list[Lease]:
        """Put events into the store that this process has claimed; returns their leases."""
        return [one.lease for one in await claimed(self.store, count)]

    async def finish(self, worker: str = "worker-1") -> str:
        """Take the next event as a worker would, and be done with it; returns its id."""
        one = await self.buffer.take(worker)
        assert one is not None
        self.buffer.detach(worker)
        self.buffer.release(one.lease)
        return one.event.id


@asynccontextmanager
async def dispatch_parts(directory: Path, *, workers: int = 4, entries_max: int = 100) -> AsyncIterator[Parts]:
    """Build the parts for the handlers `test` and `other`; to begin with there are no suspects and no backlog."""
    clock, telemetry, handlers = FakeClock(now_us()), Telemetry(), Handlers()
    for pattern in ("test", "other"):
        handlers.add(Handler(pattern, cast("Any", None)))
    store = await Store.open(f"sqlite:///{directory}/store.db", node="node-1", owner=OWNER)
    stream = EmbeddedStream(telemetry, entries_max=entries_max)
    limits = HandlerLimits(handlers, clock, telemetry)
    buffer = ClaimBuffer(clock, workers=workers, left=limits.release)
    publisher = Publisher(store, stream, telemetry)
    await publisher.tick()
    desk = ClaimDesk(store, buffer, limits, publisher, clock, telemetry)
    desk.note_no_suspects()
    probe = Probe(telemetry)
    try:
        yield Parts(directory, clock, telemetry, probe, store, stream, limits, buffer, publisher, desk)
    finally:
        await store.close()


@asynccontextmanager
async def dispatching(parts: Parts, options: LogOptions | None = None) -> AsyncIterator[Dispatcher]:
    """Open a log in the folder of the parts, and build what projects it."""
    log = ForgeLog.open(parts.directory / "log", options=options, clock=parts.clock, telemetry=parts.telemetry)
    projected = await parts.store.open_cursor(log.log_id, INCARNATION, 0, parts.clock.now_us())
    try:
        yield Dispatcher(
            log,
            parts.store,
            Window(1000),
            parts.desk,
            parts.clock,
            parts.telemetry,
            incarnation=INCARNATION,
            projected=projected,
        )
    finally:
        await log.close()


async def accept(dispatcher: Dispatcher, count: int, event_type: str = "test") -> list[str]:
    """Make events durable as intake does; returns their ids."""
    now_us = dispatcher.clock.now_us()
    records = [
        EventRecord(new_event_id(now_us), "app", "workflow", event_type, now_us, payload=msgspec.Raw(b"{}"))
        for _ in range(count)
    ]
    for one in records:
        dispatcher.window.reserve(one)
    first = await dispatcher.log.append([new_record(one) for one in records])
    for offset, one in enumerate(records, start=first):
        dispatcher.window.became_durable(one.id, offset)
    return [one.id for one in records]


async def catch_up(dispatcher: Dispatcher) -> None:
    """Tick until everything that is durable has its row."""
    while dispatcher.projected < dispatcher.log.durable_offset:
        await dispatcher.tick()
