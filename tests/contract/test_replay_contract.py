"""What bulk replays may expect of the store, whichever it is: frozen members, batches that happen once, figures."""

import asyncio
import random
import re
from collections import Counter
from typing import Any

import pytest

from replayforge.domain.bulk_replay import (
    JOB_TRANSITIONS,
    MEMBERS_MAX,
    JobState,
    MemberOutcome,
    Miscounted,
    ReplayJob,
    ReplayOrder,
)
from replayforge.domain.errors import Rejected
from replayforge.domain.event import ClaimedEvent, Entry
from replayforge.domain.lifecycle import TERMINAL, State
from replayforge.domain.reports import EventFilter
from replayforge.stores.batches import MarkedMember, NamedMember, RemovedEvent, SizedReplay
from replayforge.stores.driver import Batch, Fetch, Steps
from replayforge.stores.rows import member
from replayforge.stores.store import Store
from replayforge.stores.transactions import Settlement
from tests.contract.store_backends import MINUTE_US, put, stored
from tests.support.builders import now_us, record, settlement, success

DEAD = EventFilter(state=State.DEAD_LETTERED)


def failure(one: ClaimedEvent, error: str = "Boom: N") -> Settlement:
    return settlement(one.event, State.DEAD_LETTERED, error=error, error_signature=error)


async def claim_all(store: Store) -> list[ClaimedEvent]:
    """Claim whatever is queued."""
    now = now_us()
    return (await store.claim(await store.queued_entries(1000), now)).taken


async def dead(store: Store, count: int, error: str = "Boom: N", after: int = 0) -> list[str]:
    """Return the ids of so many further dead letters."""
    names = [f"event-{number:03}" for number in range(after, after + count)]
    await put(store, [record(name) for name in names], after=after)
    await store.settle([failure(one, error) for one in await claim_all(store)])
    return names


async def create(
    store: Store, wanted: EventFilter | None = DEAD, ids: list[str] | None = None, **order: Any
) -> ReplayJob:
    given = {"reason": "mended", "selection": {"filter": {}}} | order
    job, _ = await store.create_replay(
        ReplayOrder(**given), wanted, ids=ids or [], states=TERMINAL - {State.SUCCEEDED}, now_us=now_us()
    )
    return job


async def moved(store: Store, job: ReplayJob, *targets: JobState) -> ReplayJob:
    """Move a job from state to state and return it."""
    for target in targets:
        assert await store.move_replay(job, target, resumes_as=job.state, note="", now_us=now_us())
        job = await found(store, job)
    return job


async def found(store: Store, job: ReplayJob) -> ReplayJob:
    outcome = await store.find_replay(job.seq)
    assert outcome is not None
    return outcome[0]


async def members(store: Store, job: ReplayJob) -> list[str]:
    """Return the ids of a job's members in their order."""

    def steps() -> Steps[list[str]]:
        rows = yield Fetch("waiting_members", {"replay_seq": job.seq, "after_seq": 0, "count": 1000})
        return [row[1] for row in rows]

    return await store.driver.read(steps)


async def running(store: Store, **order: Any) -> ReplayJob:
    return await moved(store, await create(store, **order), JobState.RUNNING)


# Membership


async def test_members_are_what_matched_when_it_was_made(store: Store) -> None:
    """What becomes a dead letter later is not a member; the oldest come first."""
    names = await dead(store, 3)
    job = await create(store)
    await dead(store, 2, after=3)
    assert (job.state, job.total, job.matched, job.waiting) == (JobState.PENDING, 3, 3, 3)
    assert await members(store, job) == names


async def test_filter_is_that_of_the_list(store: Store) -> None:
    """A bulk replay takes what a list of the same filter shows, and nothing else."""
    await dead(store, 3, "Boom: N")
    await dead(store, 2, "Bang: N", after=3)
    for wanted in (
        EventFilter(state=State.DEAD_LETTERED, error_signature="Bang: N"),
        EventFilter(state=State.DEAD_LETTERED, text="event-00"),
        EventFilter(state=State.DEAD_LETTERED, event_type="te*", since_us=1),
    ):
        listed = [event.id for event, _ in (await store.list_events(wanted, before_seq=None, limit=100)).events]
        preview = await store.preview_replay(wanted)
        job = await create(store, wanted)
        assert await members(store, job) == listed[::-1] == preview.sample
        assert (preview.matched, preview.more, job.total) == (len(listed), False, len(listed))


