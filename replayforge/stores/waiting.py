"""Events that wait for a handler which is not willing now, and the pauses: each operation as one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass

from replayforge.domain.admission import Admission, PatternOf, Pause
from replayforge.domain.event import Claimed
from replayforge.stores.driver import Batch, Fetch, Steps
from replayforge.stores.tallies import WAITS_FOR, tally, tally_waiting, waiting_of
from replayforge.stores.transactions import as_claimed, take_events


@dataclass(frozen=True, slots=True)
class Recalled:
    """What became of the oldest events that waited for a handler.

    `taken` are claimed, `entries` (id, run) are queued as any other, `suspects` of them are to run alone; `found` says
    how many there were to decide about.
    """

    taken: list[Claimed]
    entries: list[tuple[str, int]]
    suspects: int
    found: int


@dataclass(frozen=True, slots=True)
class Sorted:
    """How many of the queued events looked at have to wait for their handlers, and where the next look goes on."""

    turned_away: dict[str, int]
    next_seq: int | None


def recall(node: str, owner: str, pattern: str, pattern_of: PatternOf, count: int, now_us: int) -> Steps[Recalled]:
    """Claim the oldest events that wait for a handler; what is a suspect, or another handler's by now, is let go."""
    lease = {"owner": owner, "now_us": now_us}
    rows = yield Fetch("waiting_events", {**lease, "pattern": pattern, "count": count})
    rows = sorted(rows, key=lambda row: int(row[0]))
    events = [(as_claimed(row[:-1]), bool(row[-1])) for row in rows]
    ours = [one for one, suspect in events if not suspect and pattern_of(one.event.event_type) == pattern]
    kept = {one.event.seq for one in ours}
    others = [(one, suspect) for one, suspect in events if one.event.seq not in kept]
    yield from let_go(node, pattern, [one.event.seq for one, _ in others])
    if ours:
        yield from take_events(node, ours, lease)
        yield tally(node, {WAITS_FOR + pattern: -len(ours)})
    return Recalled(
        taken=ours,
        entries=[(one.event.id, one.event.run) for one, suspect in others if not suspect],
        suspects=sum(suspect for _, suspect in others),
        found=len(rows),
    )


def release(node: str, pattern: str, count: int) -> Steps[Recalled]:
    """Queue the oldest events that wait for a handler as any other."""
    rows = yield Fetch("waiting_entries", {"pattern": pattern, "count": count})
    yield from let_go(node, pattern, [row[0] for row in rows])
    entries = [(row[1], row[2]) for row in rows if not row[3]]
    return Recalled([], entries, suspects=len(rows) - len(entries), found=len(rows))


def let_go(node: str, pattern: str, seqs: Sequence[int]) -> Steps[None]:
    """Let events that waited for a handler wait no longer."""
    if seqs:
        yield Batch("let_wait", [(None, seq) for seq in sorted(seqs)])
        yield tally(node, {WAITS_FOR + pattern: -len(seqs)})


def sort_out(node: str, admission: Admission, after_seq: int, count: int) -> Steps[Sorted]:
    """Let those of the next queued events wait whose handlers have no room at all."""
    rows = yield Fetch("ready_types", {"after_seq": after_seq, "count": count})
    turnstile = admission.turnstile()
    waits = [(turnstile.waits_for(event_type), seq) for seq, event_type in rows]
    away = [(pattern, seq) for pattern, seq in waits if pattern is not None]
    if away:
        yield Batch("let_wait", away)
        yield tally_waiting(node, turnstile.turned_away)
    return Sorted(dict(turnstile.turned_away), rows[-1][0] if len(rows) == count else None)


def pause(pause: Pause) -> Steps[None]:
    """Pause a handler; one that is paused already stays as it is."""
    yield Batch("insert_pause", [(pause.pattern, pause.reason, pause.by, pause.since_us)])


def resume(pattern: str) -> Steps[bool]:
    """Take the pause off a handler; False when there is none."""
    changed = yield Batch("delete_pause", [(pattern,)])
    return bool(changed[0][0])


def standing() -> Steps[tuple[list[Pause], dict[str, int]]]:
    """Fetch the pauses, and how many events wait for each handler."""
    pauses = yield Fetch("pauses")
    tallies = yield Fetch("tallies")
    return [Pause(*row) for row in pauses], waiting_of({name: int(amount) for name, amount in tallies})
