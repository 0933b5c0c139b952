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
from replayforge.engine.accept.sources import SignatureRefused, TooLarge
from replayforge.web.http.context import BASE_PATH, REQUEST_ID
from replayforge.web.http.problem_types import PROBLEM_TYPES

CONTENT_TYPE = "application/problem+json"

# Which type of problem each error of the engine is; the first class that fits decides.
TYPE_OF: tuple[tuple[type[Exception], str], ...] = (
    (SignatureRefused, "signature-refused"),
    (TooLarge, "too-large"),
    (KeyReused, "idempotency-key-reused"),
    (Malformed, "malformed"),
    (Unacceptable, "unacceptable"),
    (NotFound, "not-found"),
    (Conflict, "conflict"),
    (Gone, "gone"),
    (Rejected, "rejected"),
    (Overloaded, "overloaded"),
    (Full, "disk-full"),
    (OutcomeUnknown, "outcome-unknown"),
    (TooSlow, "too-slow"),
    (Unavailable, "unavailable"),
)


class HttpProblem(Exception):
    """An HTTP error raised by a web handler itself; `name` is one of PROBLEM_TYPES."""

    def __init__(self, name: str, detail: str, pointer: str | None = None) -> None:
        super().__init__(detail)
        self.name = name
        self.pointer = pointer


class FinalProblem(HttpProblem):
    """A problem after which the connection cannot be used any more; it is closed."""


def describe(error: Exception, **members: Any) -> dict[str, Any]:
    """Return the members of the problem that an error is; raises the error itself when it is none of ours."""
    name = error.name if isinstance(error, HttpProblem) else type_of(error)
    pointer = error.pointer if isinstance(error, (HttpProblem, Unacceptable)) else None
    kind = PROBLEM_TYPES[name]
    problem: dict[str, Any] = {
        "type": f"urn:replayforge:{name}",
        "title": kind.title,
        "status": kind.status,
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


def type_of(error: Exception) -> str:
    """Return the name of the type of problem that an error of the engine is."""
    for kind, name in TYPE_OF:
        if isinstance(error, kind):
            return name
    raise error


def respond(request: web.BaseRequest, error: Exception, **members: Any) -> web.Response:
    """Answer a request with the problem that an error is.

    Raises ConnectionResetError when an answer has begun already: breaking that off is all there is left to say.
    """
    if request.writer.output_size > 0:
        raise ConnectionResetError("An answer that had begun cannot be finished.")
    problem = describe(error, **members)
    problem |= {"instance": request.path, "request_id": request.get(REQUEST_ID, "")}
    headers = help_link(request, problem["type"])
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(math.ceil(error.retry_after_seconds))
    response = web.Response(
        body=msgspec.json.encode(problem), status=problem["status"], content_type=CONTENT_TYPE, headers=headers
    )
    if isinstance(error, FinalProblem):
        response.force_close()
    return response


def help_link(request: web.BaseRequest, kind: str) -> dict[str, str]:
    """Return the header that leads to what the guide says of a type of problem; none for what was never a request."""
    base_path = request.get(BASE_PATH)
    return {} if base_path is None else {"Link": f'<{base_path}/guide/errors#{kind.rpartition(":")[2]}>; rel="help"'}
