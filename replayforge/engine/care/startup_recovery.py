"""What happens once at start-up: old leases are void, and what the log holds beyond the store is known again."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from replayforge import crashpoints
from replayforge.domain.clock import Clock
from replayforge.domain.event import EVENT_RECORD_TYPE
from replayforge.domain.identity import from_bytes
from replayforge.domain.lifecycle import Outcome, State
from replayforge.domain.poison import Death, after_proven_death
from replayforge.domain.reclaim import FormerIncarnation, Reclaim, judge_former
from replayforge.engine.accept.window import Window
from replayforge.engine.handlers.registry import Handlers
from replayforge.forgelog.errors import GapError
from replayforge.forgelog.log import ForgeLog
from replayforge.stores.store import Store
from replayforge.stores.suspicions import Change, Suspect
from replayforge.telemetry import Telemetry

READ_RECORDS_MAX = 5000
IN_FLIGHT_MAX = 1_000_000
DIED = "The process died while this event was in flight."
TOLD_TO_END = "The daemon was told to end, and ended before this attempt did."


@dataclass(frozen=True, slots=True)
class Recovered:
    """What start-up found: events taken back from a former incarnation, and records that have no row yet."""

    requeued: int
    buried: int
    held: int
    unprojected: int


async def reclaim_former(
    store: Store, handlers: Handlers, clock: Clock, telemetry: Telemetry, owner_prefix: str, former: FormerIncarnation
) -> Recovered:
    """Take back what former incarnations of this daemon held: it runs again now, not after a time-out."""
    left = await store.in_flight(owner_prefix, IN_FLIGHT_MAX)
    # The file knows it even when the store was away as the daemon was told to end; the store knows of earlier ones.
    draining = await store.draining() | ({former.owner} if former.draining else set())
    reclaims = judge_former(left, former, draining, store.node, handlers.holds_on_crash)
    if former.owner and former.owner not in draining:
        # First, for it can be told twice: should this start die on the way, the next one finds all of it again.
        explained = any(event.lease == former.alone for event in left if event.owner == former.owner)
        await store.change_suspicions(lambda suspects: after_death_of(former, suspects, store, explained))
    taken = []
    for outcome, error in ((Outcome.CRASHED, DIED), (Outcome.INTERRUPTED, TOLD_TO_END)):
        some = [reclaim for reclaim in reclaims if reclaim.outcome is outcome]
        taken += await store.reclaim(some, error, clock.now_us()) if some else []
    if taken:
        crashpoints.reach("recovery.reclaimed")
        told = all(reclaim.outcome is Outcome.INTERRUPTED for reclaim in taken)
        report_reclaimed(telemetry, taken, "the daemon was told to end" if told else "the process died")
    states = [reclaim.verdict.state for reclaim in taken]
    return Recovered(
        requeued=states.count(State.QUEUED),
        buried=states.count(State.DEAD_LETTERED),
        held=states.count(State.HELD),
        unprojected=0,
    )


def after_death_of(
    former: FormerIncarnation, suspects: Sequence[Suspect], store: Store, explained: bool
) -> list[Change]:
    """Decide what the death of the last incarnation says of events that others hold, or that are set aside."""
    death = Death(former.owner, store.node)
    changes: list[Change] = []
    for suspect in suspects:
        here = not store.shared or suspect.known.node == store.node
        found = after_proven_death(suspect.isolation, suspect.known, death, here=here, explained=explained)
        if found is not None:
            changes.append((suspect, *found))
    return changes


def report_reclaimed(telemetry: Telemetry, taken: Sequence[Reclaim], reason: str) -> None:
    """Tell what was taken back after a crash, and what the crash buried."""
    types = Counter(reclaim.event.event_type for reclaim in taken)
    telemetry.emit("attempt.reclaimed", len(taken), reason=reason, types=dict(types))
    for event, verdict in ((reclaim.event, reclaim.verdict) for reclaim in taken):
        if verdict.state is State.DEAD_LETTERED:
            telemetry.emit(
                "event.dead_lettered", event_id=event.event_id, event_type=event.event_type, reason=verdict.reason
            )


def rebuild_window(log: ForgeLog, window: Window, cursor: int) -> int:
    """Enter every event beyond the cursor into the window, before the first request comes in; returns how many."""
    after = max(cursor, log.first_offset - 1)
    while after < log.durable_offset:
        try:
            records = log.read(after, records_max=READ_RECORDS_MAX)
        except GapError as gap:
            after = gap.last
            continue
        for record in records:
            if record.type == EVENT_RECORD_TYPE:
                window.rebuild(from_bytes(record.key), record.offset)
        after = records[-1].offset
    return len(window)