async def test_most_members_of_all_that_match(store: Store) -> None:
    """With a largest number the oldest become members, and how many matched is said beside it."""
    names = await dead(store, 5)
    job = await create(store, members_max=2)
    assert (job.matched, job.total, job.members_max) == (5, 2, 2)
    assert await members(store, job) == names[:2]
    assert (await create(store, members_max=5)).matched == 5


async def test_named_events(store: Store) -> None:
    """Named events become members when they stand in one of the states; others are left out."""
    names = await dead(store, 4)
    await store.move(await stored(store, names[1]), State.DISCARDED, "discarded", "old", now_us())
    await put(store, [record("queued")], after=4)
    job = await create(store, None, [names[3], names[1], "nobody", "queued", names[1]])
    assert await members(store, job) == [names[1], names[3]]
    preview = await store.preview_replay_of([names[0], "queued"], TERMINAL)
    assert (preview.matched, preview.groups) == (1, [("Boom: N", 1)])


async def test_expected_count(store: Store) -> None:
    """Another number than was expected refuses with both numbers, and nothing of it stays."""
    await dead(store, 3)
    with pytest.raises(Miscounted, match=r"4 .*3 ") as refused:
        await create(store, expected_count=4)
    assert (refused.value.expected, refused.value.found) == (4, 3)
    assert await store.list_replays(before_seq=None, limit=10) == []
    assert (await create(store, expected_count=3, members_max=1)).total == 1


async def test_nothing_to_replay(store: Store) -> None:
    """A bulk replay without members is refused and not kept."""
    await put(store, [record("queued")])
    for wanted, ids in ((DEAD, []), (None, ["queued", "nobody"])):
        with pytest.raises(Rejected):
            await create(store, wanted, ids)
    assert await store.list_replays(before_seq=None, limit=10) == []


async def test_one_request_makes_one(store: Store, other: Store) -> None:
    """However often a request with a key comes, at whichever daemon, there is one bulk replay."""
    await dead(store, 3)
    order = ReplayOrder("mended", {}, request_key="key", digest="d")
    made = await asyncio.gather(
        *(
            one.create_replay(order, DEAD, ids=[], states=TERMINAL, now_us=now_us())
            for one in (store, other, store, other)
        )
    )
    assert sorted(is_new for _, is_new in made) == [False, False, False, True]
    assert len({job.seq for job, _ in made}) == 1
    assert len(await store.list_replays(before_seq=None, limit=10)) == 1


async def test_preview_writes_nothing(store: Store) -> None:
    """A look at what would be taken says how many, which first, and of which errors."""
    names = await dead(store, 12)
    await dead(store, 1, "Bang: N", after=12)
    preview = await store.preview_replay(DEAD)
    assert (preview.matched, preview.more, preview.sample) == (13, False, names[:10])
    assert preview.groups == [("Boom: N", 12), ("Bang: N", 1)]
    assert await store.list_replays(before_seq=None, limit=10) == []


# Batches


async def test_batch_replays_in_order(store: Store) -> None:
    """A batch queues the next members for a new run, notes why, and counts them, all at once."""
    names = await dead(store, 5)
    job = await running(store)
    done = await store.advance_replay(job.seq, 2, now_us())
    assert done is not None
    assert (done.entries, done.skipped) == ([(name, 2) for name in names[:2]], 0)
    assert await store.queued_entries(10) == done.entries
    job = await found(store, job)
    assert (job.replayed, job.waiting, job.open) == (2, 3, 2)
    history = await store.history(names[0])
    assert history is not None
    assert history[0].attempt_count == 0
    assert [(one.action, one.run, one.detail) for one in history[3]] == [
        ("replayed", 2, f"mended (bulk replay {job.id})")
    ]


