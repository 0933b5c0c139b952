"""What answers hold that are put together from several parts: the types by which the API is described and tried."""

from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from replayforge.domain.journal import StepKind
from replayforge.domain.lifecycle import Outcome, Reason, State
from replayforge.engine.report.why import Cause
from replayforge.forgelog.stats import LogStats
from replayforge.web.api.handlers import HandlerShape
from replayforge.web.api.replays import ReplayShape
from replayforge.web.api.shapes import PauseShape, RowShape, ShownEvent, Time
from replayforge.web.api.step_shapes import (
    AwaitedShape,
    ChildShape,
    CodeChangeShape,
    RelativeShape,
    StepInBrief,
    StepShape,
)

Item = TypeVar("Item")
Optional = UnsetType  # of a member that is left out where it does not apply
Count = Annotated[int, msgspec.Meta(ge=0)]


class Page(msgspec.Struct, Generic[Item]):
    """One page of a list; the next one is asked for with `cursor` = `next_cursor`."""

    items: list[Item]
    next_cursor: str | None
    has_more: bool


class EventList(Page[ShownEvent]):
    """One page of events. `searched` and `search_complete` are there with `contains`.

    So many events were looked at. Where the search is not complete it stopped at its bound, and `next_cursor` goes on
    from there, even if this page has no items.
    """

    searched: Count | Optional = UNSET
    search_complete: bool | Optional = UNSET


class Items(msgspec.Struct, Generic[Item]):
    """A list that is never long."""

    items: list[Item]


class AttemptShape(msgspec.Struct):
    """One attempt."""

    id: str
    run: int
    attempt_number: int
    lease_token: int
    outcome: Outcome
    worker_name: str
    owner: str
    started_at: Time
    finished_at: Time
    duration_ms: float
    error: str | None
    metadata_json: dict[str, Any]
    error_signature: str | None
    status: Outcome
    error_message: str | None


class RunShape(msgspec.Struct):
    """One run and its attempts, newest first."""

    run: int
    attempts: list[AttemptShape]


class ActionShape(msgspec.Struct):
    """Something that a person or the daemon did to an event; `by` names the key that asked for it."""

    at: Time
    run: int
    action: str
    detail: str
    by: str | None


class WhyShape(msgspec.Struct):
    """What an event waits for: a sentence, its kind, and what it names: the event in its way, a handler, a time."""

    id: str
    cause: Cause
    sentence: str
    event_id: str | None
    handler: str | None
    until: Time | None


class SuspicionShape(msgspec.Struct):
    """What deaths of the process say of an event."""

    isolation: str
    deaths: int
    died_alone_after_seconds: list[float]


class EventHistory(ShownEvent, kw_only=True):
    """An event with its runs and attempts, newest first.

    `waits_for_turn`, `waits_for_event` and `waits_until` say what it waits for in its lane. `journal` is one more for
    each restart and each replay from the start; `wakes` counts how often it was woken after it was parked. `steps` are
    the newest, oldest first, left out where there are none, and `steps_count` how many there are in all. `label` names
    the code that wrote its journal last, `code_change` is what other code does otherwise, where that was found.
    `edited_replays` are the first 20 events that replay it with another payload, `details` is what its handler says
    while it runs, and `trace_id` the W3C trace that it came with.
    """

    journal: int
    wakes: int
    cancel_requested: bool
    awaits: list[AwaitedShape]
    parent: RelativeShape | None
    children: list[ChildShape]
    label: str
    code_change: CodeChangeShape | None
    steps: list[StepInBrief] | Optional = UNSET
    steps_count: int | Optional = UNSET
    waits_for_turn: str | None
    waits_for_event: str | None
    waits_until: Time | None
    attempts: list[AttemptShape]
    runs: list[RunShape]
    actions: list[ActionShape]
    edited_replays: list[str]
    suspicion: SuspicionShape | Optional | None = UNSET
    details: dict[str, Any]
    trace_id: str | None


class StepsShape(Page[StepShape]):
    """Steps of the current journal; `earlier_steps` counts those of journals before it."""

    journal: int
    earlier_steps: int


class BulkItem(msgspec.Struct):
    """What became of one event of many: either it is named, or there is a problem."""

    index: Count
    id: str | Optional = UNSET
    status: State | Optional = UNSET
    duplicate: bool | Optional = UNSET
    problem: Annotated[dict[str, Any], msgspec.Meta(extra_json_schema={"$ref": "#/components/schemas/Problem"})] | (
        Optional
    ) = UNSET


class BulkAnswer(msgspec.Struct):
    """What became of many events."""

    accepted: Count
    duplicates: Count
    rejected: Count
    items: list[BulkItem]


class MovedShape(msgspec.Struct):
    """An event and where it stands now; `cancel_requested` where its handler is told and ends it."""

    id: str
    run: int
    status: Annotated[str, msgspec.Meta(extra_json_schema={"enum": [*State, "cancel_requested"]})]


class ClearedStep(msgspec.Struct):
    """A step that a replay takes out of the journal."""

    kind: StepKind
    name: str


