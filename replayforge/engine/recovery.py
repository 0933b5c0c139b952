"""What happens once at start-up: old leases are void, and what the log holds beyond the store is known again."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from replayforge.domain.clock import Clock
from replayforge.domain.event import EVENT_RECORD_TYPE
from replayforge.domain.identity import from_bytes
from replayforge.domain.lifecycle import State
from replayforge.domain.recovery import Reclaim, triage
from replayforge.engine.handlers import Handlers
from replayforge.engine.window import Window
from replayforge.forgelog.errors import GapError
from replayforge.forgelog.log import ForgeLog
from replayforge.stores.store import Store
from replayforge.telemetry import Telemetry

READ_RECORDS_MAX = 5000
IN_FLIGHT_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Recovered:
    """What start-up found: events taken back from a former incarnation, and records that have no row yet."""

    requeued: int
    buried: int
    held: int
    waiting: int


async def reclaim_former(
    store: Store, handlers: Handlers, clock: Clock, telemetry: Telemetry, owner_prefix: str
) -> Recovered:
    """Take back what former incarnations of this daemon held: it runs again now, not after a time-out."""
    left = await store.in_flight(owner_prefix, IN_FLIGHT_MAX)
    decided = triage((event for _, event in left), handlers.holds_on_crash)
    rows = {event.event_id: seq for seq, event in left}
    pairs = [(rows[reclaim.event.event_id], reclaim) for reclaim in decided]
    taken = (
        await store.reclaim(pairs, "The process died while this event was in flight.", clock.now_us()) if pairs else []
    )
    if taken:
        report_reclaimed(telemetry, taken, "the process died")
    states = [reclaim.verdict.state for reclaim in taken]
    return Recovered(
        requeued=states.count(State.QUEUED),
        buried=states.count(State.DEAD_LETTERED),
        held=states.count(State.HELD),
        waiting=0,
    )


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
