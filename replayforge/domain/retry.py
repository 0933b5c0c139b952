"""When a failed attempt is tried again, and when it is given up."""

import random
from dataclasses import dataclass

AFTER_SECONDS_MAX = 10 * 365 * 86_400


class Retry(Exception):
    """Raised by a handler: this attempt failed, try again, after `after` seconds if given (up to ten years)."""

    def __init__(self, message: str = "The handler asked for another attempt.", *, after: float | None = None) -> None:
        super().__init__(message)
        if after is not None and not 0 <= after <= AFTER_SECONDS_MAX:
            raise ValueError(f"Retry(after={after}): give a number of seconds from 0 to {AFTER_SECONDS_MAX:,}.")
        self.after = after


class Permanent(Exception):
    """Raised by a handler: no further attempt can succeed, so the event becomes a dead letter now."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with jitter: min(max, base * factor^(n-1)) seconds times uniform(jitter, 1)."""

    max_attempts: int = 10
    base_seconds: float = 2.0
    factor: float = 2.0
    max_seconds: float = 900.0
    jitter: float = 0.5

    def delay_seconds(self, attempts_spent: int, rng: random.Random) -> float:
        """Return how long to wait after the given number (>= 1) of spent attempts."""
        exponent = min(attempts_spent - 1, 64)
        return min(self.max_seconds, self.base_seconds * self.factor**exponent) * rng.uniform(self.jitter, 1)
