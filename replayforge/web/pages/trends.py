"""The pictures of the overview as numbers: throughput, latency and a line for each event type; the template draws."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from replayforge.domain.clock import MICROSECONDS_PER_SECOND, format_time
from replayforge.domain.histogram import QUANTILES, bounds_us, bucket_of, quantile_us
from replayforge.domain.lifecycle import State
from replayforge.domain.metrics_history import OTHERS, MetricsHistory, Period, Range, TypeMetrics
from replayforge.web.pages.words import count, duration, link

BARS_WIDTH, BARS_HEIGHT, MARK_ROOM = 720, 120, 16
SPARK_WIDTH, SPARK_HEIGHT = 100, 20
COLUMNS_MIN = 12
SEEN_HEIGHT = 2.0
DAY_SECONDS = 86_400
IN_WORDS = {"1h": "last hour", "6h": "last 6 hours", "24h": "last 24 hours", "7d": "last 7 days"}
AXIS_WORDS = {
    "1h": ("1 h ago", "30 min ago", "now"),
    "6h": ("6 h ago", "3 h ago", "now"),
    "24h": ("24 h ago", "12 h ago", "now"),
    "7d": ("7 d ago", "3 d 12 h ago", "now"),
}
STEP_WORDS = {60: "minute", 300: "5 minutes", 900: "15 minutes", 7200: "2 hours"}


@dataclass(frozen=True, slots=True)
class Part:
    """One of the stacked parts of a bar; `kind` says what it counts."""

    kind: str
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class ThroughputBar:
    """One period: its stacked parts from the ground up. `label` is when it began, in UTC."""

    x: float
    width: float
    parts: list[Part]
    label: str
    period: Period


@dataclass(frozen=True, slots=True)
class Bars:
    """What happened in a range, period by period; `highest` is the most attempts that ended within one."""

    width: int
    height: int
    bars: list[ThroughputBar]
    highest: int
    range_words: str
    step_words: str
    axis_words: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing happened at all."""
        return not any(bar.period.accepted or bar.period.settled or bar.period.crashes for bar in self.bars)


