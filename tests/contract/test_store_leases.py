"""An outcome counts under exactly the lease it was handed out with."""

from replayforge.domain.event import Entry
from replayforge.domain.lifecycle import State
from tests.contract.store_backends import StoreHouse, claimed
from tests.support.builders import now_us, success


async def test_a_stale_outcome_does_not_ride_in_on_a_valid_one(house: StoreHouse) -> None:
    """Of two outcomes for one event in one batch only the one whose token stands is committed; the other is fenced."""
    store = await house.join()
    (first,) = await claimed(store)
    assert await store.hand_back([first.lease], now_us()) == 1
    now = now_us()
    (second,) = (await store.claim([Entry(first.event.id, 1)], now)).taken
    stale, valid = success(first), success(second)
    assert (await store.settle([stale, valid])).fenced == [stale]
    history = await store.history(first.event.id)
    assert history is not None
    assert [attempt.token for attempt in history[2]] == [second.event.lease_token]
    _, tallies = await store.ledger_snapshot()
    assert (tallies[State.PROCESSING], tallies[State.SUCCEEDED]) == (0, 1)


async def test_a_hand_out_that_was_handed_back_still_counts_as_a_start(house: StoreHouse) -> None:
    """Starts never fall: an event that was claimed twice and handed back once was handed out twice."""
    store = await house.join()
    (first,) = await claimed(store)
    await store.hand_back([first.lease], now_us())
    now = now_us()
    (second,) = (await store.claim([Entry(first.event.id, 1)], now)).taken
    assert second.event.starts == 2
