"""The steps of an event as rows: each with its place in time, and what came between them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from replayforge.domain.clock import MICROSECONDS_PER_SECOND, format_time
from replayforge.domain.event import Attempt, StoredEvent
from replayforge.domain.journal import StepKind, StepRecord
from replayforge.domain.lifecycle import OPEN, Outcome
from replayforge.stores.stories import ShownStep, Story
from replayforge.web.pages.charts import TIME_WIDTH, Scale
from replayforge.web.pages.documents import Reading, masked_text, shown
from replayforge.web.pages.step_states import KIND_WORDS, UNDER_WAY, WAITS, bar_kind, end_of, states_of
from replayforge.web.pages.words import Text, duration, first_line, plural

BAR_WIDTH_MIN = 4.0
CUT_SHORT = frozenset({Outcome.CRASHED, Outcome.INTERRUPTED, Outcome.TIMED_OUT, Outcome.FAILED})


@dataclass(frozen=True, slots=True)
class StepBar:
    """A stretch of time on an axis that is `TIME_WIDTH` wide."""

    kind: str
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step: what is known of it, and its bar. `state` is what its sign shows, `words` say more where there is more.

    An attempt that was cut short between steps is a row of its own, of which only `attempt` and the line are known.
    """

    id: str
    name: str
    kind: str
    state: str
    words: str
    tries: int
    took: str
    started_at: str
    due_at: str | None
    label: str
    arguments: Text | None
    result: Text | None
    headline: str
    error: Text | None
    other_id: str
    other_state: str
    bar: StepBar | None
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class BriefStep:
    """One step in few words, below its event in a list of events; `other_id` is its child, or the event it took."""

    name: str
    kind: str
    state: str
    tries: int
    took: str
    error: str
    other_id: str


@dataclass(frozen=True, slots=True)
class Waterfall:
    """The steps of an event's journal below each other on one axis; `gaps` are where stretches were drawn short.

    `left_out` steps are older than those shown; `heading` says which journal it is, where there were others.
    """

    rows: list[StepRow]
    axis: list[str]
    gaps: list[float]
    width: int
    left_out: int
    heading: str
    masked_count: int


def waterfall(
    event: StoredEvent, attempts: Sequence[Attempt], story: Story, now_us: int, reading: Reading
) -> Waterfall | None:
    """Lay out what is shown of an event's steps; None where it has none."""
    if not story.steps:
        return None
    records = [step.record for step in story.steps]
    begun_us = min(record.started_at_us for record in records)
    states = states_of(event, records)
    ends = [end_of(one, state, now_us) for one, state in zip(records, states, strict=True)]
    cuts = [one for one in attempts if one.outcome in CUT_SHORT and one.ended_at_us >= begun_us]
    ended_us = now_us if event.state in OPEN else max(ends)
    busy = [(one.started_at_us, end) for one, end in zip(records, ends, strict=True) if one.kind not in WAITS]
    scale = Scale(begun_us, ended_us, [*busy, *((one.started_at_us, one.ended_at_us) for one in cuts)])
    relatives = {one.id: one.state.value for one in story.relatives}
    drawing = Drawing(scale, now_us, reading, relatives)
    rows = [step_row(step, state, drawing) for step, state in zip(story.steps, states, strict=True)]
    placed = [(one.started_at_us if one.begun else now_us, 0, row) for one, row in zip(records, rows, strict=True)]
    placed += [(one.ended_at_us, 1, cut_row(one, drawing)) for one in cuts]
    texts = [text for row in rows for text in (row.arguments, row.result, row.error) if text is not None]
    return Waterfall(
        rows=[row for _, _, row in sorted(placed, key=lambda place: place[:2])],
        axis=axis(scale),
        gaps=[round((scale.x(first) + scale.x(last)) / 2, 1) for first, last in scale.gaps],
        width=TIME_WIDTH,
        left_out=story.steps_count - len(story.steps),
        heading=heading(story),
        masked_count=sum(text.masked_count for text in texts),
    )


@dataclass(frozen=True, slots=True)
class Drawing:
    """What the rows of one event share: the axis, how documents are read, and the states of relatives by their ids."""

    scale: Scale
    now_us: int
    reading: Reading
    relatives: dict[str, str]