async def test_what_moved_meanwhile_is_skipped_with_the_reason(store: Store) -> None:
    """A member that was replayed, discarded or removed since is left alone, counted, and told why."""
    names = await dead(store, 5)
    job = await running(store)
    await store.replay(await stored(store, names[0]), now_us(), "by hand")
    await store.move(await stored(store, names[1]), State.DISCARDED, "discarded", "old", now_us())
    await remove(store, names[2])
    done = await store.advance_replay(job.seq, 10, now_us())
    assert done is not None
    assert (done.entries, done.skipped) == ([(name, 2) for name in names[3:]], 3)
    outcome = await store.find_replay(job.seq)
    assert outcome is not None
    assert (outcome[0].replayed, outcome[0].skipped, outcome[0].waiting) == (2, 3, 0)
    assert {(skip.sample, skip.reason) for skip in outcome[1]} == {
        (names[0], "It was replayed by somebody else meanwhile."),
        (names[1], "It was dead_lettered and is discarded now."),
        (names[2], "Retention has removed it."),
    }
    assert (await stored(store, names[0])).run == 2
    assert (await stored(store, names[1])).state is State.DISCARDED


async def remove(store: Store, event_id: str) -> None:
    """Remove one event as retention does."""
    event = await stored(store, event_id)

    def steps() -> Steps[None]:
        for name in ("delete_events", "delete_contents", "delete_attempts", "delete_actions"):
            yield Batch(name, [RemovedEvent(seq=event.seq)])

    await store.driver.write(steps)


async def test_number_that_went_to_another_event(store: Store) -> None:
    """An event that came by the number of a removed member is another one, and left alone."""
    (name,) = await dead(store, 1)
    job = await running(store, wanted=None, ids=[name])
    newcomer = await stored(store, (await dead(store, 1, after=1))[0])

    def rename() -> Steps[None]:
        named = NamedMember(
            replay_seq=job.seq, event_seq=newcomer.seq, event_id="removed", run=newcomer.run, state=newcomer.state
        )
        yield Batch("insert_members", [named])
        yield Batch("size_replay", [SizedReplay(seq=job.seq, matched=2, total=2)])

    await store.driver.write(rename)
    done = await store.advance_replay(job.seq, 10, now_us())
    assert done is not None
    assert (done.entries, done.skipped) == ([(name, 2)], 1)
    assert (await stored(store, newcomer.id)).state is State.DEAD_LETTERED


async def test_two_daemons_replay_each_member_once(store: Store, other: Store) -> None:
    """However many daemons carry on a job at the same moment, each member gets one new run, and the figures hold."""
    names = await dead(store, 60)
    job = await running(store)
    entries: list[Entry] = []
    while (await found(store, job)).waiting:
        both = await asyncio.gather(*(one.advance_replay(job.seq, 7, now_us()) for one in (store, other, store, other)))
        entries += [entry for done in both if done for entry in done.entries]
    assert sorted(entries) == [(name, 2) for name in names]
    assert (await found(store, job)).replayed == 60
    _, tallies = await store.ledger_snapshot()
    assert (tallies[State.QUEUED], tallies[State.DEAD_LETTERED]) == (60, 0)


async def test_two_jobs_share_their_members(store: Store) -> None:
    """Of two jobs with the same members each member is replayed by one and skipped by the other."""
    await dead(store, 6)
    first, second = await running(store), await running(store)
    for count, job in ((4, first), (5, second), (9, first), (9, second)):
        await store.advance_replay(job.seq, count, now_us())
    first, second = await found(store, first), await found(store, second)
    assert (first.replayed, first.skipped) == (5, 1)
    assert (second.replayed, second.skipped) == (1, 5)


async def test_rate_puts_the_next_batch_off(store: Store, other: Store) -> None:
    """With a rate the next batch does nothing before its time, whichever daemon asks, and says how long to wait."""
    await dead(store, 4)
    job = await running(store, rate_per_second=0.01)
    first = await store.advance_replay(job.seq, 1, now_us())
    again = await other.advance_replay(job.seq, 1, now_us())
    assert first is not None
    assert again is not None
    assert (len(first.entries), again.entries) == (1, [])
    assert 98_000_000 < again.wait_us <= first.wait_us <= 100_000_000
    assert (await found(store, job)).replayed == 1


async def test_canary_is_never_larger_than_was_said(store: Store, other: Store) -> None:
    """However many daemons see a canary that has not begun, no more than its number are replayed before its end."""
    await dead(store, 10)
    job = await moved(store, await create(store, canary=3), JobState.CANARY)
    await asyncio.gather(*(one.advance_replay(job.seq, 9, now_us()) for one in (store, other, store, other)))
    assert await store.advance_replay(job.seq, 9, now_us()) is None
    assert (await found(store, job)).replayed == 3


