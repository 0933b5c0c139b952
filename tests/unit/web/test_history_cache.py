"""How long the history of a range is remembered."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from replayforge.domain.event import EventRecord
from replayforge.domain.metrics_history import RANGES, MetricsHistory
from replayforge.engine.report.metrics_recorder import MetricsRecorder
from replayforge.stores.store import Store
from replayforge.telemetry import Telemetry
from replayforge.web.api.metrics_history import CHEAP_SECONDS, HistoryCache, RangeHistory
from replayforge.web.live.cached_answer import SHARE_OF_TIME, CachedAnswer
from tests.support.clock import FakeClock

CHEAP, COSTLY = CHEAP_SECONDS / 2, CHEAP_SECONDS * 2


@dataclass
class Source:
    """What is asked, and takes its time; its answer is how often it was asked."""

    clock: FakeClock
    seconds: float
    asked: int = 0

    async def ask(self) -> RangeHistory:
        self.asked += 1
        self.clock.advance(self.seconds)
        return RangeHistory(MetricsHistory(RANGES["1h"], (), ()), {"asked": self.asked})


async def test_what_was_just_written_is_not_hidden_by_what_is_remembered(tmp_path: Path) -> None:
    """Each range is remembered by itself, until this daemon writes more metrics; only a costly one stays."""
    clock = FakeClock()
    store = await Store.open(f"sqlite:///{tmp_path}/store.db", node="node-1", owner="node-1/first")
    try:
        metrics_recorder = MetricsRecorder(store, clock, Telemetry())
        cache = HistoryCache(metrics_recorder, clock)
        sources = {"1h": Source(clock, CHEAP), "7d": Source(clock, COSTLY)}

        async def asked() -> dict[str, int]:
            found = {name: await cache.of(RANGES[name]).get(source.ask) for name, source in sources.items()}
            return {name: history.queued["asked"] for name, history in found.items()}

        assert await asked() == {"1h": 1, "7d": 1}
        assert await asked() == {"1h": 2, "7d": 2}, "a first look that takes long may have met a busy moment"
        assert await asked() == {"1h": 2, "7d": 2}
        await metrics_recorder.write()  # there is nothing to write
        assert await asked() == {"1h": 2, "7d": 2}
        metrics_recorder.note_accepted(1, {"records": [EventRecord("event-1", "app", "workflow", "test", 0)]})
        await metrics_recorder.write()
        assert await asked() == {"1h": 3, "7d": 2}
    finally:
        await store.close()


async def test_one_busy_moment_makes_no_answer_a_costly_one() -> None:
    """A look that took long once is repeated when it is asked for; one that takes long again is kept for a while."""
    clock = FakeClock()
    source, answer = Source(clock, CHEAP), CachedAnswer[RangeHistory](clock)
    await answer.get(source.ask)
    source.seconds = 5.0
    await answer.get(source.ask)
    clock.advance(CHEAP / SHARE_OF_TIME)
    assert (await answer.get(source.ask)).queued["asked"] == 3
    assert (await answer.get(source.ask)).queued["asked"] == 3
    assert answer.cost_seconds == pytest.approx(5.0)
