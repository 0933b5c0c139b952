"""How long a sender waits, and when it stops waiting."""

from contextlib import suppress

import pytest

from replayforge.client.http import Problem, Unreachable
from replayforge.client.retry_budget import RetryBudget

BUSY = Problem(429, {})


def test_waits_grow_and_end() -> None:
    """Waits grow from a tenth of a second, and their sum never passes what was given."""
    waits: list[float] = []
    retry_budget = RetryBudget(5, waits.append)
    with suppress(Problem):
        while True:
            retry_budget.wait(BUSY)
    assert waits[0] <= 0.1
    assert waits[3] > waits[0]
    assert sum(waits) <= 5


def test_success_renews() -> None:
    """After a success the waits begin small again."""
    waits: list[float] = []
    retry_budget = RetryBudget(2, waits.append)
    for _ in range(20):
        retry_budget.wait(BUSY)
        retry_budget.renew()
    assert max(waits) <= 0.1


def test_retry_after_counts() -> None:
    """Retry-After is waited for exactly, and not begun when there is no time for it."""
    waits: list[float] = []
    retry_budget = RetryBudget(10, waits.append)
    retry_budget.wait(Problem(503, {}, 7.0))
    assert waits == [7.0]
    with pytest.raises(Problem):
        retry_budget.wait(Problem(503, {}, 7.0))


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500])
def test_what_waiting_cannot_change(status: int) -> None:
    """A no that time does not change is raised at once."""
    retry_budget = RetryBudget(10, lambda _: pytest.fail("it waited"))
    with pytest.raises(Problem):
        retry_budget.wait(Problem(status, {}))


def test_lost_connections_are_waited_out() -> None:
    """A daemon that is not there may come back."""
    waits: list[float] = []
    RetryBudget(10, waits.append).wait(Unreachable("http://x", ConnectionRefusedError(), sent=False))
    assert len(waits) == 1
