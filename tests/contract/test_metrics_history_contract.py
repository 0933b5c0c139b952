"""What the metrics history may expect of any store: sums of all nodes, writing twice, types, retention."""

from collections.abc import Sequence

from replayforge.domain.metrics_history import LATENCIES, NO_TYPE, RANGES, Period
from replayforge.stores.metrics_history import TYPES_SHOWN_MAX
from replayforge.stores.store import Store
from tests.contract.store_backends import StoreHouse, put
from tests.support.builders import record

HOUR = RANGES["1h"]
NOW_US = 1_763_800_000_123_456
STARTS = HOUR.periods(NOW_US)


async def write(store: Store, amounts: Sequence[tuple[int, str, str, int]], step_seconds: int = 60) -> None:
    """Write (begin, type, name, amount) of one step."""
    await store.write_metrics([(step_seconds, *amount) for amount in amounts])


async def test_the_amounts_of_several_nodes_add_up(house: StoreHouse) -> None:
    """Each node writes its own sums; a look sees them together, by period and by type."""
    first, second = await house.join("node-1"), await house.join("node-2")
    await write(first, [(STARTS[5], "order", "accepted", 3), (STARTS[5], "order", "succeeded", 2)])
    await write(second, [(STARTS[5], "order", "accepted", 4), (STARTS[6], "pay", "dead_lettered", 1)])
    await write(second, [(STARTS[6], "pay", LATENCIES[7], 1), (STARTS[6], NO_TYPE, "restarted", 1)])
    found = await first.read_metrics(HOUR, NOW_US)
    assert found.periods[5] == Period(STARTS[5], accepted=7, succeeded=2)
    assert found.periods[6] == Period(STARTS[6], dead_lettered=1, restarted=1)
    assert sum(period.accepted + period.settled for period in found.periods) == 10
    assert [(one.event_type, one.accepted, one.settled[5:7]) for one in found.types] == [
        ("order", 7, (2, 0)),
        ("pay", 0, (0, 1)),
    ]
    assert found.latencies == found.types[1].latencies
    assert (found.latencies[7], sum(found.latencies)) == (1, 1)


async def test_an_amount_replaces_the_one_before(house: StoreHouse) -> None:
    """What is written twice, because the first answer was lost, counts once; a later sum takes its place."""
    store = await house.join()
    for amount in (3, 3, 5):
        await write(store, [(STARTS[0], "order", "accepted", amount)])
    assert (await store.read_metrics(HOUR, NOW_US)).periods[0].accepted == 5
    assert await store.own_metrics(60, STARTS[0]) == [("order", "accepted", 5)]


async def test_a_node_is_told_only_what_it_wrote_itself(house: StoreHouse) -> None:
    """What another node wrote about the same step, or the same node about another one, is not among it."""
    first, second = await house.join("node-1"), await house.join("node-2")
    await write(first, [(STARTS[0], "order", "accepted", 1), (STARTS[1], "order", "accepted", 2)])
    await write(second, [(STARTS[0], "order", "accepted", 4)])
    await write(first, [(STARTS[0], "order", "accepted", 8)], step_seconds=300)
    assert await first.own_metrics(60, STARTS[0]) == [("order", "accepted", 1)]
    assert await first.own_metrics(60, STARTS[2]) == []


async def test_a_range_sees_its_own_steps_and_nothing_beyond_them(house: StoreHouse) -> None:
    """Steps of other lengths, and those before and after the range, are left out of every sum."""
    store = await house.join()
    inside = [(STARTS[0], "order", "accepted", 1), (STARTS[-1], "order", LATENCIES[0], 1)]
    await write(store, inside)
    await write(store, [(at_us, "order", name, 9) for at_us, _, name, _ in inside], step_seconds=300)
    outside = [STARTS[0] - 60_000_000, STARTS[-1] + 60_000_000]
    for name in ("accepted", "succeeded", LATENCIES[0]):
        await write(store, [(at_us, "order", name, 9) for at_us in outside])
    found = await store.read_metrics(HOUR, NOW_US)
    assert sum(period.accepted for period in found.periods) == found.types[0].accepted == 1
    assert sum(found.latencies) == sum(found.types[0].latencies) == 1
    assert sum(found.types[0].settled) == 0


async def test_the_busiest_types_are_named(house: StoreHouse) -> None:
    """Of more types than are shown those with the most events are, and the daemon's own troubles are no type."""
    store = await house.join()
    await write(store, [(STARTS[0], f"type-{number:02}", "accepted", 100 + number) for number in range(30)])
    await write(store, [(STARTS[0], NO_TYPE, "restarted", 1000), (STARTS[0], "slow", LATENCIES[40], 1000)])
    found = await store.read_metrics(HOUR, NOW_US)
    assert [one.event_type for one in found.types] == [f"type-{29 - rank:02}" for rank in range(TYPES_SHOWN_MAX)]


async def test_what_no_range_reaches_is_removed_piece_by_piece(house: StoreHouse) -> None:
    """The oldest go first, no more than asked for at once; other steps and later ones stay."""
    store = await house.join()
    await write(store, [(at_us, "order", "accepted", 1) for at_us in STARTS])
    await write(store, [(STARTS[0], "order", "accepted", 1)], step_seconds=300)
    assert [await store.retire_metrics(60, STARTS[10], 7) for _ in range(3)] == [7, 3, 0]
    accepted = [period.accepted for period in (await store.read_metrics(HOUR, NOW_US)).periods]
    assert accepted == [0] * 10 + [1] * 50
    assert await store.own_metrics(300, STARTS[0]) == [("order", "accepted", 1)]


async def test_queued_events_are_counted_by_type_up_to_a_number(house: StoreHouse) -> None:
    """Each type has its number as long as there are few; beyond the bound no more rows are looked at."""
    store = await house.join()
    await put(store, [record(f"event-{number}", event_type="ab"[number % 2]) for number in range(9)])
    assert await store.queued_types(100) == {"a": 5, "b": 4}
    assert sum((await store.queued_types(6)).values()) == 6
