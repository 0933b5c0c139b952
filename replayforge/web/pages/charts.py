"""The picture of a workflow as numbers: where each bar of its timeline lies; the template draws it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from replayforge.domain.clock import MICROSECONDS_PER_SECOND
from replayforge.domain.event import Attempt, StoredEvent
from replayforge.domain.journal import StepRecord
from replayforge.domain.lifecycle import ATTEMPT_SPENDING, OPEN, State
from replayforge.web.pages.step_states import WAITS, bar_kind, end_of, states_of
from replayforge.web.pages.words import duration

TIME_WIDTH, ROW_HEIGHT, STEP_HEIGHT, AXIS_HEIGHT = 1000, 28, 18, 28
BAR_WIDTH_MIN, LABEL_WIDTH_MIN = 3.0, 70.0
ROWS_MAX = 100
STEP_ROWS_MAX = 12  # of each event; its own page shows more
TROUBLED = frozenset({State.DEAD_LETTERED, State.HELD, State.RETRYING})
GAP_SHARE_MIN, GAP_SECONDS_MIN, GAP_WIDTH = 0.12, 1.0, 44.0


@dataclass(frozen=True, slots=True)
class Span:
    """One stretch of an event's life on the time axis: `kind` is waiting, running, backoff or an attempt's outcome."""

    kind: str
    x: float
    width: float
    title: str


@dataclass(frozen=True, slots=True)
class StepLane:
    """One step of an event, in a lower lane below it: its name, its state, and its one span."""

    y: int
    label: str
    state: str
    span: Span


@dataclass(frozen=True, slots=True)
class Lane:
    """One event of the workflow: its name, its spans, and where it ended; below it lie its steps.

    `steps_left_out` are beyond what a picture can show.
    """

    y: int
    event_id: str
    label: str
    state: str
    spans: list[Span]
    end_x: float
    steps: list[StepLane]
    steps_left_out: int


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on the time axis; `gap` marks a stretch in which nothing happened and which is drawn short."""

    x: float
    label: str
    gap: bool = False


@dataclass(frozen=True, slots=True)
class Timeline:
    """The picture of a workflow, whose time axis is `width` wide; `left_out` events are beyond what it can show."""

    width: int
    height: int
    lanes: list[Lane]
    ticks: list[Tick]
    seconds: float
    left_out: int


Piece = tuple[int, int, float, float]


class Scale:
    """Maps times to places. Stretches in which nothing ran and that would crush the rest are drawn short."""

    def __init__(self, start_us: int, end_us: int, busy: Sequence[tuple[int, int]]) -> None:
        self.start_us, self.end_us = start_us, max(end_us, start_us + 1)
        self.gaps = idle_gaps(self.start_us, self.end_us, busy)
        shortened = sum(last - first for first, last in self.gaps)
        room = TIME_WIDTH - GAP_WIDTH * len(self.gaps)
        self.per_us = room / max(1, self.end_us - self.start_us - shortened)
        self.pieces = list(self.lay_out())

    def lay_out(self) -> list[Piece]:
        """Return (from, to, place, width for each microsecond) of every stretch in order."""
        pieces: list[Piece] = []
        at, x = self.start_us, 0.0
        for first, last in self.gaps:
            pieces.append((at, first, x, self.per_us))
            x += (first - at) * self.per_us
            pieces.append((first, last, x, GAP_WIDTH / (last - first)))
            at, x = last, x + GAP_WIDTH
        return [*pieces, (at, self.end_us, x, self.per_us)]

    def x(self, at_us: int) -> float:
        """Return the place of a time; times beyond the ends lie on them."""
        at_us = min(max(at_us, self.start_us), self.end_us)
        first, _, x, per_us = next(piece for piece in reversed(self.pieces) if piece[0] <= at_us)
        return round(x + (at_us - first) * per_us, 1)


