"""What becomes of a record that the store can never take: its neighbours go on, and it ends as a dead letter."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from msgspec import structs

from replayforge.domain.errors import Unstorable
from replayforge.domain.event import Entry, EventRecord
from replayforge.domain.lifecycle import Reason, State
from replayforge.stores.driver import Fetch, Steps
from replayforge.stores.tallies import WAITS_FOR, tally

Item = TypeVar("Item")
Done = TypeVar("Done")

TEXT_CHARACTERS_MAX = 255  # as at ingest
ERROR_CHARACTERS_MAX = 1_000
INTEGER_MAX = 2**62


async def narrowed(
    items: Sequence[Item],
    attempt: Callable[[Sequence[Item]], Awaitable[Done]],
    bury: Callable[[Item, Unstorable], Awaitable[Done]],
) -> Done:
    """Do it with as many of the items, from the first on, as the store takes at once; the others are left for later.

    A batch that the store can never take is tried by halves, and a single item that it cannot take is buried. An
    attempt that fails has changed nothing.
    """
    count = len(items)
    while True:
        try:
            return await attempt(items[:count])
        except Unstorable as error:
            if count == 0:
                raise
            if count == 1:
                return await bury(items[0], error)
        count //= 2


def bury(
    node: str, entry: Entry, error: str, now_us: int, *, waits_for: str | None = None
) -> Steps[list[tuple[str, str]]]:
    """Make a queued event, given as its entry, a dead letter; returns its (id, type) unless it moved meanwhile."""
    parameters = {
        "id": entry.event_id,
        "run": entry.run,
        "reason": Reason.BAD_PAYLOAD,
        "now_us": now_us,
        "pattern": waits_for,
    }
    rows = yield Fetch("bury_event", {**parameters, "error": storable_text(error, ERROR_CHARACTERS_MAX)})
    yield tally(node, {State.QUEUED: -len(rows), State.DEAD_LETTERED: len(rows)})
    if waits_for is not None:
        yield tally(node, {WAITS_FOR + waits_for: -len(rows)})
    return [(row[0], row[1]) for row in rows]


def salvaged(record: EventRecord, *, with_content: bool) -> EventRecord:
    """Return what any store can keep of a record: texts of a name's length without NUL, and numbers within their range.

    Its payload and metadata stay the bytes they are, or are left out.
    """
    values: dict[str, Any] = structs.asdict(record)
    for name, value in values.items():
        if isinstance(value, str):
            values[name] = storable_text(value, TEXT_CHARACTERS_MAX)
        elif isinstance(value, int):
            values[name] = max(-INTEGER_MAX, min(INTEGER_MAX, value))
    if not with_content:
        del values["payload"], values["metadata"]
    return EventRecord(**values)


def storable_text(text: str, characters_max: int) -> str:
    """Return a text that every store can keep, which is the text itself in nearly every case."""
    return text[:characters_max].replace("\0", "\u2400").encode("utf-8", "replace").decode()
