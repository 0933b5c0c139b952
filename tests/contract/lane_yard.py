"""A store with lanes, as the daemons that share it see it: events come in, are released, run and end."""

from collections.abc import Sequence

from replayforge.domain.event import ClaimedEvent, Entry, EventRecord, StoredEvent
from replayforge.domain.lane import LaneRule, LaneRules, Lanes
from replayforge.domain.lifecycle import Outcome, State
from replayforge.stores.store import Store
from tests.contract.store_backends import LOG, put, stored
from tests.support.builders import now_us, record, settlement

STRICT = LaneRules(strict=True, dead_blocks=True, width=1)
SKIPPING = LaneRules(strict=True, width=1)


def by_workflow(rules: LaneRules) -> Lanes:
    """Return lanes of all events by their workflows."""
    return Lanes([LaneRule("*", "workflow_id", rules)])


def by_payload(path: str, rules: LaneRules = STRICT) -> Lanes:
    """Return lanes of all events by what they came with."""
    return Lanes([LaneRule("*", path, rules)])


class Yard:
    """What the daemons do with one store; `runs` are the events that may run, as far as releases have said so."""

    def __init__(self, store: Store, lanes: Lanes) -> None:
        self.store = store
        self.lanes = lanes
        self.offset = 0

    async def arrive(self, *ids: str, log_id: str = LOG, **fields: object) -> None:
        """Let events come in, one after another."""
        records = [record(name, **({"workflow_id": "w"} | fields)) for name in ids]  # type: ignore[arg-type]
        await self.project(records, log_id)

    async def project(self, records: Sequence[EventRecord], log_id: str = LOG) -> list[ClaimedEvent]:
        """Let these come in; returns those that run at once."""
        claims_max = 100 * bool(self.lanes)
        projected = await put(
            self.store, records, after=self.offset, log_id=log_id, lanes=self.lanes, claims_max=claims_max
        )
        self.offset += len(records)
        return projected.claimed

    async def release(self, store: Store | None = None) -> list[Entry]:
        """Release until nothing has happened in any lane; returns the entries of what may run."""
        entries: list[Entry] = []
        store = store or self.store
        for _ in range(1000):
            released = await store.release_lanes(self.lanes.rules_of, now_us())
            entries += released.entries
            news, _ = await store.lane_news(now_us())
            if not news:
                return entries
        raise AssertionError("There is always something new.")

    async def ready(self) -> list[str]:
        """Release, and return the ids of everything that may be claimed, oldest first."""
        await self.release()
        return [entry.event_id for entry in await self.store.queued_entries(5000)]

    async def bring(self, name: str, state: State) -> None:
        """Bring an event that has just arrived, and whose turn it is, into a state."""
        if state is State.QUEUED:
            return
        if state is State.CANCELLED:
            await self.move(name, State.CANCELLED)
            return
        event = await self.start(name)
        if state is State.PROCESSING:
            return
        if state is State.DISCARDED:
            await self.end(event, State.DEAD_LETTERED)
            await self.move(name, State.DISCARDED)
            return
        await self.end(event, state, parked=state is State.WAITING, journal=int(state is State.WAITING))

    async def claim(self, *ids: str, store: Store | None = None) -> list[ClaimedEvent]:
        """Claim those of the events that may run now."""
        entries = [(await stored(self.store, name)).entry for name in ids]
        return (await (store or self.store).claim(entries, now_us())).taken

    async def start(self, name: str, store: Store | None = None) -> StoredEvent:
        """Claim an event that may run."""
        await self.release()
        (claimed,) = await self.claim(name, store=store)
        return claimed.event

    async def end(self, event: StoredEvent, state: State = State.SUCCEEDED, **fields: object) -> None:
        """Let an event that runs end, or begin to wait."""
        outcome = Outcome.SUCCEEDED if state is State.SUCCEEDED else Outcome.FAILED
        await self.store.settle([settlement(event, state, outcome, **fields)])  # type: ignore[arg-type]

    async def end_all(self, ends: Sequence[tuple[StoredEvent, State]]) -> None:
        """Let events that run end, or begin to wait, all at once."""
        outcomes = [
            settlement(
                event,
                state,
                Outcome.SUCCEEDED if state is State.SUCCEEDED else Outcome.FAILED,
                parked=state is State.WAITING,
                journal=int(state is State.WAITING),
            )
            for event, state in ends
        ]
        await self.store.settle(outcomes)

    async def run(self, name: str, state: State = State.SUCCEEDED) -> None:
        """Start an event and end it."""
        await self.end(await self.start(name), state)

    async def replay(self, name: str) -> None:
        """Replay an event that has ended."""
        assert await self.store.replay(await stored(self.store, name), now_us(), "again") is not None

    async def move(self, name: str, target: State) -> None:
        """Move an event by hand."""
        assert await self.store.move(await stored(self.store, name), target, "moved", "by hand", now_us()) is not None