def idle_gaps(start_us: int, end_us: int, busy: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the stretches without any attempt that are long, as such and as a share of the whole."""
    least = max(int(GAP_SECONDS_MIN * MICROSECONDS_PER_SECOND), int((end_us - start_us) * GAP_SHARE_MIN))
    gaps, at = [], start_us
    for begun, last in [*sorted(busy), (end_us, end_us)]:
        first = min(begun, end_us)  # an attempt may lie beyond the end where the wall clock was set back since
        if first - at > least:
            margin = (first - at) // 50
            gaps.append((at + margin, first - margin))
        at = max(at, last)
    return gaps


def timeline(
    events: Sequence[StoredEvent],
    attempts: Sequence[Attempt],
    now_us: int,
    *,
    steps: Mapping[int, Sequence[StepRecord]] = MappingProxyType({}),
    idle_shown: bool = False,
) -> Timeline:
    """Draw the events of a workflow below each other on one time axis, idle stretches short unless they are shown.

    The steps of each, by its row number, lie below it.
    """
    shown = shown_events(events)
    by_event: dict[str, list[Attempt]] = {event.id: [] for event in shown}
    for attempt in attempts:
        if attempt.event_id in by_event:
            by_event[attempt.event_id].append(attempt)
    is_open = any(event.state in OPEN for event in shown)
    start_us = min(event.created_at_us for event in shown)
    end_us = now_us if is_open else max(event.updated_at_us for event in shown)
    busy = [(one.started_at_us, one.ended_at_us) for one in attempts if one.event_id in by_event]
    busy += [(event.updated_at_us, now_us) for event in shown if event.state is State.PROCESSING]
    taken = [one for event in shown for one in steps.get(event.seq, ()) if one.kind not in WAITS]
    busy += [(one.started_at_us, one.ended_at_us) for one in taken if one.ended_at_us is not None]
    scale = Scale(start_us, end_us, [(start_us, end_us)] if idle_shown else busy)
    lanes: list[Lane] = []
    y = AXIS_HEIGHT
    for event in shown:
        lanes.append(lane(y, event, by_event[event.id], steps.get(event.seq, ()), scale, now_us))
        y += ROW_HEIGHT + STEP_HEIGHT * (len(lanes[-1].steps) + (lanes[-1].steps_left_out > 0))
    return Timeline(
        width=TIME_WIDTH,
        height=y + 4,
        lanes=lanes,
        ticks=ticks(scale),
        seconds=(end_us - start_us) / MICROSECONDS_PER_SECOND,
        left_out=len(events) - len(shown),
    )


def shown_events(events: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
    """Return the events that a picture can show: of too many the first and last fifty, and as many that failed
    between."""
    if len(events) <= ROWS_MAX:
        return events
    half = ROWS_MAX // 2
    between = [event for event in events[half:-half] if event.state in TROUBLED]
    return [*events[:half], *between[:half], *events[-half:]]


def lane(
    y: int,
    event: StoredEvent,
    attempts: Sequence[Attempt],
    steps: Sequence[StepRecord],
    scale: Scale,
    now_us: int,
) -> Lane:
    """Draw one event: waiting and attempts in turn, what it does now, and its newest steps."""
    spans: list[Span] = []
    at = event.created_at_us
    for number, attempt in enumerate(attempts):
        spans += gap_span(waits_for(attempts[:number]), at, attempt.started_at_us, scale)
        seconds = (attempt.ended_at_us - attempt.started_at_us) / MICROSECONDS_PER_SECOND
        ended = attempt.outcome.value.replace("_", " ")
        title = f"run {attempt.run}, attempt {number + 1}: {ended}, {duration(seconds)}"
        spans.append(span(attempt.outcome.value, attempt.started_at_us, attempt.ended_at_us, scale, title))
        at = attempt.ended_at_us
    if event.state in OPEN:
        kind = "running" if event.state is State.PROCESSING else waits_for(attempts)
        spans += gap_span(kind, at, now_us, scale)
    end_x = max((one.x + one.width for one in spans), default=scale.x(at))
    left_out = max(0, len(steps) - STEP_ROWS_MAX)
    return Lane(
        y=y,
        event_id=event.id,
        label=event.event_type,
        state=event.state.value,
        spans=spans,
        end_x=round(end_x, 1),
        steps=step_lanes(y + ROW_HEIGHT, event, steps[left_out:], scale, now_us),
        steps_left_out=left_out,
    )


def step_lanes(y: int, event: StoredEvent, records: Sequence[StepRecord], scale: Scale, now_us: int) -> list[StepLane]:
    """Draw steps below each other."""
    lanes = []
    for index, (one, state) in enumerate(zip(records, states_of(event, records), strict=True)):
        end_us = end_of(one, state, now_us)
        title = f"{one.step}: {duration((end_us - one.started_at_us) / MICROSECONDS_PER_SECOND)}"
        drawn = span(bar_kind(one, state), one.started_at_us, end_us, scale, title)
        lanes.append(StepLane(y + index * STEP_HEIGHT, one.step, state, drawn))
    return lanes


def waits_for(attempts: Sequence[Attempt]) -> str:
    """Say what an event waits for after these attempts: its turn, or after a failure the end of its backoff."""
    return "backoff" if attempts and attempts[-1].outcome in ATTEMPT_SPENDING else "waiting"


def gap_span(kind: str, first_us: int, last_us: int, scale: Scale) -> list[Span]:
    """Draw the time between two attempts, if there was any."""
    if last_us <= first_us:
        return []
    title = f"{kind} {duration((last_us - first_us) / MICROSECONDS_PER_SECOND)}"
    x = scale.x(first_us)
    return [Span(kind, x, round(scale.x(last_us) - x, 1), title)]


def span(kind: str, first_us: int, last_us: int, scale: Scale, title: str) -> Span:
    """Draw one attempt, wide enough to be seen."""
    x = scale.x(first_us)
    return Span(kind, x, round(max(scale.x(last_us) - x, BAR_WIDTH_MIN), 1), title)


def ticks(scale: Scale) -> list[Tick]:
    """Mark the ends of the axis, and each shortened stretch with its length."""
    gaps = []
    for first, last in scale.gaps:
        label = f"idle {duration((last - first) / MICROSECONDS_PER_SECOND)}"
        gaps.append(Tick(round((scale.x(first) + scale.x(last)) / 2, 1), label, gap=True))
    start = scale.x(scale.start_us)
    crowded = bool(gaps) and gaps[0].x - start < LABEL_WIDTH_MIN
    total = duration((scale.end_us - scale.start_us) / MICROSECONDS_PER_SECOND)
    return [Tick(start, "" if crowded else "0 s"), *gaps, Tick(scale.x(scale.end_us), total)]
