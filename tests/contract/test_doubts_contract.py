"""What is in doubt after a crash: exactly the attempts and steps that were cut short, and what was decided of them."""

import pytest
from msgspec.structs import replace

from replayforge.domain.doubt import Standing
from replayforge.domain.errors import Conflict
from replayforge.domain.journal import StepState
from replayforge.domain.lifecycle import Outcome, Reason, State
from replayforge.domain.reclaim import FormerIncarnation, judge_former
from replayforge.stores.decisions import Resolution
from replayforge.stores.store import Store
from tests.contract.store_backends import claimed, put, stored
from tests.contract.test_journal_contract import commit, step
from tests.support.builders import now_us, record, settlement, success


async def died(store: Store, *careful: str) -> None:
    """Take back what is in flight, as after a death of the process; events of these types are held."""
    left = await store.in_flight("")
    reclaims = judge_former(left, FormerIncarnation(), (), store.node, lambda route: route in careful)
    await store.reclaim(reclaims, "the process died", now_us())


async def standings(store: Store, *, undecided: bool = False) -> dict[str, Standing]:
    """Return the type of each event in doubt, and what becomes of it."""
    page = await store.list_in_doubt(None, 50, undecided=undecided)
    return {one.event.event_type: one.standing for one in page.events}


async def test_exactly_what_was_cut_short_is_in_doubt(store: Store) -> None:
    """Whatever came to an end of its own is not, nor what nobody has begun; what was cut short stays listed."""
    types = ["ended", "failed", "timed", "told", "retry", "hold", "never"]
    projected = await put(store, [record(name, event_type=name) for name in types])
    taken = (await store.claim(projected.queued[:-1], now_us())).taken
    by_type = {one.event.event_type: one.event for one in taken}
    await store.settle([
        settlement(by_type["ended"], State.SUCCEEDED, Outcome.SUCCEEDED),
        settlement(by_type["failed"], State.DEAD_LETTERED),
        settlement(by_type["timed"], State.RETRYING, Outcome.TIMED_OUT),
        settlement(by_type["told"], State.CANCELLED, Outcome.INTERRUPTED),
    ])  # fmt: skip
    await died(store, "hold")
    assert await standings(store) == {"retry": Standing.STARTED_AGAIN, "hold": Standing.UNDECIDED}
    assert await standings(store, undecided=True) == {"hold": Standing.UNDECIDED}
    (again,) = (await store.claim_suspect(now_us())).taken
    await store.settle([success(again)])
    hold, retry = (await store.list_in_doubt(None, 50)).events
    assert (retry.event.state, retry.event.starts, retry.standing) == (State.SUCCEEDED, 2, Standing.STARTED_AGAIN)
    (attempt,) = retry.attempts
    assert (attempt.token, attempt.outcome, attempt.owner) == (1, Outcome.CRASHED, store.owner)
    assert attempt.started_at_us <= attempt.ended_at_us
    assert await store.move(hold.event, State.SUCCEEDED, "decided", "it is done", now_us(), result=b"7") == []
    assert await standings(store, undecided=True) == {}
    assert (await standings(store))["hold"] is Standing.DECIDED
    assert (await store.list_in_doubt(None, 50)).events[0].decision.detail == "it is done"  # type: ignore[union-attr]
    assert (await stored(store, hold.event.id)).result == b"7"


async def test_pages_of_doubts_meet(store: Store) -> None:
    """Each event comes once, the newest first, whether it is held or was started again."""
    await claimed(store, 5)
    await died(store, "nothing")
    seen: list[int] = []
    before_seq: int | None = None
    while True:
        page = await store.list_in_doubt(before_seq, 2)
        seen += [one.event.seq for one in page.events]
        if (before_seq := page.next_seq) is None:
            break
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == len(seen) == 5


async def test_the_steps_in_doubt_are_those_that_two_starts_began(store: Store) -> None:
    """After the same answers the same steps are begun: those a later start began before it had recorded anything."""
    (one,) = await claimed(store)
    await store.record_steps([commit(one.event, step(one.event, "first", begun=1, recorded=2))])
    await died(store)
    (again,) = (await store.claim_suspect(now_us())).taken
    side = step(again.event, "beside", begun=3, recorded=5)
    twice = step(again.event, "twice", begun=4, recorded=6, arguments="[12]")
    after = step(again.event, "after", begun=7, recorded=8)
    await store.record_steps([commit(again.event, side, twice, after)])
    (doubt,) = (await store.list_in_doubt(None, 50)).events
    assert [found.step for found in doubt.steps] == ["beside", "twice"]
    assert doubt.steps[1].arguments == "[12]"
    await store.settle([success(again)])
    assert [found.step for found in (await store.list_in_doubt(None, 50)).events[0].steps] == ["beside", "twice"]


async def test_a_step_that_runs_once_is_decided_about_by_itself(store: Store) -> None:
    """It is in doubt until a person decides, by its name where several are; the journal has what was said."""
    (one,) = await claimed(store)
    begun = step(one.event, state=StepState.STARTED, recorded=0, result=None)
    await store.record_steps([commit(one.event, begun, replace(begun, step="other", begun=2))])
    await store.settle([settlement(one.event, State.HELD, reason=Reason.IN_DOUBT)])
    assert await standings(store) == {one.event.event_type: Standing.UNDECIDED}
    event = await stored(store, one.event.id)
    with pytest.raises(Conflict, match="charge, other"):
        await store.resolve_step(event, Resolution(State.QUEUED, None, b"1"), "it is done", now_us())
    assert await store.resolve_step(event, Resolution(State.QUEUED, "other", b"1"), "it is done", now_us()) == []
    assert await standings(store) == {}
