"""Errors as RFC 9457 problems: each says what is wrong, where, and what to do about it."""

import math
from typing import Any

import msgspec
from aiohttp import web

from replayforge.domain.document import Malformed, Unacceptable
from replayforge.domain.errors import (
    Conflict,
    Full,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    Rejected,
    TooSlow,
    Unavailable,
)
from replayforge.engine.accept.forgelog_service import Gone
from replayforge.engine.accept.intake import KeyReused
from replayforge.web.http.context import REQUEST_ID

CONTENT_TYPE = "application/problem+json"

# Which status each error of the engine has, its short name, and its title; the first class that fits decides.
KINDS: tuple[tuple[type[Exception], int, str, str], ...] = (
    (KeyReused, 422, "idempotency-key-reused", "The idempotency key was used for another event"),
    (Malformed, 400, "malformed", "The body is not valid JSON"),
    (Unacceptable, 422, "unacceptable", "The request cannot be accepted as it is"),
    (NotFound, 404, "not-found", "There is nothing of this name"),
    (Conflict, 409, "conflict", "The state has changed meanwhile"),
    (Gone, 410, "gone", "The records are gone"),
    (Rejected, 422, "rejected", "The request cannot be carried out"),
    (Overloaded, 429, "overloaded", "Too much is waiting"),
    (Full, 507, "disk-full", "The disk is full"),
    (OutcomeUnknown, 503, "outcome-unknown", "The outcome is unknown"),
    (TooSlow, 503, "too-slow", "The answer took too long"),
    (Unavailable, 503, "unavailable", "Not available now"),
)


class HttpProblem(Exception):
    """An HTTP error raised by a web handler itself."""

    def __init__(self, status: int, name: str, title: str, detail: str, pointer: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.name = name
        self.title = title
        self.pointer = pointer


class FinalProblem(HttpProblem):
    """A problem after which the connection cannot be used any more; it is closed."""


def describe(error: Exception, **members: Any) -> dict[str, Any]:
    """Return the members of the problem that an error is; raises the error itself when it is none of ours."""
    if isinstance(error, HttpProblem):
        status, name, title, pointer = error.status, error.name, error.title, error.pointer
    else:
        status, name, title = kind_of(error)
        pointer = error.pointer if isinstance(error, Unacceptable) else None
    problem: dict[str, Any] = {
        "type": f"urn:replayforge:{name}",
        "title": title,
        "status": status,
        "detail": str(error),
    }
    if pointer is not None:
        problem["errors"] = [{"pointer": pointer, "detail": str(error)}]
    if isinstance(error, OutcomeUnknown):
        problem["outcome"] = "unknown"
        if error.event_id is not None:
            problem["event_id"] = error.event_id
    if isinstance(error, KeyReused):
        problem["event_id"] = error.event_id
    return problem | members


def kind_of(error: Exception) -> tuple[int, str, str]:
    """Return status, name and title of an error of the engine."""
    for kind, status, name, title in KINDS:
        if isinstance(error, kind):
            return status, name, title
    raise error


def respond(request: web.BaseRequest, error: Exception, **members: Any) -> web.Response:
    """Answer a request with the problem that an error is.

    Raises ConnectionResetError when an answer has begun already: breaking that off is all there is left to say.
    """
    if request.writer.output_size > 0:
        raise ConnectionResetError("An answer that had begun cannot be finished.")
    problem = describe(error, **members)
    problem |= {"instance": request.path, "request_id": request.get(REQUEST_ID, "")}
    headers = {}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(math.ceil(error.retry_after_seconds))
    response = web.Response(
        body=msgspec.json.encode(problem), status=problem["status"], content_type=CONTENT_TYPE, headers=headers
    )
    if isinstance(error, FinalProblem):
        response.force_close()
    return response
