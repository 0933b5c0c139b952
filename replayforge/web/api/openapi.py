"""The API described as OpenAPI 3.1: paths and summaries come from the routes themselves, shapes from the structs."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

import replayforge
from replayforge.domain.api_keys import Role
from replayforge.domain.event import Envelope
from replayforge.domain.lifecycle import State
from replayforge.domain.reports import FILTER_NAMES
from replayforge.engine.handlers.step_messages import Checkpoint
from replayforge.web.api.dead_letters import DeadLetterReplayRequest
from replayforge.web.api.events import ReasonRequest, ReplayRequest, ResolveRequest, WorkflowReplayRequest
from replayforge.web.api.forgelog_api import CommitRequest
from replayforge.web.api.handlers import HandlerShape, PauseRequest
from replayforge.web.api.lanes import LaneShape
from replayforge.web.api.operations import CrashRequest
from replayforge.web.api.replays import BulkReplayRequest, ReplayShape
from replayforge.web.api.schedules import LastShape, NoteShape, ScheduleShape, SlotShape
from replayforge.web.api.shapes import ORIGINAL_NAMES, EventShape, PauseShape, ShownEvent, json_response
from replayforge.web.api.sources import RefusalShape, SourceShape
from replayforge.web.api.step_shapes import AwaitedShape, ChildShape, RelativeShape, StepInBrief, StepShape
from replayforge.web.http.context import context_of
from replayforge.web.http.problem_types import PROBLEM_TYPES
from replayforge.web.http.problems import CONTENT_TYPE
from replayforge.web.http.routes import NEEDS

API_PREFIXES = ("/api/", "/forgelog/", "/health", "/metrics", "/openapi.json", "/steps/", "/schemas/", "/in/")
STRUCTS = (
    Envelope,
    EventShape,
    ShownEvent,
    StepInBrief,
    StepShape,
    AwaitedShape,
    RelativeShape,
    ChildShape,
    ReplayRequest,
    WorkflowReplayRequest,
    DeadLetterReplayRequest,
    ReasonRequest,
    ResolveRequest,
    BulkReplayRequest,
    ReplayShape,
    HandlerShape,
    PauseRequest,
    PauseShape,
    SourceShape,
    RefusalShape,
    ScheduleShape,
    SlotShape,
    LastShape,
    NoteShape,
    LaneShape,
    CommitRequest,
    CrashRequest,
    Checkpoint,
)
REFERENCE = "#/components/schemas/{name}"
GROUPS = frozenset(
    {
        "events",
        "workflows",
        "deadletters",
        "replays",
        "handlers",
        "sources",
        "schedules",
        "lanes",
        "forgelog",
        "health",
        "steps",
    }
)
LIST = ("limit", "cursor")

# Query parameters: name -> (schema, what it does).
PARAMETERS: dict[str, tuple[dict[str, Any], str]] = {
    "limit": ({"type": "integer", "minimum": 1, "maximum": 200, "default": 50}, "How many items at most."),
    "cursor": ({"type": "string"}, "Where to go on: next_cursor of the page before."),
    "status": ({"enum": [state.value for state in State]}, "The state that events stand in."),
    "event_type": ({"type": "string"}, "An event type, in which * stands for anything."),
    "service_name": ({"type": "string"}, "The service that sent them."),
    "workflow_id": ({"type": "string"}, "The workflow they belong to."),
    "application_name": ({"type": "string"}, "The application they belong to."),
    "error": ({"type": "string"}, "An error signature: type and message with everything that varies replaced."),
    "since": ({"type": "string", "format": "date-time"}, "Accepted at this time or later."),
    "until": ({"type": "string", "format": "date-time"}, "Accepted before this time."),
    "q": ({"type": "string"}, "An event id, key or workflow, exact or the beginning of it."),
    "awaits": ({"type": "string"}, "The type of the event that parked ones wait for."),
    "group_by": ({"enum": ["error", "type", "service", "reason"]}, "What to gather by; without it one by one."),
    "window_seconds": ({"type": "number", "default": 86400}, "How far to look back."),
    "offset": ({"type": "integer", "default": 0}, "Records after this offset."),
    "wait": (
        {"type": "number", "maximum": 60},
        "Answer once the event has ended, or after so many seconds.",
    ),
    "wait_seconds": ({"type": "number", "maximum": 30}, "How long to wait for the first record."),
    "seen": ({"type": "integer"}, "What the page says it has seen; with anything else the stream begins with resync."),
    "topics": ({"type": "string"}, "Which topics to hear of, with commas between them; all without it."),
    "count": ({"type": "integer"}, "How many."),
}


@dataclass(frozen=True, slots=True)
class Details:
    """What a route cannot tell of itself: query parameters, the struct of its body, and its good answers."""

    query: tuple[str, ...] = ()
    body: str = ""
    answers: tuple[tuple[int, str], ...] = ((200, ""),)


DETAILS: dict[str, Details] = {
    "POST /api/events": Details(body="Envelope", answers=((201, "EventShape"), (200, "EventShape"))),
    "POST /api/events/bulk": Details(body="Envelope[]"),
    "GET /api/events": Details((*FILTER_NAMES, *LIST), answers=((200, "ShownEvent[]"),)),
    "GET /api/events/export": Details(FILTER_NAMES),
    "GET /api/events/recent": Details(("limit",), answers=((200, "ShownEvent[]"),)),
    "GET /api/events/{id}": Details(("wait",), answers=((200, "EventHistory"),)),
    "GET /api/events/{id}/steps": Details(LIST, answers=((200, "StepShape[]"),)),
    "POST /api/events/{id}/replay": Details(body="ReplayRequest", answers=((202, ""), (200, ""))),
    "POST /api/events/{id}/retry": Details(answers=((202, ""),)),
    "POST /api/events/{id}/cancel": Details(body="ReasonRequest", answers=((200, ""), (202, ""))),
    "POST /api/events/{id}/resolve": Details(body="ResolveRequest"),
    "GET /api/workflows": Details(("application_name", *LIST)),
    "GET /api/workflows/{id}": Details(("application_name",)),
    "GET /api/workflows/{id}/timeline": Details(("application_name",)),
    "POST /api/workflows/{id}/replay": Details(body="WorkflowReplayRequest", answers=((202, ""),)),
    "GET /api/deadletters": Details(("group_by", "error", *LIST), answers=((200, "DeadLetter[]"),)),
    "POST /api/deadletters/{id}/replay": Details(body="DeadLetterReplayRequest", answers=((202, ""), (200, ""))),
    "POST /api/deadletters/{id}/discard": Details(body="ReasonRequest"),
    "POST /api/replays": Details(body="BulkReplayRequest", answers=((202, "ReplayShape"), (200, ""))),
    "GET /api/replays": Details(LIST, answers=((200, "ReplayShape[]"),)),
    "GET /api/replays/{id}": Details(answers=((200, "ReplayShape"),)),
    "POST /api/replays/{id}/pause": Details(answers=((200, "ReplayShape"),)),
    "POST /api/replays/{id}/resume": Details(answers=((200, "ReplayShape"),)),
    "POST /api/replays/{id}/cancel": Details(answers=((200, "ReplayShape"),)),
    "GET /api/handlers": Details(answers=((200, "HandlerShape[]"),)),
    "POST /api/handlers/{pattern}/pause": Details(body="PauseRequest", answers=((200, "PauseShape"),)),
    "POST /in/{source}": Details(body="any"),
    "GET /api/sources": Details(answers=((200, "SourceShape[]"),)),
    "GET /api/sources/{name}/refusals": Details(answers=((200, "RefusalShape[]"),)),
    "POST /api/sources/{name}/pause": Details(body="PauseRequest", answers=((200, "PauseShape"),)),
    "GET /api/lanes": Details(("limit",), answers=((200, "LaneShape[]"),)),
    "GET /api/schedules": Details(answers=((200, "ScheduleShape[]"),)),
    "POST /api/schedules/{name}/pause": Details(body="PauseRequest", answers=((200, "PauseShape"),)),
    "GET /api/convergence": Details(answers=((200, "Convergence"),)),
    "GET /api/metrics": Details(answers=((200, "Convergence"),)),
    "GET /api/insights/errors": Details(("window_seconds",)),
    "GET /api/stream": Details(("topics", "seen")),
    "POST /api/demo/generate-workload": Details(("count",)),
    "POST /api/chaos/crash": Details(body="CrashRequest", answers=((202, ""),)),
    "POST /api/chaos/workers/{name}/crash": Details(answers=((202, ""),)),
    "POST /forgelog/append": Details(body="any", answers=((201, ""),)),
    "GET /forgelog/read": Details(("offset", "limit", "wait_seconds")),
    "POST /forgelog/commit": Details(body="CommitRequest"),
    "POST /steps/{id}/{token}/{signature}/checkpoint": Details(body="Checkpoint", answers=((204, ""),)),
}
DESCRIPTION = """Crash recovery for asynchronous workflows: nothing acknowledged is ever lost.

