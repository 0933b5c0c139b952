"""The counters that stand in for counting rows: what a transaction adds to them."""

from collections import Counter
from collections.abc import Iterable

from replayforge.domain.lifecycle import State
from replayforge.stores.driver import Batch


def moves(source: State, targets: Iterable[State]) -> dict[str, int]:
    """Return what moving one event for each of `targets` out of `source` changes in the tallies."""
    changes: Counter[str] = Counter(targets)
    changes[source] -= changes.total()
    return dict(changes)


def tally(node: str, changes: dict[State, int] | dict[str, int] | Counter[State]) -> Batch:
    """Return the statement that adds these changes to the node's counters."""
    return Batch("add_tallies", [(node, str(name), change) for name, change in sorted(changes.items()) if change])
