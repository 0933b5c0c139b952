"""What was accepted while the store was away is compared with what it names, and the event loop turns meanwhile."""

from replayforge.stores.store import Store
from tests.contract.store_backends import put
from tests.support.builders import record
from tests.support.turns import turns_measured

TURN_SECONDS_MAX = 0.05
NUMBERS = b",".join([b"1.0"] * 100_000)


async def test_many_large_copies_hold_up_nobody(store: Store) -> None:
    """Eight large copies, each written in its own way, are counted as copies, and other content is told apart."""
    await put(store, [record("first", b"[" + NUMBERS + b"]", idempotency_key="k")])
    copies = [record("first", b" " * number + b"[" + NUMBERS + b"]", idempotency_key="k") for number in range(1, 9)]
    other = record("first", b"[" + NUMBERS + b",1]", idempotency_key="k")
    counted, reused = 0, 0
    for number, one in enumerate([*copies, other], start=1):
        async with turns_measured() as turns:
            projected = await put(store, [one], after=number)
        turns.assert_shorter_than(TURN_SECONDS_MAX)
        counted, reused = counted + projected.copies, reused + len(projected.key_reused)
    assert (counted, reused) == (8, 1)
