"""The claim desk: who goes before whom, that nothing promised is kept, and what becomes of claims without an answer."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from replayforge.domain.admission import ALL_WELCOME, Pause
from replayforge.domain.event import ClaimedEvent
from replayforge.domain.lifecycle import Reason, State
from replayforge.engine.dispatch.claim_desk import DROPPED_AFTER_SECONDS, ClaimInProgress
from tests.support.dispatch_parts import Parts, dispatch_parts


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with dispatch_parts(tmp_path) as parts:
        yield parts


def count_of(claim: ClaimInProgress) -> int:
    """Return how many events may be claimed."""
    with claim:
        return claim.count


def fresh(parts: Parts, count: int = 3) -> int:
    """Return how many fresh events may be claimed now."""
    return count_of(parts.desk.claim_fresh(count, ["test"] * count))


def deferred(parts: Parts, count: int = 3) -> int:
    """Return how many of the events that wait for a handler may be claimed now."""
    return count_of(parts.desk.claim_deferred(parts.limits.by_pattern["test"], count))


async def test_suspects_go_before_everything(parts: Parts) -> None:
    """While there may be a suspect nothing is claimed but by the reader; once the store has none, all others are."""
    parts.desk.look_for_suspects()
    assert (fresh(parts), deferred(parts)) == (0, 0)
    assert count_of(parts.desk.claim_suspect()) == 1
    parts.desk.note_no_suspects()
    assert (fresh(parts), deferred(parts)) == (3, 3)


async def test_fresh_events_give_way_to_a_backlog(parts: Parts) -> None:
    """While entries are left on the stream, or rows without one, fresh events queue up behind; what waited does not."""
    parts.desk.note_backlog(more=True)
    assert (fresh(parts), deferred(parts)) == (0, 3)
    parts.desk.note_backlog(more=False)
    assert fresh(parts) == 3
    parts.publisher.fall_behind()
    parts.desk.note_backlog(more=False)
    assert fresh(parts) == 0


async def test_claims_share_the_room_of_the_buffer(parts: Parts) -> None:
    """What one claim has reserved no other one gets; what it did not fill is free at its end."""
    with parts.desk.claim_fresh(3, []) as first:
        assert (first.count, fresh(parts), deferred(parts)) == (3, 1, 1)
    assert fresh(parts, 10) == 4
    parts.buffer.close()
    assert (fresh(parts), deferred(parts)) == (0, 0)


async def test_claims_share_the_room_of_a_handler(parts: Parts) -> None:
    """A handler that waits for its turn promises its room to the deferred claim; a paused one has none for anybody."""
    parts.limits.note_deferred({"test": 2})
    with parts.desk.claim_fresh(2, ["test", "other"]) as claim:
        assert dict(claim.admission.room) == {"test": 0}
    with parts.desk.claim_suspect() as claim:
        assert dict(claim.admission.room) == {"test": 1}
    parts.limits.see_pauses([Pause("test", "why", "ann", 1)])
    assert deferred(parts) == 0
    assert parts.idle


@pytest.mark.parametrize("kind", ["fresh", "queued", "suspect", "deferred"])
async def test_a_claim_that_fails_leaves_nothing_behind(parts: Parts, kind: str) -> None:
    """It is under way from before the store is asked, and its end frees what was reserved and promised."""
    desk, limit = parts.desk, parts.limits.by_pattern["test"]
    parts.limits.note_deferred({"test": 1})
    claims: dict[str, Callable[[], ClaimInProgress]] = {
        "fresh": lambda: desk.claim_fresh(2, ["test", "test"]),
        "queued": lambda: desk.claim_queued(2),
        "suspect": desk.claim_suspect,
        "deferred": lambda: desk.claim_deferred(limit, 2),
    }
    with pytest.raises(RuntimeError):
        break_down(parts, claims[kind]())
    assert parts.idle


def break_down(parts: Parts, claim: ClaimInProgress) -> None:
    """Fail while a claim is under way."""
    with claim:
        assert len(parts.buffer.leases.claims) == 1
        raise RuntimeError("the store broke down")


async def test_where_nothing_is_guarded_nothing_is_counted(parts: Parts) -> None:
    """Without limits, pauses and failures every claim has the same admission."""
    with parts.desk.claim_queued(3) as claim:
        assert claim.admission is ALL_WELCOME


async def test_what_a_claim_gave_goes_where_it_belongs(parts: Parts) -> None:
    """Workers get what was claimed, the stream the entries of the rest, the handler what it has to wait for."""
    queued = (await parts.queue(3)).queued
    with parts.desk.claim_queued(2) as claim:
        given = await parts.store.claim(queued[:2], parts.clock.now_us())
        await claim.take(given.taken, queued=queued[2:], suspects=1, deferred={"other": 2}, buried=[("bad", "test")])
    assert parts.lying_ready == ["event-0", "event-1"]
    assert all(parts.buffer.holds(one.lease) for one in given.taken)
    assert parts.publisher.offered == queued[2:]
    assert [limit.pattern for limit in parts.limits.ready()] == ["other"]
    assert parts.desk.suspects_first
    assert parts.probe.counts["event.claimed"] == 2
    buried = {"event_id": "bad", "event_type": "test", "reason": Reason.BAD_PAYLOAD}
    assert parts.probe.fields("event.dead_lettered") == [buried]


async def test_leases_are_as_old_as_their_claim(parts: Parts) -> None:
    """An answer that comes late brings leases that count from before the store was asked."""
    queued, asked_at = (await parts.queue(1)).queued, parts.clock.elapsed()
    with parts.desk.claim_queued(1) as claim:
        given = await parts.store.claim(queued, parts.clock.now_us())
        parts.clock.advance(25)
        await claim.take(given.taken)
    assert parts.buffer.leases.held[given.taken[0].lease].sure_at == asked_at


async def test_what_was_claimed_for_a_buffer_that_closed_meanwhile_goes_back(parts: Parts) -> None:
    """A claim that was under way as the daemon began to stop is handed back, and spends no attempt."""
    queued = (await parts.queue(2)).queued
    with parts.desk.claim_queued(2) as claim:
        given = await parts.store.claim(queued, parts.clock.now_us())
        parts.buffer.close()
        await claim.take(given.taken)
    assert parts.lying_ready == []
    rows = await parts.store.events_by_ids(["event-0", "event-1"])
    assert [(event.state, event.starts, event.attempt_count) for event, _ in rows.values()] == [
        (State.QUEUED, 1, 0)
    ] * 2


async def test_a_claim_whose_answer_was_lost_is_handed_back(parts: Parts) -> None:
    """What this process holds stays, the rest is queued again at once; its entries are left to the refill."""
    leases = await parts.claim(2)
    rows = await parts.store.events_by_ids(["event-0"])
    with parts.desk.claim_queued(1):
        await parts.desk.recover_unanswered(leases)
    assert await parts.states(["event-0", "event-1"]) == [State.PROCESSING] * 2, "the claim under way may have them"
    parts.buffer.leases.book(ClaimedEvent.of(*rows["event-0"]))
    await parts.desk.recover_unanswered(leases)
    assert await parts.states(["event-0", "event-1"]) == [State.PROCESSING, State.QUEUED]
    assert parts.publisher.behind


async def test_the_sweep_takes_back_what_was_dropped(parts: Parts) -> None:
    """What this process claimed and nobody in it has is queued again once that is sure, which needs a second look."""
    await parts.claim(1)
    assert await parts.desk.sweep() == 0
    parts.clock.advance(DROPPED_AFTER_SECONDS)
    assert await parts.desk.sweep() == 1
    assert await parts.states(["event-0"]) == [State.QUEUED]
    assert parts.publisher.behind
    assert parts.probe.counts["attempt.reclaimed"] == 1


async def test_the_sweep_leaves_alone_what_a_claim_under_way_has_taken(parts: Parts) -> None:
    """However late the answer of a claim comes, what it took is not handed back before, and lies ready then."""
    queued = (await parts.queue(1)).queued
    with parts.desk.claim_queued(1) as claim:
        given = await parts.store.claim(queued, parts.clock.now_us())
        for _ in range(3):
            assert await parts.desk.sweep() == 0
            parts.clock.advance(DROPPED_AFTER_SECONDS)
        await claim.take(given.taken)
    assert await parts.desk.sweep() == 0
    assert parts.lying_ready == ["event-0"]