async def test_batch_needs_a_job_that_asks_for_it(store: Store) -> None:
    """A job that was paused or cancelled a moment ago replays nothing."""
    await dead(store, 4)
    job = await running(store)
    job = await moved(store, job, JobState.PAUSED)
    assert await store.advance_replay(job.seq, 1, now_us()) is None
    assert (await found(store, job)).waiting == 4


# Figures


async def test_figures_follow_the_ends(store: Store, other: Store) -> None:
    """Succeeded, dead again, moved on and open are what became of the runs that the job gave, each counted once."""
    names = await dead(store, 5)
    job = await running(store)
    await store.advance_replay(job.seq, 10, now_us())
    assert await store.any_replay_ended(job.seq, 0, 100) == (False, 0)
    cancelled = await stored(store, names[4])
    await store.move(cancelled, State.CANCELLED, "cancelled", "", now_us())
    taken = {one.event.id: one for one in await claim_all(store)}
    await store.settle([success(taken[names[0]]), failure(taken[names[1]]), failure(taken[names[2]])])
    await store.move(await stored(store, names[2]), State.DISCARDED, "discarded", "old", now_us())
    assert await store.any_replay_ended(job.seq, 0, 100) == (True, 0)
    looks = await asyncio.gather(*(one.follow_replay(job.seq, 0, 100, now_us()) for one in (store, other, store)))
    assert sum(look.ended for look in looks) == 4
    job = await found(store, job)
    assert (job.succeeded, job.dead_lettered, job.superseded, job.open) == (1, 2, 1, 1)
    assert [one.seq for one in await store.active_replays()] == [job.seq]
    await store.settle([success(taken[names[3]])])
    await store.follow_replay(job.seq, 0, 100, now_us())
    await moved(store, job, JobState.DONE)
    assert await store.active_replays() == []


async def test_looks_go_on_where_they_ended(store: Store) -> None:
    """Looks of a few members at a time see each of them, and begin anew at the end."""
    await dead(store, 5)
    job = await running(store)
    await store.advance_replay(job.seq, 10, now_us())
    last = (await claim_all(store))[-1]
    await store.settle([success(last)])
    place, places = 0, []
    for _ in range(3):
        place = (await store.any_replay_ended(job.seq, place, 2))[1]
        places.append(place)
    assert places == [2, 4, 0]
    assert (await store.follow_replay(job.seq, 4, 2, now_us())).ended == 1


async def test_figures_agree_with_the_rows_through_random_histories(store: Store, other: Store) -> None:
    """Whatever happens in whatever order, each figure is what a count of the members finds."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201
    rng = random.Random(seed)
    names = await dead(store, 40)
    jobs = [await running(store), await running(store, members_max=25)]
    hands: list[ClaimedEvent] = []
    for _ in range(80):
        job, one, step = rng.choice(jobs), rng.choice((store, other)), rng.randrange(5)
        if step == 0:
            await one.advance_replay(job.seq, rng.randrange(1, 9), now_us())
        elif step == 1:
            await one.follow_replay(job.seq, 0, rng.randrange(1, 20), now_us())
        elif step == 2:
            hands += await claim_all(store)
        elif step == 3 and hands:
            picked = [hands.pop(rng.randrange(len(hands))) for _ in range(min(len(hands), 5))]
            await store.settle([rng.choice((success, failure))(claimed) for claimed in picked])
        elif step == 4:
            event = await stored(store, rng.choice(names))
            if event.state is State.DEAD_LETTERED and rng.random() < 0.5:
                await store.replay(event, now_us(), "by hand")
    for job in jobs:
        outcome = await found(store, job)
        counted = await count_states_by_seq(store, job)
        ended = {
            s: counted[s] for s in (MemberOutcome.SUCCEEDED, MemberOutcome.DEAD_LETTERED, MemberOutcome.SUPERSEDED)
        }
        assert (outcome.waiting, outcome.skipped) == (counted[MemberOutcome.WAITING], counted[MemberOutcome.SKIPPED])
        assert (outcome.succeeded, outcome.dead_lettered, outcome.superseded) == tuple(ended.values())
        assert outcome.open == counted[MemberOutcome.REPLAYED]
    states = (await store.discrepancies()).states
    _, tallies = await store.ledger_snapshot()
    assert {state: count for state in State if (count := tallies.get(state, 0))} == states


async def count_states_by_seq(store: Store, job: ReplayJob) -> Counter[MemberOutcome]:
    """Count a job's members by moving each of them to where it stands: the one it fits is its outcome."""

    def steps() -> Steps[Counter[MemberOutcome]]:
        counted: Counter[MemberOutcome] = Counter()
        rows = yield Fetch("waiting_members", {"replay_seq": job.seq, "after_seq": 0, "count": 1000})
        for outcome in MemberOutcome:
            marked = [
                MarkedMember(replay_seq=job.seq, event_seq=member(row).seq, before=outcome, outcome=outcome, note="")
                for row in rows
            ]
            changed = yield Batch("mark_members", marked)
            counted[outcome] = changed[0][0]
        return counted

    return await store.driver.write(steps)


