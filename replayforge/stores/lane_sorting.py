"""What a changed configuration does to events that are in lanes, or are to be: they are sorted anew, in batches."""

from collections import Counter
from collections.abc import Sequence

from replayforge.domain.lane import FREE, Lanes, StoredSender
from replayforge.domain.lifecycle import PLACED, State
from replayforge.stores.batches import LaneNews, MetaValue, SortedEvent
from replayforge.stores.driver import Batch, Fetch, Steps
from replayforge.stores.lanes import opened_lane
from replayforge.stores.tallies import WAITS_FOR, tally

NOTE = "lanes"
SORTED_PER_STEP_MAX = 500
PAYLOADS_MAX = 20
# In the order in which events go through them, so that none slips past the look for it; those of other daemons may.
STATES_TO_SORT = (*sorted(PLACED - {State.PROCESSING, State.QUEUED}), State.SCHEDULED, State.PROCESSING, State.QUEUED)


def noted_digest() -> Steps[str | None]:
    """Fetch which configuration events were sorted by; None where there never was one with lanes."""
    rows = yield Fetch("meta_value", {"name": NOTE})
    return rows[0][0] if rows else None


def note_digest(digest: str) -> Steps[None]:
    """Note by which configuration events are sorted."""
    yield Batch("write_meta", [MetaValue(name=NOTE, value=digest)])


def sort_events(node: str, lanes: Lanes, state: State, after_seq: int) -> Steps[tuple[int, int | None]]:
    """Sort the next events in a state; returns how many changed their lanes, and where the next look goes on."""
    rows = yield Fetch("events_to_sort", {"state": state, "after_seq": after_seq, "count": SORTED_PER_STEP_MAX})
    payloads = yield from payloads_of([row[0] for row in rows if lanes.needs_payload(row[1])])
    moved: list[SortedEvent] = []
    touched: set[str] = set()
    freed: Counter[str] = Counter()
    for seq, event_type, subscriber, workflow_id, application_name, lane, waits_for in rows:
        sender = StoredSender(event_type, subscriber, workflow_id, application_name, payloads.get(seq, b""))
        sorted_into = lanes.lane_of(sender)
        if sorted_into == lane:
            continue
        moved.append(SortedEvent(seq=seq, lane=sorted_into))
        touched |= {name for name in (lane, sorted_into) if name is not None}
        if waits_for is not None and sorted_into is not None:
            freed[WAITS_FOR + waits_for] -= 1  # it waits for its turn first
    if moved:
        yield Batch("sort_events", moved)
        yield tally(node, dict(freed))
        yield Batch("add_lane_news", [LaneNews(lane=name) for name in sorted(touched)])
    return len(moved), rows[-1][0] if len(rows) == SORTED_PER_STEP_MAX else None


def payloads_of(seqs: Sequence[int]) -> Steps[dict[int, bytes]]:
    """Fetch what events came with, a few at a time, for each may be large."""
    payloads: dict[int, bytes] = {}
    for start in range(0, len(seqs), PAYLOADS_MAX):
        rows = yield Fetch("contents", {"seqs": list(seqs[start : start + PAYLOADS_MAX])})
        payloads |= {row[0]: bytes(row[1]) for row in rows}
    return payloads


def sort_lanes(lanes: Lanes, after_lane: str) -> Steps[str | None]:
    """Note what holds in the next lanes by now; dead letters block where they are to. Returns where to go on."""
    rows = yield Fetch("lanes_after", {"after_lane": after_lane, "count": SORTED_PER_STEP_MAX})
    rules = {row[0]: lanes.rules_of(row[0]) or FREE for row in rows}
    if rules:
        yield Batch("open_lanes", [opened_lane(lane, one) for lane, one in sorted(rules.items())])
        unblocked = sorted(lane for lane, one in rules.items() if not one.dead_blocks)
        yield Fetch("unblock_dead", {"lanes": unblocked})
        yield Batch("add_lane_news", [LaneNews(lane=lane) for lane in sorted(rules)])
    return rows[-1][0] if len(rows) == SORTED_PER_STEP_MAX else None
