"""Every store backend at hand, opened the same way; the only place in the contract tests that knows their names."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from replayforge.domain.event import ClaimedEvent, EventRecord, StoredEvent
from replayforge.domain.lane import Lanes
from replayforge.domain.reclaim import FormerIncarnation, judge_former
from replayforge.stores.projection import Projected, Projection
from replayforge.stores.store import Store
from tests.support.builders import now_us, record
from tests.support.kept_store import KeptStore
from tests.support.postgres_server import require_postgres, shared_server

BACKENDS = ["sqlite", "postgres"]
LOG = "log-1"
MINUTE_US = 60_000_000


class StoreHouse:
    """One store, as seen by any number of daemons."""

    def __init__(self, url: str, kept: KeptStore | None = None) -> None:
        self.url = url
        self.kept = kept
        self.opened: list[Store] = []

    async def join(self, node: str = "node-1", incarnation: str = "first") -> Store:
        """Open the store as a daemon would; where one process has it for itself, all share that process's driver."""
        owner = f"{node}/{incarnation}"
        if self.opened and not self.opened[0].shared:
            first = self.opened[0]
            store = Store(first.driver, node=node, owner=owner, schema_version=1, store_id=first.store_id)
        elif self.kept:
            store = self.kept.open(node, owner)
        else:
            store = await Store.open(self.url, node=node, owner=owner)
        self.opened.append(store)
        return store

    async def deadlocks(self) -> int:
        """Return how often transactions have waited for each other in a circle."""
        return shared_server().log().count("deadlock detected") if self.opened[0].shared else 0

    async def close(self) -> None:
        if self.kept:
            await self.kept.empty()
        for store in self.opened:
            await store.close()


@asynccontextmanager
async def store_house(backend: str, directory: Path, kept: KeptStore | None = None) -> AsyncIterator[StoreHouse]:
    """Have an empty store for one test: `kept`, where it is one of PostgreSQL, else a place where nobody was yet."""
    if backend == "postgres":
        require_postgres()
        if kept:
            await kept.ready()
        house = StoreHouse(kept.url if kept else shared_server().new_schema(), kept)
    else:
        house = StoreHouse(f"sqlite:///{directory}/store.db")
    try:
        yield house
    finally:
        await house.close()


async def put(
    store: Store,
    records: Sequence[EventRecord],
    *,
    after: int = 0,
    log_id: str = LOG,
    durable: int = 0,
    claims_max: int = 0,
    lanes: Lanes | None = None,
) -> Projected:
    """Project records as the dispatcher does; the first call makes the cursor."""
    await store.open_cursor(log_id, "incarnation", after, now_us())
    numbered = list(enumerate(records, start=after + 1))
    stretch = Projection(log_id, "incarnation", after, after + len(records), numbered, 0, now_us(), durable, claims_max)
    return await store.project(stretch if lanes is None else replace(stretch, lane_of=lanes.lane_of))


async def claimed(store: Store, count: int = 1, **fields: object) -> list[ClaimedEvent]:
    """Put some events and claim them."""
    projected = await put(store, [record(f"event-{number}", **fields) for number in range(count)])  # type: ignore[arg-type]
    return (await store.claim(projected.queued, now_us())).taken


async def stored(store: Store, event_id: str) -> StoredEvent:
    """Return an event as the store has it now."""
    return (await store.events_by_ids([event_id]))[event_id][0]


async def judge(store: Store, former: FormerIncarnation) -> None:
    """Take back what lies in processing, as the next incarnation of its node would."""
    draining = {former.owner} if former.draining else set()
    reclaims = judge_former(await store.in_flight(""), former, draining, store.node, lambda _: False)
    await store.reclaim(reclaims, "the process died", now_us())
