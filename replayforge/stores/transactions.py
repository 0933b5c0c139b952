"""Everything that changes the store, each as one transaction: a generator that fetches, decides and writes."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from replayforge.domain.admission import Admission
from replayforge.domain.event import Claimed, Content, StoredEvent
from replayforge.domain.lifecycle import OPEN, Outcome, Reason, State
from replayforge.domain.poison import Isolation
from replayforge.domain.recovery import InFlight, Reclaim, Verdict, error_signature
from replayforge.domain.reports import Node
from replayforge.stores.burial import bury
from replayforge.stores.driver import Batch, Fetch, Row, Steps
from replayforge.stores.projection import as_bytes, stored_event
from replayforge.stores.suspicions import known_of, written
from replayforge.stores.tallies import WAITS_FOR, moves, tally, tally_waiting

Decide = Callable[[Sequence[tuple[int, InFlight]]], Sequence[tuple[int, Reclaim]]]


class Settlement(msgspec.Struct, frozen=True):
    """What an attempt decided, to be committed if its lease still stands."""

    event: StoredEvent
    outcome: Outcome
    verdict: Verdict
    worker: str
    started_at_us: int
    ended_at_us: int
    error: str | None = None
    error_signature: str | None = None
    result: bytes | None = None

    @property
    def lease(self) -> tuple[int, int]:
        """The (row number, token) pair that must still be held."""
        return (self.event.seq, self.event.lease_token)


SUSPECTS_PER_CLAIM_MAX = 100
CLAIM_BYTES_MAX = 32 << 20  # of what came with the events
UNREAD = Content(b"", b"")  # stands for what was left out for its size until it is fetched
UNREADABLE = "What came with this event is gone from the store, or is not text: it cannot be given to a handler."


@dataclass(frozen=True, slots=True)
class Claim:
    """The events that were claimed, and for each handler that had no room how many have to wait for it.

    `left` are (id, run) entries that were left alone, because those taken are large enough together; `buried` are the
    (id, event type) of events that nobody can ever be given.
    """

    taken: list[Claimed]
    deferred: dict[str, int]
    left: list[tuple[str, int]] = field(default_factory=list)
    buried: list[tuple[str, str]] = field(default_factory=list)


def claim(node: str, owner: str, entries: Sequence[tuple[str, int]], admission: Admission, now_us: int) -> Steps[Claim]:
    """Take the queued ones of these (id, run) entries under a lease; those without admission begin to wait."""
    lease = {"owner": owner, "now_us": now_us}
    rows = yield Fetch("claimable_events", {**lease, "entries": list(dict(entries).items())})
    return (yield from admit(node, rows, admission, lease))


def claim_suspect(node: str, owner: str, admission: Admission, now_us: int) -> Steps[Claim]:
    """Take the likeliest suspect that has admission; likelier ones that have none wait for their handlers."""
    lease = {"owner": owner, "now_us": now_us}
    deferred: Counter[str] = Counter()
    for _ in range(SUSPECTS_PER_CLAIM_MAX):
        rows = yield Fetch("claimable_suspect", lease)
        claimed = yield from admit(node, rows, admission, lease)
        deferred.update(claimed.deferred)
        if claimed.taken or claimed.buried or not rows:
            return Claim(claimed.taken, dict(deferred), buried=claimed.buried)
    return Claim([], dict(deferred))


def admit(node: str, rows: Sequence[Row], admission: Admission, lease: Mapping[str, object]) -> Steps[Claim]:
    """Take those of the events that have admission, as far as they fit; those without wait for their handlers."""
    counter = admission.counter()
    admitted: list[Claimed] = []
    away: list[tuple[str, int]] = []
    left: list[tuple[str, int]] = []
    room_bytes = CLAIM_BYTES_MAX
    for row in rows:
        one = as_claimed(row)
        pattern = counter.waits_for(one.event.event_type)
        if pattern is not None:
            away.append((pattern, one.event.seq))
        elif admitted and row[-1] > room_bytes:
            left.append((one.event.id, one.event.run))
        else:
            counter.admit(one.event.event_type)
            admitted.append(one)
            room_bytes -= row[-1]
    if away:
        yield Batch("let_wait", away)
        yield tally_waiting(node, counter.deferred)
    taken, buried = yield from take_events(node, admitted, lease)
    return Claim(taken, dict(counter.deferred), left, buried)


def take_events(
    node: str, events: Sequence[Claimed], lease: Mapping[str, object], waited_for: str | None = None
) -> Steps[tuple[list[Claimed], list[tuple[str, str]]]]:
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
                entry = (one.event.id, one.event.run)
                buried += yield from bury(node, entry, UNREADABLE, now_us, waits_for=waited_for)
    return taken, buried


def with_contents(events: Sequence[Claimed]) -> Steps[Sequence[Claimed]]:
    """Fetch what was left out for its size."""
    left_out = [one.event.seq for one in events if one.content is UNREAD]
    if not left_out:
        return events
    rows = yield Fetch("contents", {"seqs": left_out})
    contents = {row[0]: Content(bytes(row[1]), bytes(row[2])) for row in rows}
    return [Claimed(one.event, contents.get(one.event.seq, one.content)) for one in events]


def is_readable(content: Content) -> bool:
    """Tell whether what came with an event is there, and is text as all JSON is."""
    try:
        return content is not UNREAD and content.payload.decode() is not None and content.metadata.decode() is not None
    except UnicodeDecodeError:
        return False


def as_claimed(row: Row) -> Claimed:
    """Read a row of the claimed columns."""
    payload, metadata = row[-3:-1]
    content = UNREAD if payload is None else Content(as_bytes(payload), as_bytes(metadata))
    return Claimed(stored_event(row[:-3]), content)


def settle(node: str, owner: str, settlements: Sequence[Settlement]) -> Steps[list[Settlement]]:
    """Commit the outcomes whose lease still stands, and return those that were fenced.

    An outcome that an earlier commit already recorded, whose answer was lost on the way, is neither committed again
    nor called fenced.
    """
    leases = [settlement.lease for settlement in settlements]
    rows = yield Fetch("held_leases", {"leases": leases, "owner": owner})
    held = {(row[0], row[1]) for row in rows}
    valid = [settlement for settlement in settlements if settlement.lease in held]
    yield Batch("insert_attempts", [attempt_row(settlement, owner) for settlement in valid])
    yield Batch("settle_events", [settled_row(settlement, owner) for settlement in valid])
    yield tally(node, moves(State.PROCESSING, (settlement.verdict.state for settlement in valid)))
    if len(valid) == len(settlements):
        return []
    late = [settlement for settlement in settlements if settlement.lease not in held]
    recorded = yield Fetch("recorded_attempts", {"leases": [settlement.lease for settlement in late]})
    ours = {(row[0], row[1], row[2], row[3]) for row in recorded}
    return [one for one in late if (*one.lease, one.outcome, one.ended_at_us) not in ours]


def attempt_row(settlement: Settlement, owner: str) -> Row:
    """Return the parameters that record an ended attempt."""
    event, verdict = settlement.event, settlement.verdict
    return (
        event.seq,
        event.lease_token,
        event.run,
        event.attempt_count + 1,
        settlement.outcome,
        verdict.state not in OPEN,
        owner,
        settlement.worker,
        settlement.started_at_us,
        settlement.ended_at_us,
        settlement.error,
        settlement.error_signature,
    )


def settled_row(settlement: Settlement, owner: str) -> Row:
    """Return the parameters that move an event after an attempt."""
    event, verdict = settlement.event, settlement.verdict
    return (
        verdict.state,
        verdict.attempt_count,
        verdict.crashes,
        verdict.due_at_us,
        verdict.reason,
        settlement.error,
        settlement.error_signature,
        settlement.result,
        settlement.ended_at_us,
        event.seq,
        event.lease_token,
        owner,
    )


def hand_back(node: str, owner: str, leases: Sequence[tuple[int, int]], now_us: int) -> Steps[int]:
    """Return claimed events, given as (row number, token), that no worker started; returns how many were held."""
    rows = yield Fetch("held_leases", {"leases": leases, "owner": owner})
    held = sorted((row[0], row[1]) for row in rows)
    yield Batch("hand_back_events", [(now_us, seq, token, owner) for seq, token in held])
    yield tally(node, moves(State.PROCESSING, [State.QUEUED] * len(held)))
    return len(held)


def bury_suspect(node: str, error: str, now_us: int) -> Steps[Claim]:
    """Bury the suspect that would be claimed next."""
    rows = yield Fetch("suspect_entry", {})
    buried = (yield from bury(node, (rows[0][0], rows[0][1]), error, now_us)) if rows else []
    return Claim([], {}, buried=buried)


def touch() -> Steps[None]:
    """Write without changing anything."""
    yield Fetch("touch")


def in_flight(owner_prefix: str, limit: int) -> Steps[list[tuple[int, InFlight]]]:
    """Fetch (row number, event) of what owners whose name begins like this left in processing."""
    rows = yield Fetch("in_flight", {"owner_pattern": prefix_pattern(owner_prefix), "count": limit})
    return [left_event(row) for row in rows]


def left_event(row: Row) -> tuple[int, InFlight]:
    """Read the row of an event that somebody left in processing; returns its row number with it."""
    event = InFlight(*row[1:9])
    return row[0], replace(event, isolation=Isolation(row[9]), suspicion=known_of(row[10]))


def prefix_pattern(prefix: str) -> str:
    """Return the LIKE pattern of all that begins like this."""
    return prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"


def reclaim(node: str, reclaims: Sequence[tuple[int, Reclaim]], error: str, now_us: int) -> Steps[list[Reclaim]]:
    """Take back what a crash left behind: an attempt row for each, and the state that was decided.

    Events that are no longer held under the token they were seen with are left alone; returns those taken back.
    """
    leases = [(seq, decided.event.token) for seq, decided in reclaims]
    rows = yield Fetch("held_leases", {"leases": leases, "owner": None})
    held = {(row[0], row[1]) for row in rows}
    taken = [(seq, decided) for seq, decided in reclaims if (seq, decided.event.token) in held]
    yield Batch("insert_attempts", [crashed_attempt(seq, decided, error, now_us) for seq, decided in taken])
    yield Batch("reclaim_events", [crashed_event(seq, decided, error, now_us) for seq, decided in taken])
    yield tally(node, moves(State.PROCESSING, (decided.verdict.state for _, decided in taken)))
    return [decided for _, decided in taken]


def crashed_attempt(seq: int, decided: Reclaim, error: str, now_us: int) -> Row:
    """Return the parameters that record an attempt which a crash ended."""
    event = decided.event
    return (
        seq,
        event.token,
        event.run,
        event.attempt_count + 1,
        decided.outcome,
        decided.verdict.state not in OPEN,
    ) + (event.owner, event.worker, event.started_at_us, now_us, error, error_signature(error))


def crashed_event(seq: int, decided: Reclaim, error: str, now_us: int) -> Row:
    """Return the parameters that move an event after a crash."""
    event, verdict = decided.event, decided.verdict
    return (
        verdict.state,
        verdict.crashes,
        verdict.reason,
        error,
        error_signature(error),
        decided.isolation,
        written(decided.suspicion),
        now_us,
        seq,
        event.token,
        event.owner,
    )


@dataclass(frozen=True, slots=True)
class Beats:
    """What an observer sees of the others: the beat at which each lease, (row number, token), was renewed last, and the
    (incarnation, beat) that the daemon of each log reported last. `now_us` is the store's time, None before the first
    report."""

    leases: dict[tuple[int, int], int]
    nodes: dict[str, tuple[str, int]]
    now_us: int | None


def beats(owner: str, now_us: int, limit: int) -> Steps[Beats]:
    """Fetch the leases of all other owners and the daemons, with the beat that each was seen at last."""
    leases = yield Fetch("lease_beats", {"owner": owner, "count": limit})
    nodes = yield Fetch("node_beats", {"now_us": now_us})
    return Beats(
        leases={(seq, token): beat for seq, token, beat in leases},
        nodes={log_id: (incarnation, beat) for log_id, incarnation, beat, _ in nodes},
        now_us=nodes[0][3] if nodes else None,
    )


def take_over(
    node: str, leases: Sequence[tuple[int, int, int]], decide: Decide, error: str, now_us: int
) -> Steps[list[Reclaim]]:
    """Take back those of the (row number, token, beat) leases that nobody renewed, as a pure function decides."""
    rows = yield Fetch("unrenewed_leases", {"leases": leases})
    pairs = decide([left_event(row) for row in rows])
    return (yield from reclaim(node, pairs, error, now_us)) if pairs else []


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
    leases: Sequence[tuple[int, int]],
    besides: Sequence[tuple[int, int]] | None,
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
    yield Batch("report_node", [node_row(report, now_us)])
    return Renewal(
        renewed=frozenset(seq for seq, renewed in rows if renewed),
        held=frozenset(seq for seq, _ in rows),
        complete=all(renewed for _, renewed in others),
    )


def forget_nodes(log_ids: Sequence[str], silent_us: int, now_us: int) -> Steps[int]:
    """Forget those daemons of these logs that have been silent for long and left nothing behind; returns how many."""
    rows = yield Fetch("forget_nodes", {"log_ids": log_ids, "silent_us": silent_us, "now_us": now_us})
    return len(rows)


def node_row(report: Node, now_us: int) -> Row:
    """Return the parameters that note what a daemon says of itself."""
    return (
        report.name,
        report.log_id,
        report.incarnation,
        report.beat,
        report.host,
        report.pid,
        report.started_at_us,
        report.durable_offset,
        report.workers,
        int(report.stopped),
        now_us,
    )


def promote(node: str, now_us: int, limit: int) -> Steps[tuple[list[tuple[str, int]], int | None]]:
    """Queue what has waited for its time; returns the (id, run) entries and when the next one falls due."""
    rows = yield Fetch("promote_due", {"now_us": now_us, "count": limit})
    before = Counter(State(row[2]) for row in rows)
    yield tally(node, {**{state: -count for state, count in before.items()}, State.QUEUED: len(rows)})
    due = yield Fetch("next_due", {"now_us": now_us})
    return [(row[0], row[1]) for row in rows], due[0][0]


def promote_stranded(node: str, now_us: int, ahead_us: int, limit: int) -> Steps[list[tuple[str, int]]]:
    """Queue retries that were decided further ahead of now; returns their (id, run) entries."""
    rows = yield Fetch("promote_stranded", {"now_us": now_us, "ahead_us": ahead_us, "count": limit})
    yield tally(node, moves(State.RETRYING, [State.QUEUED] * len(rows)))
    return [(row[0], row[1]) for row in rows]


def replay(node: str, event: StoredEvent, now_us: int, reason: str, request_key: str | None) -> Steps[bool]:
    """Queue a finished event for a new run; False when it was replayed or moved meanwhile."""
    changed = yield Batch("replay_event", [(now_us, event.seq, event.run, event.state)])
    if changed[0][0] != 1:
        return False
    yield Batch("insert_actions", [(event.seq, now_us, event.run + 1, "replayed", reason, request_key)])
    yield tally(node, moves(event.state, [State.QUEUED]))
    return True


def move(
    node: str, event: StoredEvent, target: State, action: str, detail: str, now_us: int, due_at_us: int | None = None
) -> Steps[bool]:
    """Move an event by hand from the state the caller saw; False when it moved meanwhile."""
    given_up = event.state is State.HELD and target is State.DEAD_LETTERED
    reason = detail if target is State.DISCARDED else (event.reason or Reason.GIVEN_UP) if given_up else None
    row = (target, reason, due_at_us, now_us, event.seq, event.run, event.state)
    waits_for = yield from what_it_waits_for(event)
    changed = yield Batch("move_event", [row])
    if changed[0][0] != 1:
        return False
    if waits_for is not None:
        yield tally(node, {WAITS_FOR + waits_for: -1})
    yield Batch("insert_actions", [(event.seq, now_us, event.run, action, detail, None)])
    yield tally(node, moves(event.state, [target]))
    return True


def what_it_waits_for(event: StoredEvent) -> Steps[str | None]:
    """Fetch which handler a queued event waits for by now, and let nobody change that before the transaction ends."""
    if event.state is not State.QUEUED:
        return None
    rows = yield Fetch("waiting", {"seq": event.seq})
    return rows[0][0] if rows else None
