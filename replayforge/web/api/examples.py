"""What answers look like: an example of each type, made member by member, with typical values where types say less."""

from typing import Any

from msgspec import NODEFAULT, UNSET, inspect

EVENT_ID = "0198a5c0-7d31-7a64-9c1f-2f6b1d0e4c55"
CHILD_ID = "0198a5c0-9e02-7b11-8d40-6a9c3b7f1e20"
JOB_ID = "0198a5c4-11aa-7f3e-b2c6-0d5e8f7a9b31"
TIME = "2026-11-22T10:00:00.000000Z"
PAYLOAD = {"total": 12}
ERROR = "Permanent: declined"
PLAIN: dict[type[inspect.Type], Any] = {
    inspect.StrType: "",
    inspect.IntType: 0,
    inspect.FloatType: 0.0,
    inspect.BoolType: False,
    inspect.RawType: {},
}

# What a member holds: of a kind (`Kind.member`) and of those that are made from it, or of every kind. What is not named
# here is what its type begins with; what may be null is null, and what may be left out is left out.
VALUES: dict[str, Any] = {
    # an event
    "id": EVENT_ID,
    "event_id": EVENT_ID,
    "application_name": "default",
    "application_id": "default",
    "workflow_id": "order-17",
    "event_type": "order.placed",
    "service_name": "shop",
    "RowShape.idempotency_key": "order-17:placed",
    "RowShape.status": "succeeded",
    "RetiredShape.service_name": "",
    "RetiredShape.duplicate": True,
    "log_id": "6f1c2a9be04d47e8",
    "log_offset": 1042,
    "RowShape.attempt_count": 0,
    "max_attempts": 10,
    "run": 1,
    "starts": 1,
    "payload": PAYLOAD,
    "payload_json": PAYLOAD,
    "EventShape.result": {"charged": 12},
    "RetiredShape.result": None,
    "RetiredShape.starts": 0,
    # what became of it
    "AttemptShape.id": f"{EVENT_ID}:1",
    "attempt_number": 1,
    "lease_token": 1,
    "worker_name": "worker-3",
    "owner": "shop-1",
    "duration_ms": 41.7,
    "ActionShape.action": "replayed",
    "ActionShape.detail": "the payment provider is back",
    "ActionShape.by": "ops",
    "EventHistory.suspicion": None,
    "EventHistory.steps_count": 1,
    "EventHistory.trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "EventHistory.details": {"progress": "2 of 3"},
    "WhyShape.cause": "due",
    "WhyShape.event_id": None,
    "WhyShape.sentence": "It is not due before 2026-11-22T10:00:00Z: its last attempt failed.",
    "WhyShape.until": TIME,
    "StepInBrief.name": "charge",
    "StepInBrief.state": "done",
    "StepShape.event_id": None,
    "StepShape.event_type": None,
    "StepShape.arguments": [12],
    "StepShape.result": {"amount": 12},
    "StepShape.ended_at": TIME,
    "StepShape.begun": 1,
    "StepShape.recorded": 2,
    "StepShape.tries": 1,
    "StepShape.label": "shop.handlers.charge",
    "AwaitedShape.name": "order.confirmed",
    "AwaitedShape.event_type": "order.confirmed",
    "AwaitedShape.event_id": None,
    "RelativeShape.event_type": "parcel.sent",
    "RelativeShape.id": CHILD_ID,
    "RelativeShape.status": "succeeded",
    "ChildShape.step": "send-parcel",
    "MovedShape.status": "queued",
    "EventReplay.run": 2,
    "EventReplay.status": "queued",
    "WorkflowReplay.replayed": 1,
    "WorkflowReplay.skipped": {CHILD_ID: "it has not ended"},
    "ids": [EVENT_ID],
    "BulkAnswer.accepted": 1,
    "BulkItem.id": EVENT_ID,
    "BulkItem.status": "received",
    "BulkItem.duplicate": False,
    "WorkflowShape.total_events": 3,
    "WorkflowShape.succeeded": 2,
    "WorkflowShape.dead_lettered": 1,
    "WorkflowShape.has_failures": True,
    "WorkflowShape.totals": {"succeeded": 2, "dead_lettered": 1},
    # dead letters and replays
    "DeadLetter.reason": "permanent",
    "DeadLetter.last_error": ERROR,
    "DeadLetter.error_signature": ERROR,
    "DeadLetter.attempt_count": 1,
    "group": ERROR,
    "GroupShape.count": 12,
    "GroupShape.event_types": 1,
    "sample": EVENT_ID,
    "window_seconds": 86400.0,
    "ReplayShape.id": JOB_ID,
    "ReplayShape.status": "running",
    "ReplayShape.note": "12 of 40 are replayed",
    "ReplayShape.reason": "the payment provider is back",
    "ReplayShape.selection": {"filter": {"status": "dead_lettered", "event_type": "order.*"}},
    "max": 200000,
    "ReplayShape.canary": 1,
    "ReplayShape.rate_per_second": 5.0,
    "ReplayShape.matched": 40,
    "ReplayShape.total": 40,
    "ReplayShape.waiting": 28,
    "ReplayShape.replayed": 12,
    "ReplayShape.succeeded": 11,
    "ReplayShape.open": 1,
    "SkipShape.reason": "it has been replayed meanwhile",
    "SkipShape.count": 1,
    "ReplayPreview.dry_run": True,
    "ReplayPreview.count": 12,
    "ReplayPreview.would_replay": 12,
    "ReplayPreview.sample": [EVENT_ID],
    "PreviewGroup.count": 12,
    # shadow
    "ShadowShape.handlers": "fixed.py",
    "ShadowShape.runs": 12,
    "ShadowShape.verdicts": {"same": 2, "cured": 10},
    "ShadowShape.cured": [EVENT_ID],
    "ShadowGroup.verdict": "cured",
    "ShadowGroup.pointer": "/error",
    "ShadowGroup.before": ERROR,
    "ShadowGroup.count": 10,
    "ShadowGroup.ids": [EVENT_ID],
    # handlers, lanes, sources, schedules, alerts
    "pattern": "order.*",
    "HandlerShape.event_types": "order.*",
    "HandlerShape.kind": "function",
    "HandlerShape.status": "ready",
    "HandlerShape.name": "shop.handlers.placed",
    "HandlerShape.rules": {"max_attempts": 10, "timeout_seconds": 60.0},
    "HandlerShape.successes": 1041,
    "HandlerShape.failures": 3,
    "PauseShape.reason": "the payment provider is away",
    "PauseShape.by": "ops",
    "WithoutHandler.event_type": "order.renamed",
    "WithoutHandler.dead_letters": 2,
    "LaneShape.lane": 'order.*:"order-17"',
    "LaneShape.match": "order.*",
    "LaneShape.key": "order-17",
    "LaneShape.order": "accepted",
    "LaneShape.blocked": 2,
    "LaneShape.running": 1,
    "LaneShape.concurrency": 1,
    "LaneShape.head_event": EVENT_ID,
    "LaneShape.head_status": "processing",
    "SourceShape.name": "github",
    "SourceShape.preset": "github",
    "SourceShape.status": "ready",
    "SourceShape.url": "/in/github",
    "SourceShape.event_type": "github.{header:x-github-event}",
    "SourceShape.accepted": 310,
    "SourceShape.refused": {"signature": 1},
    "SourceShape.refusals_kept": 1,
    "SourceShape.last_delivery_at": TIME,
    "SourceShape.last_event_id": EVENT_ID,
    "RefusalShape.reason": "signature",
    "RefusalShape.headers": {"content-type": "application/json"},
    "RefusalShape.size_bytes": 512,
    "RefusalShape.whole": True,
    "Verified.accepted": [EVENT_ID],
    "ScheduleShape.name": "nightly",
    "ScheduleShape.status": "ready",
    "ScheduleShape.cron": "0 2 * * *",
    "ScheduleShape.timezone": "Europe/Berlin",
    "ScheduleShape.missed": "latest",
    "ScheduleShape.overlap": "skip",
    "ScheduleShape.workflow_id": "nightly",
    "SlotShape.at": "2026-11-23T01:00:00.000000Z",
    "SlotShape.local": "2026-11-23 02:00 CET",
    "NoteShape.why": "missed",
    "NoteShape.first": "2026-11-22T01:00:00.000000Z",
    "NoteShape.last": "2026-11-22T01:00:00.000000Z",
    "NoteShape.slots": 1,
    "Resumed.name": "nightly",
    "ScheduleRun.name": "nightly",
    "AlertShape.name": "too-many-dead",
    "AlertShape.when": "dead_letters",
    "AlertShape.threshold": 10.0,
    "AlertShape.receiver": "hooks.example.com",
    "AlertTestShape.name": "too-many-dead",
    "AlertTestShape.delivered": True,
    "AlertSubjectShape.detail": "12 dead letters",
    "AlertSubjectShape.said": "began",
    # the daemon and its log
    "version": "0.1.0",
    "Readiness.status": "ok",
    "StreamHealth.status": "ok",
    "Readiness.checks": {"log": {"status": "ok", "latency_ms": 0.2, "detail": ""}},
    "backend": "embedded",
    "up": True,
    "ServiceShape.name": "dispatcher",
    "ServiceShape.state": "running",
    "WorkerShape.id": "shop-1/worker-3",
    "WorkerShape.node": "shop-1",
    "WorkerShape.status": "idle",
    "WorkerShape.settled": 1041,
    "WorkerShape.restarts": 0,
    "workflows": 1,
    "events_sent": 4,
    "CrashRequest.point": "claim.committed",
    "NodeShape.node": "shop-1",
    "NodeShape.host": "shop-1",
    "NodeShape.pid": 4711,
    "NodeShape.durable_offset": 1042,
    "NodeShape.projected_offset": 1042,
    "ConvergenceShape.unreachable_nodes": [],
    "ConvergenceShape.pauses": [],
    "converged": True,
    "ledger_in_words": "1042 accepted = 1041 succeeded + 1 dead_lettered; lost 0",
    "LedgerShape.accepted": 1042,
    "LedgerShape.succeeded": 1041,
    "LedgerShape.dead_lettered": 1,
    "total_events": 1042,
    "processed_events": 1041,
    "acknowledged_events": 1042,
    "dead_lettered_events": 1,
    "dlq_events": 1,
    "MetricsShape.succeeded": 1041,
    "MetricsShape.dead_lettered": 1,
    "MetricsShape.p50_latency_ms": 8.1,
    "MetricsShape.counters": {"event.settled": 1042},
    "AppendedRecord.event": {"note": "any JSON"},
    "ReadRecord.event": {"note": "any JSON"},
    "AppendedRecord.offset": 1043,
    "ReadRecord.offset": 1043,
    "next_offset": 1043,
    "LogStats.first_offset": 1,
    "LogStats.last_offset": 1043,
    "LogStats.durable_offset": 1043,
    "LogStats.projected_offset": 1042,
    "committed_offset": 1043,
    "LogStats.segment_count": 1,
    "LogStats.writable": True,
    "LogStats.consumers": {"audit": 1043},
    "LogHealth.writable": True,
    "CommitRequest.consumer": "audit",
    "CommitRequest.offset": 1043,
    "leader_id": "shop-1",
}


