"""What one daemon may expect of pages of a list: short looks, bounded memory, nothing lost or doubled between them."""

import random
import tracemalloc
from collections.abc import Mapping
from functools import partial
from operator import eq
from types import MappingProxyType
from typing import Any

import pytest

from replayforge.domain.lifecycle import State
from replayforge.domain.reports import EventFilter
from replayforge.stores import lookups
from replayforge.stores.driver import Fetch
from replayforge.stores.store import Store
from tests.contract.store_backends import claimed, put
from tests.support.builders import record, settlement

MEBIBYTE = 1 << 20
LARGE = 24
NAMES = [f"{kind}-{number}" for kind in ("order", "other") for number in range(20)]


async def walk(store: Store, wanted: EventFilter, limit: int) -> tuple[list[str], int]:
    """Return the events that page after page shows, and how many pages that took."""
    ids: list[str] = []
    before, pages = None, 0
    while before is not None or not pages:
        page = await store.page_of_rows(wanted, before_seq=before, limit=limit)
        assert len(page.events) <= limit
        assert before is None or page.next_seq is None or page.next_seq < before
        ids += [event.id for event in page.events]
        before, pages = page.next_seq, pages + 1
    return ids, pages


@pytest.mark.parametrize("limit", [1, 2, 50])
async def test_a_page_looks_at_so_many_events(store: Store, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Where no index tells which events pass, pages end early, and all of them together show each event once."""
    monkeypatch.setattr(lookups, "LOOKED_AT_MAX", 5)
    records = [
        record(f"e{n}", service_name="rare" if n in {0, 1, 11} else "", event_type="odd" if n % 2 else "even")
        for n in range(23)
    ]
    await put(store, records)
    found, pages = await walk(store, EventFilter(service_name="rare"), limit)
    assert found == ["e11", "e1", "e0"]
    assert pages >= 4
    assert (await walk(store, EventFilter(service_name="rare", event_type="odd"), limit))[0] == ["e11", "e1"]
    assert (await walk(store, EventFilter(service_name="rare", state=State.QUEUED), limit))[0] == found
    assert (await walk(store, EventFilter(service_name="nobody"), limit))[0] == []
    listed = await store.list_events(EventFilter(service_name="rare"), before_seq=None, limit=limit)
    assert (listed.events, listed.next_seq is None) == ([], False)


async def test_far_events_are_counted_off_only_where_the_near_ones_do_not_fill_the_page(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To find where 250,000 events end takes longer than most pages do."""
    looks: list[int] = []

    def asked(name: str, parameters: Mapping[str, Any] = MappingProxyType({}), filters: str = "") -> Fetch:
        looks.extend([parameters["count"]] if name == "seq_behind" else [])
        return Fetch(name, dict(parameters), filters)

    monkeypatch.setattr(lookups, "Fetch", asked)
    monkeypatch.setattr(lookups, "NEAR_MAX", 5)
    await put(store, [record(f"e{n}", service_name="common" if n else "rare") for n in range(12)])
    page = await store.page_of_rows(EventFilter(service_name="common"), before_seq=None, limit=2)
    assert ([event.id for event in page.events], looks) == (["e11", "e10"], [5])
    page = await store.page_of_rows(EventFilter(service_name="rare"), before_seq=None, limit=2)
    assert ([event.id for event in page.events], looks) == (["e0"], [5, 5, lookups.LOOKED_AT_MAX])


async def test_what_an_index_names_is_found_on_the_first_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However old it is, and however many events are newer."""
    monkeypatch.setattr(lookups, "LOOKED_AT_MAX", 3)
    first = record("first", workflow_id="old", event_type="rare", idempotency_key="key", service_name="s")
    await put(store, [first, *(record(f"e{n}") for n in range(20))])
    for wanted in (
        EventFilter(workflow_id="old"),
        EventFilter(event_type="rare"),
        EventFilter(idempotency_key="key"),
        EventFilter(text="old"),
        EventFilter(workflow_id="old", service_name="s", since_us=1),
        EventFilter(event_type="rare", state=State.QUEUED),
        EventFilter(text="ke", service_name="s"),
    ):
        assert await walk(store, wanted, 50) == (["first"], 1), wanted


@pytest.mark.parametrize("most", [1, 5, 1000], ids=["all are many", "some are many", "few"])
async def test_a_text_means_the_same_however_many_events_begin_with_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Whether they are gathered first, or the list is gone down: ids, workflows and keys, exact or beginnings."""
    monkeypatch.setattr(lookups, "BEGINNING_MAX", most)
    await put(store, [record(f"id-{n}", workflow_id=name, idempotency_key=f"key-{n}") for n, name in enumerate(NAMES)])
    for text in ("order-", "order-1", "other-7", "id-3", "key-39", "key-", "i", "nothing", "order-1%"):
        expected = [
            f"id-{n}"
            for n, name in reversed(list(enumerate(NAMES)))
            if any(one.startswith(text) for one in (f"id-{n}", name, f"key-{n}"))
        ]
        assert (await walk(store, EventFilter(text=text), 3))[0] == expected, text
        assert await store.count_newest(EventFilter(text=text), 1000) == len(expected), text


@pytest.mark.parametrize("errors_max", [3, 1000], ids=["many errors", "few errors"])
async def test_dead_letters_of_a_group_are_picked_from_the_newest(
    store: Store, monkeypatch: pytest.MonkeyPatch, errors_max: int
) -> None:
    """As `belongs` judges the names of groups, each once; before a row number, and no more than asked for."""
    monkeypatch.setattr(lookups, "ERRORS_JUDGED_MAX", errors_max)
    taken = await claimed(store, 12)
    await store.settle(
        [
            settlement(one.event, State.DEAD_LETTERED, error=error, error_signature=error)
            for one, error in zip(taken, 4 * ("one", "two", "three"), strict=True)
        ]
    )
    judged: list[str] = []

    def belongs(name: str) -> bool:
        judged.append(name)
        return name.startswith("t")

    found = await store.dead_letters_of("error", belongs, before_seq=None, limit=5)
    assert [event.id for event in found] == [f"event-{n}" for n in (11, 10, 8, 7, 5)]
    assert sorted(judged) == ["one", "three", "two"]
    assert await store.dead_letters_of("error", lambda _: False, before_seq=None, limit=5) == []
    older = await store.dead_letters_of("error", belongs, before_seq=found[-1].seq, limit=5)
    assert [event.id for event in older] == ["event-4", "event-2", "event-1"]
    monkeypatch.setattr(lookups, "SCAN_MAX", 2)
    assert len(await store.dead_letters_of("type", lambda name: name == "test", before_seq=None, limit=5)) == 2
    monkeypatch.setattr(lookups, "SCAN_MAX", 5)
    for name, expected in (("three", [11, 8]), ("two", [10, 7]), ("one", [9])):
        newest = await store.dead_letters_of("error", partial(eq, name), before_seq=None, limit=5)
        assert [event.id for event in newest] == [f"event-{number}" for number in expected]
    newest = await store.dead_letters_of("error", lambda _: True, before_seq=found[0].seq, limit=9)
    assert [event.id for event in newest] == [f"event-{number}" for number in (10, 9, 8, 7, 6)]


async def test_dead_letters_of_an_error_are_found_without_the_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 10,000 dead letters the kind would be read otherwise, though few have the error that is asked for."""
    names: list[str] = []

    def asked(name: str, parameters: Mapping[str, Any] = MappingProxyType({}), filters: str = "") -> Fetch:
        names.append(name)
        return Fetch(name, dict(parameters), filters)

    (taken,) = await claimed(store, 1)
    await store.settle([settlement(taken.event, State.DEAD_LETTERED, error="one", error_signature="one")])
    monkeypatch.setattr(lookups, "Fetch", asked)
    assert len(await store.dead_letters_of("error", lambda name: name == "one", before_seq=None, limit=5)) == 1
    assert names == ["errors_of_letters", "count_letters", "letters_with_errors", "listed_by_seqs"]
    names.clear()
    assert await store.dead_letters_of("error", lambda name: name == "two", before_seq=None, limit=5) == []
    assert names == ["errors_of_letters"]


@pytest.mark.slow
async def test_a_page_of_large_events_needs_memory_for_itself_alone(store: Store) -> None:
    """Of many events of a mebibyte each those that do not fit are not read, neither in a list nor in a search."""
    chance = random.Random(1)
    for n in range(LARGE):  # each of its own, and not to be compressed
        payload = b'"' + chance.randbytes(MEBIBYTE // 2).hex().encode() + b'"'
        await put(store, [record(f"e{n}", payload)], after=n)
    tracemalloc.start()
    try:
        page = await store.list_events(EventFilter(), before_seq=None, limit=200)
        listed = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        found = await store.search(EventFilter(), b'"', before_seq=None, limit=200)
        searched = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (len(page.events), len(found.events)) == (3, 3)
    assert max(listed, searched) < 4 * lookups.PAGE_BYTES_MAX < LARGE * MEBIBYTE
