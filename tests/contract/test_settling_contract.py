"""What workers may expect of the settler: outcomes are committed in batches, and nothing stays in hand in the end."""

import asyncio

import pytest

from replayforge.domain.lifecycle import State
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.publisher import Publisher
from replayforge.engine.run import settler as settling
from replayforge.engine.run.settler import Settler
from replayforge.stores.store import Store
from replayforge.streams.embedded_stream import EmbeddedStream
from replayforge.telemetry import Telemetry
from tests.contract.store_backends import claimed, stored
from tests.support.builders import success
from tests.support.clock import FakeClock
from tests.support.probe import Probe


def settler_of(store: Store) -> tuple[Settler, Probe]:
    """Return a settler in whose buffer nothing is yet, and what hears of it."""
    telemetry = Telemetry()
    probe, buffer = Probe(telemetry), ClaimBuffer(FakeClock(), workers=4)
    publisher = Publisher(store, EmbeddedStream(telemetry, entries_max=10), telemetry)
    return Settler(store, buffer, publisher, telemetry), probe


async def test_what_comes_together_is_told_of_together(store: Store) -> None:
    """One commit for all, after which none of them is in hand."""
    settler, probe = settler_of(store)
    taken = await claimed(store, 3)
    settler.buffer.put(taken)
    for one in taken:
        await settler.hand_in(success(one))
    assert len(settler.buffer.leases.held) == 3
    await settler.finish()
    assert settler.buffer.leases.held == {}
    assert [count for name, count, _ in probe.telemetry_events if name == "attempt.settled"] == [3]
    assert {(await stored(store, one.event.id)).state for one in taken} == {State.SUCCEEDED}


async def test_who_hands_in_waits_while_too_much_is_not_committed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And goes on with the next commit."""
    monkeypatch.setattr(settling, "UNSETTLED_MAX", 1)
    settler, _ = settler_of(store)
    first, second = await claimed(store, 2)
    settler.buffer.put([first, second])
    await settler.hand_in(success(first))
    waiting = asyncio.create_task(settler.hand_in(success(second)))
    await asyncio.sleep(0)
    assert not waiting.done()
    async with asyncio.timeout(30):
        await waiting
    await settler.finish()
    assert settler.buffer.leases.held == {}


async def test_a_settler_whose_task_is_cancelled_holds_nothing(store: Store) -> None:
    """The sweep finds the event, which is no longer in hand; the next outcome is committed as ever."""
    settler, probe = settler_of(store)
    lost, kept = await claimed(store, 2)
    settler.buffer.put([lost, kept])
    await settler.hand_in(success(lost))
    assert settler.queue.runner is not None
    settler.queue.runner.cancel()
    await settler.finish()
    assert list(settler.buffer.leases.held) == [kept.lease]
    await settler.hand_in(success(kept))
    await settler.finish()
    assert settler.buffer.leases.held == {}
    assert not probe.fields("attempt.unsettled")
    assert (await stored(store, kept.event.id)).state is State.SUCCEEDED
    assert (await stored(store, lost.event.id)).state is State.PROCESSING
