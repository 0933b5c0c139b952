"""Everything that changes the store, each as one transaction: a generator that fetches, decides and writes."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from replayforge.domain.event import Claimed, Content, StoredEvent
from replayforge.domain.lifecycle import OPEN, Outcome, State
from replayforge.domain.recovery import InFlight, Reclaim, Verdict, error_signature
from replayforge.domain.reports import Node
from replayforge.stores.driver import Batch, Fetch, Row, Steps
from replayforge.stores.projection import as_bytes
from replayforge.stores.tallies import moves, tally

Decide = Callable[[Sequence[tuple[int, InFlight]]], Sequence[tuple[int, Reclaim]]]


@dataclass(frozen=True, slots=True)
class Settlement:
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


RETIRE_SCAN_MAX = 2000  # how many of the oldest rows one look for something to retire may read


def claim(
    node: str, owner: str, entries: Sequence[tuple[str, int]] | None, now_us: int, lease_until_us: int
) -> Steps[list[Claimed]]:
    """Take the queued ones of these (id, run) entries under a lease; with None, the likeliest suspect."""
    lease = {"owner": owner, "now_us": now_us, "lease_until_us": lease_until_us}
    if entries is None:
        rows = yield Fetch("claimable_suspect", lease)
    else:
        rows = yield Fetch("claimable_events", {**lease, "entries": list(dict(entries).items())})
    if not rows:
        return []
    yield Fetch("claim_events", {**lease, "seqs": [row[0] for row in rows]})
    yield tally(node, {State.QUEUED: -len(rows), State.PROCESSING: len(rows)})
    return [Claimed(stored_event(row[:-2]), Content(as_bytes(row[-2]), as_bytes(row[-1]))) for row in rows]


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
        False,
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


def in_flight(owner_prefix: str, limit: int) -> Steps[list[tuple[int, InFlight]]]:
    """Fetch (row number, event) of what owners whose name begins like this left in processing."""
    pattern = owner_prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    rows = yield Fetch("in_flight", {"owner_pattern": pattern, "count": limit})
    return [(row[0], InFlight(*row[1:])) for row in rows]


def reclaim(node: str, reclaims: Sequence[tuple[int, Reclaim]], error: str, now_us: int) -> Steps[list[Reclaim]]:
    """Take back what a crash left behind: an attempt row `crashed` for each, and the state that was decided.

    Events that are no longer held under the token they were seen with are left alone; returns those taken back.
    """
    leases = [(seq, decided.event.token) for seq, decided in reclaims]
    rows = yield Fetch("held_leases", {"leases": leases, "owner": None})
    held = {(row[0], row[1]) for row in rows}
    taken = [(seq, decided) for seq, decided in reclaims if (seq, decided.event.token) in held]
    yield Batch("insert_attempts", [crashed_attempt(seq, decided, error, now_us) for seq, decided in taken])
    yield Batch("settle_events", [crashed_event(seq, decided, error, now_us) for seq, decided in taken])
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
        Outcome.CRASHED,
        decided.verdict.state not in OPEN,
    ) + (event.owner, event.worker, event.started_at_us, now_us, error, error_signature(error))


def crashed_event(seq: int, decided: Reclaim, error: str, now_us: int) -> Row:
    """Return the parameters that move an event after a crash."""
    event, verdict = decided.event, decided.verdict
    return (verdict.state, verdict.attempt_count, verdict.crashes, decided.suspect, None, verdict.reason) + (
        error,
        error_signature(error),
        None,
        now_us,
        seq,
        event.token,
        event.owner,
    )


def take_over(node: str, decide: Decide, error: str, now_us: int, limit: int) -> Steps[list[Reclaim]]:
    """Take back what lies in processing beyond the end of its lease, as a pure function decides."""
    rows = yield Fetch("lapsed_leases", {"now_us": now_us, "count": limit})
    pairs = decide([(row[0], InFlight(*row[1:])) for row in rows])
    return (yield from reclaim(node, pairs, error, now_us)) if pairs else []


def beat(owner: str, leases: Sequence[tuple[int, int]], lease_us: int, now_us: int, report: Node) -> Steps[set[int]]:
    """Renew the leases that are still ours and report how this daemon is; returns the row numbers renewed."""
    renewed: Sequence[Row] = []
    if leases:
        lease = {"owner": owner, "leases": list(leases), "lease_us": lease_us, "now_us": now_us}
        renewed = yield Fetch("renew_leases", lease)
    yield Batch("report_node", [node_row(report, now_us)])
    return {seq for (seq,) in renewed}


def forget_nodes(silent_us: int, now_us: int) -> Steps[int]:
    """Forget daemons that have been silent for long and left nothing behind; returns how many."""
    rows = yield Fetch("forget_nodes", {"silent_us": silent_us, "now_us": now_us})
    return len(rows)


def node_row(report: Node, now_us: int) -> Row:
    """Return the parameters that note what a daemon says of itself."""
    return (
        report.name,
        report.log_id,
        report.incarnation,
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


def replay(node: str, event: StoredEvent, now_us: int, reason: str) -> Steps[bool]:
    """Queue a finished event for a new run; False when it was replayed or moved meanwhile."""
    changed = yield Batch("replay_event", [(now_us, event.seq, event.run, event.state)])
    if changed[0][0] != 1:
        return False
    yield Batch("insert_actions", [(event.seq, now_us, event.run + 1, "replayed", reason)])
    yield tally(node, moves(event.state, [State.QUEUED]))
    return True


def move(
    node: str, event: StoredEvent, target: State, action: str, detail: str, now_us: int, due_at_us: int | None = None
) -> Steps[bool]:
    """Move an event by hand from the state the caller saw; False when it moved meanwhile."""
    reason = detail if target is State.DISCARDED else None
    row = (target, reason, due_at_us, now_us, event.seq, event.run, event.state)
    changed = yield Batch("move_event", [row])
    if changed[0][0] != 1:
        return False
    yield Batch("insert_actions", [(event.seq, now_us, event.run, action, detail)])
    yield tally(node, moves(event.state, [target]))
    return True


def retire(node: str, state: State, before_us: int, limit: int) -> Steps[int]:
    """Remove finished events that were last touched before a time, and count them as retired; returns how many."""
    rows = yield Fetch(
        "retirable", {"state": state, "before_us": before_us, "scan_max": RETIRE_SCAN_MAX, "count": limit}
    )
    for name in ("delete_events", "delete_contents", "delete_attempts", "delete_actions"):
        yield Batch(name, rows)
    yield tally(node, {state: -len(rows), f"retired_{state}": len(rows)})
    return len(rows)


def stored_event(row: Row) -> StoredEvent:
    """Read a row of the event columns."""
    values = list(row)
    values[13] = State(values[13])
    return StoredEvent(*values)
