"""What every store must do with suspects: keep what deaths say of an event, set it aside, and forget it in the end."""

from collections.abc import Sequence

from replayforge.domain.event import ClaimedEvent, Entry, SeenLease
from replayforge.domain.lifecycle import Outcome, Reason, State
from replayforge.domain.poison import Isolation, Suspicion
from replayforge.domain.reclaim import FormerIncarnation, after_lapse
from replayforge.stores.store import Store
from replayforge.stores.suspicions import Change, Suspect
from tests.contract.store_backends import claimed, judge, put
from tests.support.builders import now_us, record, settlement, success


async def suspected(store: Store, deaths: int = 1) -> ClaimedEvent:
    """Return an event that runs alone after it was in flight at so many deaths."""
    (one,) = await claimed(store)
    for _ in range(deaths):
        await judge(store, FormerIncarnation(store.owner))
        (one,) = (await store.claim_suspect(now_us())).taken
    return one


async def set_aside(store: Store, deaths_alone: int = 1) -> Suspect:
    """Return an event that died alone so often and is set aside."""
    one = await suspected(store)
    for number in range(1, deaths_alone + 1):
        await judge(store, FormerIncarnation(store.owner, alone=one.lease, seconds=2.0))
        if number < deaths_alone:
            await store.end_controls(let_go)
            (one,) = (await store.claim_suspect(now_us())).taken
    (suspect,) = await store.set_aside()
    return suspect


def let_go(suspects: Sequence[Suspect]) -> list[Change]:
    return [(suspect, Isolation.RUNS_ALONE, suspect.known) for suspect in suspects]


async def known(store: Store, event_id: str = "event-0") -> tuple[Isolation, int, int] | None:
    """Return how an event stands, in how many deaths it was, and how many of them alone."""
    suspect = await store.suspicion(event_id)
    return None if suspect is None else (suspect.isolation, suspect.known.deaths, len(suspect.known.alone))


async def test_an_attempt_that_ends_clears_an_event(store: Store) -> None:
    """Whoever came to an end of its own, failed or not, killed nothing; one that was interrupted stays a suspect."""
    one = await suspected(store)
    assert await known(store) == (Isolation.RUNS_ALONE, 1, 0)
    await store.settle([settlement(one.event, State.QUEUED, Outcome.INTERRUPTED)])
    assert await known(store) == (Isolation.RUNS_ALONE, 1, 0)
    (again,) = (await store.claim_suspect(now_us())).taken
    await store.hand_back([again.lease], now_us())
    assert await known(store) == (Isolation.RUNS_ALONE, 1, 0)
    (again,) = (await store.claim_suspect(now_us())).taken
    await store.settle([settlement(again.event, State.DEAD_LETTERED)])
    assert await known(store) is None


async def test_nobody_claims_what_is_set_aside(store: Store) -> None:
    """Neither as a suspect nor as any other; once its control is over it runs alone again."""
    suspect = await set_aside(store)
    assert (suspect.event_id, suspect.known.alone, suspect.known.node) == ("event-0", (2.0,), store.node)
    assert await store.next_suspect() is None
    assert (await store.claim_suspect(now_us())).taken == []
    assert (await store.claim([Entry("event-0", 1)], now_us())).taken == []
    assert await store.queued_entries(10) == []
    assert await store.end_controls(let_go) == 1
    assert await store.set_aside() == []
    (one,) = (await store.claim_suspect(now_us())).taken
    assert (await store.settle([success(one)])).fenced == []


async def test_third_death_alone_makes_a_dead_letter(store: Store) -> None:
    """Three that agree end as `poison`; what is known stays with the dead letter, and a replay clears it."""
    await set_aside(store, deaths_alone=2)
    await store.end_controls(let_go)
    (one,) = (await store.claim_suspect(now_us())).taken
    await judge(store, FormerIncarnation(store.owner, alone=one.lease, seconds=2.1))
    found = (await store.events_by_ids(["event-0"]))["event-0"][0]
    assert (found.state, found.reason) == (State.DEAD_LETTERED, Reason.POISON)
    assert await known(store) == (Isolation.FREE, 4, 3)
    assert await store.change_suspicions(let_go) == 0, "only what is open is looked at"
    assert await store.replay(found, now_us(), "once more")
    assert await known(store) is None
    assert await store.queued_entries(10) == [("event-0", 2)]


async def test_what_a_person_decides_about_is_cleared(store: Store) -> None:
    """A suspect that is held, or set aside, and moved by hand begins anew, without the reason it was held for."""
    await set_aside(store)
    event = (await store.events_by_ids(["event-0"]))["event-0"][0]
    assert await store.move(event, State.CANCELLED, "cancelled", "no longer wanted", now_us()) == []
    assert await known(store) is None
    assert await store.set_aside() == []


async def test_draining_incarnation_leaves_interrupted_attempts(store: Store) -> None:
    """What it held is queued as before, with an attempt `interrupted` on record."""
    await claimed(store)
    await judge(store, FormerIncarnation(store.owner, draining=True))
    history = await store.history("event-0")
    assert history is not None
    assert (history[0].state, [attempt.outcome for attempt in history[2]]) == (State.QUEUED, [Outcome.INTERRUPTED])
    assert await known(store) is None
    assert await store.queued_entries(10) == [("event-0", 1)]


async def test_what_another_took_over_is_remembered(store: Store, other: Store) -> None:
    """It runs as any other, until the incarnation it was taken from is proven dead."""
    await claimed(store)
    leases = [SeenLease(*event.lease, 0) for event in await store.in_flight("")]
    await other.take_over(leases, lambda left: [after_lapse(one, hold=False) for one in left], "x", now_us())
    assert await other.queued_entries(10) == [("event-0", 1)]

    def died(suspects: Sequence[Suspect]) -> list[Change]:
        return [(one, Isolation.RUNS_ALONE, Suspicion(1)) for one in suspects if one.known.left_by == store.owner]

    assert await store.change_suspicions(died) == 1
    assert await known(store) == (Isolation.RUNS_ALONE, 1, 0)
    assert await other.queued_entries(10) == []


async def test_likeliest_is_who_died_alone_most_often(store: Store) -> None:
    """It runs before those that were in flight at more deaths, and those before all others."""
    await put(store, [record(f"event-{number}") for number in range(3)])
    await store.claim([Entry(f"event-{number}", 1) for number in range(3)], now_us())
    await judge(store, FormerIncarnation(store.owner))
    texts = {"event-0": Suspicion(7), "event-1": Suspicion(2, (1.0,)), "event-2": Suspicion(8)}

    def learn(suspects: Sequence[Suspect]) -> list[Change]:
        return [(one, Isolation.RUNS_ALONE, texts[one.event_id]) for one in suspects]

    assert await store.change_suspicions(learn) == 3
    order = []
    while (likeliest := await store.next_suspect()) is not None:
        (one,) = (await store.claim_suspect(now_us())).taken
        assert likeliest == texts[one.event.id]
        order.append(one.event.id)
        await store.settle([success(one)])
    assert order == ["event-1", "event-2", "event-0"]
