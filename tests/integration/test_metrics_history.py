"""The metrics history of a daemon: what it counts, what a restart leaves of it, how it bears an outage."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from replayforge.domain.errors import Unavailable
from replayforge.domain.event import EventRecord
from replayforge.domain.lifecycle import Reason, State
from replayforge.domain.metrics_history import OTHERS, RANGES, TYPES_MAX, MetricsHistory, Period
from replayforge.domain.verdict import Verdict
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.publisher import Publisher
from replayforge.engine.report.metrics_recorder import MetricsRecorder
from replayforge.engine.run.settler import Settler
from replayforge.stores.metrics_history import StepAmount
from replayforge.stores.store import Store
from replayforge.streams.embedded_stream import EmbeddedStream
from replayforge.telemetry import Telemetry
from tests.contract.store_backends import claimed
from tests.integration.conftest import echo_handlers
from tests.support.builders import success
from tests.support.clock import FakeClock
from tests.support.daemon_process import DaemonProcess, until
from tests.support.house import House, open_house
from tests.support.polling import persist
from tests.support.postgres_server import require_postgres, shared_server

HOUR = RANGES["1h"]
MINUTE_US = 1_763_800_020_000_000  # a minute begins
SOON = {"janitor.metrics_seconds": 0.05}
SELDOM = {"janitor.metrics_seconds": 3600}


class Scribe:
    """A metrics recorder without a daemon: the test says what happens, and when."""

    def __init__(self, store: Store, clock: FakeClock) -> None:
        self.telemetry = Telemetry()
        self.clock = clock
        self.metrics_recorder = MetricsRecorder(store, clock, self.telemetry)

    def accept(self, count: int, event_type: str = "order") -> None:
        record = EventRecord("event", "app", "workflow", event_type, 0)
        self.telemetry.emit("event.accepted", count, records=[record] * count)

    async def accepted(self) -> list[int]:
        """Return the accepted events of each minute that has some."""
        periods = (await self.metrics_recorder.read(HOUR)).periods
        return [period.accepted for period in periods if period.accepted]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(MINUTE_US)


@asynccontextmanager
async def opened(directory: Path, kind: type[Store] = Store) -> AsyncIterator[Store]:
    """Open the store of a directory; it is closed at the end, whatever happens: an open one would keep pytest alive."""
    store = await kind.open(f"sqlite:///{directory}/store.db", node="node-1", owner="node-1/first")
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(tmp_path) as store:
        yield store


@pytest.fixture
def scribe(store: Store, clock: FakeClock) -> Scribe:
    return Scribe(store, clock)


async def test_each_minute_has_its_own_count(scribe: Scribe) -> None:
    """What is written again and again within a minute adds up, and the next minute begins at nothing."""
    for minute in range(3):
        for _ in range(4):
            scribe.accept(minute + 1)
            await scribe.metrics_recorder.write()
            scribe.clock.advance(15)
    assert await scribe.accepted() == [4, 8, 12]


async def test_a_second_process_goes_on_where_the_first_ended(store: Store, clock: FakeClock) -> None:
    """Both count in the same minute; the sum of the first is not written over by the second."""
    for count in (3, 4):
        scribe = Scribe(store, clock)
        scribe.accept(count)
        await scribe.metrics_recorder.write()
        clock.advance(1)
    assert await scribe.accepted() == [7]


@pytest.mark.parametrize("seconds", [-30, -90, 90])
async def test_a_clock_that_is_set_erases_no_minute(scribe: Scribe, seconds: float) -> None:
    """A minute that comes again keeps what was counted in it the first time."""
    for _ in range(3):
        scribe.accept(5)
        await scribe.metrics_recorder.write()
        scribe.clock.advance(60)
    scribe.clock.set_by(seconds)
    scribe.accept(1)
    await scribe.metrics_recorder.write()
    scribe.clock.set_by(180)
    assert sum(await scribe.accepted()) == 16


async def test_a_store_that_is_away_costs_no_count(tmp_path: Path, clock: FakeClock) -> None:
    """What cannot be written stays in memory, each minute by itself, and is written once the store is back."""
    async with opened(tmp_path) as store:
        scribe = Scribe(store, clock)
    for minute in range(5):
        scribe.accept(minute + 1)
        with pytest.raises(Unavailable):
            await scribe.metrics_recorder.write()
        clock.advance(60)
    async with opened(tmp_path) as scribe.metrics_recorder.store:
        await scribe.metrics_recorder.write()
        assert await scribe.accepted() == [1, 2, 3, 4, 5]


async def test_memory_is_bounded_however_long_the_store_is_away(tmp_path: Path, clock: FakeClock) -> None:
    """Three weeks of ever new event types leave no more pages than the ranges have periods, each with few types."""
    async with opened(tmp_path) as store:
        scribe = Scribe(store, clock)
    for hour in range(21 * 24):
        for number in range(TYPES_MAX + 10):
            scribe.accept(1, f"type-{hour}-{number}")
        with pytest.raises(Unavailable):
            await scribe.metrics_recorder.write()
        clock.advance(3600)
    pages = scribe.metrics_recorder.pages.values()
    assert len(pages) <= sum(len(chosen.periods(clock.now_us())) for chosen in RANGES.values())
    assert max(len(page.counts.by_type) for page in pages) == TYPES_MAX + 1
    assert all(OTHERS in page.counts.by_type for page in pages)


class Deaf(Store):
    """A store that does what it is told, and whose first answer to a write is lost."""

    deaf = True

    async def write_metrics(self, amounts: Sequence[StepAmount]) -> None:
        await super().write_metrics(amounts)
        if self.deaf:
            self.deaf = False
            raise Unavailable("The answer was lost.")


async def test_a_lost_answer_counts_nothing_twice(tmp_path: Path, clock: FakeClock) -> None:
    """What was committed without our knowing is written once more, and is the same."""
    async with opened(tmp_path, Deaf) as store:
        scribe = Scribe(store, clock)
        scribe.accept(7)
        with pytest.raises(Unavailable):
            await scribe.metrics_recorder.write()
        scribe.accept(1)
        await scribe.metrics_recorder.write()
        assert await scribe.accepted() == [8]


async def test_nothing_is_removed_while_the_time_is_in_doubt(scribe: Scribe) -> None:
    """Retention goes by a clock that can be trusted; then it leaves exactly what the ranges reach."""
    scribe.accept(1)
    await scribe.metrics_recorder.write()
    scribe.clock.advance(3600)
    scribe.accept(2)
    await scribe.metrics_recorder.write()
    assert await scribe.metrics_recorder.retire(None) == 0
    assert (
        await scribe.metrics_recorder.retire(scribe.clock.now_us()) == 1
    )  # the step of a minute; longer ones are kept longer
    assert await scribe.accepted() == [2]
    assert sum(period.accepted for period in (await scribe.metrics_recorder.read(RANGES["6h"])).periods) == 3


async def test_a_result_that_came_too_late_is_no_dead_letter(store: Store, scribe: Scribe) -> None:
    """What is fenced is reported as fenced and counted nowhere: the event is in other hands by now."""
    (late,) = await claimed(store)
    await store.hand_back([late.lease], scribe.clock.now_us())
    verdict = Verdict(State.DEAD_LETTERED, 1, 0, reason=Reason.PERMANENT)
    settler = Settler(
        store,
        ClaimBuffer(scribe.clock, workers=1),
        Publisher(store, EmbeddedStream(scribe.telemetry, entries_max=10), scribe.telemetry),
        scribe.telemetry,
    )
    await settler.commit([replace(success(late), verdict=verdict)])
    counts = scribe.telemetry.counts
    assert (counts["attempt.fenced"], counts["attempt.settled"], counts["event.dead_lettered"]) == (1, 0, 0)
    assert sum(scribe.metrics_recorder.counts_since_start()) == 0


# A whole daemon


async def metrics_of(house: House, seen: int) -> MetricsHistory:
    """Return the metrics history of the last hour once so many attempts have been counted in it."""

    async def look() -> MetricsHistory | None:
        found = await house.daemon.metrics_recorder.read(HOUR)
        return found if sum(period.settled for period in found.periods) >= seen else None

    found = await persist(look, 15)
    assert found is not None
    return found


async def test_what_becomes_of_events_is_counted_by_type(tmp_path: Path) -> None:
    """Successes, retries and dead letters are counted where they belong, and only first runs have a latency."""
    async with open_house(tmp_path / "data", echo_handlers(), SOON) as house:
        ok, failed = await house.send("good"), await house.send("fails")
        await house.send("fails.later", max_attempts=3)
        await house.reaches(ok, "succeeded")
        await house.reaches(failed, "dead_lettered")
        await house.post(f"/api/events/{failed}/replay", {})
        found = await metrics_of(house, 1 + 2 + 3)
        figures = {one.event_type: (one.accepted, one.succeeded, one.retried, one.dead_lettered) for one in found.types}
        assert figures == {"good": (1, 1, 0, 0), "fails": (1, 0, 0, 2), "fails.later": (1, 0, 2, 1)}
        assert sum(found.latencies) == 3
        assert {one.event_type: sum(one.latencies) for one in found.types} == {"good": 1, "fails": 1, "fails.later": 1}


async def test_crashes_are_counted_and_what_they_bury(tmp_path: Path) -> None:
    """An event that kills its worker three times is three crashed attempts, three restarts and one dead letter."""
    settings = SOON | {"chaos.enabled": True}
    async with open_house(tmp_path / "data", echo_handlers(), settings) as house:
        crashing = await house.send("crash", {"_force_crash": True})
        await house.reaches(crashing, "dead_lettered")
        found = await metrics_of(house, 1)
        assert [(one.event_type, one.accepted, one.dead_lettered) for one in found.types] == [("crash", 1, 1)]
        assert sum(period.crashed for period in found.periods) == 3
        assert sum(period.restarted for period in found.periods) == 3


async def test_an_orderly_stop_leaves_nothing_unwritten(tmp_path: Path) -> None:
    """However seldom the metrics history is written, a daemon that is told to stop writes it before it ends."""
    async with open_house(tmp_path / "data", echo_handlers(), SELDOM) as house:
        await house.reaches(await house.send("good"), "succeeded")
        await house.send_many(40, "good")
        await house.converges()
    async with open_house(tmp_path / "data", echo_handlers(), SELDOM) as house:
        found = await metrics_of(house, 41)
        assert sum(period.accepted for period in found.periods) == 41
        assert sum(found.latencies) == 41
        assert sum(period.restarted for period in found.periods) == 0


async def test_two_daemons_add_up(tmp_path: Path) -> None:
    """Each shows what happened on both, whichever took the event in and whichever ran it."""
    require_postgres()
    shared = SOON | {"store.url": shared_server().new_schema()}
    async with (
        open_house(tmp_path / "first", echo_handlers(), shared) as first,
        open_house(tmp_path / "second", echo_handlers(), shared) as second,
    ):
        await first.send_many(30, "good")
        await second.send_many(12, "good")
        for house in (first, second):
            found = await metrics_of(house, 42)
            assert sum(period.accepted for period in found.periods) == 42
            assert [(one.event_type, one.succeeded) for one in found.types] == [("good", 42)]


async def figures_of(house: House) -> dict[str, Any]:
    """Return the figures of the API."""
    found: dict[str, Any] = await house.get("/api/metrics")
    return found


async def test_the_api_and_prometheus_tell_the_same_latency(tmp_path: Path) -> None:
    """Percentiles of the last hour in JSON; for Prometheus a histogram with every event of this process in it."""
    async with open_house(tmp_path / "data", echo_handlers(), SOON) as house:
        assert (await figures_of(house))["p99_latency_ms"] is None
        await house.send_many(30, "good")
        await metrics_of(house, 30)

        async def seen() -> dict[str, Any] | None:
            figures = await figures_of(house)
            return figures if figures["p50_latency_ms"] is not None else None

        figures = await persist(seen, 15)
        assert figures is not None
        assert 0 < figures["p50_latency_ms"] <= figures["p95_latency_ms"] <= figures["p99_latency_ms"] < 60_000
        assert {"accepted_per_sec", "done_per_sec"} <= figures.keys()
        async with house.http.get("/metrics") as response:
            text = await response.text()
        bucket = r'replayforge_latency_seconds_bucket\{event_type="good",le="[^"]+",outcome="succeeded"\} (\S+)'
        buckets = [float(count) for count in re.findall(bucket, text)]
        assert buckets == sorted(buckets)
        assert buckets[-1] == float(re.findall(r"replayforge_latency_seconds_count\{.*\} (\S+)", text)[0]) == 30


def page_figures(daemon: DaemonProcess) -> Period:
    """Read the table below the throughput as a browser without scripts gets it, and add its rows up."""
    text = daemon.http.request("GET", "/", headers={"Accept": "text/html"}).body.decode()
    table = text.split('aria-label="Throughput as a table"')[1].split("</table>")[0]
    rows = [
        list(map(int, re.findall(r'class="num">([\d,]+)<', row.replace(",", "")))) for row in table.split("<tr>")[2:]
    ]
    return Period(0, *(sum(column) for column in zip(*rows, strict=True)))


def test_a_kill_takes_no_more_than_what_was_not_yet_written(tmp_path: Path) -> None:
    """After kill -9 and a start the chart shows what it showed before, and that the daemon was killed."""
    with DaemonProcess(tmp_path, Path(__file__).parents[1] / "data" / "sink_handlers.py", settings=SOON) as daemon:
        daemon.start()
        for number in range(25):
            daemon.http.post("/api/events", {"workflow_id": "w", "event_type": "quick", "payload": number})
        before = until(lambda: figures if (figures := page_figures(daemon)).settled == 25 else None, what="all written")
        daemon.kill()
        daemon.start()
        after = until(lambda: figures if (figures := page_figures(daemon)).restarted else None, what="the restart")
    assert (before.accepted, before.settled, before.restarted) == (25, 25, 0)
    assert (after.accepted, after.settled, after.restarted) == (25, 25, 1)
