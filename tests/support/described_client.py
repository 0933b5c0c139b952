"""A client that knows nothing of the API but its OpenAPI document: it builds requests by it, and judges the answers."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from jsonschema import Draft202012Validator, FormatChecker
from yarl import URL

from replayforge.domain.clock import parse_time
from tests.support.house import House

CHECKER = FormatChecker()


@CHECKER.checks("date-time", raises=ValueError)
def is_time(text: object) -> bool:
    """Tell whether a text is a time of RFC 3339."""
    return not isinstance(text, str) or parse_time(text) > 0


class DescribedClient:
    """Calls operations by their ids. Raises AssertionError for an answer that its document does not describe.

    An answer may say no member that is not described: what is said to programs is known to them.
    """

    def __init__(self, house: House, document: dict[str, Any]) -> None:
        self.house = house
        self.document = strict(document)
        self.succeeded: set[str] = set()
        self.operations = {
            told["operationId"]: (method.upper(), path, told)
            for path, methods in self.document["paths"].items()
            for method, told in methods.items()
        }

    async def call(self, name: str, body: Any = None, /, *, media: str = "application/json", **given: Any) -> Any:
        """Call an operation; parameters go where the document says. Returns the answer of a success."""
        method, path, told = self.operations[name]
        where = {one["name"]: one for one in told["parameters"]}
        assert given.keys() <= where.keys(), (name, given)
        for one in where.values():
            if one["name"] in given:
                self.check(one["schema"], given[one["name"]], name)
        filled = path.format_map({one: quote(str(value), safe="") for one, value in given.items()})
        query = {one: str(value) for one, value in given.items() if where[one]["in"] == "query"}
        options: dict[str, Any] = {"params": query} if query else {}
        if body is not None:
            self.check(self.content(told["requestBody"], media)["schema"], body, name)
            data = body if isinstance(body, str) else json.dumps(body)
            options |= {"data": data.encode(), "headers": {"Content-Type": media}}
        url = URL(filled, encoded=True)
        async with self.house.http.request(method, url, **options) as response:
            endless = response.content_type == "text/event-stream"
            content = await (response.content.readline() if endless else response.read())
            described = told["responses"].get(str(response.status), told["responses"]["default"])
            assert response.status < 400, (name, content)
            self.succeeded.add(name)
            return self.judged(name, described, response.content_type, content)

    def judged(self, name: str, described: dict[str, Any], media: str, content: bytes) -> Any:
        """Return what an answer says, once it is known to be one that is described."""
        if "content" not in described:
            assert content == b"", name
            return None
        schema = self.content(described, media)["schema"]
        if media == "application/x-ndjson":
            found = [json.loads(line) for line in content.splitlines()]
            for one in found:
                self.check(schema, one, name)
            return found
        said: Any = json.loads(content) if media.endswith("json") else content.decode()
        self.check(schema, said, name)
        return said

    def content(self, told: Mapping[str, Any], media: str) -> dict[str, Any]:
        """Return what is said of a media type."""
        found: dict[str, Any] = told["content"].get(media) or told["content"]["*/*"]
        return found

    def check(self, schema: dict[str, Any], value: Any, name: str) -> None:
        """Raise AssertionError where a value does not fit a schema of the document."""
        whole = {"components": self.document["components"], **schema}
        error = next(Draft202012Validator(whole, format_checker=CHECKER).iter_errors(value), None)
        assert error is None, (name, list(error.absolute_path), error.message)


def strict(schema: Any) -> Any:
    """Return a document whose objects have no members but those that it names."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if schema.get("type") == "object" and "properties" in schema and "title" in schema:
        closed.setdefault("additionalProperties", False)
    return closed