429, 503 and 507 come with Retry-After: too much is waiting, or the bodies that are being read fill their room (429);
the daemon is draining, or what was asked for took too long and was given up (`too-slow`, 503); the disk is full (507).
Where a count stands beside `"count_capped": true` there are at least so many. Browsers may use a page session instead
of a key: POST the key to /login, and /logout ends it.

Where keys are configured an operation needs one that includes the role that its `security` names: `admin` includes all,
`operate` includes `read`, and `read` includes `metrics`. Other keys are answered 403, `role-needed`."""
PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457: what is wrong, where, and what to do about it.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {
            "enum": [f"urn:replayforge:{name}" for name in PROBLEM_TYPES],
            "description": "\n".join(f"{name} ({one.status}): {one.remedy}" for name, one in PROBLEM_TYPES.items()),
        },
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}


def list_of(name: str) -> dict[str, Any]:
    """Return the schema of a list."""
    return {"type": "array", "items": {"$ref": REFERENCE.format(name=name)}}


EVENT_HISTORY: dict[str, Any] = {
    "description": "An event with its runs and attempts, newest first.",
    "allOf": [{"$ref": REFERENCE.format(name="ShownEvent")}],
    "properties": {
        "attempts": list_of("Attempt"),
        "waits_for_turn": {"type": ["string", "null"], "description": "What it waits for in its lane, in words."},
        "waits_for_event": {"type": ["string", "null"], "description": "The event that it waits for there."},
        "waits_until": {"type": ["string", "null"], "description": "When the next start may be there."},
        "journal": {"type": "integer", "description": "One more for each restart and each replay from the start."},
        "wakes": {"type": "integer", "description": "How often it was woken after it was parked."},
        "cancel_requested": {"type": "boolean"},
        "awaits": list_of("AwaitedShape"),
        "parent": {"anyOf": [{"$ref": REFERENCE.format(name="RelativeShape")}, {"type": "null"}]},
        "children": list_of("ChildShape"),
        "steps": list_of("StepInBrief") | {"description": "The newest, oldest first; left out where there are none."},
        "steps_count": {"type": "integer", "description": "How many there are in all."},
    },
}


async def serve(request: web.Request) -> web.Response:
    """Answer with this API as an OpenAPI 3.1 document."""
    return json_response(document(request.app, context_of(request).base_path))


def security_of(needs: Role | None) -> list[dict[str, list[str]]]:
    """Describe what an operation needs where keys are configured: one that includes the role; {} where none are."""
    return [{}] if needs is None else [{}, {"key": [needs]}, {"bearer": [needs]}]


def document(app: web.Application, base_path: str) -> dict[str, Any]:
    """Return the description of every path of the API that the application serves."""
    paths: dict[str, dict[str, Any]] = {}
    for method, path, handler in api_routes(app, base_path):
        described = operation(method, path, handler) | {"security": security_of(app[NEEDS][handler])}
        paths.setdefault(path, {})[method.lower()] = described
    _, schemas = msgspec.json.schema_components([describable(struct) for struct in STRUCTS], ref_template=REFERENCE)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ReplayForge",
            "version": getattr(replayforge, "__version__", "0.1.0"),
            "description": DESCRIPTION,
        },
        "servers": [{"url": base_path or "/"}],
        "paths": paths,
        "components": {
            "schemas": {**with_deprecations(schemas), "EventHistory": EVENT_HISTORY, "Problem": PROBLEM},
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def with_deprecations(schemas: dict[str, Any]) -> dict[str, Any]:
    """Mark what is said for clients of the original only; of answers that have no struct just that is described."""
    described = dict(schemas)
    for kind, names in ORIGINAL_NAMES.items():
        known: dict[str, Any] = described.get(kind, {"type": "object", "properties": {}})
        properties = {ours: {} for ours in names.values()} | known["properties"]
        for original, ours in names.items():
            note = {"deprecated": True, "description": f"The original's name for {ours}, which new clients use."}
            properties[original] = properties.get(original, {}) | note
        described[kind] = known | {"properties": properties}
    return described


def describable(struct: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Return a struct of the same fields in which raw JSON is simply anything, as a schema has to say it."""
    names: list[tuple[str, Any, Any]] = []
    for field in msgspec.structs.fields(struct):
        raw = msgspec.Raw in (field.type, *get_args(field.type))
        default = {} if isinstance(field.default, msgspec.Raw) else field.default
        names.append((field.encode_name, Any if raw else field.type, msgspec.field(default=default)))
    if all(kind is not Any for _, kind, _ in names):
        return struct  # others may refer to it
    return msgspec.defstruct(struct.__name__, names, namespace={"__doc__": struct.__doc__}, kw_only=True)


