"""The API described as OpenAPI 3.1: paths and summaries come from the routes, shapes from the types that validate."""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from http import HTTPStatus
from typing import Annotated, Any, get_args

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

import replayforge
from replayforge.domain.api_keys import Role
from replayforge.turns import computed
from replayforge.web.api.described_operations import (
    ENVELOPE_EXAMPLE,
    OPERATIONS,
    PARAMETERS,
    Answer,
    Operation,
    RequestBody,
)
from replayforge.web.api.examples import example_of
from replayforge.web.api.shapes import CONSTANTS, LEGACY_NAMES, SAID_TWICE, json_response
from replayforge.web.http.context import context_of
from replayforge.web.http.problem_types import PROBLEM_TYPES
from replayforge.web.http.problems import CONTENT_TYPE
from replayforge.web.http.reading import NDJSON
from replayforge.web.http.routes import NEEDS

API_PREFIXES = ("/api/", "/forgelog/", "/health", "/metrics", "/openapi.json", "/steps/", "/schemas/", "/in/")
DOCUMENT_WORK_BYTES = 1 << 20  # its making takes as long as to judge so many bytes
REFERENCE = "#/components/schemas/{name}"
EXAMPLE = "#/components/examples/{name}"
LINE_FEED_GUARD = r"(?!\n)"  # which only Python needs, whose $ passes over a line feed at the end
GROUPS = frozenset(
    {
        "events",
        "workflows",
        "deadletters",
        "indoubt",
        "replays",
        "shadow",
        "handlers",
        "sources",
        "schedules",
        "lanes",
        "alerts",
        "forgelog",
        "health",
        "steps",
    }
)
DESCRIPTION = """Crash recovery for asynchronous workflows: nothing acknowledged is ever lost.

429, 503 and 507 come with Retry-After: too much is waiting, or the bodies that are being read fill their room (429);
the daemon is draining, or what was asked for took too long and was given up (`too-slow`, 503); the disk is full (507).
Where a count stands beside `"count_capped": true` there are at least so many. Browsers may use a page session instead
of a key: POST the key to /login, and /logout ends it.

Where keys are configured an operation needs one that includes the role that its `security` names: `admin` includes all,
`operate` includes `read`, and `read` includes `metrics`. Other keys are answered 403, `role-needed`."""
LINES = {
    "schema": {"description": "One event a line, each as in POST /api/events.", "type": "string"},
    "example": f"{msgspec.json.encode(ENVELOPE_EXAMPLE).decode()}\n",
}
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
        "event_id": {"type": "string", "description": "The event that is meant, where it is known."},
        "outcome": {"enum": ["unknown"], "description": "Whether it was accepted is not known: send it again."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
PROBLEM_EXAMPLE = {
    "type": "urn:replayforge:not-found",
    "title": "Not found",
    "status": 404,
    "detail": "There is no event order-17.",
    "instance": "/api/events/order-17",
    "request_id": "0198a5c0b2f17c4e",
}


async def serve(request: web.Request) -> web.Response:
    """Answer with this API as an OpenAPI 3.1 document."""
    return json_response(await described(request))


async def described(request: web.Request) -> dict[str, Any]:
    """Return the document of the application that serves this request; it takes long, so a thread makes it."""
    return await computed(document, request.app, context_of(request).base_path, size=DOCUMENT_WORK_BYTES)


def security_of(needs: Role | None) -> list[dict[str, list[str]]]:
    """Describe what an operation needs where keys are configured: one that includes the role; {} where none are."""
    return [{}] if needs is None else [{}, {"key": [needs]}, {"bearer": [needs]}]


def document(app: web.Application, base_path: str) -> dict[str, Any]:
    """Return the description of every path of the API that the application serves."""
    schemas, references = components()
    paths: dict[str, dict[str, Any]] = {}
    for method, path, handler in api_routes(app, base_path):
        told = OPERATIONS[f"{method} {path}"]
        described = operation(path, handler, told, references) | {"security": security_of(app[NEEDS][handler])}
        paths.setdefault(path, {})[method.lower()] = described
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
            "schemas": {**with_deprecations(schemas), "Problem": PROBLEM},
            "examples": examples(),
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def types_of(operations: Iterable[Operation]) -> list[Any]:
    """Return every type that a body or an answer has."""
    bodies = [one.body.of for one in operations if one.body is not None and one.body.of is not None]
    return list(dict.fromkeys((*bodies, *types_of_answers(operations))))


def types_of_answers(operations: Iterable[Operation]) -> list[Any]:
    """Return every type that an answer has; a dict is a schema already."""
    shown = [each for one in operations for a in one.answers.values() for types in a.media.values() for each in types]
    return [one for one in shown if not isinstance(one, dict)]


@cache
def components() -> tuple[dict[str, Any], dict[Any, dict[str, Any]]]:
    """Return the schemas of all types by their names, and what refers to each; nobody changes them."""
    types = types_of(OPERATIONS.values())
    references, schemas = msgspec.json.schema_components(map(describable, types), ref_template=REFERENCE)
    named = {plain(name): schema | {"title": plain(schema.get("title", name))} for name, schema in schemas.items()}
    named["Envelope"] |= {"examples": [ENVELOPE_EXAMPLE]}
    return rewritten(named), {one: rewritten(reference) for one, reference in zip(types, references, strict=True)}


@cache
def examples() -> dict[str, dict[str, Any]]:
    """Return what answers look like, by the names of their schemas; nobody changes them."""
    _, references = components()
    shapes = [kind for kind in types_of_answers(OPERATIONS.values()) if "$ref" in references.get(kind, ())]
    return {"Problem": {"value": PROBLEM_EXAMPLE}} | {
        name_of(references[kind]): {"value": example_of(kind)} for kind in shapes
    }


def name_of(reference: Mapping[str, str]) -> str:
    """Return the name of the schema that is referred to."""
    return reference["$ref"].rpartition("/")[2]


def plain(name: str) -> str:
    """Return the name of a type as generators of clients can use it: Page[ShownEvent] is PageOfShownEvent."""
    return re.sub(r"[\[_](\w+?)[\]_]$", r"Of\1", name)


def rewritten(schema: Any, key: str = "") -> Any:
    """Return a schema of plain names, of patterns that every dialect reads, and of descriptions without indentation."""
    if isinstance(schema, list):
        return [rewritten(one) for one in schema]
    if isinstance(schema, dict):
        return {name: rewritten(value, name) for name, value in schema.items()}
    if not isinstance(schema, str):
        return schema
    if key == "pattern":
        return schema.removesuffix(LINE_FEED_GUARD)
    return plain(schema) if key == "$ref" else inspect.cleandoc(schema) if key == "description" else schema


def with_deprecations(schemas: dict[str, Any]) -> dict[str, Any]:
    """Mark what is said under a legacy name only for earlier clients."""
    described = dict(schemas)
    for kind, said in SAID_TWICE.items():
        properties = dict(described[kind]["properties"])
        notes = {
            legacy: f"Legacy name of {ours}, which new clients use." for legacy, ours in LEGACY_NAMES[said].items()
        }
        if said == "Convergence":
            notes |= {name: f"Always {value}; for earlier clients only." for name, value in CONSTANTS.items()}
        for name, note in notes.items():
            properties[name] = properties[name] | {"deprecated": True, "description": note}
        described[kind] = described[kind] | {"properties": properties}
    return described


def describable(kind: Any) -> Any:
    """Return a struct of the same fields in which raw JSON is simply anything, as a default of it has to be said."""
    if not (inspect.isclass(kind) and issubclass(kind, msgspec.Struct)):
        return kind
    if not any(isinstance(field.default, msgspec.Raw) for field in msgspec.structs.fields(kind)):
        return kind
    names: list[tuple[str, Any, Any]] = []
    for field in msgspec.structs.fields(kind):
        raw = isinstance(field.default, msgspec.Raw)
        default = ({} if bytes(field.default) else msgspec.UNSET) if raw else field.default
        names.append((field.encode_name, shown_type(field.type) if raw else field.type, msgspec.field(default=default)))
    forbid = kind.__struct_config__.forbid_unknown_fields
    return msgspec.defstruct(
        kind.__name__, names, namespace={"__doc__": kind.__doc__}, kw_only=True, forbid_unknown_fields=forbid
    )


def shown_type(kind: Any) -> Any:
    """Return what stands for raw JSON: anything, or what its description says."""
    notes = get_args(kind)[1:]
    return Annotated[Any, *notes] if notes else Any


def api_routes(app: web.Application, base_path: str) -> Iterator[tuple[str, str, Handler]]:
    """Yield method, path and handler of everything that programs use."""
    for route in app.router.routes():
        path = route.resource.canonical.removeprefix(base_path) if route.resource else ""
        if route.method in ("GET", "POST") and path.startswith(API_PREFIXES):
            yield route.method, path, route.handler


def parameters_of(app: web.Application, base_path: str) -> dict[str, frozenset[str]]:
    """Return which query parameters each method and path of the API knows."""
    names = (f"{method} {path}" for method, path, _ in api_routes(app, base_path))
    return {name: frozenset(map(plain_parameter, OPERATIONS[name].query)) for name in names}


def operation(path: str, handler: Handler, told: Operation, references: Mapping[Any, Any]) -> dict[str, Any]:
    """Describe one path and method."""
    summary, _, description = (inspect.getdoc(handler) or "").partition("\n")
    described: dict[str, Any] = {
        "operationId": told.name or handler.__name__,
        "tags": [tag(path)],
        "summary": summary,
        "parameters": [*path_parameters(path), *map(query_parameter, told.query)],
        "responses": {str(status): answered(status, one, references) for status, one in told.answers.items()}
        | {"default": failure()},
    }
    if description.strip():
        described["description"] = description.strip()
    if told.body is not None:
        described["requestBody"] = brought(told.body, references)
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
    shape, description, example = PARAMETERS[name]
    known = {"name": plain_parameter(name), "in": "query", "description": description}
    return known | {"schema": shape, "example": example}


def plain_parameter(name: str) -> str:
    """Return the name by which a parameter of the table is given."""
    return name.partition(":")[0]


def brought(body: RequestBody, references: Mapping[Any, Any]) -> dict[str, Any]:
    """Describe a body."""
    parts = [dict(references[body.of])] if body.of is not None else []
    schema = {"allOf": [*parts, dict(body.schema)]} if parts and body.schema else (parts or [dict(body.schema)])[0]
    one: dict[str, Any] = {"schema": schema} | ({} if body.example is None else {"example": body.example})
    content = {media: LINES if media == NDJSON else one for media in body.media}
    content |= {media: {"schema": dict(shape), "example": shown} for media, (shape, shown) in body.beside.items()}
    return {"required": not body.optional, "content": content}


def answered(status: int, given: Answer, references: Mapping[Any, Any]) -> dict[str, Any]:
    """Describe a good answer."""
    described: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    content = {
        media: {"schema": any_of(types, references), **shown_by(given.examples.get(media), types, references)}
        for media, types in given.media.items()
    }
    return described | ({"content": content} if content else {})


def shown_by(example: Any, types: tuple[Any, ...], references: Mapping[Any, Any]) -> dict[str, Any]:
    """Return what an answer of these types looks like: the example that is given, or one of each type."""
    if example is not None:
        return {"example": example}
    return {
        "examples": {name: {"$ref": EXAMPLE.format(name=name)} for name in (name_of(references[one]) for one in types)}
    }


def any_of(types: tuple[Any, ...], references: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the schema of one of several types; a dict is a schema already."""
    schemas = [dict(one) if isinstance(one, dict) else dict(references[one]) for one in types]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def failure() -> dict[str, Any]:
    """Describe every other answer."""
    schema = {"$ref": REFERENCE.format(name="Problem")}
    examples = {"Problem": {"$ref": EXAMPLE.format(name="Problem")}}
    return {"description": "A problem", "content": {CONTENT_TYPE: {"schema": schema, "examples": examples}}}
