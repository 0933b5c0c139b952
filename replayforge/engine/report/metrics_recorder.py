"""Keeps the metrics history: counts what happens in memory, and writes the sums to the store every few seconds."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from replayforge.domain.clock import Clock
from replayforge.domain.durations import Durations, DurationsByType
from replayforge.domain.journal import StepKind
from replayforge.domain.lifecycle import Outcome, State
from replayforge.domain.metrics_history import (
    ACCEPTED,
    CRASHED,
    DEAD_LETTERED,
    FIRST_LATENCY,
    INDEX,
    NAMES,
    NO_TYPE,
    RANGES,
    RESTARTED,
    RETRIED,
    SUCCEEDED,
    MetricsHistory,
    Range,
    TypeCounts,
    start_of,
)
from replayforge.stores.store import Store
from replayforge.stores.transactions import Settlement
from replayforge.telemetry import Telemetry

RETIRED_PER_STEP_MAX = 5000
COUNTED = {State.SUCCEEDED: INDEX[SUCCEEDED], State.RETRYING: INDEX[RETRIED]}
ENDED = frozenset({State.SUCCEEDED, State.DEAD_LETTERED})


@dataclass(slots=True)
class StepCounts:
    """What this process has counted within one step, and what the node had written about that step before.

    `before` is None until the store was asked. `unwritten` are the types that were counted up since the last write.
    """

    step_seconds: int
    at_us: int
    counts: TypeCounts = field(default_factory=TypeCounts)
    before: dict[tuple[str, str], int] | None = None
    unwritten: set[str] = field(default_factory=set)

    def add(self, fresh: TypeCounts) -> None:
        """Enter what was counted."""
        self.unwritten |= self.counts.add(fresh)

    def amounts(self) -> list[tuple[int, int, str, str, int]]:
        """Return (step, begin, type, name, sum so far) of what is to be written; writing it twice is harmless."""
        before = self.before or {}
        return [
            (self.step_seconds, self.at_us, event_type, name, count + before.get((event_type, name), 0))
            for event_type in self.unwritten
            for name, count in zip(NAMES, self.counts.by_type[event_type], strict=True)
            if count
        ]


class MetricsRecorder:
    """Counts by event type, in plain numbers. What a kill -9 can take is what was counted since the last write.

    While the store is away the counts stay in memory: they are bounded in types, and by the length of the ranges in
    time. Everything is counted on the event loop. `writes` is how often something was written. How long handlers ran,
    first runs took and steps took, by outcome, is kept since the start of this process alone.
    """

    def __init__(self, store: Store, clock: Clock, telemetry: Telemetry) -> None:
        self.store = store
        self.clock = clock
        self.telemetry = telemetry
        self.fresh = TypeCounts()
        self.since_start = [0] * len(NAMES)
        self.handler_durations = DurationsByType()
        self.latencies = DurationsByType()
        self.step_latencies = Durations()
        self.writes = 0
        self.pages: dict[tuple[int, int], StepCounts] = {}
        self.notes: dict[str, Callable[[int, dict[str, Any]], None]] = {
            "event.accepted": self.note_accepted,
            "attempt.settled": self.note_settled,
            "attempt.reclaimed": self.note_reclaimed,
            "event.dead_lettered": self.note_dead_lettered,
            "service.crashed": self.note_restart,
            "step.recorded": self.note_steps,
        }
        telemetry.listen(self.listen, self.notes)

    # Counting

    def listen(self, name: str, count: int, fields: dict[str, Any]) -> None:
        """Count what belongs into the metrics history."""
        self.notes[name](count, fields)

    def note_accepted(self, _: int, fields: dict[str, Any]) -> None:
        """Count accepted records by type."""
        for event_type, count in Counter(record.event_type for record in fields["records"]).items():
            self.fresh.of(event_type)[INDEX[ACCEPTED]] += count

    def note_settled(self, _: int, fields: dict[str, Any]) -> None:
        """Count committed outcomes, how long handlers ran, and first runs took from acceptance to this commit.

        Replays are not measured from acceptance: between the two lies what a person took to decide; nor are events that
        have waited for something outside.
        """
        groups: defaultdict[tuple[str, Outcome, State], list[Settlement]] = defaultdict(list)
        for one in fields["settlements"]:
            groups[one.event.event_type, one.outcome, one.verdict.state].append(one)
        for (event_type, outcome, state), alike in groups.items():
            ran_us = [one.ended_at_us - one.started_at_us for one in alike]
            self.handler_durations.of(event_type, outcome).note(*ran_us)
            counts = self.fresh.of(event_type)
            if state in COUNTED:
                counts[COUNTED[state]] += len(alike)
            if state in ENDED:
                self.note_latencies(counts, event_type, state, alike)

    def note_latencies(self, counts: list[int], event_type: str, state: State, ended: Sequence[Settlement]) -> None:
        """Count how long those first runs took that have waited for nothing."""
        now_us = self.clock.now_us()
        first = [one.event for one in ended if one.event.run == 1 and not one.waited]
        if first:
            latencies_us = [max(0, now_us - event.created_at_us) for event in first]
            for bucket in self.latencies.of(event_type, state).note(*latencies_us):
                counts[FIRST_LATENCY + bucket] += 1

    def note_reclaimed(self, _: int, fields: dict[str, Any]) -> None:
        """Count attempts that a crash ended, by type."""
        for event_type, count in fields.get("types", {}).items():
            self.fresh.of(event_type)[INDEX[CRASHED]] += count

    def note_dead_lettered(self, count: int, fields: dict[str, Any]) -> None:
        """Count events that became dead letters."""
        self.fresh.of(fields["event_type"])[INDEX[DEAD_LETTERED]] += count

    def note_restart(self, count: int, _: dict[str, Any]) -> None:
        """Count crashes of the daemon or of a part of it."""
        self.fresh.of(NO_TYPE)[INDEX[RESTARTED]] += count

    def note_steps(self, _: int, fields: dict[str, Any]) -> None:
        """Count how long steps took whose functions ran; how long a wait is says nothing of us."""
        for record in fields["records"]:
            if record.kind is StepKind.STEP:
                self.step_latencies.note(max(0, (record.ended_at_us or 0) - record.started_at_us))

    def counts_since_start(self) -> list[int]:
        """Return what this process has counted since it was started, all types together."""
        return [sum(column) for column in zip(self.since_start, *self.fresh.by_type.values(), strict=True)]

    # Writing

    async def write(self) -> int:
        """Write what was counted since the last time; what the store does not take is written the next time.

        Returns how many amounts. Raises Unavailable.
        """
        self.gather(self.clock.now_us())
        pages = [page for page in self.pages.values() if page.unwritten]
        for page in pages:
            if page.before is None:
                known = await self.store.own_metrics(page.step_seconds, page.at_us)
                page.before = {(event_type, name): amount for event_type, name, amount in known}
        amounts = [amount for page in pages for amount in page.amounts()]
        if amounts:
            await self.store.write_metrics(amounts)
            self.writes += 1
            self.telemetry.emit("metrics.written", len(amounts))
        for page in pages:
            page.unwritten.clear()
        return len(amounts)

    def gather(self, now_us: int) -> None:
        """Enter what is fresh on the present page of each step, and let go of pages that nothing is left to do with."""
        fresh, self.fresh = self.fresh, TypeCounts()
        for chosen in RANGES.values():
            present = start_of(now_us, chosen.step_seconds)
            if fresh.by_type:
                page = self.pages.setdefault((chosen.step_seconds, present), StepCounts(chosen.step_seconds, present))
                page.add(fresh)
        self.since_start = [sum(column) for column in zip(self.since_start, *fresh.by_type.values(), strict=True)]
        self.pages = {key: page for key, page in self.pages.items() if is_needed(page, now_us)}

    async def read(self, chosen: Range) -> MetricsHistory:
        """Return what happened within a range on all daemons, as far as they have written it."""
        return await self.store.read_metrics(chosen, self.clock.now_us())

    async def retire(self, now_us: int | None) -> int:
        """Remove what lies further back than its range reaches; nothing while the time is in doubt."""
        if now_us is None:
            return 0
        return sum(
            [
                await self.store.retire_metrics(chosen.step_seconds, chosen.periods(now_us)[0], RETIRED_PER_STEP_MAX)
                for chosen in RANGES.values()
            ]
        )


def is_needed(page: StepCounts, now_us: int) -> bool:
    """Tell whether a page is still to be counted on, or to be written and not too old to be ever looked at."""
    if page.at_us == start_of(now_us, page.step_seconds):
        return True
    (chosen,) = (one for one in RANGES.values() if one.step_seconds == page.step_seconds)
    return bool(page.unwritten) and page.at_us >= chosen.periods(now_us)[0]