# Jobs


WAYS: dict[JobState, tuple[JobState, ...]] = {
    JobState.PENDING: (),
    JobState.CANARY: (JobState.CANARY,),
    JobState.RUNNING: (JobState.RUNNING,),
    JobState.PAUSED: (JobState.PAUSED,),
    JobState.DONE: (JobState.RUNNING, JobState.DONE),
    JobState.CANCELLED: (JobState.CANCELLED,),
}


@pytest.mark.parametrize("source", JobState)
async def test_no_way_around_the_lifecycle_of_a_job(store: Store, source: JobState) -> None:
    """The store itself takes every transition of a job and refuses every other."""
    await dead(store, 1)
    for target in JobState:
        job = await moved(store, await create(store), *WAYS[source])
        if target in JOB_TRANSITIONS[source]:
            assert (await moved(store, job, target)).state is target
        else:
            with pytest.raises(Exception, match=re.compile("lifecycle|constraint", re.IGNORECASE)):
                await moved(store, job, target)
            assert (await found(store, job)).state is source


async def test_move_needs_the_state_that_was_seen_of_a_job(store: Store) -> None:
    """Of two moves from the same state the second changes nothing."""
    await dead(store, 1)
    job = await create(store)
    results = [
        await store.move_replay(job, target, resumes_as=job.state, note="n", now_us=now_us())
        for target in (JobState.PAUSED, JobState.CANCELLED)
    ]
    assert results == [True, False]
    outcome = await found(store, job)
    assert (outcome.state, outcome.resumes_as, outcome.note) == (JobState.PAUSED, JobState.PENDING, "n")


async def test_list_of_jobs(store: Store) -> None:
    """Page after page shows each job once, the newest first."""
    await dead(store, 1)
    made = [(await create(store)).seq for _ in range(5)]
    first = await store.list_replays(before_seq=None, limit=3)
    rest = await store.list_replays(before_seq=first[-1].seq, limit=3)
    assert [job.seq for job in first + rest] == made[::-1]


async def test_retirement_of_jobs(store: Store) -> None:
    """What ended long ago is removed piece by piece, members first; what has not ended stays."""
    await dead(store, 5)
    ended, outcome = await create(store), await create(store)
    await moved(store, ended, JobState.CANCELLED)
    assert await store.retire_replays(now_us() - MINUTE_US, 3) == 0
    later = now_us() + MINUTE_US
    assert [await store.retire_replays(later, 3) for _ in range(3)] == [3, 2, 0]
    assert [job.seq for job in await store.list_replays(before_seq=None, limit=9)] == [outcome.seq]
    assert len(await members(store, outcome)) == 5


async def test_texts_and_numbers_come_back(store: Store) -> None:
    """What an order says is what the job shows."""
    await dead(store, 1)
    selection = {"filter": {"q": 'ü"\\ %'}}
    job = await create(store, reason="naïve\0 'quoted'", selection=selection, rate_per_second=0.5, canary=3)
    assert (job.selection, job.rate_per_second, job.canary) == (selection, 0.5, 3)
    assert job.reason.startswith("naïve")
    assert job.members_max == MEMBERS_MAX
    assert (await create(store, rate_per_second=7)).rate_per_second == 7
