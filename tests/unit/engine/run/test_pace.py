"""The figures of the newest attempts and replays, on a clock that the test moves."""

import pytest

from replayforge.domain.lifecycle import Outcome, State
from replayforge.engine.run.pace import ATTEMPTS_MAX, WINDOW_SECONDS, Pace
from replayforge.stores.transactions import Settlement
from tests.support.builders import settlement, stored_event
from tests.support.clock import FakeClock


def attempt(clock: FakeClock, state: State = State.SUCCEEDED, *, milliseconds: int = 1, run: int = 1) -> Settlement:
    """Return an attempt that has just ended."""
    outcome = Outcome.SUCCEEDED if state is State.SUCCEEDED else Outcome.FAILED
    return settlement(
        stored_event(id="event", run=run), state, outcome, at_us=clock.now_us(), took_us=milliseconds * 1000
    )


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_nothing_yet(clock: FakeClock) -> None:
    """Without attempts no duration is made up, and the rate is zero."""
    figures = Pace(clock).figures()
    assert (figures.attempt_ms_average, figures.attempt_ms_p50, figures.attempt_ms_p95) == (None, None, None)
    assert (figures.succeeded_per_second, figures.attempt_failures, figures.replay_success_share) == (0, 0, 0)


def test_durations(clock: FakeClock) -> None:
    """Average and quantiles are those of all attempts, whatever came of them."""
    pace = Pace(clock)
    pace.note(attempt(clock, State.RETRYING, milliseconds=milliseconds) for milliseconds in range(100, 0, -1))
    figures = pace.figures()
    assert (figures.attempt_ms_average, figures.attempt_ms_p50, figures.attempt_ms_p95) == (50.5, 51, 96)
    assert figures.attempt_failures == 100


def test_the_rate_counts_the_last_minute(clock: FakeClock) -> None:
    """Only what succeeded within the last minute is in the rate."""
    pace = Pace(clock)
    pace.note([attempt(clock), attempt(clock, State.RETRYING)])
    clock.advance(WINDOW_SECONDS - 1)
    pace.note([attempt(clock)])
    assert pace.figures().succeeded_per_second == pytest.approx(2 / WINDOW_SECONDS)
    clock.advance(2)
    assert pace.figures().succeeded_per_second == pytest.approx(1 / WINDOW_SECONDS)


def test_the_rate_beyond_what_is_remembered(clock: FakeClock) -> None:
    """With more attempts in a minute than are remembered the rate is that of the time they cover."""
    pace = Pace(clock)
    for _ in range(ATTEMPTS_MAX * 2):
        clock.advance(0.001)
        pace.note([attempt(clock)])
    assert pace.figures().succeeded_per_second == pytest.approx(1000, rel=0.01)


@pytest.mark.parametrize("seconds", [-3_600.0, 3_600.0])
def test_the_rate_and_the_replays_do_not_go_by_a_wall_clock_that_is_set(clock: FakeClock, seconds: float) -> None:
    """A wall clock that is set changes neither the rate of the last minute nor how long a replay took."""
    pace = Pace(clock)
    pace.note_replay("event.replayed", 1, {"event_id": "event", "run": 2})
    pace.note([attempt(clock)] * (ATTEMPTS_MAX - 1))
    clock.set_by(seconds)
    clock.advance(WINDOW_SECONDS + 1)
    pace.note([attempt(clock, run=2)])
    figures = pace.figures()
    assert figures.succeeded_per_second == pytest.approx(1 / WINDOW_SECONDS)
    assert figures.replay_ms_average == (WINDOW_SECONDS + 1) * 1000


def test_replays(clock: FakeClock) -> None:
    """A replay is measured from the moment it was asked for to its end; attempts in between end nothing."""
    pace = Pace(clock)
    pace.note_replay("event.replayed", 1, {"event_id": "event", "run": 2})
    clock.advance(1)
    pace.note([attempt(clock, State.RETRYING, run=2)])
    clock.advance(1)
    pace.note([attempt(clock, run=2)])
    figures = pace.figures()
    assert (figures.replay_success_share, figures.replay_ms_average) == (1, 2000)
    pace.note([attempt(clock, State.DEAD_LETTERED, run=3)])
    assert pace.figures().replay_success_share == 0.5
    assert pace.figures().replay_ms_average == 2000
