"""Events that wait for a handler which takes no more now, and the pauses: each operation as one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from replayforge.domain.admission import Admission, PatternOf, Pause
from replayforge.domain.event import ClaimedEvent, Entry, route
from replayforge.stores.batches import PausedPattern, ResumedPattern, WaitingEvent
from replayforge.stores.burial import bury
from replayforge.stores.driver import Batch, Fetch, Steps
from replayforge.stores.rows import WaitingEntry
from replayforge.stores.tallies import WAITS_FOR, deferred_of, tally, tally_deferred
from replayforge.stores.transactions import CLAIM_BYTES_MAX, as_claimed, take_events


@dataclass(frozen=True, slots=True)
class Recalled:
    """What became of the oldest events that waited for a handler.

    `taken` are claimed, `entries` are queued as any other, `suspects` of them are to run alone; `found` says
    how many there were to decide about, `left` how many of those wait on, because those taken are large enough together
    or could be decided about only a few at a time. `buried` are the (id, event type) of what nobody can be given.
    """

    taken: list[ClaimedEvent]
    entries: list[Entry]
    suspects: int
    found: int
    left: int = 0
    buried: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Sorted:
    """How many of the queued events looked at have to wait for their handlers, and where the next look goes on."""

    deferred: dict[str, int]
    next_seq: int | None


def recall(node: str, owner: str, pattern: str, pattern_of: PatternOf, count: int, now_us: int) -> Steps[Recalled]:
    """Claim the oldest events that wait for a handler; what is a suspect, or another handler's by now, is let go."""
    lease = {"owner": owner, "now_us": now_us}
    rows = yield Fetch("waiting_events", {**lease, "pattern": pattern, "count": count})
    rows = sorted(rows, key=lambda row: int(row[0]))
    events = [(as_claimed(row[:-1]), bool(row[-1]), int(row[-2])) for row in rows]
    ours = [one for one in events if not one[1] and pattern_of(one[0].event.route) == pattern]
    kept = {one.event.seq for one, _, _ in ours}
    others = [(one, suspect) for one, suspect, _ in events if one.event.seq not in kept]
    yield from end_waiting(node, pattern, [one.event.seq for one, _ in others])
    fitting = within_bytes([(one, size) for one, _, size in ours])
    taken, buried = yield from take_events(node, fitting, lease, pattern)
    if taken:
        yield tally(node, {WAITS_FOR + pattern: -len(taken)})
    return Recalled(
        taken=taken,
        entries=[one.event.entry for one, suspect in others if not suspect],
        suspects=sum(suspect for _, suspect in others),
        found=len(rows),
        left=len(ours) - len(fitting),
        buried=buried,
    )


def within_bytes(events: Sequence[tuple[ClaimedEvent, int]]) -> list[ClaimedEvent]:
    """Return the first of the events whose contents, of which the bytes are given, fit into one claim; at least one."""
    room_bytes = CLAIM_BYTES_MAX
    for index, (_, size) in enumerate(events):
        if index and size > room_bytes:
            return [one for one, _ in events[:index]]
        room_bytes -= size
    return [one for one, _ in events]


def bury_oldest(node: str, pattern: str, error: str, now_us: int) -> Steps[Recalled]:
    """Bury the oldest event that waits for a handler."""
    rows = yield Fetch("waiting_entries", {"pattern": pattern, "count": 1})
    waiting = [WaitingEntry(*row) for row in rows]
    buried = (yield from bury(node, waiting[0].entry, error, now_us, waits_for=pattern)) if waiting else []
    return Recalled([], [], suspects=0, found=len(buried), left=1, buried=buried)


def release(node: str, pattern: str, count: int) -> Steps[Recalled]:
    """Queue the oldest events that wait for a handler as any other."""
    rows = yield Fetch("waiting_entries", {"pattern": pattern, "count": count})
    waiting = [WaitingEntry(*row) for row in rows]
    yield from end_waiting(node, pattern, [one.seq for one in waiting])
    entries = [one.entry for one in waiting if not one.suspect]
    return Recalled([], entries, suspects=len(rows) - len(entries), found=len(rows))


def end_waiting(node: str, pattern: str, seqs: Sequence[int]) -> Steps[None]:
    """Let events that waited for a handler wait no longer."""
    if seqs:
        yield Batch("let_wait", [WaitingEvent(seq=seq, waits_for=None) for seq in sorted(seqs)])
        yield tally(node, {WAITS_FOR + pattern: -len(seqs)})


def sort_out(node: str, admission: Admission, after_seq: int, count: int) -> Steps[Sorted]:
    """Let those of the next queued events wait whose handlers have no room at all."""
    rows = yield Fetch("ready_types", {"after_seq": after_seq, "count": count})
    counter = admission.counter()
    waits = [(counter.waits_for(route(*parts)), seq) for seq, *parts in rows]
    away = [WaitingEvent(seq=seq, waits_for=pattern) for pattern, seq in waits if pattern is not None]
    if away:
        yield Batch("let_wait", away)
        yield tally_deferred(node, counter.deferred)
    return Sorted(dict(counter.deferred), rows[-1][0] if len(rows) == count else None)


def pause(pause: Pause) -> Steps[None]:
    """Pause a handler; one that is paused already stays as it is."""
    row = PausedPattern(pattern=pause.pattern, reason=pause.reason, paused_by=pause.by, since_us=pause.since_us)
    yield Batch("insert_pause", [row])


def resume(pattern: str) -> Steps[bool]:
    """Take the pause off a handler; False when there is none."""
    changed = yield Batch("delete_pause", [ResumedPattern(pattern=pattern)])
    return bool(changed[0][0])


def pauses_and_deferred() -> Steps[tuple[list[Pause], dict[str, int]]]:
    """Fetch the pauses, and how many events wait for each handler."""
    pauses = yield Fetch("pauses")
    tallies = yield Fetch("tallies")
    return [Pause(*row) for row in pauses], deferred_of({name: int(amount) for name, amount in tallies})
