"""The bars of the last hour, on a clock that the test moves and sets."""

import pytest

from replayforge.telemetry import Telemetry
from replayforge.web.pulse import Pulse
from tests.support.clock import FakeClock


def sampled(pulse: Pulse, clock: FakeClock, minutes: int) -> None:
    """Let minutes pass, with one accepted event and one sample in each."""
    for _ in range(minutes):
        clock.advance(60)
        pulse.telemetry.emit("event.accepted")
        pulse.samples.append(pulse.now())


@pytest.mark.parametrize("seconds", [0.0, -120.0, -3_600.0, 3_600.0, -3_652 * 86_400.0])
def test_a_wall_clock_that_is_set_neither_folds_nor_stretches_the_hour(seconds: float) -> None:
    """Each minute keeps its one event, minutes follow each other, and the newest is the present one."""
    clock = FakeClock(1_763_800_000_000_000 // 60_000_000 * 60_000_000)
    pulse = Pulse(Telemetry(), clock)
    sampled(pulse, clock, 5)
    clock.set_by(seconds)
    sampled(pulse, clock, 5)
    minutes = pulse.minutes()
    assert [minute.accepted for minute in minutes] == [0] + [1] * 10
    assert [minutes[-1].at_us - minute.at_us for minute in minutes] == [60_000_000 * age for age in range(10, -1, -1)]
    assert minutes[-1].at_us == clock.now_us()
    assert pulse.rates()[0] == pytest.approx(1 / 60)
