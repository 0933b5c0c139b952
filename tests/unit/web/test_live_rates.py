"""How fast events come and go, on a clock that the test moves and sets."""

from pathlib import Path

import pytest

from replayforge.domain.event import EventRecord
from replayforge.engine.report.metrics_recorder import MetricsRecorder
from replayforge.stores.store import Store
from replayforge.telemetry import Telemetry
from replayforge.web.live.live_rates import LiveRates
from tests.support.clock import FakeClock

RECORD = EventRecord("event-1", "app", "workflow", "test", 0)


@pytest.mark.parametrize("seconds", [0.0, -120.0, -3_600.0, 3_600.0, -3_652 * 86_400.0])
async def test_a_wall_clock_that_is_set_changes_no_rate(tmp_path: Path, seconds: float) -> None:
    """Three events in five seconds are 0.6 a second, whatever the wall clock says meanwhile."""
    clock = FakeClock()
    store = await Store.open(f"sqlite:///{tmp_path}/store.db", node="node-1", owner="node-1/first")
    try:
        live_rates = await sampled(MetricsRecorder(store, clock, Telemetry()), clock, seconds)
    finally:
        await store.close()  # an open one would keep pytest alive
    assert live_rates.rates() == pytest.approx((0.6, 0.4))


async def sampled(metrics_recorder: MetricsRecorder, clock: FakeClock, seconds: float) -> LiveRates:
    """Let twenty times five seconds pass, with three accepted events and two ended ones each."""
    live_rates = LiveRates(metrics_recorder, clock)
    for number in range(20):
        clock.advance(5)
        if number == 10:
            clock.set_by(seconds)
        metrics_recorder.telemetry.emit("event.accepted", 3, records=[RECORD] * 3)
        metrics_recorder.telemetry.emit("event.dead_lettered", 2, event_type="test", reason="permanent")
        await metrics_recorder.write()  # what was written is still counted
        live_rates.samples.append(live_rates.now())
    return live_rates
