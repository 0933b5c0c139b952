"""Searches what came with events for a text: newest first, in short looks, up to a bound that the answer names."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from replayforge.domain.event import Content, StoredEvent
from replayforge.domain.reports import EventFilter
from replayforge.stores.driver import Driver, Fetch, Steps
from replayforge.stores.lookups import SEQ_MAX, TEXT_IN_ROW, EventPage, RowPage, conditions, filled_page, fitting
from replayforge.stores.rows import stored_event

# No index serves a search, so one request looks at so much at most, and one statement at far less.
SEARCHED_MAX = 5_000
SEARCHED_BYTES_MAX = 32 << 20
LOOK_EVENTS = 500
LOOK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class SearchPage:
    """Events with a text in their payload or metadata, newest first, and how many were looked at to find them.

    The next page begins before the row number `next_seq`, if there is one. `complete` is false where the search
    stopped at its bound: then the page may be empty and the next one not.
    """

    events: list[tuple[StoredEvent, Content]]
    searched: int
    complete: bool
    next_seq: int | None


@dataclass(frozen=True, slots=True)
class SearchLook:
    """What one look has found: row numbers, among so many events of so many bytes, and where the next one begins."""

    found: list[int]
    searched: int
    size: int
    next_seq: int | None


async def search(driver: Driver, wanted: EventFilter, sought: bytes, before_seq: int | None, limit: int) -> SearchPage:
    """Find events that pass the filter and came with these bytes, look by look, so that none of them is long."""
    found: list[int] = []
    searched = size = 0
    goes_on: int | None = before_seq or SEQ_MAX
    while goes_on is not None and len(found) < limit and searched < SEARCHED_MAX and size < SEARCHED_BYTES_MAX:
        events_max, bytes_max = min(LOOK_EVENTS, SEARCHED_MAX - searched), min(LOOK_BYTES, SEARCHED_BYTES_MAX - size)
        one = await driver.look(partial(look, wanted, sought, goes_on, (events_max, bytes_max)))
        found += one.found
        searched, size, goes_on = searched + one.searched, size + one.size, one.next_seq
    page = await driver.look(partial(found_events, found[:limit]))
    if page.next_seq is not None:
        goes_on = page.next_seq
    elif len(found) > limit:
        goes_on = found[limit - 1]
    return SearchPage(page.events, searched, goes_on is None or len(found) >= limit, goes_on)


def look(wanted: EventFilter, sought: bytes, before_seq: int, most: tuple[int, int]) -> Steps[SearchLook]:
    """Look at events that pass the filter, at most so many, and of so many bytes where it is more than one."""
    filters, parameters = conditions(wanted, TEXT_IN_ROW)
    events_max, bytes_max = most
    rows = yield Fetch("content_sizes", parameters | {"before_seq": before_seq, "count": events_max + 1}, filters)
    sizes = [row[1] for row in rows[:events_max]]
    count = fitting(sizes, bytes_max)
    seqs = [row[0] for row in rows[:count]]
    found = (yield Fetch("contents_with", {"seqs": seqs, "sought": sought})) if seqs else []
    return SearchLook([row[0] for row in found], count, sum(sizes[:count]), seqs[-1] if len(rows) > count else None)


def found_events(seqs: Sequence[int]) -> Steps[EventPage]:
    """Fetch the events of these row numbers, newest first, as many as fit into a page."""
    rows = (yield Fetch("listed_by_seqs", {"seqs": seqs, "count": len(seqs)})) if seqs else []
    return (yield from filled_page(RowPage([stored_event(row) for row in rows], None)))
