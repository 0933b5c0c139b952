"""The page that shows the API: the OpenAPI document as people read it, with nothing fetched from elsewhere."""

from dataclasses import dataclass
from typing import Any

from aiohttp import web

from replayforge.web.api.openapi import described
from replayforge.web.http.context import context_of
from replayforge.web.pages.rendering import PageTemplate, show


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a path."""

    name: str
    where: str
    kind: str
    description: str


@dataclass(frozen=True, slots=True)
class ApiOperation:
    """One path and method."""

    method: str
    path: str
    summary: str
    parameters: list[Parameter]
    fields: list[Parameter]
    answers: list[str]


@dataclass(frozen=True, slots=True)
class DocsView:
    """The API in groups."""

    groups: dict[str, list[ApiOperation]]
    example: str


async def docs(request: web.Request) -> web.Response:
    """Show the API."""
    view = DocsView(groups=groups(await described(request)), example=example(origin_of(request)))
    return await show(request, PageTemplate("docs.html", "API", "docs"), view)


def groups(described: dict[str, Any]) -> dict[str, list[ApiOperation]]:
    """Return the endpoints of a document by their tag, in its order."""
    found: dict[str, list[ApiOperation]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            endpoint = read_endpoint(method.upper(), path, operation, described["components"]["schemas"])
            found.setdefault(operation["tags"][0], []).append(endpoint)
    return found


def read_endpoint(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> ApiOperation:
    """Return one endpoint of a document."""
    parameters = [
        Parameter(one["name"], one["in"], kind_of(one["schema"]), one.get("description", ""))
        for one in operation["parameters"]
    ]
    answers = [status for status in operation["responses"] if status != "default"]
    return ApiOperation(method, path, operation["summary"], parameters, body_fields(operation, schemas), answers)


def body_fields(operation: dict[str, Any], schemas: dict[str, Any]) -> list[Parameter]:
    """Return the fields of an endpoint's body."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    items = content.get("items", content)
    reference = next(
        (one["$ref"] for one in (items, *items.get("allOf", ()), *items.get("anyOf", ())) if "$ref" in one), ""
    )
    struct = schemas.get(reference.rpartition("/")[2], {})
    required = struct.get("required", [])
    return [
        Parameter(name, "required" if name in required else "optional", kind_of(shape), "")
        for name, shape in struct.get("properties", {}).items()
    ]


def kind_of(shape: dict[str, Any]) -> str:
    """Say a schema in a few words."""
    if "anyOf" in shape:
        return " or ".join(kind_of(part) for part in shape["anyOf"])
    if "enum" in shape:
        return " | ".join(map(str, shape["enum"]))
    return str(shape.get("format") or shape.get("type") or "any JSON")


def origin_of(request: web.Request) -> str:
    """Return the address that the daemon goes by for whoever asks."""
    return f"{request.scheme}://{request.host}{context_of(request).base_path}"


def example(origin: str) -> str:
    """Return a request that can be pasted into a shell."""
    body = '{"workflow_id": "order-17", "event_type": "payment.authorized", "payload": {"amount": 12}}'
    return f"curl -X POST {origin}/api/events -H 'Content-Type: application/json' \\\n  -d '{body}'"
