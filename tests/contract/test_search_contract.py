"""What one daemon may expect of a search in what came with events, whichever its store: exact, bounded, and said so."""

import msgspec
import pytest

from replayforge.domain.reports import EventFilter
from replayforge.stores import content_search, lookups
from replayforge.stores.content_search import SearchPage
from replayforge.stores.store import Store
from tests.contract.store_backends import put
from tests.support.builders import record

ANY = EventFilter()


async def ids(store: Store, sought: bytes, wanted: EventFilter = ANY) -> list[str]:
    """Return the events that one search finds."""
    page = await store.search(wanted, sought, before_seq=None, limit=100)
    assert (page.complete, page.next_seq) == (True, None)
    return [event.id for event, _ in page.events]


async def pages(store: Store, sought: bytes, limit: int) -> list[SearchPage]:
    """Return every page of a search."""
    found = [await store.search(ANY, sought, before_seq=None, limit=limit)]
    while (before := found[-1].next_seq) is not None:
        found.append(await store.search(ANY, sought, before_seq=before, limit=limit))
    return found


def found_ids(found: list[SearchPage]) -> list[str]:
    """Return the events of pages in their order."""
    return [event.id for page in found for event, _ in page.events]


async def test_the_bytes_of_payload_and_metadata_are_searched_as_they_were_sent(store: Store) -> None:
    """Case, spaces and escapes count, nothing is a pattern, and other filters hold besides."""
    agent = msgspec.Raw(b'{"headers":{"user-agent":"Shop/1.0"}}')
    await put(
        store,
        [
            record("a", '{"mail": "ada@example.com", "name": "Zoë"}'.encode(), event_type="pay"),
            record("b", rb'{"name": "Zo\u00eb", "at": "50%_\\"}', metadata=agent),
            record("c", b'{"name":"ada"}', event_type="pay", metadata=agent),
        ],
    )
    sought = (b"ada@example.com", b"ada", b"Ada", b"Shop/1.0", "Zoë".encode(), rb"Zo\u00eb", b'name": ', b"%", b"\\\\")
    found = {text: await ids(store, text) for text in sought}
    assert list(found.values()) == [["a"], ["c", "a"], [], ["c", "b"], ["a"], ["b"], ["b", "a"], ["b"], ["b"]]
    assert await ids(store, b"Shop/1.0", EventFilter(event_type="pa*")) == ["c"]
    (((event, content),)) = (await store.search(ANY, b"50%", before_seq=None, limit=1)).events
    assert (event.id, content.metadata) == ("b", bytes(agent))


async def test_a_search_stops_at_its_bound_and_goes_on_by_its_cursor(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty page that is not complete leads to the next; nothing is lost or shown twice, whatever ends a page."""
    monkeypatch.setattr(content_search, "LOOK_EVENTS", 2)
    monkeypatch.setattr(content_search, "SEARCHED_MAX", 5)
    await put(store, [record(f"e{n}", b'"here"' if n in {0, 1, 2, 4} else b'"no"') for n in range(12)])
    found = await pages(store, b"here", 100)
    assert [(len(page.events), page.searched, page.complete) for page in found] == [
        (0, 5, False),
        (2, 5, False),
        (2, 2, True),
    ]
    for limit in (1, 2, 3):
        assert found_ids(await pages(store, b"here", limit)) == ["e4", "e2", "e1", "e0"]
    monkeypatch.setattr(lookups, "PAGE_BYTES_MAX", 1)
    assert found_ids(await pages(store, b"here", 100)) == ["e4", "e2", "e1", "e0"]


async def test_a_search_is_bounded_by_bytes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few the events are that so many bytes came with; one that is larger than all of them is looked at."""
    monkeypatch.setattr(content_search, "LOOK_BYTES", 2_000)
    monkeypatch.setattr(content_search, "SEARCHED_BYTES_MAX", 3_500)
    large = b'"' + b"x" * 1_000 + b'"'
    await put(store, [record(f"e{n}", large if n else b'"here' + b"x" * 9_000 + b'"') for n in range(8)])
    found = await pages(store, b"here", 100)
    assert [(page.searched, page.complete) for page in found] == [(4, False), (4, True)]
    assert found_ids(found) == ["e0"]
