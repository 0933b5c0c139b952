"""Crash points while none is armed: they stand on the way of every event, and must cost next to nothing there."""

import sys
from types import FrameType
from typing import Any

from replayforge import crashpoints

INSTRUCTIONS_MAX = 8  # to look at the empty table, and to return


def test_a_point_that_is_not_armed_looks_at_an_empty_table_and_no_more() -> None:
    """It carries out a handful of instructions and calls nothing, however many points there are."""
    assert not crashpoints.armed
    seen: list[tuple[str, str]] = []

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_opcodes = True
        seen.append((frame.f_code.co_name, event))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        crashpoints.reach("settle.committed", 100)
    finally:
        sys.settrace(before)
    inside = [event for name, event in seen if name == "reach"]
    assert {name for name, event in seen if event == "call"} == {"reach"}
    assert 0 < inside.count("opcode") <= INSTRUCTIONS_MAX
