"""What handlers do to others is counted by handler and kind, and said for a while."""

from typing import Any

from replayforge.engine.handlers.faults import KINDS, REMEMBERED_SECONDS, SHOWN_MAX, HandlerFaults
from replayforge.engine.handlers.registry import Handlers
from replayforge.telemetry import Telemetry


def made() -> tuple[HandlerFaults, Telemetry, list[float]]:
    handlers, telemetry, now = Handlers(), Telemetry(), [0.0]
    for pattern in ("order.*", "*", *(f"many.{number}" for number in range(SHOWN_MAX + 2))):
        handlers.on(pattern)(lambda event, context: None)
    faults = HandlerFaults(handlers, lambda: now[0])
    telemetry.listen(faults.listen, KINDS)
    return faults, telemetry, now


def test_each_kind_is_counted_for_its_handler() -> None:
    """By the pattern that the handler is registered for; what nobody can be blamed for has a name of its own."""
    faults, telemetry, _ = made()
    event: dict[str, Any] = {"event_id": "e", "event_type": "order.paid"}
    telemetry.emit("attempt.failed", outcome="timed_out", **event)
    telemetry.emit("attempt.failed", outcome="failed", **event)
    telemetry.emit("attempt.abandoned", event_id="e", handler="order.*", running="1 task")
    telemetry.emit("worker.crashed", error="SystemExit", **event)
    telemetry.emit("thread.failed", thread="t", error="ValueError")
    telemetry.emit("event.accepted", 5)
    assert dict(faults.counts) == {
        ("order.*", "timed_out"): 1,
        ("order.*", "failed"): 1,
        ("order.*", "abandoned"): 1,
        ("order.*", "crashed"): 1,
        ("none", "thread_failed"): 1,
    }
    assert faults.issues() == []  # these hit nobody else, or are said elsewhere


def test_what_hits_others_is_said_for_a_while() -> None:
    """With the handler, the event and what it did, the newest first."""
    faults, telemetry, now = made()
    telemetry.emit("interpreter.restored", changed="f", event_id="e", event_type="x")
    now[0] = 7
    telemetry.emit("callback.exited", error="SystemExit", place="unknown", suspect="order.paid")
    telemetry.emit("callback.exited", error="SystemExit", place="a.py:1 in b", event_id="e2", event_type="gone")
    now[0] = 9
    assert faults.issues() == [
        "A handler, perhaps that of order.paid, tried to end the daemon with SystemExit at unknown (2 s ago).",
        "The handler * (event e2) tried to end the daemon with SystemExit at a.py:1 in b (2 s ago).",
        "After an attempt of the handler * (event e) this was put back, changed for all handlers: f (9 s ago).",
    ]
    now[0] = REMEMBERED_SECONDS + 5
    assert len(faults.issues()) == 2


def test_no_more_than_a_page_is_said() -> None:
    """The rest is counted."""
    faults, telemetry, _ = made()
    for number in range(SHOWN_MAX + 2):
        telemetry.emit("interpreter.restored", changed=f"thing {number}", event_id="e", event_type=f"many.{number}")
    assert len(faults.issues()) == SHOWN_MAX + 1
    assert faults.issues()[-1] == "2 more such things were done."
