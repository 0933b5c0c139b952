"""When an endpoint is left alone: decisions that need neither an endpoint nor a clock."""

from replayforge.domain.breaker import (
    CLOSED,
    FAILURES_MAX,
    OPEN_SECONDS_MAX,
    OPEN_SECONDS_MIN,
    Breaker,
    BreakerState,
)


def after(failures: int, now: float = 100.0) -> Breaker:
    breaker = CLOSED
    for _ in range(failures):
        breaker = breaker.failed(now)
    return breaker


def test_fewer_failures_than_the_limit_leave_it_closed() -> None:
    """One failure less than the limit lets everything through."""
    assert after(FAILURES_MAX - 1).state(100.0) is BreakerState.CLOSED


def test_the_limit_opens_it_for_its_time_and_then_it_is_half_open() -> None:
    """At the limit it is open, until its time is over."""
    breaker = after(FAILURES_MAX)
    assert breaker.state(100.0) is breaker.state(100.0 + OPEN_SECONDS_MIN - 0.01) is BreakerState.OPEN
    assert breaker.state(100.0 + OPEN_SECONDS_MIN) is BreakerState.HALF_OPEN


def test_each_failed_probe_opens_it_for_twice_as_long_within_bounds() -> None:
    """The times grow by the factor two and never beyond their bound."""
    times = [after(FAILURES_MAX + more, 0.0).open_until for more in range(40)]
    assert times[:3] == [OPEN_SECONDS_MIN, 2 * OPEN_SECONDS_MIN, 4 * OPEN_SECONDS_MIN]
    assert max(times) == times[-1] == OPEN_SECONDS_MAX