def example_of(kind: Any) -> Any:
    """Return what a value of a type looks like in JSON."""
    return typical(inspect.type_info(kind))


def typical(kind: inspect.Type) -> Any:
    """Return what a value of a type looks like."""
    match kind:
        case inspect.StructType() | inspect.DataclassType():
            members = {field.encode_name: member(kind.cls, field) for field in kind.fields}
            return {name: value for name, value in members.items() if value is not UNSET}
        case inspect.Metadata(extra_json_schema=said) if said and "enum" in said:
            return said["enum"][0]
        case inspect.Metadata(extra_json_schema=said) if said and said.get("format") == "date-time":
            return TIME
        case inspect.Metadata():
            return typical(kind.type)
        case inspect.UnionType():
            return None if any(isinstance(one, inspect.NoneType) for one in kind.types) else typical(kind.types[0])
        case inspect.EnumType():
            return next(iter(kind.cls)).value
        case inspect.LiteralType():
            return kind.values[0]
        case inspect.ListType() | inspect.VarTupleType():
            return [typical(kind.item_type)] if is_shape(kind.item_type) else []
        case inspect.DictType():
            return {}
    return PLAIN[type(kind)]


def is_shape(kind: inspect.Type) -> bool:
    """Tell whether a type has members, so that one of it says something."""
    return isinstance(kind, inspect.StructType | inspect.DataclassType)


def member(owner: Any, field: inspect.Field) -> Any:
    """Return what a member of a type holds, or UNSET where it is left out."""
    kinds = getattr(owner, "__origin__", owner).__mro__
    names = (*(f"{kind.__name__}.{field.encode_name}" for kind in kinds), field.encode_name)
    named = next((VALUES[name] for name in names if name in VALUES), NODEFAULT)
    if named is not NODEFAULT:
        return named
    if field.required:
        return typical(field.type)
    return UNSET if field.default is NODEFAULT else field.default
