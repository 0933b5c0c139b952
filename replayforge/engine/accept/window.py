"""The window: which accepted events have no row yet, so that ingest sees them before the store does."""

import asyncio
from asyncio import get_running_loop
from collections import deque
from dataclasses import dataclass

from replayforge.domain.event import EventRecord


@dataclass(slots=True)
class WindowEntry:
    """An event on its way from ingest to its row. `offset` resolves once it is durable in the log.

    `record` is kept only until then; afterwards it is read from the log by whoever needs it. `leader` resolves with the
    other, for a caller who waits for it alone and may cancel it: a shield would cost a turn of the loop.
    """

    offset: asyncio.Future[int]
    record: EventRecord | None
    leader: asyncio.Future[int] | None = None


class Window:
    """Holds each event id from its reservation at ingest until its row is committed.

    At most `events_max` at a time, and fewer while it is narrowed; the caller asks `has_room` before it reserves. A
    narrowed one is exceeded by no more than one request, so that a large one comes in as well.
    """

    def __init__(self, events_max: int) -> None:
        self.events_max = events_max
        self.narrowed_to: int | None = None
        self.accepted = 0  # in all
        self.entries: dict[str, WindowEntry] = {}
        self.in_log_order: deque[tuple[int, str]] = deque()

    def __len__(self) -> int:
        return len(self.entries)

    def has_room(self, count: int) -> bool:
        """Tell whether `count` more events may come in."""
        is_narrow = self.narrowed_to is not None and len(self.entries) >= self.narrowed_to
        return not is_narrow and len(self.entries) + count <= self.events_max

    @property
    def durable_count(self) -> int:
        """How many of the events are in the log."""
        return len(self.in_log_order)

    def narrow(self, events_max: int) -> None:
        """Let nobody in while so many are there, until it is told otherwise."""
        self.narrowed_to = events_max

    def widen(self) -> None:
        """Let in as many as ever."""
        self.narrowed_to = None

    def find(self, event_id: str) -> WindowEntry | None:
        """Return the event's place in the window, if it is there."""
        return self.entries.get(event_id)

    def reserve(self, record: EventRecord) -> WindowEntry:
        """Enter an event whose id nobody else has reserved."""
        place = WindowEntry(get_running_loop().create_future(), record)
        self.entries[record.id] = place
        return place

    def abandon(self, event_id: str, error: BaseException) -> None:
        """Take an event out that was not accepted; whoever waits for the same id shares its fate."""
        place = self.entries.pop(event_id)
        place.offset.set_exception(error)
        place.offset.exception()
        if place.leader is not None and not place.leader.done():
            place.leader.set_exception(error)
            place.leader.exception()

    def became_durable(self, event_id: str, offset: int) -> None:
        """Note that the event is in the log."""
        place = self.entries[event_id]
        place.record = None
        place.offset.set_result(offset)
        if place.leader is not None and not place.leader.done():
            place.leader.set_result(offset)
        self.in_log_order.append((offset, event_id))
        self.accepted += 1

    def rebuild(self, event_id: str, offset: int) -> None:
        """Enter an event found in the log behind the cursor at start-up."""
        if event_id not in self.entries:
            future: asyncio.Future[int] = get_running_loop().create_future()
            self.entries[event_id] = WindowEntry(future, None)
            future.set_result(offset)
            self.in_log_order.append((offset, event_id))

    def release_through(self, offset: int) -> None:
        """Let go of every event up to `offset`, whose rows are committed now."""
        while self.in_log_order and self.in_log_order[0][0] <= offset:
            _, event_id = self.in_log_order.popleft()
            self.entries.pop(event_id, None)
