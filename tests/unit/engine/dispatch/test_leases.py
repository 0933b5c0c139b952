"""The table of leases: whatever this process holds stands in it, and nothing begins under a lease that is too old."""

import asyncio

import pytest

from replayforge.domain.event import Lease
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.leases import Leases
from tests.support.builders import claimed_event
from tests.support.clock import FakeClock

LEASE_SECONDS = 30.0
DOUBT_SECONDS = 20.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def buffer(clock: FakeClock) -> ClaimBuffer:
    return ClaimBuffer(clock, workers=2, lease_seconds=LEASE_SECONDS)


async def test_an_event_handed_to_a_worker_that_has_not_seen_it_is_in_the_ledger(buffer: ClaimBuffer) -> None:
    """From start on an event is in its worker's hands and in the table, however late the loop resumes the worker."""
    taking = asyncio.create_task(buffer.take("one"))
    await asyncio.sleep(0)
    buffer.put([claimed_event(1)])
    assert not taking.done()
    assert buffer.running["one"].lease == Lease(1, 1)
    assert list(buffer.leases.held) == [(1, 1)]
    assert (await taking) is buffer.running["one"]


@pytest.mark.parametrize(("age_seconds", "begins"), [(0, True), (DOUBT_SECONDS, True), (DOUBT_SECONDS + 0.1, False)])
async def test_no_handler_begins_under_an_old_lease(
    buffer: ClaimBuffer, clock: FakeClock, age_seconds: float, begins: bool
) -> None:
    """A lease that was not renewed for two thirds of its length may be another's soon: nothing begins under it."""
    buffer.put([claimed_event(1)])
    clock.advance(age_seconds)
    assert buffer.leases.begin(Lease(1, 1)) is begins


async def test_renewal_makes_it_young_again(buffer: ClaimBuffer, clock: FakeClock) -> None:
    """What the heartbeat's thread renewed while the loop stood still begins after all."""
    buffer.put([claimed_event(1)])
    clock.advance(100)
    assert buffer.leases.doubtful(clock.elapsed()) == [(1, 1)]
    buffer.leases.held[Lease(1, 1)].renew(clock.elapsed() - 1)
    assert buffer.leases.begin(Lease(1, 1))


async def test_a_claim_is_as_old_as_its_question(buffer: ClaimBuffer, clock: FakeClock) -> None:
    """An answer that comes late brings leases that are old already: they count from before the store was asked."""
    claim = buffer.leases.begin_claim()
    clock.advance(DOUBT_SECONDS + 1)
    buffer.put([claimed_event(1)], claim)
    buffer.leases.end_claim(claim)
    assert not buffer.leases.begin(Lease(1, 1))
    assert buffer.leases.claims == {}


async def test_an_event_that_was_lost_between_hand_out_and_start_does_not_begin(buffer: ClaimBuffer) -> None:
    """A lease that is lost while its event is on the way to a worker is not begun; what waits is dropped."""
    taking = asyncio.create_task(buffer.take("one"))
    await asyncio.sleep(0)
    buffer.put([claimed_event(1), claimed_event(2)])
    assert buffer.withdraw([Lease(1, 1), Lease(2, 1)]) == 1
    await taking
    assert not buffer.leases.begin(Lease(1, 1))
    assert not buffer.holds(Lease(2, 1))


async def test_a_cancelled_wait_gives_its_event_back(buffer: ClaimBuffer) -> None:
    """What was handed to a worker that is cancelled before it saw it goes to the next, and is held all the while."""
    gone = asyncio.create_task(buffer.take("gone"))
    await asyncio.sleep(0)
    buffer.put([claimed_event(1)])
    gone.cancel()
    await asyncio.wait([gone])
    assert buffer.running == {}
    assert buffer.holds(Lease(1, 1))
    assert (await buffer.take("next")) is buffer.running["next"]


async def test_what_ends_keeps_its_lease_until_it_is_released(buffer: ClaimBuffer) -> None:
    """A finished result whose commit is under way is renewed as long as it takes, and struck out at its end."""
    buffer.put([claimed_event(1)])
    await buffer.take("one")
    assert buffer.leases.begin(Lease(1, 1))
    buffer.detach("one")
    assert buffer.leases.held[Lease(1, 1)].begun_at is None
    buffer.release(Lease(1, 1))
    assert buffer.leases.held == {}


def test_without_others_no_lease_grows_old(clock: FakeClock) -> None:
    """Where nobody else can take anything over, an event begins however long the loop stood still."""
    leases = Leases(clock, None)
    leases.book(claimed_event(1))
    clock.advance(1e6)
    assert leases.begin(Lease(1, 1))
    assert leases.doubtful(clock.elapsed()) == []


def test_claims_under_way_are_known_by_their_beginnings(clock: FakeClock) -> None:
    """A claim that began before something was seen may have taken it; one that began later has not."""
    leases = Leases(clock, LEASE_SECONDS)
    seen_at = clock.elapsed()
    clock.advance(1)
    claim = leases.begin_claim()
    assert not leases.any_claim_since(seen_at)
    clock.advance(10)
    assert leases.any_claim_since(clock.elapsed())
    assert leases.overdue_claims(clock.elapsed() - 10) == []
    assert len(leases.overdue_claims(clock.elapsed() - 9)) == 1
    leases.end_claim(claim)
    assert not leases.any_claim_since(clock.elapsed())