@dataclass(frozen=True, slots=True)
class Column:
    """How many events took longer than `above` and no longer than `up_to`."""

    x: float
    width: float
    height: float
    above: str
    up_to: str
    count: int


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a percentile lies on the axis."""

    name: str
    x: float
    words: str


@dataclass(frozen=True, slots=True)
class Latency:
    """How long events took from acceptance to their recorded end, in columns of a logarithmic axis."""

    width: int
    height: int
    columns: list[Column]
    marks: list[Mark]
    total: int


@dataclass(frozen=True, slots=True)
class TypeRow:
    """One event type: its figures, the links to the events they count, and its line."""

    event_type: str
    link: str
    accepted: str
    ok: str
    ok_link: str
    retried: str
    retrying_link: str
    dead: str
    dead_link: str
    p95: str
    queued: str
    queued_link: str
    spark: str
    spark_title: str


# Throughput


def throughput(metrics_history: MetricsHistory) -> Bars:
    """Lay the periods side by side, the present one at the right edge."""
    highest = max(period.settled for period in metrics_history.periods)
    step = BARS_WIDTH / len(metrics_history.periods)
    chosen = metrics_history.range
    return Bars(
        width=BARS_WIDTH,
        height=BARS_HEIGHT,
        bars=[bar(period, index * step, step, highest, chosen) for index, period in enumerate(metrics_history.periods)],
        highest=highest,
        range_words=IN_WORDS[chosen.name],
        step_words=STEP_WORDS[chosen.step_seconds],
        axis_words=AXIS_WORDS[chosen.name],
    )


def bar(period: Period, x: float, step: float, highest: int, chosen: Range) -> ThroughputBar:
    """Return the bar of one period; what is there at all can be seen, and no bar is higher than the picture."""
    scale = (BARS_HEIGHT - MARK_ROOM) / max(highest, 1)
    parts, ground = [], float(BARS_HEIGHT)
    for kind, number in (("ok", period.succeeded), ("warn", period.retried), ("err", period.dead_lettered)):
        if number:
            height = max(number * scale, SEEN_HEIGHT)
            ground -= height
            parts.append(Part(kind, round(ground, 1), round(height, 1)))
    return ThroughputBar(round(x + 1, 1), round(step - 2, 1), parts, period_label(period.at_us, chosen), period)


def period_label(at_us: int, chosen: Range) -> str:
    """Say when a period began; with the day where a range is longer than one."""
    written = format_time(at_us)
    return f"{written[5:10]} {written[11:16]}" if chosen.seconds >= DAY_SECONDS else written[11:16]


# Latency


def latency(counts: Sequence[int]) -> Latency:
    """Draw the buckets that hold something and one beside them, wide enough to be a picture, and the percentiles."""
    shown = shown_buckets(counts)
    step = BARS_WIDTH / len(shown)
    scale = (BARS_HEIGHT - MARK_ROOM) / max(*counts, 1)
    return Latency(
        width=BARS_WIDTH,
        height=BARS_HEIGHT,
        columns=[column(bucket, counts[bucket], index * step, step, scale) for index, bucket in enumerate(shown)],
        marks=[mark(name, quantile, shown, step) for name, quantile in percentiles(counts).items()],
        total=sum(counts),
    )


def shown_buckets(counts: Sequence[int]) -> range:
    """Return the buckets from the first to the last that hold something, and a few around them."""
    held = [bucket for bucket, number in enumerate(counts) if number] or [0]
    first, last = max(0, held[0] - 1), min(len(counts) - 1, held[-1] + 1)
    last = max(last, min(len(counts) - 1, first + COLUMNS_MIN - 1))
    return range(min(first, last - COLUMNS_MIN + 1), last + 1)


def column(bucket: int, number: int, x: float, step: float, scale: float) -> Column:
    """Return the column of one bucket; what is there at all can be seen."""
    low, high = bounds_us(bucket)
    height = round(max(number * scale, SEEN_HEIGHT), 1) if number else 0.0
    up_to = spoken(high) if high > low else "longer"
    return Column(round(x + 1, 1), round(step - 2, 1), height, spoken(low), up_to, number)


def percentiles(counts: Sequence[int]) -> dict[str, float]:
    """Return name -> microseconds; nothing of nothing."""
    found = {name: quantile_us(counts, share) for name, share in QUANTILES.items()}
    return {name: quantile for name, quantile in found.items() if quantile is not None}


def mark(name: str, quantile: float, shown: range, step: float) -> Mark:
    """Return where a percentile lies within its bucket."""
    bucket = bucket_of(math.ceil(quantile))
    low, high = bounds_us(bucket)
    share = (quantile - low) / (high - low) if high > low else 0.0
    return Mark(name, round((bucket - shown[0] + share) * step, 1), spoken(quantile))


def spoken(duration_us: float) -> str:
    """Write a duration; short ones keep a digit after the point."""
    if 0 < duration_us < 10_000 and duration_us % 1000:
        return f"{duration_us / 1000:.1f} ms"
    return duration(duration_us / MICROSECONDS_PER_SECOND)


# By type


def type_rows(metrics_history: MetricsHistory, queued: Mapping[str, int], queued_max: int) -> list[TypeRow]:
    """Return a row for each of the busiest types. `queued` is what was found among so many queued events."""
    or_more = "+" if sum(queued.values()) >= queued_max else ""
    return [
        type_row(one, metrics_history.range, queued.get(one.event_type, 0), or_more) for one in metrics_history.types
    ]


def type_row(one: TypeMetrics, chosen: Range, queued: int, or_more: str) -> TypeRow:
    """Return the row of one type; every figure leads to the events behind it."""
    p95 = quantile_us(one.latencies, QUANTILES["p95"])
    named = "" if one.event_type == OTHERS else one.event_type  # the others have no name in common to list them by

    def events(status: str = "", since: str = chosen.name) -> str:
        return link("/events", {"type": named, "status": status, "since": since})

    return TypeRow(
        event_type=one.event_type,
        link=events(),
        accepted=count(one.accepted),
        ok="–" if one.ok_share is None else f"{math.floor(one.ok_share * 100)}%",
        ok_link=events(State.SUCCEEDED),
        retried=count(one.retried),
        retrying_link=events(State.RETRYING, ""),
        dead=count(one.dead_lettered),
        dead_link=events(State.DEAD_LETTERED),
        p95="–" if p95 is None else spoken(p95),
        queued=count(queued) + or_more,
        queued_link=events(State.QUEUED, ""),
        spark=spark(one.settled),
        spark_title=f"at most {count(max(one.settled))} attempts ended in {STEP_WORDS[chosen.step_seconds]}",
    )


def spark(settled: Sequence[int]) -> str:
    """Return the points of a line through the periods, the highest one at the top."""
    step = SPARK_WIDTH / max(1, len(settled) - 1)
    scale = (SPARK_HEIGHT - 2) / max(*settled, 1)
    points = ((index * step, SPARK_HEIGHT - 1 - number * scale) for index, number in enumerate(settled))
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
