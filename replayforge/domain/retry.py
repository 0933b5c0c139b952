"""How long to wait before a failed attempt is tried again; whether it is tried is decided in verdict.py."""

import math
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

AFTER_SECONDS_MAX = 10 * 365 * 86_400


class Retry(Exception):
    """Raised by a handler: this attempt failed, try again, after `after` if given: seconds or a timedelta, from nothing
    to ten years. Anything else is refused where it is raised, which fails the attempt like any other error.

    A subclass may set `after` in its own way; if it is not such a time the usual backoff applies. With `counts=False`
    this attempt, or this try of a step, spends none: for what is not the event's fault, such as a partner that is busy.
    """

    after: float | timedelta | None = None
    counts: bool = True

    def __init__(
        self,
        message: str = "The handler asked for another attempt.",
        *,
        after: float | timedelta | None = None,
        counts: bool = True,
    ) -> None:
        super().__init__(message)
        self.after = after_seconds(after)
        self.counts = counts


class Permanent(Exception):
    """Raised by a handler: no further attempt can succeed, so the event becomes a dead letter now."""


class BadPayload(Permanent):
    """The payload is not what the handler wants: the event becomes a dead letter `bad_payload`, to be replayed when the
    code, or the payload, is right. `event.payload` raises it where it does not fit its annotation, and handlers may."""


def after_seconds(after: Any) -> float | None:
    """Return the seconds that `after` stands for; raises TypeError or ValueError with a sentence."""
    if after is None:
        return None
    if isinstance(after, timedelta):
        after = after.total_seconds()
    if isinstance(after, bool) or not isinstance(after, (int, float)):
        raise TypeError(f"Retry(after={after!r:.100}): give a number of seconds or a timedelta.")
    if not 0 <= after <= AFTER_SECONDS_MAX or not math.isfinite(after):
        raise ValueError(f"Retry(after={after!r:.40}): give a number of seconds from 0 to {AFTER_SECONDS_MAX:,}.")
    return float(after)


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
