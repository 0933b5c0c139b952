"""Bulk replays in the store: who belongs to one is frozen at once, and each batch of members is one transaction."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import msgspec

from replayforge.domain.bulk_replay import (
    MEMBERS_MAX,
    JobState,
    Member,
    MemberOutcome,
    Miscounted,
    Preview,
    ReplayJob,
    ReplayOrder,
    Skip,
    Take,
    next_step,
    outcome_now,
    why_skipped,
)
from replayforge.domain.clock import to_us
from replayforge.domain.errors import Rejected
from replayforge.domain.event import Entry
from replayforge.domain.lifecycle import State, held_way_out
from replayforge.domain.replay_plan import FROM_START
from replayforge.domain.reports import EventFilter
from replayforge.stores import replaying
from replayforge.stores.batches import (
    AdvancedReplay,
    MarkedMember,
    MovedReplay,
    NamedMember,
    RemovedReplay,
    SizedReplay,
)
from replayforge.stores.driver import Batch, Fetch, Steps
from replayforge.stores.lookups import SEQ_MAX, TEXT_IN_ROW, conditions
from replayforge.stores.replaying import Replayed, Wanted
from replayforge.stores.rows import NamedEvent, Row, member, named_event, replay_job

COUNT_MAX = MEMBERS_MAX + 1  # so that "more than can be members" is told from "just as many"
SLACK_US = 250_000  # how much of a delay a rate may catch up with
SCAN_MAX = 10_000
SAMPLE_MAX = 10
GROUPS_MAX = 20
SKIPS_MAX = 20
ACTIVE_MAX = 100
SIGNAL = "It is a signal: what waits takes it, and it is never queued."

Now = tuple[str, int, State]


@dataclass(frozen=True, slots=True)
class Advance:
    """What one batch did: entries to publish, how many members were left alone, how long the next one waits.

    Before its time a batch does nothing. `besides` are entries of child events that were replayed with members, and of
    parked events that were woken.
    """

    entries: list[Entry]
    skipped: int
    wait_us: int
    besides: list[Entry] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Followed:
    """What one look at replayed members found: how many came to their ends, and where the next look goes on."""

    ended: int
    next_seq: int


# Making one


def create(
    order: ReplayOrder, wanted: EventFilter | None, named: Sequence[str], states: frozenset[State], now_us: int
) -> Steps[tuple[ReplayJob, bool]]:
    """Make a bulk replay of what passes the filter, or of the named events in these states, membership and all.

    Returns the job, and whether it is new: a request that has made one before makes no second one. Raises Miscounted,
    or Rejected when nothing fits; nothing is written then.
    """
    rows = yield Fetch("insert_replay", order_parameters(order, now_us))
    if not rows:
        known = yield Fetch("replay_by_key", {"request_key": order.request_key})
        return replay_job(known[0]), False
    seq = rows[0][0]
    if wanted is None:
        matched, total = yield from freeze_named(seq, named, states, order.members_max)
    else:
        matched, total = yield from freeze_matching(seq, wanted, order)
    if order.expected_count is not None and order.expected_count != matched:
        raise Miscounted(order.expected_count, matched)
    if total == 0:
        raise Rejected("No event fits, so there is nothing to replay.")
    yield Batch("size_replay", [SizedReplay(seq=seq, matched=matched, total=total)])
    made = yield Fetch("replay", {"seq": seq})
    return replay_job(made[0]), True


def order_parameters(order: ReplayOrder, now_us: int) -> dict[str, object]:
    """Return the parameters that insert a job."""
    return {
        "reason": order.reason,
        "selection": msgspec.json.encode(order.selection).decode(),
        "members_max": order.members_max,
        "canary": order.canary,
        "rate_per_second": order.rate_per_second,
        "request_key": order.request_key,
        "digest": order.digest,
        "acted_by": order.acted_by,
        "now_us": now_us,
    }


def freeze_matching(seq: int, wanted: EventFilter, order: ReplayOrder) -> Steps[tuple[int, int]]:
    """Make members of what passes the filter; returns how many fit and how many became members."""
    filters, parameters = conditions(wanted)
    yield Fetch("freeze_members", {**parameters, "replay_seq": seq, "members_max": order.members_max}, filters)
    counted = yield Fetch("count_members", {"replay_seq": seq})
    total = int(counted[0][0])
    if total < order.members_max:
        return total, total
    matching = yield Fetch("count_matching", {**parameters, "count": COUNT_MAX}, filters)
    return int(matching[0][0]), total


def freeze_named(seq: int, ids: Sequence[str], states: frozenset[State], members_max: int) -> Steps[tuple[int, int]]:
    """Make members of the named events that stand in one of the states; returns how many fit and became members."""
    fitting = yield from named_events(ids, states)
    if not fitting and (yield from named_events(ids, frozenset({State.HELD}))):
        raise Rejected(f"No event fits, so there is nothing to replay. {held_way_out('ID')}")
    members = [
        NamedMember(replay_seq=seq, event_seq=one.seq, event_id=one.id, run=one.run, state=one.state)
        for one in fitting[:members_max]
    ]
    yield Batch("insert_members", members)
    return len(fitting), len(members)


def named_events(ids: Sequence[str], states: frozenset[State]) -> Steps[list[NamedEvent]]:
    """Fetch the named events that stand in one of the states, oldest first."""
    rows = yield Fetch("events_named", {"ids": list(ids)})
    return [one for one in (named_event(row) for row in rows) if one.state in states]


def preview_matching(wanted: EventFilter, begins_from: str | None) -> Steps[Preview]:
    """Fetch what a bulk replay of this filter would take."""
    filters, parameters = conditions(wanted, TEXT_IN_ROW)
    most = {"scan_max": SCAN_MAX, "samples": SAMPLE_MAX, "groups": GROUPS_MAX}
    asked = {**parameters, **most, "with_effects": int(begins_from == FROM_START)}
    found: dict[str, list[tuple[str, int]]] = {}
    for what, name, number in (yield Fetch("preview_matching", asked, filters)):
        found.setdefault(what, []).append((name, int(number)))
    ((_, matched),), ((_, effects),) = found["total"], found["effects"]
    if matched == SCAN_MAX:
        ((matched,),) = yield Fetch("count_matching", {**parameters, "count": COUNT_MAX}, filters)
    return Preview(
        matched=matched,
        more=matched == COUNT_MAX,
        sample=[name for name, _ in found.get("sample", ())],
        groups=found.get("group", []),
        groups_capped=matched > SCAN_MAX,
        effects=effects,
    )


def preview_named(ids: Sequence[str], states: frozenset[State], begins_from: str | None) -> Steps[Preview]:
    """Fetch what a bulk replay of these events would take."""
    fitting = yield from named_events(ids, states)
    groups = Counter(one.error for one in fitting)
    wanted = [Wanted(one.seq, one.id, one.run, one.state, begins_from, "") for one in fitting]
    effects = sum(one.plan.effects for one in (yield from replaying.planned(wanted)))
    sample = [one.id for one in fitting[:SAMPLE_MAX]]
    return Preview(len(fitting), False, sample, groups.most_common(GROUPS_MAX), effects=effects)


# Carrying one on


def advance(node: str, seq: int, count_max: int, now_us: int, signals: Collection[str] = ()) -> Steps[Advance | None]:
    """Replay the next members of a job, as many as its row asks for now, and count them, at once.

    Returns None when another daemon has the job in hand, or it asks for something else by now.
    """
    rows = yield Fetch("lock_replay", {"seq": seq, "now_us": now_us})
    if not rows:
        return None
    *columns, wait_us = rows[0]
    job = replay_job(columns)
    step = next_step(job)
    if not isinstance(step, Take):
        return None
    # What is further away than one step ever puts it off was decided before the clock was set back.
    longest_us = to_us(count_max / job.rate_per_second) if job.rate_per_second else 0
    if 0 < wait_us <= longest_us:
        return Advance([], 0, wait_us)
    count = min(step.count, count_max)
    rows = yield Fetch("waiting_members", {"replay_seq": seq, "after_seq": job.through_seq, "count": count})
    members = [member(row) for row in rows]
    notes, replayed, woken = yield from replay_members(node, job, members, signals, now_us)
    yield Batch("mark_members", [taken(seq, one, notes[one.seq]) for one in members])
    skipped = len(members) - len(replayed)
    through = members[-1].seq if members else job.through_seq
    pause_us = to_us(len(replayed) / job.rate_per_second) if job.rate_per_second else 0
    counted = AdvancedReplay(
        seq=seq,
        at_us=now_us,
        slack_us=SLACK_US,
        replayed=len(replayed),
        skipped=skipped,
        through_seq=through,
        pause_us=pause_us,
    )
    yield Batch("add_to_replay", [counted])
    wait_us = max(min(wait_us, 0), -SLACK_US) + pause_us
    besides = [entry for one in replayed for entry in one.entries[1:]] + woken
    return Advance([one.entries[0] for one in replayed], skipped, max(0, wait_us), besides)


def replay_members(
    node: str, job: ReplayJob, members: Sequence[Member], signals: Collection[str], now_us: int
) -> Steps[tuple[dict[int, str], list[Replayed], list[Entry]]]:
    """Replay those of the members that nothing stands in the way of.

    Returns what does for each, nothing for these, and the entries of parked events that were woken by it.
    """
    reason = f"{job.reason} (bulk replay {job.id})"
    wanted = [
        Wanted(one.seq, one.event_id, one.run, one.state, job.begins_from, reason, acted_by=job.acted_by)
        for one in members
    ]
    plans = yield from replaying.planned(wanted)
    given_back = yield from replaying.taken_signals(plans)
    now = yield from replaying.locked(plans, given_back)
    awaited = (yield from of_types([one.seq for one in members], signals)) if signals else set()
    notes = {
        one.seq: why_skipped(one, now.get(one.seq)) or (SIGNAL if one.seq in awaited else plan.objection)
        for one, plan in zip(members, plans, strict=True)
    }
    free = [plan for plan in plans if not notes[plan.wanted.seq]]
    replayed, woken = yield from replaying.carry_out(node, free, given_back, now, now_us)
    return notes, replayed, woken


def of_types(seqs: Sequence[int], types: Collection[str]) -> Steps[set[int]]:
    """Fetch which of the events are of one of these types."""
    rows = yield Fetch("types_of_events", {"seqs": list(seqs)})
    return {seq for seq, event_type in rows if event_type in types}


def skip_next(seq: int, note: str, now_us: int) -> Steps[int]:
    """Leave the next member of a job alone and go on behind it; returns how many that was, none in other hands."""
    rows = yield Fetch("lock_replay", {"seq": seq, "now_us": now_us})
    if not rows:
        return 0
    *columns, _ = rows[0]
    job = replay_job(columns)
    rows = yield Fetch("waiting_members", {"replay_seq": seq, "after_seq": job.through_seq, "count": 1})
    members = [member(row) for row in rows]
    if members:
        yield Batch("mark_members", [taken(seq, one, note) for one in members])
        counted = AdvancedReplay(seq=seq, at_us=now_us, slack_us=SLACK_US, skipped=1, through_seq=members[-1].seq)
        yield Batch("add_to_replay", [counted])
    return len(members)


def taken(seq: int, one: Member, note: str) -> MarkedMember:
    """Return the row that marks a member as replayed, or as skipped when a note says why."""
    outcome = MemberOutcome.SKIPPED if note else MemberOutcome.REPLAYED
    return MarkedMember(replay_seq=seq, event_seq=one.seq, before=MemberOutcome.WAITING, outcome=outcome, note=note)


def ended_as(seq: int, one: Member, end: MemberOutcome) -> MarkedMember:
    """Return the row that marks a replayed member as it ended."""
    return MarkedMember(replay_seq=seq, event_seq=one.seq, before=MemberOutcome.REPLAYED, outcome=end, note="")


def look_at_open(seq: int, after_seq: int, count: int) -> Steps[tuple[list[tuple[Member, MemberOutcome]], int]]:
    """Fetch those of the next replayed members that have come to their ends, and where the next look goes on."""
    rows = yield Fetch("open_members", {"replay_seq": seq, "after_seq": after_seq, "count": count})
    members = [member(row) for row in rows]
    found = yield Fetch("states_of_events", {"seqs": [one.seq for one in members]})
    now = states_by_seq(found)
    ends = [(one, outcome_now(one, now.get(one.seq))) for one in members]
    ended: list[tuple[Member, MemberOutcome]] = [(one, end) for one, end in ends if end is not MemberOutcome.REPLAYED]
    return ended, members[-1].seq if len(members) == count else 0


def follow(seq: int, after_seq: int, count: int, now_us: int) -> Steps[Followed]:
    """Count those of the next replayed members that have come to their ends; none while another daemon does."""
    rows = yield Fetch("lock_replay", {"seq": seq, "now_us": now_us})
    if not rows:
        return Followed(0, after_seq)
    ended, next_seq = yield from look_at_open(seq, after_seq, count)
    yield Batch("mark_members", [ended_as(seq, one, end) for one, end in ended])
    ends = Counter(end for _, end in ended)
    counted = AdvancedReplay(
        seq=seq,
        at_us=now_us,
        slack_us=SLACK_US,
        succeeded=ends[MemberOutcome.SUCCEEDED],
        dead_lettered=ends[MemberOutcome.DEAD_LETTERED],
        superseded=ends[MemberOutcome.SUPERSEDED],
    )
    yield Batch("add_to_replay", [counted])
    return Followed(len(ended), next_seq)


def move(job: ReplayJob, target: JobState, resumes_as: JobState, note: str, now_us: int) -> Steps[bool]:
    """Move a job from the state the caller saw; False when it moved meanwhile."""
    moved = MovedReplay(seq=job.seq, state=job.state, target=target, resumes_as=resumes_as, note=note, at_us=now_us)
    changed = yield Batch("move_replay", [moved])
    return bool(changed[0][0])


def retire(before_us: int, count: int) -> Steps[int]:
    """Remove members of the oldest job that ended before a time, and the job with its last ones; returns how many."""
    rows = yield Fetch("retirable_replay", {"before_us": before_us})
    if not rows:
        return 0
    seq = rows[0][0]
    members = yield Fetch("waiting_members", {"replay_seq": seq, "after_seq": 0, "count": count})
    if members:
        yield Fetch("delete_members", {"replay_seq": seq, "through_seq": member(members[-1]).seq})
    if len(members) < count:
        yield Batch("delete_replays", [RemovedReplay(seq=seq)])
    return len(members)


# Looking at them


def find(seq: int) -> Steps[tuple[ReplayJob, list[Skip]] | None]:
    """Fetch one job with why members of it were left alone."""
    rows = yield Fetch("replay", {"seq": seq})
    if not rows:
        return None
    skips = yield Fetch("replay_skips", {"replay_seq": seq, "count": SKIPS_MAX})
    return replay_job(rows[0]), [Skip(*row) for row in skips]


def list_jobs(before_seq: int | None, limit: int) -> Steps[list[ReplayJob]]:
    """Fetch jobs, newest first."""
    rows = yield Fetch("list_replays", {"before_seq": before_seq or SEQ_MAX, "count": limit})
    return [replay_job(row) for row in rows]


def active() -> Steps[list[ReplayJob]]:
    """Fetch the oldest jobs that have something left to do or to follow."""
    rows = yield Fetch("active_replays", {"count": ACTIVE_MAX})
    return [replay_job(row) for row in rows]


def states_by_seq(rows: Sequence[Row]) -> dict[int, Now]:
    """Return row number -> (id, run, state) of events as they are now."""
    return {row[0]: (row[1], row[2], State(row[3])) for row in rows}
