"""The shapes of the API's answers, some of whose members are said again under a legacy name."""

from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec.structs import asdict

from replayforge.domain.admission import Pause
from replayforge.domain.clock import MICROSECONDS_PER_SECOND, format_time
from replayforge.domain.event import Action, Attempt, Content, RetiredKey, StoredEvent
from replayforge.domain.lifecycle import Reason, State
from replayforge.domain.reports import Group, Node, WorkflowSummary
from replayforge.engine.accept.intake import Receipt
from replayforge.engine.care.daemon_report import WorkerReport
from replayforge.engine.report.daemon_status import WorkerStatus
from replayforge.stores.suspicions import Suspect
from replayforge.web.http.answers import WholeAnswer
from replayforge.web.http.reading import REASON_CHARACTERS_MAX

NOTHING = msgspec.Raw(b"{}")
# What answers say twice, for clients of an earlier API: its name -> ours, by kind of answer.
LEGACY_NAMES: dict[str, dict[str, str]] = {
    "ShownEvent": {
        "application_id": "application_name",
        "payload_json": "payload",
        "metadata_json": "metadata",
        "next_retry_at": "next_run_at",
    },
    "Attempt": {"status": "outcome", "error_message": "error"},
    "DeadLetter": {"event_id": "id", "created_at": "updated_at"},
    "Convergence": {
        "acknowledged_events": "total_events",
        "dlq_events": "dead_lettered_events",
        "retry_queue_depth": "retrying_events",
        "incoming_stream_depth": "stream_backlog",
        "convergence_issues": "issues",
    },
}

# What earlier clients read of a convergence report and this product has nothing to say by.
CONSTANTS = {"retry_stream_depth": 0, "worker_heartbeat_age_seconds": 0.0}
# Which schemas of the API's description hold such an answer.
SAID_TWICE = {
    "ShownEvent": "ShownEvent",
    "EventHistory": "ShownEvent",
    "AttemptShape": "Attempt",
    "DeadLetter": "DeadLetter",
    "ConvergenceShape": "Convergence",
    "MetricsShape": "Convergence",
}

RECEIVED = State.RECEIVED.value
encode = msgspec.json.Encoder().encode
Words = Annotated[str, msgspec.Meta(max_length=REASON_CHARACTERS_MAX)]
NeededWords = Annotated[str, msgspec.Meta(max_length=REASON_CHARACTERS_MAX, pattern=r"\S")]
# How a description says what is written as text here.
Time = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
StateWord = Annotated[str, msgspec.Meta(extra_json_schema={"enum": [state.value for state in State]})]
REASONS = ", ".join(Reason)
ReasonWords = Annotated[
    str, msgspec.Meta(description=f"One of {REASONS}; of a discarded event, what was said as it was discarded.")
]


class RowShape(msgspec.Struct):
    """What the API says of an event wherever it shows one."""

    id: str
    application_name: str
    workflow_id: str
    event_type: str
    service_name: str
    idempotency_key: str | None
    status: StateWord
    log_id: str
    log_offset: int
    attempt_count: int
    max_attempts: int
    run: int
    starts: int
    created_at: Time
    updated_at: Time
    next_run_at: Time | None
    last_error: str | None
    error_signature: str | None
    reason: ReasonWords | None
    replay_of: str | None
    waits_for: str | None
    origin: str | None
    subscriber: str | None
    subscribers: list[str] | None
    lane: str | None
    blocked: bool


class EventShape(RowShape):
    """An event with its content as the API shows it."""

    duplicate: bool
    payload: msgspec.Raw
    metadata: msgspec.Raw
    result: msgspec.Raw | None


class ShownEvent(EventShape):
    """An event as the answers to GET show it: beside our own names stand the legacy ones."""

    application_id: str
    payload_json: msgspec.Raw
    metadata_json: msgspec.Raw
    next_retry_at: Time | None


class RetiredShape(EventShape):
    """An event that retention has removed, as far as it is known: its content is what was sent again, and its metadata,
    times and attempts are gone."""

    retired_at: Time


class PauseShape(msgspec.Struct):
    """A pause as the API shows it; the pattern `*` pauses everything."""

    pattern: str
    since: Time
    reason: str
    by: str