def step_row(step: ShownStep, state: str, drawing: Drawing) -> StepRow:
    """Return the row of a step."""
    one, reading = step.record, drawing.reading
    end_us = end_of(one, state, drawing.now_us)
    seconds = (end_us - one.started_at_us) / MICROSECONDS_PER_SECOND
    return StepRow(
        id=f"{one.kind}-{one.step}-{one.generation}",
        name=one.step,
        kind=KIND_WORDS[one.kind],
        state=state,
        words=words_of(one, state),
        tries=one.tries,
        took="" if state == "again" else duration(seconds),
        started_at=format_time(one.started_at_us),
        due_at=format_time(one.due_at_us) if one.due_at_us is not None and state in UNDER_WAY else None,
        label=one.label,
        arguments=shown(one.arguments.encode(), reading) if one.arguments else None,
        result=result_text(step, reading),
        headline=first_line(masked_text(error_of(one), reading).text),
        error=masked_text(one.trace or error_of(one), reading) if one.error_type is not None else None,
        other_id=one.other_id or "",
        other_state=drawing.relatives.get(one.other_id or "", ""),
        bar=None if state == "again" else bar(bar_kind(one, state), one.started_at_us, end_us, drawing.scale),
    )


def words_of(one: StepRecord, state: str) -> str:
    """Say what the sign of a step leaves open."""
    if state == "again":
        return "a replay has it done again"
    if state == "replaced":
        return "done again since, by a replay"
    if state == "open":
        return "its event ended before it did"
    if state == "waiting" and one.kind is StepKind.STEP:
        return f"{plural(one.tries, 'try', 'tries')} failed, and the next follows"
    return ""


def result_text(step: ShownStep, reading: Reading) -> Text | None:
    """Return the beginning of a step's result; nothing is not shown."""
    body = step.record.result
    if body is None or body == b"null":
        return None
    cut = len(body) < step.result_bytes
    text = shown(body.decode("utf-8", "ignore").encode() if cut else body, reading)
    return replace(text, bytes_count=step.result_bytes, cut=text.cut or cut)


def error_of(one: StepRecord) -> str:
    """Return the error of a step in words."""
    return f"{one.error_type}: {one.error}" if one.error else one.error_type or ""


def cut_row(one: Attempt, drawing: Drawing) -> StepRow:
    """Return the row of an attempt that was cut short, and after which the event was taken up again or ended."""
    return StepRow(
        id=f"cut-{one.token}",
        name="",
        kind="attempt",
        state=one.outcome.value,
        words=f"start {one.token}" + (f" on {one.worker}" if one.worker else ""),
        tries=0,
        took=duration((one.ended_at_us - one.started_at_us) / MICROSECONDS_PER_SECOND),
        started_at=format_time(one.started_at_us),
        due_at=None,
        label="",
        arguments=None,
        result=None,
        headline=first_line(masked_text(one.error or "", drawing.reading).text),
        error=None,
        other_id="",
        other_state="",
        bar=bar("cut", one.started_at_us, one.ended_at_us, drawing.scale),
        attempt=one.token,
    )


def bar(kind: str, first_us: int, last_us: int, scale: Scale) -> StepBar:
    """Return where a stretch lies, wide enough to be seen and never beyond the end."""
    x = scale.x(first_us)
    width = max(scale.x(last_us) - x, BAR_WIDTH_MIN)
    return StepBar(kind, round(min(x, TIME_WIDTH - width), 1), round(width, 1))


def axis(scale: Scale) -> list[str]:
    """Say what the axis spans, and what of it is drawn short."""
    total = duration((scale.end_us - scale.start_us) / MICROSECONDS_PER_SECOND)
    idle = sum(last - first for first, last in scale.gaps) / MICROSECONDS_PER_SECOND
    return ["0 s", *([f"{duration(idle)} without work drawn short"] if scale.gaps else []), total]


def heading(story: Story) -> str:
    """Say which journal it is, where there were others, and how often the event was woken."""
    parts = []
    if story.journal > 1:
        parts.append(f"journal {story.journal}, after {plural(story.earlier_steps, 'step')} of earlier ones")
    if story.wakes:
        parts.append(f"woken {plural(story.wakes, 'time')}")
    return ", ".join(parts)


def brief_rows(event: StoredEvent, records: Sequence[StepRecord]) -> list[BriefStep]:
    """Return steps of an event in few words."""
    return [
        BriefStep(
            name=one.step,
            kind=KIND_WORDS[one.kind],
            state=state,
            tries=one.tries,
            took=took(one),
            error=one.error_type or "",
            other_id=one.other_id or "",
        )
        for one, state in zip(records, states_of(event, records), strict=True)
    ]


def took(one: StepRecord) -> str:
    """Say how long a step took, if it has ended or was heard of since it began."""
    return "" if one.ended_at_us is None else duration((one.ended_at_us - one.started_at_us) / MICROSECONDS_PER_SECOND)
