"""Sources of webhooks in the store: which are paused, and what of them was refused lately."""

from collections.abc import Sequence

from replayforge.domain.admission import Pause
from replayforge.stores.batches import PausedSource, RefusedDelivery, RemovedRefusal, ResumedSource
from replayforge.stores.driver import Batch, Fetch, Steps
from replayforge.stores.rows import KeptRefusal


def pause(pause: Pause) -> Steps[None]:
    """Pause a source; one that is paused already stays as it is."""
    row = PausedSource(source=pause.pattern, reason=pause.reason, paused_by=pause.by, since_us=pause.since_us)
    yield Batch("insert_source_pause", [row])


def resume(source: str) -> Steps[bool]:
    """Take the pause off a source; False when there is none."""
    changed = yield Batch("delete_source_pause", [ResumedSource(source=source)])
    return bool(changed[0][0])


def pauses() -> Steps[list[Pause]]:
    """Fetch the pauses, by the names of sources."""
    rows = yield Fetch("source_pauses")
    return [Pause(*row) for row in rows]


def keep(refused: RefusedDelivery, kept: int) -> Steps[None]:
    """Keep a refused delivery, and no more than so many of its source, of each reason its share."""
    yield Batch("insert_refusal", [refused])
    yield Fetch("trim_refusals", {"source": refused.source, "kept": kept})


def of_source(source: str) -> Steps[list[KeptRefusal]]:
    """Fetch the refused deliveries of a source, oldest first."""
    rows = yield Fetch("refusals", {"source": source})
    return [KeptRefusal(*row) for row in rows]


def counts() -> Steps[dict[str, int]]:
    """Fetch how many are kept of each source."""
    rows = yield Fetch("refusal_counts")
    return {source: int(count) for source, count in rows}


def remove(seqs: Sequence[int]) -> Steps[None]:
    """Let go of refused deliveries."""
    yield Batch("delete_refusals", [RemovedRefusal(seq=seq) for seq in seqs])
