"""Claims, outcomes, leases and what people do to events, each as one transaction: fetch, decide, write."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import starmap

import msgspec

from replayforge.domain.admission import Admission
from replayforge.domain.event import ClaimedEvent, Content, Entry, Lease, SeenLease, StoredEvent
from replayforge.domain.journal import StepRecord, Wait
from replayforge.domain.lifecycle import OPEN, Outcome, Reason, State
from replayforge.domain.reclaim import InFlight, Reclaim
from replayforge.domain.reports import Node
from replayforge.domain.verdict import Verdict, error_signature
from replayforge.stores import journals
from replayforge.stores.batches import (
    EndedAttempt,
    HandedBackEvent,
    MovedEvent,
    NodeReport,
    NotedAction,
    ReclaimedEvent,
    ReplayedEvent,
    SettledEvent,
    WaitingEvent,
)
from replayforge.stores.burial import bury
from replayforge.stores.driver import Batch, Fetch, Steps
from replayforge.stores.journals import Park, StepCommit
from replayforge.stores.rows import Row, as_bytes, left_event, stored_event
from replayforge.stores.suspicions import written
from replayforge.stores.tallies import WAITS_FOR, moves, tally, tally_deferred

Decide = Callable[[Sequence[InFlight]], Sequence[Reclaim]]


class Settlement(msgspec.Struct, frozen=True):
    """What an attempt decided, to be committed if its lease still stands.

    `journal` is the number of the journal that its handler has used, 0 for one that made no call of ctx; `records` are
    steps that are committed together with it. One that `parked` leaves no attempt behind: its event waits, for
    `verdict.due_at_us`, for events that `waits` names, or for the children of its pending calls.
    """

    event: StoredEvent
    outcome: Outcome
    verdict: Verdict
    worker: str
    started_at_us: int
    ended_at_us: int
    error: str | None = None
    error_signature: str | None = None
    result: bytes | None = None
    journal: int = 0
    records: tuple[StepRecord, ...] = ()
    parked: bool = False
    waits: tuple[Wait, ...] = ()

    @property
    def lease(self) -> Lease:
        """What must still be held."""
        return self.event.lease


class Settled(msgspec.Struct, frozen=True):
    """What became of outcomes: those whose lease was lost before, and the entries of events that they have woken."""

    fenced: list[Settlement]
    woken: list[Entry]


SUSPECTS_PER_CLAIM_MAX = 100
CLAIM_BYTES_MAX = 32 << 20  # of what came with the events
UNREAD = Content(b"", b"")  # stands for what was left out for its size until it is fetched
UNREADABLE = "What came with this event is gone from the store, or is not text: it cannot be given to a handler."


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """The events that were claimed, and for each handler that had no room how many have to wait for it.

    `left` are entries that were left alone, because those taken are large enough together; `buried` are the (id, event
    type) of events that nobody can ever be given.
    """

    taken: list[ClaimedEvent]
    deferred: dict[str, int]
    left: list[Entry] = field(default_factory=list)
    buried: list[tuple[str, str]] = field(default_factory=list)


def claim(node: str, owner: str, entries: Sequence[Entry], admission: Admission, now_us: int) -> Steps[ClaimResult]:
    """Take the queued ones of these entries under a lease; those without admission begin to wait."""
    lease = {"owner": owner, "now_us": now_us}
    rows = yield Fetch("claimable_events", {**lease, "entries": list(dict(entries).items())})
    return (yield from admit(node, rows, admission, lease))


def claim_suspect(node: str, owner: str, admission: Admission, now_us: int) -> Steps[ClaimResult]:
    """Take the likeliest suspect that has admission; likelier ones that have none wait for their handlers."""
    lease = {"owner": owner, "now_us": now_us}
    deferred: Counter[str] = Counter()
    for _ in range(SUSPECTS_PER_CLAIM_MAX):
        rows = yield Fetch("claimable_suspect", lease)
        claimed = yield from admit(node, rows, admission, lease)
        deferred.update(claimed.deferred)
        if claimed.taken or claimed.buried or not rows:
            return ClaimResult(claimed.taken, dict(deferred), buried=claimed.buried)
    return ClaimResult([], dict(deferred))


def admit(node: str, rows: Sequence[Row], admission: Admission, lease: Mapping[str, object]) -> Steps[ClaimResult]:
    """Take those of the events that have admission, as far as they fit; those without wait for their handlers."""
    counter = admission.counter()
    admitted: list[ClaimedEvent] = []
    away: list[WaitingEvent] = []
    left: list[Entry] = []
    room_bytes = CLAIM_BYTES_MAX
    for row in rows:
        one = as_claimed(row)
        pattern = counter.waits_for(one.event.event_type)
        if pattern is not None:
            away.append(WaitingEvent(seq=one.event.seq, waits_for=pattern))
        elif admitted and row[-1] > room_bytes:
            left.append(one.event.entry)
        else:
            counter.admit(one.event.event_type)
            admitted.append(one)
            room_bytes -= row[-1]
    if away:
        yield Batch("let_wait", away)
        yield tally_deferred(node, counter.deferred)
    taken, buried = yield from take_events(node, admitted, lease)
    return ClaimResult(taken, dict(counter.deferred), left, buried)


def take_events(
    node: str, events: Sequence[ClaimedEvent], lease: Mapping[str, object], waited_for: str | None = None
) -> Steps[tuple[list[ClaimedEvent], list[tuple[str, str]]]]:
    """Take queued events, which were fetched as they will be, under a lease; what nobody can read is buried instead.

    Returns those taken, with what came with them, and the (id, event type) of those buried.
    """
    whole = yield from with_contents(events)
    taken = [one for one in whole if is_readable(one.content)]
    buried: list[tuple[str, str]] = []
    if taken:
        yield Fetch("claim_events", {**lease, "seqs": [one.event.seq for one in taken]})
        yield tally(node, {State.QUEUED: -len(taken), State.PROCESSING: len(taken)})
    if len(taken) < len(whole):
        now_us = whole[0].event.updated_at_us
        for one in whole:
            if not is_readable(one.content):
                buried += yield from bury(node, one.event.entry, UNREADABLE, now_us, waits_for=waited_for)
    return taken, buried


def with_contents(events: Sequence[ClaimedEvent]) -> Steps[Sequence[ClaimedEvent]]:
    """Fetch what was left out for its size."""
    left_out = [one.event.seq for one in events if one.content is UNREAD]
    if not left_out:
        return events
    rows = yield Fetch("contents", {"seqs": left_out})
    contents = {row[0]: Content(bytes(row[1]), bytes(row[2])) for row in rows}
    return [ClaimedEvent(one.event, contents.get(one.event.seq, one.content), one.lease) for one in events]


def is_readable(content: Content) -> bool:
    """Tell whether what came with an event is there, and is text as all JSON is."""
    try:
        return content is not UNREAD and content.payload.decode() is not None and content.metadata.decode() is not None
    except UnicodeDecodeError:
        return False


def as_claimed(row: Row) -> ClaimedEvent:
    """Read a row of the claimed columns."""
    payload, metadata = row[-3:-1]
    content = UNREAD if payload is None else Content(as_bytes(payload), as_bytes(metadata))
    return ClaimedEvent.of(stored_event(row[:-3]), content)


def settle(node: str, owner: str, settlements: Sequence[Settlement]) -> Steps[Settled]:
    """Commit the outcomes whose lease still stands.

    An outcome that an earlier commit already recorded, whose answer was lost on the way, is neither committed again
    nor called fenced.
    """
    leases = [settlement.lease for settlement in settlements]
    rows = yield Fetch("held_leases", {"leases": leases, "owner": owner})
    held = set(starmap(Lease, rows))
    valid = [one for one, lease in zip(settlements, leases, strict=True) if lease in held]
    attempts = [ended_attempt(settlement, owner) for settlement in valid if not settlement.parked]
    yield Batch("insert_attempts", attempts)
    yield Batch("settle_events", [settled_event(settlement, owner) for settlement in valid])
    yield tally(node, moves(State.PROCESSING, (settlement.verdict.state for settlement in valid)))
    journaled = [settlement for settlement in valid if settlement.journal]
    if journaled:
        yield from keep_journals(journaled)
    fenced = (yield from fenced_of(settlements, held)) if len(valid) < len(settlements) else []
    return Settled(fenced, [])


def fenced_of(settlements: Sequence[Settlement], held: set[Lease]) -> Steps[list[Settlement]]:
    """Return those that came too late and that no earlier commit has recorded."""
    late = [settlement for settlement in settlements if settlement.lease not in held]
    recorded = yield Fetch("recorded_attempts", {"leases": [one.lease for one in late if not one.parked]})
    ours = {(Lease(seq, token), outcome, ended_at_us) for seq, token, outcome, ended_at_us in recorded}
    parked: set[Lease] = set()
    if parks := [one.lease for one in late if one.parked]:
        rows = yield Fetch("recorded_parks", {"leases": parks})
        parked = set(starmap(Lease, rows))
    return [
        one
        for one in late
        if (one.lease not in parked if one.parked else (one.lease, one.outcome, one.ended_at_us) not in ours)
    ]


def keep_journals(settlements: Sequence[Settlement]) -> Steps[None]:
    """Write what settled events remember, and what those of them wait for that are parked."""
    commits = [StepCommit(one.event, one.journal, one.records, one.started_at_us) for one in settlements]
    yield from journals.write_steps(commits, {one.event.seq for one in settlements if one.parked})
    yield from journals.park(
        [Park(one.event, one.journal, one.waits, one.ended_at_us) for one in settlements if one.parked]
    )
    yield from journals.forget_waits(one.event.seq for one in settlements if one.verdict.state not in OPEN)


def ended_attempt(settlement: Settlement, owner: str) -> EndedAttempt:
    """Return the row that records an attempt."""
    event = settlement.event
    return EndedAttempt(
        event_seq=event.seq,
        token=event.lease_token,
        run=event.run,
        number=event.attempt_count + 1,
        outcome=settlement.outcome,
        ended_run=settlement.verdict.state not in OPEN,
        owner=owner,
        worker=settlement.worker,
        started_at_us=settlement.started_at_us,
        ended_at_us=settlement.ended_at_us,
        error=settlement.error,
        error_signature=settlement.error_signature,
    )


def settled_event(settlement: Settlement, owner: str) -> SettledEvent:
    """Return the row that moves an event after an attempt."""
    event, verdict = settlement.event, settlement.verdict
    return SettledEvent(
        seq=event.seq,
        token=event.lease_token,
        owner=owner,
        state=verdict.state,
        attempt_count=verdict.attempt_count,
        crashes=verdict.crashes,
        due_at_us=verdict.due_at_us,
        reason=verdict.reason,
        last_error=settlement.error,
        error_signature=settlement.error_signature,
        result=settlement.result,
        at_us=settlement.ended_at_us,
    )


def hand_back(node: str, owner: str, leases: Sequence[Lease], now_us: int) -> Steps[int]:
    """Return claimed events that no worker started; returns how many were held."""
    rows = yield Fetch("held_leases", {"leases": leases, "owner": owner})
    held = sorted(starmap(Lease, rows))
    yield Batch(
        "hand_back_events",
        [HandedBackEvent(seq=lease.seq, token=lease.token, owner=owner, at_us=now_us) for lease in held],
    )
    yield tally(node, moves(State.PROCESSING, [State.QUEUED] * len(held)))
    return len(held)


def bury_suspect(node: str, error: str, now_us: int) -> Steps[ClaimResult]:
    """Bury the suspect that would be claimed next."""
    rows = yield Fetch("suspect_entry", {})
    buried = (yield from bury(node, Entry(*rows[0]), error, now_us)) if rows else []
    return ClaimResult([], {}, buried=buried)


def touch() -> Steps[None]:
    """Write without changing anything."""
    yield Fetch("touch")


def in_flight(owner_prefix: str, limit: int) -> Steps[list[InFlight]]:
    """Fetch what owners whose name begins like this left in processing."""
    rows = yield Fetch("in_flight", {"owner_pattern": prefix_pattern(owner_prefix), "count": limit})
    return [left_event(row) for row in rows]


def prefix_pattern(prefix: str) -> str:
    """Return the LIKE pattern of all that begins like this."""
    return prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"


def reclaim(node: str, reclaims: Sequence[Reclaim], error: str, now_us: int) -> Steps[list[Reclaim]]:
    """Take back what a crash left behind: an attempt row for each, and the state that was decided.

    Events that are no longer held under the token they were seen with are left alone; returns those taken back.
    """
    leases = [decided.event.lease for decided in reclaims]
    rows = yield Fetch("held_leases", {"leases": leases, "owner": None})
    held = set(starmap(Lease, rows))
    taken = [decided for decided in reclaims if decided.event.lease in held]
    yield Batch("insert_attempts", [crashed_attempt(decided, error, now_us) for decided in taken])
    yield Batch("reclaim_events", [reclaimed_event(decided, error, now_us) for decided in taken])
    yield tally(node, moves(State.PROCESSING, (decided.verdict.state for decided in taken)))
    return taken


def crashed_attempt(decided: Reclaim, error: str, now_us: int) -> EndedAttempt:
    """Return the row that records an attempt which a crash ended."""
    event = decided.event
    return EndedAttempt(
        event_seq=event.seq,
        token=event.token,
        run=event.run,
        number=event.attempt_count + 1,
        outcome=decided.outcome,
        ended_run=decided.verdict.state not in OPEN,
        owner=event.owner,
        worker=event.worker,
        started_at_us=event.started_at_us,
        ended_at_us=now_us,
        error=error,
        error_signature=error_signature(error),
    )


def reclaimed_event(decided: Reclaim, error: str, now_us: int) -> ReclaimedEvent:
    """Return the row that moves an event after a crash."""
    event, verdict = decided.event, decided.verdict
    return ReclaimedEvent(
        seq=event.seq,
        token=event.token,
        owner=event.owner,
        state=verdict.state,
        crashes=verdict.crashes,
        reason=verdict.reason,
        last_error=error,
        error_signature=error_signature(error),
        suspect=decided.isolation,
        suspicion=written(decided.suspicion),
        at_us=now_us,
    )


@dataclass(frozen=True, slots=True)
class Beats:
    """What an observer sees of the others: the beat at which each lease was renewed last, and the (incarnation, beat)
    that the daemon of each log reported last. `now_us` is the store's time, None before the first report."""

    leases: dict[Lease, int]
    nodes: dict[str, tuple[str, int]]
    now_us: int | None


