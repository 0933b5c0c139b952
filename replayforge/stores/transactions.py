"""Claims, outcomes, leases and due times, each as one transaction: fetch, decide, write."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import starmap

import msgspec

from replayforge.domain.admission import Admission, Preference
from replayforge.domain.errors import ReplayForgeError
from replayforge.domain.event import ClaimedEvent, Content, Entry, Lease, SeenLease, StoredEvent
from replayforge.domain.journal import AwaitedEvent, StepRecord
from replayforge.domain.lifecycle import OPEN, TIMED, Outcome, State
from replayforge.domain.reclaim import InFlight, Reclaim
from replayforge.domain.reports import Node
from replayforge.domain.verdict import Verdict, error_signature
from replayforge.stores import journals, wakes
from replayforge.stores.batches import (
    EndedAttempt,
    HandedBackEvent,
    NodeReport,
    ReclaimedEvent,
    SettledEvent,
    WaitingEvent,
)
from replayforge.stores.burial import bury
from replayforge.stores.driver import Batch, Fetch, Steps
from replayforge.stores.journals import ParkedEvent, StepCommit
from replayforge.stores.rows import Row, as_bytes, left_event, stored_event
from replayforge.stores.suspicions import written
from replayforge.stores.tallies import moves, tally, tally_deferred
from replayforge.stores.wakes import Child

Decide = Callable[[Sequence[InFlight]], Sequence[Reclaim]]


class Settlement(msgspec.Struct, frozen=True):
    """What an attempt decided, to be committed if its lease still stands.

    `journal` is the number of the journal that its handler has used, 0 for one that made no call of ctx; `records` are
    steps that are committed together with it. One that `parked` leaves no attempt behind: its event waits, for
    `verdict.due_at_us`, for events that `waits` names, or for the children of its pending calls. `failed_steps` are
    those whose failures the exception carried that ended the attempt. With `restart` its event goes on at once with its
    next journal, for which that is the payload. `waited` says that its handler has waited for something outside.
    `label` names the code of a handler that has used its journal.
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
    waits: tuple[AwaitedEvent, ...] = ()
    failed_steps: tuple[str, ...] = ()
    waited: bool = False
    restart: bytes | None = None
    label: str = ""

    @property
    def lease(self) -> Lease:
        """What must still be held."""
        return self.event.lease

    @property
    def next_journal(self) -> int:
        """The journal that its event goes on with."""
        return self.journal if self.restart is None else self.journal + 1


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
    type) of events that nobody can ever be given. `preferred` are left for daemons whose code has parked them.
    """

    taken: list[ClaimedEvent]
    deferred: dict[str, int]
    left: list[Entry] = field(default_factory=list)
    buried: list[tuple[str, str]] = field(default_factory=list)
    preferred: list[Entry] = field(default_factory=list)


def claim(
    node: str,
    owner: str,
    entries: Sequence[Entry],
    admission: Admission,
    now_us: int,
    preference: Preference | None = None,
) -> Steps[ClaimResult]:
    """Take the queued ones of these entries under a lease; those without admission begin to wait."""
    lease = {"owner": owner, "now_us": now_us}
    rows = yield Fetch("claimable_events", {**lease, "entries": list(dict(entries).items())})
    if preference is None or not rows:
        return (yield from admit(node, rows, admission, lease))
    asked = {"seqs": [row[0] for row in rows], "labels": sorted(preference.labels), "now_us": now_us}
    found = yield Fetch("preferred_elsewhere", asked | {"prefer_us": preference.prefer_us})
    preferred = {row[0] for row in found}
    given = yield from admit(node, [row for row in rows if row[0] not in preferred], admission, lease)
    given.preferred.extend(as_claimed(row).event.entry for row in rows if row[0] in preferred)
    return given


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
        pattern = counter.waits_for(one.event.route)
        if pattern is not None:
            away.append(WaitingEvent(seq=one.event.seq, waits_for=pattern))
        elif admitted and row[-1] > room_bytes:
            left.append(one.event.entry)
        else:
            counter.admit(one.event.route)
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
    whole = yield from with_restarts((yield from with_contents(events)))
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
    return [msgspec.structs.replace(one, content=contents.get(one.event.seq, one.content)) for one in events]


def with_restarts(events: Sequence[ClaimedEvent]) -> Steps[Sequence[ClaimedEvent]]:
    """Let what restarts have left stand for the payloads that events came with; who has none costs no statement."""
    again = [one.event.seq for one in events if one.is_restarted]
    if not again:
        return events
    rows = yield Fetch("restart_payloads", {"seqs": again})
    if not rows:
        return events
    payloads = {row[0]: bytes(row[1]) for row in rows}
    return [
        ClaimedEvent(one.event, Content(payloads[one.event.seq], one.content.metadata), one.lease)
        if one.event.seq in payloads
        else one
        for one in events
    ]


def is_readable(content: Content) -> bool:
    """Tell whether what came with an event is there, and is text as all JSON is."""
    try:
        return content is not UNREAD and content.payload.decode() is not None and content.metadata.decode() is not None
    except UnicodeDecodeError:
        return False


def as_claimed(row: Row) -> ClaimedEvent:
    """Read a row of the claimed columns."""
    is_restarted, payload, metadata = row[-4:-1]
    content = UNREAD if payload is None else Content(as_bytes(payload), as_bytes(metadata))
    event = stored_event(row[:-4])
    return ClaimedEvent(event, content, event.lease, bool(is_restarted))


class LeaseLost(ReplayForgeError):
    """Not all of the leases stood, so nothing was written."""


def settle_all(node: str, owner: str, settlements: Sequence[Settlement]) -> Steps[Settled]:
    """Commit the outcomes without a look at their leases, as nearly all stand; raises LeaseLost where one does not."""
    related = yield from locked(settlements)
    ((changed,),) = yield Batch("settle_events", [settled_event(settlement, owner) for settlement in settlements])
    if changed < len(settlements):
        raise LeaseLost
    return Settled([], (yield from recorded(node, owner, settlements, related)))


def settle_held(node: str, owner: str, settlements: Sequence[Settlement]) -> Steps[Settled]:
    """Commit the outcomes whose lease still stands.

    An outcome that an earlier commit already recorded, whose answer was lost on the way, is neither committed again
    nor called fenced.
    """
    related = yield from locked(settlements)
    rows = yield Fetch("held_leases", {"leases": [settlement.lease for settlement in settlements], "owner": owner})
    held = set(starmap(Lease, rows))
    valid = [settlement for settlement in settlements if settlement.lease in held]
    yield Batch("settle_events", [settled_event(settlement, owner) for settlement in valid])
    woken = yield from recorded(node, owner, valid, [one for one in related if one.lease in held])
    return Settled((yield from fenced_of(settlements, held)), woken)


def locked(settlements: Sequence[Settlement]) -> Steps[list[Settlement]]:
    """Return those that concern others than their own events, once what they touch is locked."""
    related = [one for one in settlements if one.journal or one.event.origin is not None]
    if related:
        yield from lock_before(related)
    return related


def recorded(
    node: str, owner: str, settlements: Sequence[Settlement], related: Sequence[Settlement]
) -> Steps[list[Entry]]:
    """Write what belongs to outcomes whose events have moved; returns the entries of those that are woken."""
    yield Batch("insert_attempts", [ended_attempt(one, owner) for one in settlements if not one.parked])
    yield tally(node, moves(State.PROCESSING, (settlement.verdict.state for settlement in settlements)))
    return (yield from go_on(node, related)) if related else []


def lock_before(settlements: Sequence[Settlement]) -> Steps[None]:
    """Lock what settling these touches beside their own rows: the workflows whose signals they await, their parents."""
    parked = [settlement.event for settlement in settlements if settlement.waits]
    yield from wakes.lock_workflows((event.application_name, event.workflow_id) for event in parked)
    yield from wakes.lock_families(settlement.event for settlement in settlements)


def go_on(node: str, settlements: Sequence[Settlement]) -> Steps[list[Entry]]:
    """Write what settled events remember, and wake whom that concerns; returns their entries.

    Parents learn how their children have ended. An event that was parked is woken at once where something that it waits
    for has come true meanwhile; one that is asked to end does not wait.
    """
    woken: list[Entry] = []
    journaled = [settlement for settlement in settlements if settlement.journal]
    if journaled:
        at_us = max(settlement.ended_at_us for settlement in journaled)
        parks = yield from keep_journals(journaled)
        calling = [(park.event.seq, park.journal, park.event.lease_token) for park in parks]
        woken += yield from wakes.look_for_answers(node, calling, at_us)
        awaited = [key for park in parks for key in park.awaited]
        woken += (yield from wakes.match_signals(node, awaited, len(awaited), at_us)) if awaited else []
        restarted = [settlement.event.seq for settlement in journaled if settlement.restart is not None]
        woken += yield from journals.wake(node, restarted, at_us)
        yield from hasten_cancelled(journaled, at_us)
    ended = [
        Child(one.event.id, one.verdict.state, one.result) for one in settlements if one.event.parent_id is not None
    ]
    if ended:
        woken += yield from wakes.answer_parents(node, ended, max(one.ended_at_us for one in settlements))
    return woken


def hasten_cancelled(settlements: Sequence[Settlement], at_us: int) -> Steps[None]:
    """Let those that are asked to end wait for nothing any more; code that was told of it may wait as it likes."""
    waiting = [one.event.seq for one in settlements if one.verdict.state in TIMED]
    if not waiting:
        return
    requested = yield from journals.cancel_requests(waiting)
    if requested:
        told = yield Fetch("told_of_cancel", {"seqs": sorted(requested)})
        untold = requested.difference(seq for (seq,) in told)
        yield Fetch("hasten_events", {"seqs": sorted(untold), "now_us": at_us})


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


def keep_journals(settlements: Sequence[Settlement]) -> Steps[list[ParkedEvent]]:
    """Write what settled events remember, and what those of them wait for that are parked; returns these."""
    commits = [
        StepCommit(one.event, one.journal, one.records, one.started_at_us, ended_by=ended_by(one), label=one.label)
        for one in settlements
    ]
    restarts = [
        StepCommit(one.event, one.next_journal, (), one.started_at_us, payload=one.restart, label=one.label)
        for one in settlements
        if one.restart is not None
    ]
    yield from journals.write_steps([*commits, *restarts], {one.event.seq for one in settlements if one.parked})
    parks = [ParkedEvent(one.event, one.next_journal, one.waits, one.ended_at_us) for one in settlements if one.parked]
    yield from journals.park(parks)
    yield from journals.forget_waits(one.event.seq for one in settlements if one.verdict.state not in OPEN)
    return parks


def ended_by(settlement: Settlement) -> tuple[str, ...] | None:
    """Return the steps whose failures have ended a run; None for one that goes on, or came to a good end."""
    return settlement.failed_steps if settlement.verdict.state is State.DEAD_LETTERED else None


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
    that the daemon of each log reported last. `now_us` is the store's time, None before the first report. `labels` are
    those of the code that each daemon runs, of those that have not stopped."""

    leases: dict[Lease, int]
    nodes: dict[str, tuple[str, int]]
    now_us: int | None
    labels: dict[str, frozenset[str]]


