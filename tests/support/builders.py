"""Values that tests make themselves: events as log and store keep them, and the outcomes of attempts."""

import time
from typing import Any

import msgspec

from replayforge.domain.event import ClaimedEvent, Content, EventRecord, StoredEvent
from replayforge.domain.lifecycle import Outcome, Reason, State
from replayforge.domain.verdict import Verdict
from replayforge.stores.transactions import Settlement


def now_us() -> int:
    """Return the time; a shared store judges leases by a clock of its own, so tests go by the real one."""
    return time.time_ns() // 1000


def record(event_id: str, payload: bytes = b"{}", **fields: object) -> EventRecord:
    """Return an event as the log keeps it."""
    given = {"application_name": "app", "workflow_id": "workflow", "event_type": "test"} | fields
    return EventRecord(id=event_id, created_at_us=now_us(), payload=msgspec.Raw(payload), **given)  # type: ignore[arg-type]


def stored_event(seq: int = 1, **fields: Any) -> StoredEvent:
    """Return an event as the store keeps it, claimed once."""
    return msgspec.structs.replace(
        StoredEvent(
            seq=seq, id=f"event-{seq}", application_name="app", workflow_id="workflow", event_type="test",
            service_name="", idempotency_key=None, created_at_us=0, updated_at_us=0, log_id="log-1", log_offset=seq,
            replay_of=None, max_attempts=None, state=State.PROCESSING, run=1, attempt_count=0, starts=1, crashes=0,
            lease_owner="node-1/first", lease_token=1, due_at_us=None, reason=None, last_error=None,
            error_signature=None, result=None,
        ),
        **fields,
    )  # fmt: skip


def claimed_event(seq: int = 1, **fields: Any) -> ClaimedEvent:
    """Return an event in the hands of this process, with nothing that came with it."""
    return ClaimedEvent.of(stored_event(seq, **fields), Content(b"{}", b"{}"))


def settlement(
    event: StoredEvent,
    state: State,
    outcome: Outcome = Outcome.FAILED,
    *,
    reason: Reason = Reason.ATTEMPTS_EXHAUSTED,
    at_us: int | None = None,
    took_us: int = 0,
    **fields: Any,
) -> Settlement:
    """Return an attempt that ended now, or at another time, and leads to a state; a retry is due at once."""
    ended_us = now_us() if at_us is None else at_us
    verdict = Verdict(
        state,
        event.attempt_count + (outcome in (Outcome.FAILED, Outcome.TIMED_OUT)),
        event.crashes,
        due_at_us=ended_us - 1 if state is State.RETRYING else None,
        reason=reason if state is State.DEAD_LETTERED else None,
    )
    return Settlement(event, outcome, verdict, "worker-1", ended_us - took_us, ended_us, **fields)


def success(one: ClaimedEvent) -> Settlement:
    """Return the outcome of a handler that returned."""
    return settlement(one.event, State.SUCCEEDED, Outcome.SUCCEEDED)
