"""A storm over lanes: two daemons do everything at once that can be done to events, and order and limits hold."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from replayforge.domain.event import ClaimedEvent, StoredEvent
from replayforge.domain.lane import LaneRule, LaneRules, Lanes
from replayforge.domain.lifecycle import CANCELLABLE, OPEN, REPLAYABLE, State
from replayforge.domain.reports import EventFilter
from replayforge.stores.store import Store
from tests.contract.lane_yard import SKIPPING, STRICT, Yard
from tests.contract.store_backends import StoreHouse
from tests.support.builders import now_us, record

LANES = Lanes(
    [
        LaneRule("strict", "workflow_id", STRICT),
        LaneRule("skipping", "workflow_id", SKIPPING),
        LaneRule("limited", "workflow_id", LaneRules(width=2, counts_running=True)),
        LaneRule("fair", "workflow_id", LaneRules(width=4)),
        LaneRule("fast", "workflow_id", LaneRules(width=4, interval_us=100)),
    ]
)
TYPES = ["strict", "strict", "strict", "skipping", "limited", "limited", "fair", "fast", "in no lane"]
ENDS = [
    State.SUCCEEDED,
    State.SUCCEEDED,
    State.SUCCEEDED,
    State.RETRYING,
    State.DEAD_LETTERED,
    State.HELD,
    State.WAITING,
]
BY_HAND = {State.HELD: State.QUEUED, State.WAITING: State.QUEUED, State.DEAD_LETTERED: State.DISCARDED}
ROUNDS, ACTS = 5, 12


class Weather:
    """One daemon that does whatever comes to its mind, to its own events and to those of the other."""

    def __init__(self, store: Store, number: int, dice: random.Random) -> None:
        self.yard = Yard(store, LANES)
        self.store = store
        self.log_id = f"log-{number}"
        self.number = number
        self.dice = dice
        self.made = 0
        self.running: list[ClaimedEvent] = []

    async def blow(self, first: Callable[[], Awaitable[None]]) -> None:
        """Do some things one after another."""
        acts: list[Callable[[], Awaitable[None]]] = [first, self.claim, self.claim, self.settle, self.settle]
        acts += [self.move, self.replay, self.release, self.promote]
        for _ in range(ACTS):
            await self.dice.choice(acts)()

    async def someone(self, states: frozenset[State]) -> StoredEvent | None:
        """Return any event in one of these states."""
        rows = await self.store.list_rows(EventFilter(), before_seq=None, limit=200)
        found = [one for one in rows if one.state in states]
        return self.dice.choice(found) if found else None

    async def arrive(self) -> None:
        """Let a few events come in: of clients, children of events that run, edited replays of dead letters."""
        dead = await self.someone(frozenset({State.DEAD_LETTERED}))
        records = []
        for _ in range(self.dice.randint(1, 6)):
            self.made += 1
            fields = {"event_type": self.dice.choice(TYPES), "workflow_id": f"key-{self.dice.randint(1, 3)}"}
            if self.running and self.dice.random() < 0.3:
                parent = self.dice.choice(self.running).event
                fields |= {"origin": parent.id, "event_type": parent.event_type, "workflow_id": parent.workflow_id}
            elif dead is not None and self.dice.random() < 0.3:
                fields |= {"replay_of": dead.id, "event_type": dead.event_type, "workflow_id": dead.workflow_id}
            records.append(record(f"event-{self.number}-{self.made}", b"{}", **fields))
        claimed = await self.yard.project(records, self.log_id)
        self.running += claimed

    async def claim(self) -> None:
        """Claim some of what may run."""
        entries = await self.store.queued_entries(self.dice.randint(1, 8))
        claim = await self.store.claim(entries, now_us())
        self.running += claim.taken

    async def settle(self) -> None:
        """End some of what runs, each in its own way, or hand it back."""
        count = min(len(self.running), self.dice.randint(1, 4))
        self.dice.shuffle(self.running)
        ended, self.running = self.running[:count], self.running[count:]
        if ended and self.dice.random() < 0.1:
            await self.store.hand_back([one.lease for one in ended], now_us())
        else:
            await self.yard.end_all([(one.event, self.dice.choice(ENDS)) for one in ended])

    async def move(self) -> None:
        """Cancel, discard, or let go on."""
        event = await self.someone(CANCELLABLE | {State.HELD, State.DEAD_LETTERED})
        if event is not None:
            await self.store.move(event, BY_HAND.get(event.state, State.CANCELLED), "moved", "by hand", now_us())

    async def replay(self) -> None:
        """Run something again that has ended."""
        event = await self.someone(REPLAYABLE)
        if event is not None:
            await self.store.replay(event, now_us(), "again")

    async def release(self) -> None:
        """Release a step."""
        await self.store.release_lanes(LANES.rules_of, now_us())

    async def promote(self) -> None:
        """Queue what is due."""
        await self.store.promote(now_us())


@pytest.mark.parametrize("seed", range(3))
async def test_order_and_limits_hold_whatever_is_done(house: StoreHouse, seed: int) -> None:
    """At every quiet point nothing is wrong in any lane, nobody waited for anybody in a circle, and in the end all have
    run."""
    dice = random.Random(seed)
    stores = [await house.join(), await house.join("node-2")]
    deadlocks = await house.deadlocks()
    daemons = [Weather(store, number, random.Random(dice.random())) for number, store in enumerate(stores)]
    for _ in range(ROUNDS):
        await asyncio.gather(*(one.blow(one.arrive) for one in daemons), *(one.blow(one.release) for one in daemons))
        await asyncio.gather(*(one.yard.release() for one in daemons))
        assert (await stores[0].discrepancies()).lanes == []
    for one in daemons:
        await one.yard.end_all([(claimed.event, State.SUCCEEDED) for claimed in one.running])
        one.running = []
    await calm_down(daemons[0].yard)
    assert (await stores[0].discrepancies()).lanes == []
    assert await house.deadlocks() == deadlocks


async def calm_down(yard: Yard) -> None:
    """Run whatever may run, and decide about whatever waits for that, until nothing is open any more."""
    store = yard.store
    for _ in range(100):
        await store.promote(now_us())
        for event in await store.list_rows(EventFilter(), before_seq=None, limit=1000):
            if event.state in BY_HAND:
                await store.move(event, BY_HAND[event.state], "moved", "by hand", now_us())
        ready = await yard.ready()
        await yard.end_all([(one.event, State.SUCCEEDED) for one in await yard.claim(*ready)])
        rows = await store.list_rows(EventFilter(), before_seq=None, limit=1000)
        if not any(one.state in OPEN or one.state is State.DEAD_LETTERED for one in rows):
            return
    left = [one for one in rows if one.state in OPEN or one.state is State.DEAD_LETTERED]
    raise AssertionError(f"Something never comes to an end: {left}")