def json_response(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Answer with a value written as JSON."""
    return web.Response(body=encode(value), status=status, content_type="application/json", headers=headers)


def json_answer(value: Any, *, status: int, headers: dict[str, str]) -> WholeAnswer:
    """Answer with a value written as JSON, where an answer more or less is felt."""
    return WholeAnswer(encode(value), status=status, headers=headers | {"Content-Type": "application/json"})


def received_event(receipt: Receipt, log_id: str, max_attempts: int) -> ShownEvent:
    """Show an event that is durable and has no row yet."""
    return shown(received_shape(receipt, log_id, max_attempts))


def stored_event(event: StoredEvent, content: Content, max_attempts: int) -> ShownEvent:
    """Show an event as its row says."""
    return shown(stored_shape(event, content, max_attempts, duplicate=False))


def shown(event: EventShape) -> ShownEvent:
    """Set the legacy names beside our own."""
    return ShownEvent(**with_legacy_names("ShownEvent", asdict(event)))


def with_legacy_names(kind: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer of this kind that says it by its legacy names, too."""
    return answer | {legacy: answer[ours] for legacy, ours in LEGACY_NAMES[kind].items()}


def received_shape(receipt: Receipt, log_id: str, max_attempts: int) -> EventShape:
    """Return an event that is durable and has no row yet."""
    record = receipt.record
    created_at = format_time(record.created_at_us)
    return EventShape(
        id=record.id,
        application_name=record.application_name,
        workflow_id=record.workflow_id,
        event_type=record.event_type,
        service_name=record.service_name,
        idempotency_key=record.idempotency_key,
        status=RECEIVED,
        duplicate=receipt.duplicate,
        log_id=log_id,
        log_offset=receipt.log_offset,
        attempt_count=0,
        max_attempts=max_attempts,
        run=1,
        starts=0,
        payload=record.payload,
        metadata=record.metadata,
        created_at=created_at,
        updated_at=created_at,
        next_run_at=None if record.run_at_us is None else format_time(record.run_at_us),
        last_error=None,
        error_signature=None,
        reason=None,
        replay_of=record.replay_of,
        result=None,
        waits_for=None,
        origin=record.origin,
        subscriber=record.subscriber,
        subscribers=None,
        lane=None,
        blocked=False,
    )


def stored_shape(event: StoredEvent, content: Content, max_attempts: int, *, duplicate: bool) -> EventShape:
    """Return an event as its row says."""
    return EventShape(
        **row_shape(event, max_attempts),
        duplicate=duplicate,
        payload=msgspec.Raw(content.payload),
        metadata=msgspec.Raw(content.metadata),
        result=None if event.result is None else msgspec.Raw(event.result),
    )


def row_shape(event: StoredEvent, max_attempts: int) -> dict[str, Any]:
    """Return what is said of an event wherever one is shown: the members of RowShape."""
    return {
        "id": event.id,
        "application_name": event.application_name,
        "workflow_id": event.workflow_id,
        "event_type": event.event_type,
        "service_name": event.service_name,
        "idempotency_key": event.idempotency_key,
        "status": event.state.value,
        "log_id": event.log_id,
        "log_offset": event.log_offset,
        "attempt_count": event.attempt_count,
        "max_attempts": max_attempts,
        "run": event.run,
        "starts": event.starts,
        "created_at": format_time(event.created_at_us),
        "updated_at": format_time(event.updated_at_us),
        "next_run_at": None if event.due_at_us is None else format_time(event.due_at_us),
        "last_error": event.last_error,
        "error_signature": event.error_signature,
        "reason": event.reason,
        "replay_of": event.replay_of,
        "waits_for": event.waits_for,
        "origin": event.origin,
        "subscriber": event.subscriber,
        "subscribers": event.subscriber_names or None,
        "lane": event.lane,
        "blocked": bool(event.blocked) and event.state is State.QUEUED,
    }


def retired_shape(receipt: Receipt, key: RetiredKey, max_attempts: int) -> RetiredShape:
    """Return an event that retention has removed: the state it ended in, and what is the same for every repeat."""
    shape = received_shape(receipt, key.log_id, max_attempts)
    created_at = format_time(key.created_at_us)
    known: dict[str, Any] = {
        "status": key.state.value,
        "metadata": NOTHING,
        "service_name": "",
        "created_at": created_at,
    }
    known |= {"updated_at": created_at, "next_run_at": None}
    return RetiredShape(**asdict(shape) | known, retired_at=format_time(key.retired_at_us))


def receipt_event(receipt: Receipt, log_id: str, max_attempts: int) -> EventShape:
    """Show what came of sending an event: the event as it is now, if it was known before."""
    if receipt.retired is not None:
        return retired_shape(receipt, receipt.retired, max_attempts)
    if receipt.stored is None:
        return received_shape(receipt, log_id, max_attempts)
    return stored_shape(*receipt.stored, max_attempts, duplicate=True)


def attempt(one: Attempt) -> dict[str, Any]:
    """Show an attempt; beside our own names stand the legacy ones."""
    answer = {
        "id": f"{one.event_id}:{one.token}",
        "run": one.run,
        "attempt_number": one.number,
        "lease_token": one.token,
        "outcome": one.outcome.value,
        "worker_name": one.worker,
        "owner": one.owner,
        "started_at": format_time(one.started_at_us),
        "finished_at": format_time(one.ended_at_us),
        "duration_ms": max(0, one.ended_at_us - one.started_at_us) / 1000,
        "error": one.error,
        "metadata_json": {},
        "error_signature": one.error_signature,
    }
    return with_legacy_names("Attempt", answer)


def action(one: Action) -> dict[str, Any]:
    """Show something that was done to an event."""
    return {
        "at": format_time(one.at_us),
        "run": one.run,
        "action": one.action,
        "detail": one.detail,
        "by": one.acted_by or None,
    }


def suspicion(suspect: Suspect) -> dict[str, Any]:
    """Show what deaths of the process say of an event."""
    return {
        "isolation": suspect.isolation.name.lower(),
        "deaths": suspect.known.deaths,
        "died_alone_after_seconds": list(suspect.known.alone),
    }


def workflow(summary: WorkflowSummary) -> dict[str, Any]:
    """Show the totals of a workflow."""
    dead = summary.totals.get(State.DEAD_LETTERED, 0)
    return {
        "workflow_id": summary.workflow_id,
        "total_events": summary.total,
        "count_capped": summary.capped,
        "succeeded": summary.totals.get(State.SUCCEEDED, 0),
        "failed": summary.failed,
        "dead_lettered": dead,
        "in_flight": summary.in_flight,
        "has_failures": bool(dead or summary.failed),
        "totals": {state.value: count for state, count in summary.totals.items()},
        "created_at": format_time(summary.created_at_us),
        "last_updated_at": format_time(summary.updated_at_us),
    }


def group(one: Group) -> dict[str, Any]:
    """Show events or attempts that have something in common."""
    return {
        "group": one.name,
        "count": one.count,
        "count_capped": one.capped,
        "first_at": format_time(one.first_at_us),
        "last_at": format_time(one.last_at_us),
        "event_types": one.event_types,
        "sample": one.sample,
    }


def node(one: Node) -> dict[str, Any]:
    """Show a daemon that shares the store, as it reported last."""
    return {
        "node": one.name,
        "log_id": one.log_id,
        "host": one.host,
        "pid": one.pid,
        "started_at": format_time(one.started_at_us),
        "last_heartbeat_at": format_time(one.seen_at_us),
        "silent_seconds": one.silent_us / MICROSECONDS_PER_SECOND,
        "stopped": one.stopped,
        "given_up": one.given_up,
        "durable_offset": one.durable_offset,
        "projected_offset": one.projected_offset,
        "waiting": one.unprojected,
    }


def distant_worker(report: WorkerReport, one: Node, *, is_stale: bool) -> dict[str, Any]:
    """Show a worker of another daemon, as that daemon reported last."""
    return {
        "id": f"{one.name}/{report.name}",
        "worker_name": report.name,
        "node": one.name,
        "status": "stale" if is_stale else report.state,
        "last_heartbeat_at": format_time(one.seen_at_us),
        "is_stale": is_stale,
        "current_event_id": report.event_id,
        "current_event_type": report.event_type,
        "busy_since": None if report.busy_since_us is None else format_time(report.busy_since_us),
        "settled": report.settled,
        "restarts": None,
        "last_error": None,
        "details": report.details,
    }


def worker(status: WorkerStatus, node: str, now_us: int) -> dict[str, Any]:
    """Show a worker; its heartbeat is this answer itself, since it lives in the process that gives it."""
    return {
        "id": f"{node}/{status.name}",
        "worker_name": status.name,
        "node": node,
        "status": status.state,
        "last_heartbeat_at": format_time(now_us),
        "is_stale": False,
        "current_event_id": status.event.id if status.event else None,
        "current_event_type": status.event.event_type if status.event else None,
        "busy_since": None if status.busy_since_us is None else format_time(status.busy_since_us),
        "settled": status.settled_count,
        "restarts": status.service.restarts,
        "last_error": status.service.last_error,
        "details": status.details,
    }


def pause_shape(pause: Pause) -> PauseShape:
    """Show a pause."""
    return PauseShape(pause.pattern, format_time(pause.since_us), pause.reason, pause.by)