class EventReplay(msgspec.Struct):
    """What a replay of an event has done, or with `dry_run` would do.

    What concerns its journal is left out where the event has none; `replay_of` is said of the new event that a payload
    makes, and `replayed`, `ids` and `skipped` of a replay of its subscribers' events.
    """

    id: str
    run: int | Optional = UNSET
    status: State | Optional = UNSET
    duplicate: bool | Optional = UNSET
    dry_run: bool | Optional = UNSET
    replay_of: str | Optional | None = UNSET
    begins_from: str | Optional = msgspec.field(default=UNSET, name="from")
    journal: int | Optional = UNSET
    cleared: list[ClearedStep] | Optional = UNSET
    effects_again: int | Optional = UNSET
    given_back: list[str] | Optional = UNSET
    gone: list[str] | Optional = UNSET
    children: list[str] | Optional = UNSET
    replayed: int | Optional = UNSET
    ids: list[str] | Optional = UNSET
    skipped: dict[str, str] | Optional = UNSET


class WorkflowReplay(msgspec.Struct):
    """Which events of a workflow were replayed; of those that were not, why."""

    workflow_id: str
    replayed: int
    ids: list[str]
    skipped: dict[str, str]


class WorkflowShape(msgspec.Struct):
    """The totals of a workflow."""

    workflow_id: str
    total_events: Count
    count_capped: bool
    succeeded: Count
    failed: Count
    dead_lettered: Count
    in_flight: Count
    has_failures: bool
    totals: dict[State, int]
    created_at: Time
    last_updated_at: Time


class TimelineEvent(RowShape):
    """An event of a workflow, with its attempts and what its handler has done."""

    steps: list[StepInBrief]
    attempts: list[AttemptShape]


class TimelineShape(msgspec.Struct):
    """A workflow's events in their order."""

    workflow_id: str
    events: list[TimelineEvent]


class DeadLetter(msgspec.Struct):
    """A dead letter; its id is that of its event, and `updated_at` when it became one."""

    id: str
    application_name: str
    workflow_id: str
    event_type: str
    service_name: str
    reason: Reason | None
    last_error: str | None
    error_signature: str | None
    run: int
    attempt_count: int
    updated_at: Time
    replayed_at: Time | None
    replay_status: str | None
    event_id: str
    created_at: Time


class GroupShape(msgspec.Struct):
    """Events or attempts that have something in common, and one of them."""

    group: str
    count: Count
    count_capped: bool
    first_at: Time
    last_at: Time
    event_types: int
    sample: str


class Groups(Items[GroupShape]):
    """Dead letters, gathered."""

    group_by: Literal["error", "type", "service", "reason"]
    count_capped: bool


class ErrorInsights(Items[GroupShape]):
    """The failed attempts of late, gathered by their error."""

    window_seconds: float
    count_capped: bool


class MadeReplay(ReplayShape):
    """A bulk replay that was made, or that the same Idempotency-Key had made before."""

    duplicate: bool


class PreviewGroup(msgspec.Struct):
    """How many of the chosen events have an error in common."""

    group: str
    count: Count


class ReplayPreview(msgspec.Struct):
    """What a bulk replay would take."""

    dry_run: bool
    count: Count
    more: bool
    max: int
    would_replay: Count
    sample: list[str]
    groups: list[PreviewGroup]
    groups_capped: bool
    effects_again: int


class SkipShape(msgspec.Struct):
    """Why some members of a bulk replay were left alone, and one of them."""

    reason: str
    count: Count
    sample: str


class ReplayWithSkips(ReplayShape):
    """A bulk replay, and why members of it were left alone."""

    skips: list[SkipShape]


class WithoutHandler(msgspec.Struct):
    """Dead letters of a type that found no handler."""

    event_type: str
    dead_letters: Count
    count_capped: bool
    has_handler_now: bool
    sample: str


class HandlerList(Items[HandlerShape]):
    """Every handler, what is paused, and the types that died for want of one."""

    pauses: list[PauseShape]
    without_handler: list[WithoutHandler]


class ResumedHandler(msgspec.Struct):
    """A handler that is given events again."""

    pattern: str
    status: Literal["resumed"]


class Resumed(msgspec.Struct):
    """A source or a schedule that goes on."""

    name: str
    status: Literal["resumed"]


class ScheduleRun(msgspec.Struct):
    """The event that a schedule was made to send."""

    name: str
    event_id: str


class AppendedRecord(msgspec.Struct):
    """A record that is durable."""

    offset: int
    event: msgspec.Raw


class ReadRecord(msgspec.Struct):
    """A record of the log."""

    offset: int
    appended_at: Time
    event: msgspec.Raw


class ReadRecords(msgspec.Struct):
    """Records of the log; read on with `offset` = `next_offset`."""

    events: list[ReadRecord]
    next_offset: int


@dataclass(frozen=True, slots=True)
class LogStatistics(LogStats):
    """The figures of the log, their legacy names among them."""

    committed_offset: int
    wal_size: int
    fsync_p50_ms: float
    fsync_p99_ms: float
    torn_bytes: int
    raft_state: Literal["standalone"]
    leader_id: str


