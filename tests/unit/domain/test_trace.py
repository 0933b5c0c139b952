"""What headers say of a trace: what is none by the standard is dropped, and what is one is handed on as it came."""

import pytest

from replayforge.domain.trace import trace_headers, trace_of

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("traceparent", "kept"),
    [
        (PARENT, PARENT),
        (f" {PARENT} ", PARENT),
        (f"cc{PARENT[2:]}-later", f"cc{PARENT[2:]}"),
        ("", None),
        (f"ff{PARENT[2:]}", None),
        (PARENT.upper(), None),
        (PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32), None),
        (PARENT.replace("00f067aa0ba902b7", "0" * 16), None),
        (PARENT[:-1], None),
    ],
)
def test_what_is_a_trace(traceparent: str, kept: str | None) -> None:
    """A traceparent that is none leaves nothing, whatever tracestate says."""
    trace = trace_of({"traceparent": traceparent, "tracestate": "vendor=1"})
    assert trace_headers(trace) == ({} if kept is None else {"traceparent": kept, "tracestate": "vendor=1"})


@pytest.mark.parametrize("tracestate", ["", "x" * 513, "é=1", "a=1\x00"])
def test_a_tracestate_that_cannot_be_handed_on_is_left_out(tracestate: str) -> None:
    """The trace itself stays."""
    assert trace_headers(trace_of({"traceparent": PARENT, "tracestate": tracestate})) == {"traceparent": PARENT}
