"""The rows and figures that pages are made of, and how they are made from what the engine knows."""

from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, replace

from replayforge.domain.clock import MICROSECONDS_PER_SECOND, format_time
from replayforge.domain.event import Action, Attempt, StoredEvent
from replayforge.domain.lifecycle import CANCELLABLE, REPLAYABLE, TIMED, State
from replayforge.domain.reports import Group, WorkflowSummary
from replayforge.engine.accept.intake import Receipt
from replayforge.turns import computed
from replayforge.web.http.context import WebContext
from replayforge.web.live.live_rates import TelemetryEvent
from replayforge.web.pages.documents import Reading, hidden, masked_text
from replayforge.web.pages.words import Text, first_line

SENTENCES = {
    "service.crashed": "{service} crashed: {error}",
    "service.gave_up": "{service} was given up: {error}",
    "worker.crashed": "{worker} died with an event in its hands and is replaced",
    "attempt.reclaimed": "taken back after a crash",
    "attempt.fenced": "a result came too late and was dropped",
    "event.dead_lettered": "became a dead letter: {reason}",
    "delivery.kept": "a delivery of the source {source} was refused: {reason}",
    "delivery.verified": "refused deliveries of {source} verified again: {accepted} accepted",
    "source.paused": "the source {source} was paused by {by}: {reason}",
    "source.resumed": "the source {source} was resumed",
    "schedule.missed": "the schedule {schedule} missed slots, which get no event",
    "schedule.moved_back": "the place of the schedule {schedule} was moved back by {seconds} s: a clock was wrong",
    "schedule.paused": "the schedule {schedule} was paused by {by}: {reason}",
    "schedule.resumed": "the schedule {schedule} was resumed",
    "alert.began": "the alert {alert} has begun: {detail}",
    "alert.ended": "the alert {alert} has ended",
    "alert.undelivered": "the receiver of the alert {alert} could not be told: {error}",
    "event.replayed": "replayed as run {run}",
    "replay.created": "bulk replay {replay} of {members} events was made",
    "replay.moved": "bulk replay {replay}: {state}",
    "event.discarded": "discarded",
    "event.cancelled": "cancelled",
    "loop.blocked": "the event loop is held by {handler}",
    "loop.turned": "the event loop turns again: {handler} held it for {seconds} s",
    "crash.simulated": "a crash of the {kind} was simulated",
}


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure of the overview, with the page that shows what it counts."""

    name: str
    label: str
    value: str
    link: str
    level: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    """A name and a value, with an explanation and a link where there is more to say."""

    label: str
    value: str
    hint: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event in a list."""

    id: str
    state: str
    event_type: str
    workflow_id: str
    service_name: str
    starts: int
    failures: str
    run: int
    created_at: str
    updated_at: str
    due_at: str | None
    error: str
    reason: str


@dataclass(frozen=True, slots=True)
class AlertRow:
    """An alert, for one of the subjects that it stands for or could not tell of, or for none."""

    name: str
    when: str
    receiver: str
    state: str
    since: str
    detail: str
    trouble: str


@dataclass(frozen=True, slots=True)
class ActivityRow:
    """One telemetry event in words, with the event or the part it is about."""

    at: str
    level: str
    text: str
    link: str
    linked: str
    count: int


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt of an event."""

    run: int
    number: int
    token: int
    outcome: str
    worker: str
    started_at: str
    seconds: float
    headline: str
    error: Text | None


@dataclass(frozen=True, slots=True)
class ActionRow:
    """Something that was done to an event."""

    at: str
    run: int
    action: str
    detail: str
    by: str


@dataclass(frozen=True, slots=True)
class WorkflowRow:
    """One workflow in a list."""

    id: str
    total: int
    capped: bool
    succeeded: int
    in_flight: int
    dead: int
    updated_at: str


@dataclass(frozen=True, slots=True)
class GroupRow:
    """Dead letters that have something in common."""

    name: str
    count: int
    event_types: int
    first_at: str
    last_at: str
    capped: bool


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """One service of the supervisor."""

    name: str
    state: str
    since: str
    restarts: int
    last_error: str
    last_error_at: str | None
    traceback: str


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker."""

    name: str
    state: str
    event_id: str
    event_type: str
    busy_since: str | None
    details: str
    settled: int
    restarts: int
    last_error: str
    last_error_at: str | None
    traceback: str


@dataclass(frozen=True, slots=True)
class ChoreRow:
    """One duty of the janitor."""

    name: str
    interval_seconds: float
    last_time: str
    last_error: str


@dataclass(frozen=True, slots=True)
class NodeRow:
    """Another daemon that shares the store; `unprojected` of its records have no row yet."""

    name: str
    host: str
    pid: int
    state: str
    seen_at: str
    unprojected: int


def event_row(event: StoredEvent, attempts_max: int, reading: Reading) -> EventRow:
    """Return a row for an event as the store has it; `attempts_max` failures end a run of it."""
    return EventRow(
        id=event.id,
        state=event.state.value,
        event_type=event.event_type,
        workflow_id=event.workflow_id,
        service_name=event.service_name,
        starts=event.starts,
        failures=f"{event.attempt_count} of {attempts_max}",
        run=event.run,
        created_at=format_time(event.created_at_us),
        updated_at=format_time(event.updated_at_us),
        due_at=None if event.due_at_us is None else format_time(event.due_at_us),
        error=hidden(first_line(event.last_error), reading),
        reason=event.reason or "",
    )


