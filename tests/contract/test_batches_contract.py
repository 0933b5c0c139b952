"""What a batch writes is what it was given, however many rows share their columns, and however few."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import astuple, replace

from replayforge.domain.alerts import Alert, Said
from replayforge.stores.batches import BatchRow, LaneNews, RefusedDelivery
from replayforge.stores.driver import Batch, Fetch, Steps
from replayforge.stores.rows import Row
from replayforge.stores.store import Store

COUNTS = [1, 2, 15, 16, 17, 59]


def written(name: str, rows: Sequence[Alert] | Sequence[BatchRow]) -> Steps[int]:
    """Write a batch; returns how many rows that changed."""
    ((changed,),) = yield Batch(name, rows)
    return int(changed)


def fetched(name: str, **parameters: str) -> Steps[Sequence[Row]]:
    """Fetch rows."""
    return (yield Fetch(name, parameters))


def alerts(count: int, chance: random.Random) -> list[Alert]:
    """Return alerts of which each column but the first holds one value, or several, or nothing."""
    shared = {name: chance.random() < 0.5 for name in ("id", "ended_at_us", "failures", "last_error")}

    def one(name: str, *values: Any) -> Any:
        return values[0] if shared[name] else chance.choice(values)

    return [
        Alert(
            name=f"alert-{number:03}",
            subject="\u00f8",
            version=1,
            id=one("id", "", "id", "another"),
            owner="node-1",
            detail="",
            began_at_us=2**62 + number,
            ended_at_us=one("ended_at_us", None, 0, -5),
            said=Said.BEGAN,
            failures=one("failures", 0, 3),
            due_at_us=5,
            last_error=one("last_error", None, "error", ""),
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("count", COUNTS)
async def test_what_is_given_is_kept(store: Store, count: int) -> None:
    """Inserted and changed, row by row; what stands once in a batch stands in each of its rows, nothing is nothing."""
    chance = random.Random(count)
    first, second = alerts(count, chance), alerts(count, chance)
    assert await store.driver.write(lambda: written("insert_alerts", first)) == count
    assert [tuple(row) for row in await store.driver.read(lambda: fetched("alerts"))] == list(map(astuple, first))
    assert await store.driver.write(lambda: written("change_alerts", second)) == count
    changed = [astuple(replace(alert, version=2)) for alert in second]
    assert [tuple(row) for row in await store.driver.read(lambda: fetched("alerts"))] == changed


@pytest.mark.parametrize("count", COUNTS)
async def test_rows_may_all_be_the_same(store: Store, count: int) -> None:
    """The same row so many times is so many rows, with bytes as they were."""
    body = b"\x00\xff" * 3000
    refusal = RefusedDelivery(
        source="shop", at_us=1, reason="stale", url="", headers="{}", body=body, size_bytes=len(body)
    )
    assert await store.driver.write(lambda: written("insert_refusal", [refusal] * count)) == count
    assert [bytes(one.body) for one in await store.refusals("shop")] == [body] * count
    assert await store.driver.write(lambda: written("add_lane_news", [LaneNews(lane="lane")] * count)) == count
