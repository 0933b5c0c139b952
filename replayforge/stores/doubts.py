"""In doubt, in the store: attempts that were cut short, and the steps that they may have begun."""

from collections import defaultdict
from typing import NamedTuple

from replayforge.domain.doubt import EventInDoubt
from replayforge.domain.event import Action
from replayforge.stores.driver import Fetch, Steps
from replayforge.stores.lookups import SEQ_MAX
from replayforge.stores.rows import attempt, step_record, stored_event

ATTEMPTS_EACH = 20  # how many of the newest attempts in doubt of one event are shown
STEPS_MAX = 2000  # how many steps in doubt of all events of a page together


class DoubtPage(NamedTuple):
    """A page of events in doubt, the newest first, and before which row number the next one begins, if there is one."""

    events: list[EventInDoubt]
    next_seq: int | None


def list_in_doubt(before_seq: int | None, limit: int, *, undecided: bool) -> Steps[DoubtPage]:
    """Fetch events of which attempts or steps are in doubt; with `undecided` those alone that wait for a decision."""
    asked = {"before_seq": SEQ_MAX if before_seq is None else before_seq, "count": limit + 1}
    found = yield Fetch("seqs_undecided" if undecided else "seqs_in_doubt", asked)
    seqs = [row[0] for row in found[:limit]]
    events = (yield from told(seqs)) if seqs else []
    return DoubtPage(events, seqs[-1] if len(found) > limit else None)


def told(seqs: list[int]) -> Steps[list[EventInDoubt]]:
    """Fetch what is known of events in doubt, in their order."""
    rows = yield Fetch("listed_by_seqs", {"seqs": seqs, "count": len(seqs)})
    attempts, decisions, steps = defaultdict(list), {}, defaultdict(list)
    for row in (yield Fetch("attempts_in_doubt", {"seqs": seqs, "each": ATTEMPTS_EACH})):
        attempts[row[0]].append(attempt(row))
    for row in (yield Fetch("decisions", {"seqs": seqs})):
        decisions[row[0]] = Action(*row)
    for *columns, seq in (yield Fetch("steps_in_doubt", {"seqs": seqs, "count": STEPS_MAX})):
        steps[seq].append(step_record(columns))
    return [
        EventInDoubt(event, attempts[event.id], steps[event.seq], decisions.get(event.id))
        for event in map(stored_event, rows)
    ]