def received_row(receipt: Receipt) -> EventRow:
    """Return a row for an event that is durable and has no row in the store yet."""
    record = receipt.record
    created_at = format_time(record.created_at_us)
    return EventRow(
        id=record.id,
        state=State.RECEIVED.value,
        event_type=record.event_type,
        workflow_id=record.workflow_id,
        service_name=record.service_name,
        starts=0,
        failures="0",
        run=1,
        created_at=created_at,
        updated_at=created_at,
        due_at=None if record.run_at_us is None else format_time(record.run_at_us),
        error="",
        reason="",
    )


def event_rows(events: Iterable[StoredEvent], context: WebContext) -> list[EventRow]:
    """Return rows for some events."""
    reading = Reading(context.masked_names)
    return [event_row(event, context.queries.attempts_max(event), reading) for event in events]


def attempt_row(attempt: Attempt, reading: Reading) -> AttemptRow:
    """Return a row for an attempt."""
    error = masked_text(attempt.error, reading) if attempt.error else None
    return AttemptRow(
        run=attempt.run,
        number=attempt.number,
        token=attempt.token,
        outcome=attempt.outcome.value,
        worker=attempt.worker,
        started_at=format_time(attempt.started_at_us),
        seconds=max(0, attempt.ended_at_us - attempt.started_at_us) / MICROSECONDS_PER_SECOND,
        headline=first_line(error.text if error else ""),
        error=error,
    )


def attempt_rows(attempts: Sequence[Attempt], reading: Reading) -> Awaitable[list[AttemptRow]]:
    """Return rows for attempts; of many with long errors they are made in a thread."""
    size = sum(len(one.error or "") for one in attempts)
    return computed(lambda: [attempt_row(one, reading) for one in attempts], size=size)


def action_row(action: Action) -> ActionRow:
    """Return a row for something that was done to an event."""
    return ActionRow(format_time(action.at_us), action.run, action.action, action.detail, action.acted_by)


def verbs_of(state: State) -> frozenset[str]:
    """Return what may be done to an event in this state."""
    allowed = {
        "replay": state in REPLAYABLE,
        "edit": state is not State.RECEIVED,
        "discard": state is State.DEAD_LETTERED,
        "retry": state in TIMED,
        "cancel": state in CANCELLABLE,
        "resolve": state is State.HELD,
    }
    return frozenset(verb for verb, fits in allowed.items() if fits)


def workflow_row(summary: WorkflowSummary) -> WorkflowRow:
    """Return a row for a workflow."""
    totals = summary.totals
    return WorkflowRow(
        id=summary.workflow_id,
        total=summary.total,
        capped=summary.capped,
        succeeded=totals.get(State.SUCCEEDED, 0),
        in_flight=summary.in_flight,
        dead=totals.get(State.DEAD_LETTERED, 0),
        updated_at=format_time(summary.updated_at_us),
    )


def group_rows(groups: Sequence[Group]) -> list[GroupRow]:
    """Return rows for groups of dead letters."""
    return [
        GroupRow(
            one.name, one.count, one.event_types, format_time(one.first_at_us), format_time(one.last_at_us), one.capped
        )
        for one in groups
    ]


def groups_of_errors(groups: Sequence[Group], reading: Reading) -> list[Group]:
    """Return groups by errors in which values are hidden; those that differ in nothing else are one."""
    found: dict[str, Group] = {}
    for one in groups:
        name = hidden(one.name, reading)
        found[name] = joined(found[name], one) if name in found else replace(one, name=name)
    return list(found.values())


def joined(first: Group, second: Group) -> Group:
    """Return two groups as one, of the first one's name; nobody knows how many event types they have in common."""
    return replace(
        first,
        count=first.count + second.count,
        event_types=max(first.event_types, second.event_types),
        first_at_us=min(first.first_at_us, second.first_at_us),
        last_at_us=max(first.last_at_us, second.last_at_us),
    )


def activity_row(telemetry_event: TelemetryEvent) -> ActivityRow:
    """Say a telemetry event in words."""
    fields = {name: first_line(str(value)) for name, value in telemetry_event.fields.items()}
    fields |= {name: fields[name].replace("_", " ") for name in fields.keys() & {"reason", "state", "verdict"}}
    try:
        text = SENTENCES.get(telemetry_event.name, "").format(**fields)
    except KeyError:
        text = ""
    event_id = str(telemetry_event.fields.get("event_id") or "")
    return ActivityRow(
        at=format_time(telemetry_event.at_us),
        level=telemetry_event.level,
        text=text or telemetry_event.name.replace(".", " ").replace("_", " "),
        link=f"/events/{event_id}" if event_id else "",
        linked=event_id[:8] if event_id else "",
        count=telemetry_event.count,
    )


def activity_rows(telemetry_events: Sequence[TelemetryEvent], limit: int) -> list[ActivityRow]:
    """Return the newest telemetry events first; the same one several times in a row is one line with a number."""
    rows: list[ActivityRow] = []
    for row in map(activity_row, reversed(telemetry_events)):
        if rows and rows[-1].text == row.text:
            rows[-1] = replace(rows[-1], count=rows[-1].count + row.count)
        elif len(rows) < limit:
            rows.append(row)
        else:
            break
    return rows
