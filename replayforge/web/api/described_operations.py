"""What a route cannot tell of itself: which query parameters each operation takes, its body, and its answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from replayforge.domain.cloud_event import INTEGER_MAX, INTEGER_MIN
from replayforge.domain.doubt import Standing
from replayforge.domain.event import Envelope
from replayforge.domain.lifecycle import State
from replayforge.domain.reports import FILTER_NAMES
from replayforge.engine.accept.sources import Verified
from replayforge.engine.handlers.step_messages import SCHEMA_DIALECT, Checkpoint, JournalEntry
from replayforge.stores.content_search import SEARCHED_BYTES_MAX, SEARCHED_MAX
from replayforge.stores.lookups import LOOKED_AT_MAX, PAGE_BYTES_MAX
from replayforge.streams.stream import StreamStats
from replayforge.web.api import answers
from replayforge.web.api.alerts import AlertShape, AlertTestShape
from replayforge.web.api.answers import EventReplay, Items, MovedShape, Page, Resumed, ResumedHandler
from replayforge.web.api.dead_letters import DeadLetterReplayRequest, DiscardRequest
from replayforge.web.api.events import (
    SOUGHT_CHARACTERS_MAX,
    ReasonRequest,
    ReplayRequest,
    ResolveRequest,
    WorkflowReplayRequest,
)
from replayforge.web.api.forgelog_api import OFFSET_MAX, READ_LIMIT_MAX, CommitRequest
from replayforge.web.api.handlers import PauseRequest
from replayforge.web.api.in_doubt import DecisionRequest, InDoubtShape
from replayforge.web.api.ingest import CLOUD_EVENT, CLOUD_EVENTS
from replayforge.web.api.lanes import LaneShape
from replayforge.web.api.operations import WINDOW_SECONDS_MAX, CrashRequest
from replayforge.web.api.replays import BulkReplayRequest, ReplayShape
from replayforge.web.api.schedules import ScheduleShape
from replayforge.web.api.shadow import ShadowRequest, ShadowShape
from replayforge.web.api.shapes import EventShape, PauseShape, RetiredShape, ShownEvent
from replayforge.web.api.sources import RefusalShape, SourceShape
from replayforge.web.http.reading import JSON, LIST_LIMIT_MAX, NDJSON

TEXT = "text/plain"
EVENT_STREAM = "text/event-stream"
ANY: dict[str, Any] = {}
# A key of PARAMETERS names a parameter; one that differs where it is read stands behind a colon.
LIST = ("limit", "cursor")
TIME = {"type": "string", "format": "date-time"}

# Query parameters: name -> (schema, what it does, an example).
PARAMETERS: dict[str, tuple[dict[str, Any], str, Any]] = {
    "limit": (
        {"type": "integer", "minimum": 1, "maximum": LIST_LIMIT_MAX, "default": 50},
        "How many items at most.",
        20,
    ),
    "cursor": (
        {"type": "string", "pattern": "^[0-9]{1,18}$"},
        (
            "Where to go on: next_cursor of the page before. A page may have fewer items than the limit, or none, and"
            f" still has_more: a list of events ends one after {PAGE_BYTES_MAX >> 20} MiB of what came with them and"
            f" their results, and where {LOOKED_AT_MAX:,} were looked at for a filter that no index serves."
        ),
        "9000000",
    ),
    "status": ({"enum": [state.value for state in State]}, "The state that events stand in.", "dead_lettered"),
    "event_type": ({"type": "string"}, "An event type, in which * stands for anything.", "order.*"),
    "service_name": ({"type": "string"}, "The service that sent them.", "payments"),
    "workflow_id": ({"type": "string"}, "The workflow they belong to.", "order-17"),
    "application_name": ({"type": "string"}, "The application they belong to.", "default"),
    "error": (
        {"type": "string"},
        "An error signature: type and message with everything that varies replaced.",
        "Permanent: declined",
    ),
    "since": (TIME, "Accepted at this time or later.", "2026-11-22T10:00:00Z"),
    "until": (TIME, "Accepted before this time.", "2036-11-22T10:00:00Z"),
    "failed_since": (
        TIME,
        "Dead letters and retrying events that failed at this time or later.",
        "2026-11-22T10:00:00Z",
    ),
    "q": ({"type": "string"}, "An event id, key or workflow, exact or the beginning of it.", "order-17"),
    "awaits": ({"type": "string"}, "The type of the event that parked ones wait for.", "order.confirmed"),
    "idempotency_key": (
        {"type": "string"},
        "The key they were sent with, whole.",
        "order-17:placed",
    ),
    "contains": (
        {"type": "string", "maxLength": SOUGHT_CHARACTERS_MAX},
        (
            "A text in the payload or the metadata, where headers are, exactly as it was sent. One request looks at the"
            f" newest {SEARCHED_MAX:,} events or {SEARCHED_BYTES_MAX >> 20} MiB that pass the other filters, and says"
            " whether that was all."
        ),
        "ada@example.com",
    ),
    "standing": (
        {"enum": [Standing.UNDECIDED.value]},
        "Only those that are held until somebody decides.",
        Standing.UNDECIDED.value,
    ),
    "group_by": (
        {"enum": ["error", "type", "service", "reason"]},
        "What to gather by; without it one by one.",
        "error",
    ),
    "window_seconds": (
        {"type": "number", "minimum": 1, "maximum": WINDOW_SECONDS_MAX, "default": 86400},
        "How far to look back.",
        3600,
    ),
    "offset": (
        {"type": "integer", "minimum": 0, "maximum": OFFSET_MAX, "default": 0},
        "Records after this offset.",
        0,
    ),
    "limit:records": (
        {"type": "integer", "minimum": 1, "maximum": READ_LIMIT_MAX, "default": 100},
        "How many records at most.",
        10,
    ),
    "wait": (
        {"type": "number", "minimum": 0, "maximum": 60, "default": 0},
        "Answer once the event has ended, or after so many seconds.",
        0.5,
    ),
    "wait_seconds": (
        {"type": "number", "minimum": 0, "maximum": 30, "default": 0},
        "How long to wait for the first record.",
        0.5,
    ),
    "seen": (
        {"type": "string"},
        "What the page says it has seen; with anything else the stream begins with resync.",
        "1",
    ),
    "topics": ({"type": "string"}, "Which topics to hear of, with commas between them; all without it.", "events"),
    "hub.challenge": ({"type": "string"}, "What a provider wants back that asks whether the address is ours.", "1158"),
    "hub.verify_token": ({"type": "string"}, "One of the secrets of the source.", "secret"),
    "crc_token": ({"type": "string"}, "What is signed for a provider that asks so.", "token"),
    "count": ({"type": "integer", "minimum": 1, "maximum": 500, "default": 10}, "How many workflows.", 1),
}


@dataclass(frozen=True, slots=True)
class RequestBody:
    """What a request brings; `schema` says it where no type does, `optional` may be left out for its defaults.

    `beside` are further media types: the schema of each, and an example.
    """

    of: type[Any] | None = None
    schema: Mapping[str, Any] = field(default_factory=dict)
    media: tuple[str, ...] = (JSON,)
    optional: bool = False
    example: Any = None
    beside: Mapping[str, tuple[Mapping[str, Any], Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered: one of several types, by media type; an answer of no media type has no body.

    `examples` are given where no type tells what it looks like.
    """

    media: Mapping[str, tuple[Any, ...]]
    examples: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path; its `name` is that of its handler where that says enough."""

    query: tuple[str, ...] = ()
    body: RequestBody | None = None
    answers: Mapping[int, Answer] = field(default_factory=dict)
    name: str = ""


def answer(*types: Any) -> Answer:
    """Return an answer of JSON."""
    return Answer({JSON: types})


def ok(*types: Any) -> Mapping[int, Answer]:
    """Return that an operation answers 200 with JSON."""
    return {200: answer(*types)}


def either(name: str, kind: str, other: str) -> dict[str, Any]:
    """Return that a member is given and the other one is not."""
    return {"required": [name], "properties": {name: {"type": kind}, other: {"type": "null"}}}


EACH_EVENT: dict[str, Any] = {
    "anyOf": [{"$ref": "#/components/schemas/Envelope"}, {"description": "Anything else is refused by itself."}]
}
ATTRIBUTE = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"}
CLOUD_EVENT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "A CloudEvent 1.0 in JSON; further attributes are its extensions.",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": ATTRIBUTE,
        "source": {"type": "string", "minLength": 1, "pattern": "^[!-~]+$"},
        "type": ATTRIBUTE,
        "subject": {"anyOf": [ATTRIBUTE, {"type": "null"}]},
        "time": {"anyOf": [TIME, {"type": "null"}]},
        "datacontenttype": {"type": ["string", "null"], "pattern": "^[a-z]+/[a-z0-9.+-]+$"},
        "dataschema": {"type": ["string", "null"], "pattern": "^[a-z]+:[!-~]+$"},
        "data": {"description": "Any JSON; or instead data_base64, bytes as base64."},
    },
    "propertyNames": {"pattern": "^[a-z0-9]+$"},
    "additionalProperties": {
        "type": ["string", "boolean", "integer", "null"],
        "pattern": "^[ -~]+$",
        "minimum": INTEGER_MIN,
        "maximum": INTEGER_MAX,
    },
}
EACH_CLOUD_EVENT: dict[str, Any] = {
    "type": "array",
    "items": {"anyOf": [CLOUD_EVENT_SCHEMA, {"description": "Anything else is refused by itself."}]},
}
CLOUD_EVENT_EXAMPLE: Any = {
    "specversion": "1.0",
    "id": "17",
    "source": "/shop",
    "type": "order.placed",
    "subject": "order-17",
    "data": {"total": 12},
}
ONE_CLOUD_EVENT: dict[str, Any] = {CLOUD_EVENT: (CLOUD_EVENT_SCHEMA, CLOUD_EVENT_EXAMPLE)}
MANY_CLOUD_EVENTS: dict[str, Any] = {CLOUD_EVENTS: (EACH_CLOUD_EVENT, [CLOUD_EVENT_EXAMPLE])}
EVENTS: dict[str, Any] = {"type": "array", "items": EACH_EVENT}
ENVELOPE_EXAMPLE = {
    "workflow_id": "order-17",
    "event_type": "order.placed",
    "payload": {"total": 12},
    "service_name": "shop",
}
METRICS = "# TYPE replayforge_events_accepted_total counter\nreplayforge_events_accepted_total 1042\n"
HINTS = "id: 1\nevent: resync\ndata: {}\n\n"
SOURCE_ANSWERS = {JSON: {"ok": True}, TEXT: "1158", "*/*": ""}
CHALLENGE_ANSWERS = {TEXT: "1158", JSON: {"response_token": "sha256=3q2+7w=="}}
DOCUMENT = {"openapi": "3.1.0", "info": {"title": "ReplayForge", "version": "0.1.0"}, "paths": {}}
REASON = {"reason": "the payment provider is back"}
REPLAYED = {202: answer(EventReplay), 200: answer(EventReplay)}
PAUSE = RequestBody(PauseRequest, example={"reason": "the payment provider is away", "by": "ops"})
MOVED = ok(MovedShape)

OPERATIONS: dict[str, Operation] = {
    "POST /api/events": Operation(
        body=RequestBody(Envelope, example=ENVELOPE_EXAMPLE, beside=ONE_CLOUD_EVENT | MANY_CLOUD_EVENTS),
        answers={201: answer(EventShape), 200: answer(EventShape, RetiredShape, answers.BulkAnswer)},
    ),
    "POST /api/events/bulk": Operation(
        body=RequestBody(schema=EVENTS, media=(JSON, NDJSON), example=[ENVELOPE_EXAMPLE], beside=MANY_CLOUD_EVENTS),
        answers={200: Answer({JSON: (answers.BulkAnswer,), NDJSON: (answers.BulkItem,)})},
    ),
    "GET /api/events": Operation((*FILTER_NAMES, "contains", *LIST), answers=ok(answers.EventList)),
    "GET /api/events/export": Operation(FILTER_NAMES, answers={200: Answer({NDJSON: (EventShape,)})}),
    "GET /api/events/recent": Operation(("limit",), answers=ok(Page[ShownEvent])),
    "GET /api/events/{id}": Operation(("wait",), answers=ok(answers.EventHistory)),
    "GET /api/events/{id}/steps": Operation(LIST, answers=ok(answers.StepsShape)),
    "GET /api/events/{id}/why": Operation(answers=ok(answers.WhyShape)),
    "POST /api/events/{id}/replay": Operation(
        body=RequestBody(ReplayRequest, optional=True, example=REASON), answers=REPLAYED
    ),
    "POST /api/events/{id}/retry": Operation(answers={202: answer(MovedShape)}),
    "POST /api/events/{id}/cancel": Operation(
        body=RequestBody(ReasonRequest, optional=True, example=REASON), answers={**MOVED, 202: answer(MovedShape)}
    ),
    "POST /api/events/{id}/resolve": Operation(
        body=RequestBody(
            ResolveRequest,
            schema={"oneOf": [either("to", "string", "status"), either("status", "string", "to")]},
            example={"to": "queued", **REASON},
        ),
        answers=MOVED,
    ),
    "GET /api/workflows": Operation(("application_name", *LIST), answers=ok(Page[answers.WorkflowShape])),
    "GET /api/workflows/{id}": Operation(("application_name",), answers=ok(answers.WorkflowShape)),
    "GET /api/workflows/{id}/timeline": Operation(("application_name",), answers=ok(answers.TimelineShape)),
    "POST /api/workflows/{id}/replay": Operation(
        body=RequestBody(WorkflowReplayRequest, optional=True, example={"only": "failed", **REASON}),
        answers={202: answer(answers.WorkflowReplay)},
    ),
    "GET /api/deadletters": Operation(
        ("group_by", "error", "failed_since", *LIST), answers=ok(Page[answers.DeadLetter], answers.Groups)
    ),
    "POST /api/deadletters/{id}/replay": Operation(
        body=RequestBody(DeadLetterReplayRequest, optional=True, example=REASON), answers=REPLAYED
    ),
    "POST /api/deadletters/{id}/discard": Operation(body=RequestBody(DiscardRequest, example=REASON), answers=MOVED),
    "GET /api/indoubt": Operation(("standing", *LIST), answers=ok(Page[InDoubtShape])),
    "POST /api/indoubt/{id}/resolve": Operation(
        body=RequestBody(DecisionRequest, example={"decision": "done", "result": {"paid": 12}, **REASON}),
        answers=MOVED,
        name="decide_in_doubt",
    ),
    "POST /api/replays": Operation(
        body=RequestBody(
            BulkReplayRequest,
            schema={"oneOf": [either("ids", "array", "filter"), either("filter", "object", "ids")]},
            example={"filter": {"event_type": "order.*"}, "rate_per_second": 5, "canary": 1, **REASON},
        ),
        answers={
            202: answer(answers.MadeReplay),
            200: answer(answers.MadeReplay, answers.ReplayPreview),
        },
    ),
    "GET /api/replays": Operation(LIST, answers=ok(Page[ReplayShape])),
    "GET /api/replays/{id}": Operation(answers=ok(answers.ReplayWithSkips)),
    "POST /api/replays/{id}/pause": Operation(answers=ok(ReplayShape)),
    "POST /api/replays/{id}/resume": Operation(answers=ok(ReplayShape)),
    "POST /api/replays/{id}/cancel": Operation(answers=ok(ReplayShape)),
    "POST /api/shadow": Operation(
        body=RequestBody(
            ShadowRequest,
            schema={"oneOf": [either("ids", "array", "filter"), either("filter", "object", "ids")]},
            example={"handlers": "fixed.py", "filter": {"event_type": "order.*"}},
        ),
        answers=ok(ShadowShape),
    ),
    "GET /api/handlers": Operation(answers=ok(answers.HandlerList)),
    "POST /api/handlers/{pattern}/pause": Operation(body=PAUSE, answers=ok(PauseShape)),
    "POST /api/handlers/{pattern}/resume": Operation(answers=ok(ResumedHandler)),
    "GET /api/lanes": Operation(("limit",), answers=ok(Page[LaneShape])),
    "POST /in/{source}": Operation(
        body=RequestBody(media=("*/*",), optional=True),
        answers={200: Answer({JSON: (ANY,), TEXT: (str,), "*/*": (ANY,)}, SOURCE_ANSWERS)},
        name="receive_delivery",
    ),
    "GET /in/{source}": Operation(
        ("hub.challenge", "hub.verify_token", "crc_token"),
        answers={200: Answer({TEXT: (str,), JSON: (ANY,)}, CHALLENGE_ANSWERS)},
    ),
    "GET /api/sources": Operation(answers=ok(Items[SourceShape])),
    "GET /api/sources/{name}/refusals": Operation(answers=ok(Items[RefusalShape])),
    "POST /api/sources/{name}/refusals/verify": Operation(answers=ok(Verified)),
    "POST /api/sources/{name}/pause": Operation(body=PAUSE, answers=ok(PauseShape)),
    "POST /api/sources/{name}/resume": Operation(answers=ok(Resumed)),
    "GET /api/alerts": Operation(answers=ok(Items[AlertShape])),
    "POST /api/alerts/{name}/test": Operation(answers=ok(AlertTestShape)),
    "GET /api/schedules": Operation(answers=ok(Items[ScheduleShape])),
    "POST /api/schedules/{name}/run": Operation(answers=ok(answers.ScheduleRun)),
    "POST /api/schedules/{name}/pause": Operation(body=PAUSE, answers=ok(PauseShape)),
    "POST /api/schedules/{name}/resume": Operation(answers=ok(Resumed)),
    "GET /api/convergence": Operation(answers=ok(answers.ConvergenceShape), name="show_convergence"),
    "GET /api/workers": Operation(answers=ok(Page[answers.WorkerShape]), name="list_workers"),
    "GET /api/supervisor": Operation(answers=ok(answers.ServicesShape), name="list_services"),
    "GET /api/metrics": Operation(answers=ok(answers.MetricsShape), name="show_metrics"),
    "GET /metrics": Operation(answers={200: Answer({TEXT: (str,)}, {TEXT: METRICS})}, name="show_prometheus_metrics"),
    "GET /api/insights/errors": Operation(
        ("window_seconds",), answers=ok(answers.ErrorInsights), name="list_error_groups"
    ),
    "GET /api/stream": Operation(
        ("topics", "seen"), answers={200: Answer({EVENT_STREAM: (str,)}, {EVENT_STREAM: HINTS})}, name="stream_hints"
    ),
    "POST /api/demo/generate-workload": Operation(("count",), answers=ok(answers.Workload)),
    "POST /api/chaos/crash": Operation(
        body=RequestBody(CrashRequest, example={"point": "claim.committed"}), answers={202: answer(CrashRequest)}
    ),
    "POST /api/chaos/workers/{name}/crash": Operation(answers={202: answer(answers.CrashedWorker)}),
    "GET /health": Operation(answers=ok(answers.Live), name="health"),
    "GET /health/live": Operation(answers=ok(answers.Live), name="health_live"),
    "GET /health/ready": Operation(
        answers={200: answer(answers.Readiness), 503: answer(answers.Readiness)}, name="health_ready"
    ),
    "GET /health/backend": Operation(answers=ok(answers.StreamHealth)),
    "GET /health/backend/stats": Operation(answers=ok(StreamStats)),
    "GET /openapi.json": Operation(
        answers={200: Answer({JSON: ({"type": "object", "required": list(DOCUMENT)},)}, {JSON: DOCUMENT})},
        name="show_openapi",
    ),
    "POST /forgelog/append": Operation(
        body=RequestBody(schema={"description": "Any JSON."}, example={"note": "any JSON"}),
        answers={201: answer(answers.AppendedRecord)},
        name="append_record",
    ),
    "GET /forgelog/read": Operation(
        ("offset", "limit:records", "wait_seconds"), answers=ok(answers.ReadRecords), name="read_records"
    ),
    "POST /forgelog/commit": Operation(
        body=RequestBody(CommitRequest, example={"consumer": "audit", "offset": 0}),
        answers=ok(CommitRequest),
        name="commit_offset",
    ),
    "GET /forgelog/health": Operation(
        answers={200: answer(answers.LogHealth), 503: answer(answers.LogHealth)}, name="log_health"
    ),
    "GET /forgelog/stats": Operation(answers=ok(answers.LogStatistics), name="log_statistics"),
    "POST /steps/{id}/{token}/{signature}/checkpoint": Operation(
        body=RequestBody(Checkpoint, example={"lease_token": 1, "did": []}), answers={204: Answer({})}
    ),
    "GET /steps/{id}/{token}/{signature}/journal": Operation(
        answers={200: Answer({JSON: (dict[str, JournalEntry],)}, {JSON: {"charge": {"ok": {"amount": 12}}}})}
    ),
    "GET /schemas/steps.json": Operation(
        answers={200: Answer({JSON: ({"type": "object"},)}, {JSON: {"$schema": SCHEMA_DIALECT, "$defs": {}}})}
    ),
}
