"""Tells ingest which events have a row already, and keeps nobody waiting for a store that has fallen silent."""

from asyncio import gather, get_running_loop, timeout
from collections.abc import Sequence

from replayforge.batching import Batcher
from replayforge.domain.errors import Unavailable
from replayforge.domain.event import Content, RetiredKey, StoredEvent
from replayforge.stores.store import Store

LOOK_SECONDS_MAX = 1.0
PAUSE_SECONDS = 0.5

Known = dict[str, tuple[StoredEvent, Content] | RetiredKey]


class KnownEvents:
    """Looks ids up in the store, several callers' at once.

    A database whose machine is gone does not refuse, it says nothing, and a call takes its whole time-out to fail. So
    nobody waits longer than `LOOK_SECONDS_MAX`; and once somebody had to, the look that hangs stands for all others
    until it has ended, after which one caller at a time finds out whether the store speaks again. One that refuses is
    not asked again for `PAUSE_SECONDS`: it costs ingest two attempts to connect to hear the same once more.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.looks: Batcher[Sequence[str], Known] = Batcher(self.look)
        self.silent = False
        self.pause_ends = 0.0  # on the loop's clock

    async def find(self, ids: Sequence[str]) -> Known:
        """Return those of the ids that have a row, or had one; none while the store does not answer."""
        loop = get_running_loop()
        if not ids or loop.time() < self.pause_ends or (self.silent and self.looks.runner is not None):
            return {}
        try:
            async with timeout(LOOK_SECONDS_MAX):
                return await self.looks.add(ids)
        except TimeoutError:
            self.silent = True
            return {}
        except Unavailable:
            self.pause_ends = loop.time() + PAUSE_SECONDS
            return {}

    async def look(self, batches: list[Sequence[str]]) -> list[Known]:
        """Look several callers' ids up at once."""
        wanted = [event_id for ids in batches for event_id in ids]
        # An event that retires between the two looks is found by the dispatcher.
        events, retired = await gather(self.store.events_by_ids(wanted), self.store.retired_keys(wanted))
        self.silent = False
        return [retired | events] * len(batches)