decode_labels = msgspec.json.Decoder(frozenset[str]).decode


def beats(owner: str, now_us: int, limit: int) -> Steps[Beats]:
    """Fetch the leases of all other owners and the daemons, with the beat that each was seen at last."""
    leases = yield Fetch("lease_beats", {"owner": owner, "count": limit})
    nodes = yield Fetch("node_beats", {"now_us": now_us})
    return Beats(
        leases={Lease(seq, token): beat for seq, token, beat in leases},
        nodes={row[0]: (row[1], row[2]) for row in nodes},
        now_us=nodes[0][3] if nodes else None,
        labels={row[0]: decode_labels(row[4]) for row in nodes},
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
        labels=report.labels,
        stopped=report.stopped,
        seen_at_us=now_us,
    )


def promote(node: str, now_us: int, limit: int, signals: Sequence[str]) -> Steps[tuple[list[Entry], int | None]]:
    """Queue what has waited for its time; returns the entries and when the next one falls due.

    Events of the types that are `signals` are given to whoever waits for them, or kept.
    """
    woken = (yield from keep_due(node, now_us, limit, signals)) if signals else []
    rows = yield Fetch("promote_due", {"now_us": now_us, "count": limit, "signals": signals})
    before = Counter(State(row[2]) for row in rows)
    yield tally(node, {**{state: -count for state, count in before.items()}, State.QUEUED: len(rows)})
    yield from journals.count_wakes([row[4] for row in rows if row[2] == State.WAITING])
    due = yield Fetch("next_due", {"now_us": now_us})
    return [*woken, *(Entry(row[0], row[1]) for row in rows)], due[0][0]


def keep_due(node: str, now_us: int, limit: int, signals: Sequence[str]) -> Steps[list[Entry]]:
    """Keep signals whose time has come, or give them to whoever waits for them; returns whom that has woken."""
    due = yield Fetch("due_signals", {"now_us": now_us, "count": limit, "signals": signals})
    if not due:
        return []
    keys = [(row[1], row[2], row[3]) for row in due]
    yield from wakes.lock_workflows(keys)
    rows = yield Fetch("keep_signals", {"seqs": [row[0] for row in due], "now_us": now_us})
    yield tally(node, moves(State.SCHEDULED, [State.KEPT] * len(rows)))
    return (yield from wakes.match_signals(node, keys, len(rows), now_us))


def promote_stranded(node: str, now_us: int, ahead_us: int, limit: int) -> Steps[list[Entry]]:
    """Queue retries that were decided further ahead of now; returns their entries."""
    rows = yield Fetch("promote_stranded", {"now_us": now_us, "ahead_us": ahead_us, "count": limit})
    yield tally(node, moves(State.RETRYING, [State.QUEUED] * len(rows)))
    return [Entry(*row) for row in rows]