class LogHealth(msgspec.Struct):
    """Whether the log takes records."""

    status: Literal["ok", "unavailable"]
    writable: bool
    detail: str


class Live(msgspec.Struct):
    """The process is up."""

    status: Literal["ok"]
    version: str


class CheckShape(msgspec.Struct):
    """How one part of the daemon is."""

    status: Literal["ok", "degraded", "down"]
    latency_ms: float
    detail: str


class Readiness(msgspec.Struct):
    """Whether events can be accepted, and how each part is."""

    status: Literal["ok", "degraded", "unavailable"]
    checks: dict[str, CheckShape]
    detail: str | Optional = UNSET


class StreamHealth(msgspec.Struct):
    """How the stream is."""

    backend: str
    status: Literal["ok", "down"]
    warnings: list[str]


class ServiceShape(msgspec.Struct):
    """A service of the supervisor."""

    name: str
    state: str
    since: Time
    restarts: Count
    last_error: str | None
    last_error_at: Time | None
    traceback: str | None


class ServicesShape(msgspec.Struct):
    """The services."""

    services: list[ServiceShape]


class WorkerShape(msgspec.Struct):
    """A worker of this daemon or of another one."""

    id: str
    worker_name: str
    node: str
    status: str
    last_heartbeat_at: Time
    is_stale: bool
    current_event_id: str | None
    current_event_type: str | None
    busy_since: Time | None
    settled: int
    restarts: int | None
    last_error: str | None
    details: dict[str, Any]


class Workload(msgspec.Struct):
    """What the demo's workload has sent."""

    workflows: int
    events_sent: int
    errors: int


class CrashedWorker(msgspec.Struct):
    """A worker that was crashed."""

    worker_name: str
    status: Literal["crashed"]


class LedgerShape(msgspec.Struct):
    """accepted = succeeded + dead_lettered + discarded + cancelled + open + retired; lost is what is missing."""

    accepted: int
    copies: int
    succeeded: int
    dead_lettered: int
    discarded: int
    cancelled: int
    open: int
    retired: int
    lost: int
    foreign_records: int
    unreadable_records: int
    gap_records: int


class NodeShape(msgspec.Struct):
    """A daemon that shares the store, as it reported last."""

    node: str
    log_id: str
    host: str
    pid: int
    started_at: Time
    last_heartbeat_at: Time
    silent_seconds: float
    stopped: bool
    given_up: bool
    durable_offset: int
    projected_offset: int
    waiting: int


class DeployShape(msgspec.Struct):
    """How many open runs were held against the code that the daemon has begun with, and how many would not go on."""

    runs: int
    verdicts: dict[str, int]
    breaking: int
    complete: bool
    error: str


class ConvergenceShape(msgspec.Struct):
    """Whether everything accepted has ended, with the ledger that shows it, and what stands in the way, in words.

    `deploy` is what was found as the daemon started, of runs that were open; null where nobody looks.
    """

    converged: bool
    convergence_state: Literal["converged", "recovering", "degraded"]
    issues: list[str]
    ledger: LedgerShape
    ledger_in_words: str
    nodes: list[NodeShape]
    unreachable_nodes: list[NodeShape]
    verified_at: Time
    total_events: int
    processed_events: int
    received_events: int
    scheduled_events: int
    queued_events: int
    processing_events: int
    retrying_events: int
    retrying_later_events: int
    waiting: int
    kept: int
    held_events: int
    paused_events: int
    blocked_events: int
    deploy: DeployShape | None
    pauses: list[PauseShape]
    dead_lettered_events: int
    pending_events: int
    oldest_queued_seconds: float
    retry_stream_depth: int
    stream_backlog: int
    orphaned_records: int
    duplicate_deliveries: int
    duplicate_side_effects: int
    fenced_results: int
    recent_failures: int
    recent_failures_capped: bool
    active_workers: int
    stale_workers: int
    worker_heartbeat_age_seconds: float
    acknowledged_events: int
    dlq_events: int
    retry_queue_depth: int
    incoming_stream_depth: int
    convergence_issues: list[str]


class MetricsShape(ConvergenceShape):
    """The same, and how fast events come and go: figures of this daemon, latencies of the last hour on all daemons."""

    processed_per_sec: float
    event_attempt_failures: int
    avg_attempt_duration_ms: float | None
    p50_attempt_duration_ms: float | None
    p95_attempt_duration_ms: float | None
    replay_success_rate: float
    replay_latency_ms: float | None
    accepted_per_sec: float
    done_per_sec: float
    p50_latency_ms: float | None
    p95_latency_ms: float | None
    p99_latency_ms: float | None
    scheduled: int
    queued: int
    processing: int
    retrying: int
    held: int
    succeeded: int
    failed: int
    dead_lettered: int
    replay_requeued: int
    incoming_pending: int
    retry_pending: int
    counters: dict[str, int]
