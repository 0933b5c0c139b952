"""How finished events leave the store: their rows go, and the keys of those that have one are remembered."""

from collections.abc import Sequence

from replayforge.domain.event import RetiredKey, content_digest
from replayforge.domain.lifecycle import State
from replayforge.stores.batches import RemovedEvent
from replayforge.stores.driver import Batch, Fetch, Steps
from replayforge.stores.rows import Retirable, retired_key
from replayforge.stores.tallies import tally

SCAN_MAX = 2000  # how many of the oldest rows one look for something to retire may read
PARTS_OF_EVENTS = (
    "delete_events",
    "delete_contents",
    "delete_attempts",
    "delete_actions",
    "delete_journals",
    "delete_steps",
    "delete_waits",
)
DIGESTED_BYTES_MAX = 1 << 20  # of contents in one step, but for a single one that is larger


def retirable(state: State, before_us: int, count: int) -> Steps[tuple[list[Retirable], dict[int, bytes]]]:
    """Fetch rows that have served their time, and the payloads of those with a key, as many as one step may have."""
    rows = yield Fetch("retirable", {"state": state, "before_us": before_us, "scan_max": SCAN_MAX, "count": count})
    taken: list[Retirable] = []
    size = 0
    for one in (Retirable(*row) for row in rows):
        size += one.keyed_bytes or 0
        if taken and size > DIGESTED_BYTES_MAX:
            break
        taken.append(one)
    keyed = [one.seq for one in taken if one.keyed_bytes is not None]
    contents = (yield Fetch("contents", {"seqs": keyed})) if keyed else []
    return taken, {seq: bytes(payload) for seq, payload, _ in contents}


def keys_of(
    events: Sequence[Retirable], payloads: dict[int, bytes], state: State, now_us: int
) -> dict[int, RetiredKey]:
    """Return for each event with a key what is to be remembered of it; this may take a while."""
    return {
        one.seq: RetiredKey(
            id=one.id,
            digest=content_digest((one.workflow_id, one.event_type, payloads[one.seq])),
            state=state,
            log_id=one.log_id,
            log_offset=one.log_offset,
            created_at_us=one.created_at_us,
            retired_at_us=now_us,
        )
        for one in events
        if one.seq in payloads
    }


def retire(node: str, state: State, before_us: int, seqs: Sequence[int], keys: dict[int, RetiredKey]) -> Steps[int]:
    """Remove those of the events that nobody has touched since, remember their keys, and count them as retired."""
    rows = yield Fetch("lock_retirable", {"seqs": list(seqs), "state": state, "before_us": before_us})
    removed = [RemovedEvent(seq=seq) for (seq,) in rows]
    remembered = [keys[one.seq] for one in removed if one.seq in keys]
    if remembered:
        yield Batch("insert_retired_keys", remembered)
    for name in PARTS_OF_EVENTS:
        yield Batch(name, removed)
    yield tally(node, {state: -len(rows), f"retired_{state}": len(rows)})
    return len(rows)


def retired_keys(ids: Sequence[str]) -> Steps[dict[str, RetiredKey]]:
    """Fetch those of the ids that are the keys of removed events."""
    rows = yield Fetch("retired_keys", {"ids": list(ids)})
    keys = [retired_key(row) for row in rows]
    return {key.id: key for key in keys}


def count_retired_keys() -> Steps[int]:
    """Count the keys of removed events."""
    rows = yield Fetch("count_retired_keys")
    return int(rows[0][0])


def forget_keys(before_us: int, count: int) -> Steps[int]:
    """Forget the keys of events that were removed before a time; returns how many."""
    rows = yield Fetch("forget_keys", {"before_us": before_us, "count": count})
    return len(rows)
