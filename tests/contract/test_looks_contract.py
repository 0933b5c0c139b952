"""What one daemon may expect where people look at much: the engine never waits, and no look goes on for long."""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from replayforge.domain.errors import TooSlow
from replayforge.stores import lookups
from replayforge.stores.driver import Fetch, Steps
from replayforge.stores.store import Store
from tests.contract.store_backends import put
from tests.support.builders import record

SLOW = (
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000)"
    " SELECT count(*), max(i), 0 FROM n"
)


def slow() -> Steps[int]:
    """Count for minutes."""
    rows = yield Fetch("slow")
    return int(rows[0][0])


async def test_the_engine_never_waits_for_whoever_looks(store: Store) -> None:
    """While more looks run and wait than there is room for, keys, cursors, ledger and writes are answered."""
    store.driver.book = {**store.driver.book, "slow": SLOW}  # type: ignore[attr-defined]
    store.driver.look_seconds = 30.0
    await put(store, [record("event-1")])
    looks = [asyncio.ensure_future(store.driver.look(slow)) for _ in range(12)]
    await asyncio.sleep(0)
    async with asyncio.timeout(25):
        for _ in range(5):
            assert list(await store.events_by_ids(["event-1"])) == ["event-1"]
            await store.ledger_snapshot()
            await store.ping()
        await put(store, [record("event-2")], after=1)
    assert not any(look.done() for look in looks)
    for look in looks:
        look.cancel()
    await asyncio.gather(*looks, return_exceptions=True)


async def test_a_look_that_takes_too_long_is_given_up(store: Store) -> None:
    """Whoever asks for too much hears so, also who only waited for his turn; the next one is answered again."""
    store.driver.book = {**store.driver.book, "slow": SLOW}  # type: ignore[attr-defined]
    await put(store, [record("event-1")])
    store.driver.look_seconds = 0.3
    looks = await asyncio.gather(*(store.driver.look(slow) for _ in range(12)), return_exceptions=True)
    assert [type(look) for look in looks] == [TooSlow] * 12
    store.driver.look_seconds = 30.0
    assert (await store.list_workflows(before_seq=None, limit=5)).workflows[0].workflow_id == "workflow"


async def walk(store: Store, limit: int) -> tuple[list[str], list[int], int]:
    """Return the workflows that page after page names, what each counts, and how many pages that took."""
    names: list[str] = []
    totals: list[int] = []
    before, pages = None, 0
    while True:
        page = await store.list_workflows(before_seq=before, limit=limit)
        names += [one.workflow_id for one in page.workflows]
        totals += [one.total for one in page.workflows]
        pages += 1
        assert len(page.workflows) <= limit
        if page.next_seq is None:
            return names, totals, pages
        assert before is None or page.next_seq < before
        before = page.next_seq


@pytest.mark.parametrize("names_max", [3, 1000], ids=["many workflows", "few workflows"])
@pytest.mark.parametrize("limit", [1, 2, 50])
async def test_workflows_are_found_without_reading_all_there_is(
    store: Store, monkeypatch: pytest.MonkeyPatch, names_max: int, limit: int
) -> None:
    """Large workflows between small ones: each look reads a bounded piece, and all of them name each workflow once."""
    monkeypatch.setattr(lookups, "NEWEST_MAX", 4)
    monkeypatch.setattr(lookups, "WORKFLOWS_MAX", names_max)
    monkeypatch.setattr(lookups, "LOOKS_BACK_MAX", 2)
    runs = [("a", 1), ("large", 30), ("b", 1), ("c", 2), ("larger", 40), ("d", 1), ("a", 1), ("large", 2)]
    ids = [workflow_id for workflow_id, count in runs for _ in range(count)]
    await put(store, [record(f"event-{number}", workflow_id=one) for number, one in enumerate(ids)])
    names, totals, _ = await walk(store, limit)
    assert names == ["large", "a", "d", "larger", "c", "b"]
    assert totals == [32, 2, 1, 40, 2, 1]


async def test_a_page_of_workflows_counts_so_many_events(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list counts the newest events of a workflow and says so, and ends early; one alone is counted further."""
    monkeypatch.setattr(lookups, "WORKFLOW_EVENTS_MAX", 10)
    monkeypatch.setattr(lookups, "COUNTED_MAX", 15)
    ids = ["small"] * 9 + ["even"] * 10 + ["large"] * 11
    await put(store, [record(f"event-{number}", workflow_id=one) for number, one in enumerate(ids)])
    names, totals, pages = await walk(store, 200)
    assert (names, totals, pages) == (["large", "even", "small"], [10, 10, 9], 2)
    page = await store.list_workflows(before_seq=None, limit=2)
    assert [one.capped for one in page.workflows] == [True, False]
    large = await store.workflow("large")
    assert large is not None
    assert (large.total, large.capped) == (11, False)


async def test_a_page_of_workflows_is_counted_in_few_statements(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in one for each workflow: each of them would be a way to the database and back."""
    names: list[str] = []

    def asked(name: str, parameters: Mapping[str, Any] = MappingProxyType({}), filters: str = "") -> Fetch:
        names.append(name)
        return Fetch(name, dict(parameters), filters)

    monkeypatch.setattr(lookups, "Fetch", asked)
    monkeypatch.setattr(lookups, "COUNTED_AT_ONCE", 5)
    ids = [f"w{number % 12}" for number in range(30)]
    shops = ["shop" if number % 2 else "" for number in range(30)]
    await put(
        store,
        [
            record(f"event-{number}", workflow_id=one, application_name=shop or "default")
            for number, (one, shop) in enumerate(zip(ids, shops, strict=True))
        ],
    )
    names.clear()
    page = await store.list_workflows(before_seq=None, limit=11)
    assert [(one.workflow_id, one.total) for one in page.workflows] == [
        (f"w{number % 12}", 3 if number % 12 < 6 else 2) for number in range(29, 18, -1)
    ]
    assert names == ["seq_behind", "newest_workflows", *3 * ["totals_of_workflows"]]
    page = await store.list_workflows(before_seq=None, limit=3, application="shop")
    assert [(one.workflow_id, one.total) for one in page.workflows] == [("w5", 3), ("w3", 3), ("w1", 3)]
