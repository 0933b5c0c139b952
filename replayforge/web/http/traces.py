"""The trace that a request belongs to, and its own span in it where traces are sent."""

from functools import wraps

from aiohttp import web
from aiohttp.typedefs import Handler
from multidict import istr

from replayforge.domain.trace import trace_of
from replayforge.tracing import Tracer

TRACEPARENT = istr("traceparent")
TRACE: web.RequestKey[str] = web.RequestKey("trace", str)  # that of its span, if it has one


def trace_of_request(request: web.Request, tracer: Tracer | None, told: str | None = None) -> str | None:
    """Return the trace of what the request brings: that of its headers, else what its body has `told` of one."""
    brings_one = TRACEPARENT in request.headers
    if told is not None and not brings_one:
        return told
    # Without a tracer no request has a span, and to ask for a key that is not there costs an exception.
    span = None if tracer is None else request.get(TRACE)
    return span or (trace_of(request.headers) if brings_one else None)


def traced(tracer: Tracer | None, name: str, handler: Handler) -> Handler:
    """Return a handler whose requests have spans, or the same one where no traces are sent."""
    if tracer is None:
        return handler

    @wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        attributes = {"http.request.method": request.method, "http.route": name}
        span = tracer.begin(f"{request.method} {name}", "server", trace_of(request.headers), attributes)
        request[TRACE] = span.trace
        try:
            response = await handler(request)
        except BaseException as error:
            span.end("refused", str(error))
            raise
        span.end(str(response.status))
        return response

    return answer