def api_routes(app: web.Application, base_path: str) -> Iterator[tuple[str, str, Handler]]:
    """Yield method, path and handler of everything that programs use."""
    for route in app.router.routes():
        path = route.resource.canonical.removeprefix(base_path) if route.resource else ""
        if route.method in ("GET", "POST") and path.startswith(API_PREFIXES):
            yield route.method, path, route.handler


def parameters_of(app: web.Application, base_path: str) -> dict[str, frozenset[str]]:
    """Return which query parameters each method and path of the API knows."""
    names = (f"{method} {path}" for method, path, _ in api_routes(app, base_path))
    return {name: frozenset(DETAILS.get(name, Details()).query) for name in names}


def operation(method: str, path: str, handler: Handler) -> dict[str, Any]:
    """Describe one path and method."""
    details = DETAILS.get(f"{method} {path}", Details())
    summary, _, description = (inspect.getdoc(handler) or "").partition("\n")
    described: dict[str, Any] = {
        "operationId": handler.__name__,
        "tags": [tag(path)],
        "summary": summary,
        "parameters": [*path_parameters(path), *map(query_parameter, details.query)],
        "responses": {str(status): answer(shape) for status, shape in details.answers} | {"default": failure()},
    }
    if description.strip():
        described["description"] = description.strip()
    if details.body:
        described["requestBody"] = {"content": {"application/json": {"schema": schema(details.body)}}}
    return described


