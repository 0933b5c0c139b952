"""How attempts and replays went of late in this process: durations, rate, failures, time from replay to outcome."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from replayforge.domain.clock import Clock, to_us
from replayforge.domain.lifecycle import ATTEMPT_SPENDING, TERMINAL, Outcome, State
from replayforge.stores.transactions import Settlement

WINDOW_SECONDS = 60.0
ATTEMPTS_MAX = 4096
REPLAYS_MAX = 4096


@dataclass(frozen=True, slots=True)
class AttemptFigures:
    """The figures at one moment; None where nothing has happened yet that could be measured."""

    succeeded_per_second: float
    attempt_failures: int
    attempt_ms_average: float | None
    attempt_ms_p50: float | None
    attempt_ms_p95: float | None
    replay_success_share: float
    replay_ms_average: float | None


class Pace:
    """Remembers the newest attempts, and when events were replayed that have not ended yet; bounded in memory.

    It measures on the monotonic clock: the wall clock may be set in between.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.ended: deque[tuple[float, int, bool]] = deque(maxlen=ATTEMPTS_MAX)
        self.failures = 0
        self.replayed_at: dict[str, float] = {}
        self.replays_ended = 0
        self.replays_succeeded = 0
        self.replay_spans_us: deque[int] = deque(maxlen=REPLAYS_MAX)

    def note_replay(self, _name: str, _count: int, fields: dict[str, Any]) -> None:
        """Remember when an event was replayed."""
        if len(self.replayed_at) < REPLAYS_MAX and "event_id" in fields:
            self.replayed_at[fields["event_id"]] = self.clock.monotonic()

    def note(self, settlements: Iterable[Settlement]) -> None:
        """Remember attempts whose outcome was committed."""
        now = self.clock.monotonic()
        for settlement in settlements:
            outcome = settlement.outcome
            duration_us = settlement.ended_at_us - settlement.started_at_us
            self.ended.append((now, duration_us, outcome is Outcome.SUCCEEDED))
            self.failures += outcome in ATTEMPT_SPENDING
            if settlement.event.run > 1 and settlement.verdict.state in TERMINAL:
                self.end_replay(settlement)

    def end_replay(self, settlement: Settlement) -> None:
        """Note how a replay came to its end."""
        self.replays_ended += 1
        self.replays_succeeded += settlement.verdict.state is State.SUCCEEDED
        replayed_at = self.replayed_at.pop(settlement.event.id, None)
        if replayed_at is not None:
            self.replay_spans_us.append(to_us(self.clock.monotonic() - replayed_at))

    def figures(self) -> AttemptFigures:
        """Return what is known now."""
        durations = sorted(duration_us for _, duration_us, _ in self.ended)
        return AttemptFigures(
            succeeded_per_second=self.succeeded_per_second(),
            attempt_failures=self.failures,
            attempt_ms_average=average_ms(durations),
            attempt_ms_p50=quantile_ms(durations, 0.50),
            attempt_ms_p95=quantile_ms(durations, 0.95),
            replay_success_share=self.replays_succeeded / self.replays_ended if self.replays_ended else 0.0,
            replay_ms_average=average_ms(self.replay_spans_us),
        )

    def succeeded_per_second(self) -> float:
        """Return the rate over the last minute, or over as much of it as is remembered."""
        now = self.clock.monotonic()
        since = now - WINDOW_SECONDS
        if len(self.ended) == ATTEMPTS_MAX:
            since = max(since, self.ended[0][0])
        succeeded = sum(succeeded for ended_at, _, succeeded in self.ended if ended_at >= since)
        return succeeded / max(1e-6, now - since)


def average_ms(spans_us: Sequence[int]) -> float | None:
    """Return the average in milliseconds, None of nothing."""
    return sum(spans_us) / len(spans_us) / 1000 if spans_us else None


def quantile_ms(ordered_us: Sequence[int], share: float) -> float | None:
    """Return the value below which that share of the ordered spans lies, in milliseconds; None of nothing."""
    return ordered_us[min(int(len(ordered_us) * share), len(ordered_us) - 1)] / 1000 if ordered_us else None
