"""The metrics history: how often what happened, by stretches of time and event types. Values and arithmetic."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from replayforge.domain.clock import to_us
from replayforge.domain.histogram import BUCKETS

ACCEPTED, SUCCEEDED, RETRIED, DEAD_LETTERED = "accepted", "succeeded", "retried", "dead_lettered"
CRASHED = "crashed"  # attempts that a crash ended
RESTARTED = "restarted"  # parts of a daemon that crashed and were started again, and daemons that had been killed
EVENTFUL = (ACCEPTED, SUCCEEDED, RETRIED, DEAD_LETTERED, CRASHED, RESTARTED)
LATENCIES = tuple(f"latency_{bucket:02}" for bucket in range(BUCKETS))
NAMES = (*EVENTFUL, *LATENCIES)
INDEX = {name: index for index, name in enumerate(NAMES)}
FIRST_LATENCY = len(EVENTFUL)

TYPES_MAX = 50
OTHERS = "(others)"
NO_TYPE = ""  # what happens to the daemon itself, not to an event


@dataclass(frozen=True, slots=True)
class Range:
    """How far a look back reaches, and how long each of its steps is."""

    name: str
    seconds: int
    step_seconds: int

    def periods(self, now_us: int) -> range:
        """Return where each of its periods begins, oldest first; the last one is the present, unfinished one."""
        step_us = to_us(self.step_seconds)
        last = start_of(now_us, self.step_seconds)
        return range(last - (self.seconds // self.step_seconds - 1) * step_us, last + 1, step_us)


# Each range has steps of its own, written as they happen: nothing has to be rolled up, and each look reads few rows.
RANGES = {
    chosen.name: chosen
    for chosen in (
        Range("1h", 3600, 60),
        Range("6h", 6 * 3600, 300),
        Range("24h", 86_400, 900),
        Range("7d", 7 * 86_400, 7200),
    )
}


def start_of(at_us: int, step_seconds: int) -> int:
    """Return when the step began that a moment belongs to."""
    return at_us - at_us % to_us(step_seconds)


class TypeCounts:
    """How often each thing happened, by event type: of at most TYPES_MAX of them, further ones are counted together."""

    def __init__(self) -> None:
        self.by_type: dict[str, list[int]] = {}

    def of(self, event_type: str) -> list[int]:
        """Return the counts of a type, in the order of NAMES, to be counted up in place."""
        counts = self.by_type.get(event_type)
        return self.by_type.setdefault(self.named(event_type), [0] * len(NAMES)) if counts is None else counts

    def named(self, event_type: str) -> str:
        """Return under which name a type is counted."""
        return event_type if event_type in self.by_type or len(self.by_type) < TYPES_MAX else OTHERS

    def add(self, other: "TypeCounts") -> set[str]:
        """Add other counts to these; returns the names under which they were counted."""
        names = set()
        for event_type, added in other.by_type.items():
            name = self.named(event_type)
            names.add(name)
            self.by_type[name] = [sum(pair) for pair in zip(self.of(name), added, strict=True)]
        return names


@dataclass(frozen=True, slots=True)
class Period:
    """What happened within one step of a range."""

    at_us: int
    accepted: int = 0
    succeeded: int = 0
    retried: int = 0
    dead_lettered: int = 0
    crashed: int = 0
    restarted: int = 0

    @property
    def settled(self) -> int:
        """How many attempts came to an end that counts."""
        return self.succeeded + self.retried + self.dead_lettered

    @property
    def crashes(self) -> int:
        """How much crashed: a worker that died took an attempt along, so both are not added up."""
        return max(self.crashed, self.restarted)


@dataclass(frozen=True, slots=True)
class TypeMetrics:
    """What happened to the events of one type within a range; `settled` has one figure for each period."""

    event_type: str
    accepted: int
    succeeded: int
    retried: int
    dead_lettered: int
    latencies: tuple[int, ...]
    settled: tuple[int, ...]

    @property
    def ok_share(self) -> float | None:
        """Which share of the events that came to an end succeeded; None while none has."""
        ended = self.succeeded + self.dead_lettered
        return self.succeeded / ended if ended else None


@dataclass(frozen=True, slots=True)
class MetricsHistory:
    """What happened within a range on all daemons: period by period, and for the busiest types.

    `latencies` are first runs from acceptance to their recorded end, in the buckets of the histogram.
    """

    range: Range
    periods: tuple[Period, ...]
    latencies: tuple[int, ...] = field(repr=False)
    types: tuple[TypeMetrics, ...] = ()


PeriodRow = tuple[int, str, int]
TypeRow = tuple[str, str, int]
SettledRow = tuple[str, int, int]


def metrics_history(
    chosen: Range,
    now_us: int,
    periods: Iterable[PeriodRow],
    types: Iterable[TypeRow],
    latencies: Iterable[tuple[str, int]],
    settled: Iterable[SettledRow],
) -> MetricsHistory:
    """Put the sums of a range together; periods in which nothing happened are there as well.

    Rows are (begin, name, amount) for the periods, (type, name, amount), (name, amount) and (type, begin, amount).
    """
    starts = chosen.periods(now_us)
    by_start: dict[int, dict[str, int]] = {at_us: {} for at_us in starts}
    for at_us, name, amount in periods:
        if at_us in by_start:
            by_start[at_us][name] = amount
    by_type: dict[str, dict[str, int]] = {}
    for event_type, name, amount in types:
        by_type.setdefault(event_type, {})[name] = amount
    lines = {event_type: dict.fromkeys(starts, 0) for event_type in by_type}
    for event_type, at_us, amount in settled:
        if event_type in lines and at_us in by_start:
            lines[event_type][at_us] = amount
    found = [type_metrics(event_type, sums, lines[event_type].values()) for event_type, sums in by_type.items()]
    return MetricsHistory(
        range=chosen,
        periods=tuple(Period(at_us, **sums) for at_us, sums in by_start.items()),
        latencies=latencies_of(dict(latencies)),
        types=tuple(sorted(found, key=lambda one: (-one.accepted, one.event_type))),
    )


def type_metrics(event_type: str, sums: dict[str, int], settled: Iterable[int]) -> TypeMetrics:
    """Put together what happened to one type."""
    return TypeMetrics(
        event_type=event_type,
        accepted=sums.get(ACCEPTED, 0),
        succeeded=sums.get(SUCCEEDED, 0),
        retried=sums.get(RETRIED, 0),
        dead_lettered=sums.get(DEAD_LETTERED, 0),
        latencies=latencies_of(sums),
        settled=tuple(settled),
    )


def latencies_of(sums: dict[str, int]) -> tuple[int, ...]:
    """Return the counts of the buckets in order."""
    return tuple(sums.get(name, 0) for name in LATENCIES)
