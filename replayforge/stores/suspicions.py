"""What is known of events that were in flight at a death, as their rows keep it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from replayforge.domain.poison import Isolation, Suspicion
from replayforge.stores.batches import ChangedSuspicion
from replayforge.stores.driver import Batch, Fetch, Steps
from replayforge.stores.rows import Row, known_of

SUSPECTS_MAX = 10_000
decode = msgspec.json.Decoder(Suspicion).decode
encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Suspect:
    """One event under suspicion: how it is claimed, and what is known of it."""

    seq: int
    isolation: Isolation
    known: Suspicion
    event_id: str


Change = tuple[Suspect, Isolation, Suspicion | None]  # what is known so far, and what is known from now on


def written(known: Suspicion | None) -> str | None:
    """Return what a row says of an event's suspicion."""
    return None if known is None else encode(known).decode()


def as_suspect(row: Row) -> Suspect:
    """Read a row of the suspects."""
    seq, isolation, suspicion, event_id = row
    return Suspect(seq, Isolation(isolation), decode(suspicion), event_id)


def next_suspect() -> Steps[Suspicion | None]:
    """Fetch what is known of the suspect that is to run alone next; None when there is none."""
    rows = yield Fetch("next_suspect")
    return known_of(rows[0][0]) if rows else None


def set_aside() -> Steps[list[Suspect]]:
    """Fetch the suspects whose control is not over."""
    rows = yield Fetch("set_aside", {"count": SUSPECTS_MAX})
    return [as_suspect(row) for row in rows]


def suspicion(event_id: str) -> Steps[Suspect | None]:
    """Fetch what is known of one event; None when it is under no suspicion."""
    rows = yield Fetch("suspicion", {"id": event_id})
    return as_suspect(rows[0]) if rows else None


def change(name: str, decide: Callable[[Sequence[Suspect]], Sequence[Change]]) -> Steps[int]:
    """Change what is known of the suspects that a query names, as a pure function decides; returns of how many."""
    rows = yield Fetch(name, {"count": SUSPECTS_MAX})
    found = {row[0]: row[2] for row in rows}
    changes = [
        ChangedSuspicion(seq=suspect.seq, known=found[suspect.seq], suspect=isolation, suspicion=written(known))
        for suspect, isolation, known in decide([as_suspect(row) for row in rows])
    ]
    if not changes:
        return 0
    changed = yield Batch("change_suspicions", changes)
    return int(changed[0][0])