def beats(owner: str, now_us: int, limit: int) -> Steps[Beats]:
    """Fetch the leases of all other owners and the daemons, with the beat that each was seen at last."""
    leases = yield Fetch("lease_beats", {"owner": owner, "count": limit})
    nodes = yield Fetch("node_beats", {"now_us": now_us})
    return Beats(
        leases={Lease(seq, token): beat for seq, token, beat in leases},
        nodes={log_id: (incarnation, beat) for log_id, incarnation, beat, _ in nodes},
        now_us=nodes[0][3] if nodes else None,
    )


def take_over(node: str, leases: Sequence[SeenLease], decide: Decide, error: str, now_us: int) -> Steps[list[Reclaim]]:
    """Take back those of the leases that nobody renewed since they were seen, as a pure function decides."""
    rows = yield Fetch("unrenewed_leases", {"leases": leases})
    reclaims = decide([left_event(row) for row in rows])
    return (yield from reclaim(node, reclaims, error, now_us)) if reclaims else []


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a beat found: the row numbers of leases that it renewed, and of those that stand.

    What stands and was not renewed is locked by somebody just now. `complete` says whether whatever else was to be
    renewed was.
    """

    renewed: frozenset[int]
    held: frozenset[int]
    complete: bool = True


def beat(
    owner: str,
    leases: Sequence[Lease],
    besides: Sequence[Lease] | None,
    now_us: int,
    report: Node,
) -> Steps[Renewal]:
    """Renew the leases that are still ours and report how this daemon is.

    With `besides` whatever this owner holds that is not among these is renewed too.
    """
    rows: Sequence[Row] = []
    others: Sequence[Row] = []
    if leases:
        rows = yield Fetch("renew_leases", {"owner": owner, "leases": leases})
    if besides is not None:
        others = yield Fetch("renew_unlisted", {"owner": owner, "leases": besides})
    yield Batch("report_node", [node_report(report, now_us)])
    return Renewal(
        renewed=frozenset(seq for seq, renewed in rows if renewed),
        held=frozenset(seq for seq, _ in rows),
        complete=all(renewed for _, renewed in others),
    )


def forget_nodes(log_ids: Sequence[str], silent_us: int, now_us: int) -> Steps[int]:
    """Forget those daemons of these logs that have been silent for long and left nothing behind; returns how many."""
    rows = yield Fetch("forget_nodes", {"log_ids": log_ids, "silent_us": silent_us, "now_us": now_us})
    return len(rows)


def node_report(report: Node, now_us: int) -> NodeReport:
    """Return the row that notes what a daemon says of itself."""
    return NodeReport(
        node=report.name,
        log_id=report.log_id,
        incarnation=report.incarnation,
        beat=report.beat,
        host=report.host,
        pid=report.pid,
        started_at_us=report.started_at_us,
        durable_offset=report.durable_offset,
        workers=report.workers,
        stopped=report.stopped,
        seen_at_us=now_us,
    )


def promote(node: str, now_us: int, limit: int) -> Steps[tuple[list[Entry], int | None]]:
    """Queue what has waited for its time; returns the entries and when the next one falls due."""
    rows = yield Fetch("promote_due", {"now_us": now_us, "count": limit})
    before = Counter(State(row[2]) for row in rows)
    yield tally(node, {**{state: -count for state, count in before.items()}, State.QUEUED: len(rows)})
    yield from journals.count_wakes([row[4] for row in rows if row[2] == State.WAITING])
    due = yield Fetch("next_due", {"now_us": now_us})
    return [Entry(event_id, run) for event_id, run, *_ in rows], due[0][0]


def promote_stranded(node: str, now_us: int, ahead_us: int, limit: int) -> Steps[list[Entry]]:
    """Queue retries that were decided further ahead of now; returns their entries."""
    rows = yield Fetch("promote_stranded", {"now_us": now_us, "ahead_us": ahead_us, "count": limit})
    yield tally(node, moves(State.RETRYING, [State.QUEUED] * len(rows)))
    return [Entry(*row) for row in rows]


def replay(node: str, event: StoredEvent, now_us: int, reason: str, request_key: str | None) -> Steps[bool]:
    """Queue a finished event for a new run; False when it was replayed or moved meanwhile."""
    replayed = ReplayedEvent(seq=event.seq, run=event.run, state=event.state, at_us=now_us)
    changed = yield Batch("replay_event", [replayed])
    if changed[0][0] != 1:
        return False
    yield Batch("insert_actions", [replay_note(replayed, reason, request_key)])
    yield tally(node, moves(event.state, [State.QUEUED]))
    return True


def replay_note(replayed: ReplayedEvent, reason: str, request_key: str | None = None) -> NotedAction:
    """Return the row that notes the run which a replay begins."""
    return NotedAction(
        event_seq=replayed.seq,
        at_us=replayed.at_us,
        run=replayed.run + 1,
        action="replayed",
        detail=reason,
        request_key=request_key,
    )


def move(
    node: str, event: StoredEvent, target: State, action: str, detail: str, now_us: int, due_at_us: int | None = None
) -> Steps[bool]:
    """Move an event by hand from the state the caller saw; False when it moved meanwhile."""
    given_up = event.state is State.HELD and target is State.DEAD_LETTERED
    reason = detail if target is State.DISCARDED else (event.reason or Reason.GIVEN_UP) if given_up else None
    moved = MovedEvent(
        seq=event.seq,
        run=event.run,
        state=event.state,
        target=target,
        reason=reason,
        due_at_us=due_at_us,
        at_us=now_us,
    )
    waits_for = yield from what_it_waits_for(event)
    changed = yield Batch("move_event", [moved])
    if changed[0][0] != 1:
        return False
    if waits_for is not None:
        yield tally(node, {WAITS_FOR + waits_for: -1})
    note = NotedAction(event_seq=event.seq, at_us=now_us, run=event.run, action=action, detail=detail)
    yield Batch("insert_actions", [note])
    yield tally(node, moves(event.state, [target]))
    return True


def what_it_waits_for(event: StoredEvent) -> Steps[str | None]:
    """Fetch which handler a queued event waits for by now, and let nobody change that before the transaction ends."""
    if event.state is not State.QUEUED:
        return None
    rows = yield Fetch("waiting", {"seq": event.seq})
    return rows[0][0] if rows else None