def tag(path: str) -> str:
    """Return the group a path belongs to."""
    parts = path.strip("/").split("/")
    group = "sources" if parts[0] == "in" else parts[1] if parts[0] == "api" else parts[0]
    return group if group in GROUPS else "operations"


def path_parameters(path: str) -> list[dict[str, Any]]:
    """Describe the names in a path."""
    names = re.findall(r"{(\w+)}", path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def query_parameter(name: str) -> dict[str, Any]:
    """Describe a query parameter."""
    shape, description = PARAMETERS[name]
    return {"name": name, "in": "query", "schema": shape, "description": description}


def schema(name: str) -> dict[str, Any]:
    """Return the schema of a shape: a struct, a list of them, or anything."""
    if name.endswith("[]"):
        return {"type": "array", "items": schema(name[:-2])}
    return {} if name in ("", "any") else {"$ref": REFERENCE.format(name=name)}


def answer(shape: str) -> dict[str, Any]:
    """Describe a good answer; lists come as a page of items."""
    body = schema(shape)
    if shape.endswith("[]"):
        cursor = {"type": ["string", "null"]}
        body = {
            "type": "object",
            "properties": {"items": body, "next_cursor": cursor, "has_more": {"type": "boolean"}},
        }
    return {"description": "Done", "content": {"application/json": {"schema": body}}}


def failure() -> dict[str, Any]:
    """Describe every other answer."""
    return {"description": "A problem", "content": {CONTENT_TYPE: {"schema": schema("Problem")}}}
