"""The W3C trace context of an event: read from the headers it came with, kept as one text, handed on as headers."""

import re
from collections.abc import Mapping

TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")


def trace_of(headers: Mapping[str, str]) -> str | None:
    """Return the trace that headers speak of: traceparent, a space and tracestate; None for what is no trace.

    A later version of the standard may have appended something to traceparent, which is left out.
    """
    traceparent = headers.get("traceparent")
    if traceparent is None:
        return None
    found = TRACEPARENT.match(traceparent.strip())
    if found is None:
        return None
    tracestate = headers.get("tracestate", "").strip()
    return f"{found[0]} {tracestate}" if TRACESTATE.fullmatch(tracestate) else found[0]


def trace_id(trace: str | None) -> str | None:
    """Return what a trace goes by wherever traces are looked at."""
    return None if trace is None else trace.split("-", 2)[1]


def trace_headers(trace: str | None) -> dict[str, str]:
    """Return the headers that hand a trace on."""
    if trace is None:
        return {}
    traceparent, _, tracestate = trace.partition(" ")
    return {"traceparent": traceparent, "tracestate": tracestate} if tracestate else {"traceparent": traceparent}
