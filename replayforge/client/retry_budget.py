"""How long a sender keeps trying: growing waits with jitter, Retry-After before all, and an end."""

import random
import time
from collections.abc import Callable

from replayforge.client.http import Problem, Unreachable

# Refused for now: overload, a proxy without its daemon, recovering or draining, disk full.
REFUSED_FOR_NOW = frozenset({429, 502, 503, 504, 507})
FIRST_WAIT_SECONDS = 0.1
WAIT_SECONDS_MAX = 10.0


class RetryBudget:
    """Lasts `seconds` without any success; the waits start small again after each success."""

    def __init__(self, seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
        self.seconds = seconds
        self.sleep = sleep
        self.renew()

    def renew(self) -> None:
        """Begin anew, for something went well."""
        self.left_seconds = self.seconds
        self.failures = 0

    def wait(self, error: Problem | Unreachable) -> None:
        """Wait before the next try; raises the error when it will not pass by waiting, or not in time."""
        self.sleep(self.spend(error))

    def spend(self, error: Problem | Unreachable) -> float:
        """Return how many seconds to wait before the next try; raises the error as `wait` does."""
        pause_seconds = self.next_pause_seconds(error)
        if not may_pass(error) or pause_seconds > self.left_seconds:
            raise error
        self.failures += 1
        self.left_seconds -= pause_seconds
        return pause_seconds

    def next_pause_seconds(self, error: Problem | Unreachable) -> float:
        """Return the time the daemon asked for, else one that grows with each failure."""
        if isinstance(error, Problem) and error.retry_after_seconds is not None:
            return max(error.retry_after_seconds, FIRST_WAIT_SECONDS)
        return min(WAIT_SECONDS_MAX, FIRST_WAIT_SECONDS * 2.0**self.failures) * random.uniform(0.5, 1)


def may_pass(error: Problem | Unreachable) -> bool:
    """Say whether the same request can succeed later."""
    return isinstance(error, Unreachable) or error.status in REFUSED_FOR_NOW


def outcome_unknown(error: Problem | Unreachable) -> bool:
    """Say whether the request may have been carried out although it failed."""
    return error.sent if isinstance(error, Unreachable) else error.outcome_unknown
