"""The counters that stand in for counting rows: what a transaction adds to them."""

from collections import Counter
from collections.abc import Iterable, Mapping

from replayforge.domain.lifecycle import State
from replayforge.stores.batches import TallyChange
from replayforge.stores.driver import Batch

WAITS_FOR = "waits_for:"  # and the pattern of the handler: how many queued events wait for it


def moves(source: State, targets: Iterable[State]) -> dict[str, int]:
    """Return what moving one event for each of `targets` out of `source` changes in the tallies."""
    changes: Counter[str] = Counter(targets)
    changes[source] -= changes.total()
    return dict(changes)


def tally(node: str, changes: dict[State, int] | dict[str, int] | Counter[State]) -> Batch:
    """Return the statement that adds these changes to the node's counters."""
    rows = [TallyChange(node=node, name=str(name), amount=change) for name, change in sorted(changes.items()) if change]
    return Batch("add_tallies", rows)


def tally_deferred(node: str, deferred: Counter[str]) -> Batch:
    """Return the statement that counts events which begin to wait for their handlers."""
    return tally(node, {WAITS_FOR + pattern: count for pattern, count in deferred.items()})


def deferred_of(tallies: Mapping[str, int]) -> dict[str, int]:
    """Return how many events wait for each handler; handlers that nobody waits for are left out."""
    counted = {name.removeprefix(WAITS_FOR): count for name, count in tallies.items() if name.startswith(WAITS_FOR)}
    return {pattern: count for pattern, count in counted.items() if count}
