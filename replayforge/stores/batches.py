"""The rows that batches write: the columns of each statement, named once; the SQL books use these names."""

import msgspec

from replayforge.domain.alerts import Alert
from replayforge.domain.bulk_replay import JobState, MemberOutcome
from replayforge.domain.event import RetiredKey, StoredEvent
from replayforge.domain.journal import StepKind, StepState
from replayforge.domain.lifecycle import Outcome, State
from replayforge.domain.poison import Isolation
from replayforge.domain.schedule import Why


class BatchRow(msgspec.Struct, frozen=True, gc=False):
    """What one row of a batch says, by the names of its columns."""


class MetaValue(BatchRow, frozen=True, kw_only=True):
    """One of the store's own notes."""

    name: str
    value: str


class OpenedCursor(BatchRow, frozen=True, kw_only=True):
    """The cursor of a log, taken over by an incarnation of its daemon."""

    log_id: str
    incarnation: str
    log_offset: int
    updated_at_us: int


class AdvancedCursor(BatchRow, frozen=True, kw_only=True):
    """A cursor that is at `after` and moves through a stretch of its log, with what became of the records in it."""

    log_id: str
    incarnation: str
    after: int
    through: int
    inserted: int
    copies: int
    not_events: int
    durable_offset: int
    at_us: int


class PassedOver(BatchRow, frozen=True, kw_only=True):
    """How many records of a stretch of a log could not be read, or were gone."""

    log_id: str
    unreadable: int
    gaps: int


class TallyChange(BatchRow, frozen=True, kw_only=True):
    """What is added to one of a node's counters."""

    node: str
    name: str
    amount: int


class StoredContent(BatchRow, frozen=True, kw_only=True):
    """What came with an event."""

    seq: int
    payload: bytes
    metadata: bytes


class WaitingEvent(BatchRow, frozen=True, kw_only=True):
    """The handler that a queued event waits for, or None for one that waits no longer."""

    seq: int
    waits_for: str | None


class PausedPattern(BatchRow, frozen=True, kw_only=True):
    """A handler that somebody pauses."""

    pattern: str
    reason: str
    paused_by: str
    since_us: int


class ResumedPattern(BatchRow, frozen=True, kw_only=True):
    """A handler of which somebody takes the pause."""

    pattern: str


class PausedSource(BatchRow, frozen=True, kw_only=True):
    """A source of webhooks that somebody pauses."""

    source: str
    reason: str
    paused_by: str
    since_us: int


class ResumedSource(BatchRow, frozen=True, kw_only=True):
    """A source of which somebody takes the pause."""

    source: str


class RefusedDelivery(BatchRow, frozen=True, kw_only=True):
    """A delivery that was refused, with what it is judged by once more."""

    source: str
    at_us: int
    reason: str
    url: str
    headers: str
    body: bytes
    size_bytes: int


class EndedSession(BatchRow, frozen=True, kw_only=True):
    """A session of pages that was signed out, and when it would have ended."""

    value: str
    ends_at_us: int


class RemovedRefusal(BatchRow, frozen=True, kw_only=True):
    """A refused delivery that is kept no longer."""

    seq: int


class KnownSchedule(BatchRow, frozen=True, kw_only=True):
    """A schedule as a daemon knows it, and from when on its slots count if its timing is new."""

    name: str
    timing: str
    place_us: int


class AdvancedSchedule(BatchRow, frozen=True, kw_only=True):
    """A schedule whose slots are done through a place, if it still is at the one before; and its last event, if any."""

    name: str
    timing: str
    before_us: int
    place_us: int
    slot_us: int | None
    event_id: str | None


class RunSchedule(BatchRow, frozen=True, kw_only=True):
    """A schedule whose event somebody had made by hand."""

    name: str
    event_id: str


class PausedSchedule(BatchRow, frozen=True, kw_only=True):
    """A schedule that somebody pauses."""

    name: str
    reason: str
    paused_by: str
    since_us: int


class ResumedSchedule(BatchRow, frozen=True, kw_only=True):
    """A schedule that goes on from a place, if it still is paused at the one before."""

    name: str
    before_us: int
    place_us: int


class ScheduleNote(BatchRow, frozen=True, kw_only=True):
    """Slots that got no event, or a place that was set, and why; `is_capped` slots are more than were counted."""

    schedule: str
    at_us: int
    why: Why
    from_us: int
    through_us: int
    slots: int
    is_capped: int


class EndedAttempt(BatchRow, frozen=True, kw_only=True):
    """An attempt that has ended."""

    event_seq: int
    token: int
    run: int
    number: int
    outcome: Outcome
    ended_run: bool
    owner: str
    worker: str
    started_at_us: int
    ended_at_us: int
    error: str | None
    error_signature: str | None


class SettledEvent(BatchRow, frozen=True, kw_only=True):
    """An event that moves as its attempt decided, if its lease still stands."""

    seq: int
    token: int
    owner: str
    state: State
    attempt_count: int
    crashes: int
    due_at_us: int | None
    reason: str | None
    last_error: str | None
    error_signature: str | None
    result: bytes | None
    at_us: int


class RecordedStep(BatchRow, frozen=True):
    """A step of an event's journal."""

    event_seq: int
    journal: int
    kind: StepKind
    step: str
    generation: int
    state: StepState
    token: int
    run: int
    begun: int
    recorded: int
    tries: int
    started_at_us: int
    ended_at_us: int | None
    due_at_us: int | None
    arguments: str
    result: bytes | None
    error_type: str | None
    error: str | None
    trace: str | None
    event_type: str | None
    other_id: str | None
    label: str


class HeldStep(RecordedStep, frozen=True, kw_only=True):
    """A step of an event's journal, and the lease under which its event is to be held."""

    lease_token: int
    owner: str


class EndedStep(BatchRow, frozen=True, kw_only=True):
    """A step that waited and is recorded now; `token` is that of its event's lease, by then the last one."""

    event_seq: int
    journal: int
    kind: str
    step: str
    generation: int
    state: StepState
    token: int
    recorded: int
    result: bytes | None
    error_type: str | None
    error: str | None
    other_id: str | None
    at_us: int


class TakenSignal(BatchRow, frozen=True, kw_only=True):
    """A kept signal that a wait has taken, with who did."""

    seq: int
    result: bytes
    at_us: int


class JournalNote(BatchRow, frozen=True, kw_only=True):
    """An event's current journal; `parked_token` is 0 for one that is not parked now.

    `ended_by` are the steps whose failures have ended its run, as JSON; None leaves what is there.
    """

    event_seq: int
    number: int
    run: int
    run_started_at_us: int
    parked_token: int
    payload: bytes | None
    ended_by: str | None
    activation: int
    label: str


class NotedChange(BatchRow, frozen=True, kw_only=True):
    """What other code would do otherwise than an event's journal remembers, as JSON; None for nothing."""

    seq: int
    code_change: str | None


class RenewedJournal(BatchRow, frozen=True, kw_only=True):
    """The journal that an event goes on with in a new run."""

    seq: int
    number: int


class ParkedWait(BatchRow, frozen=True, kw_only=True):
    """What a parked event waits for."""

    event_seq: int
    step: str
    application_name: str
    workflow_id: str
    event_type: str
    since_us: int


class ReclaimedEvent(BatchRow, frozen=True, kw_only=True):
    """An event that moves after a crash, if the lease it was seen with still stands."""

    seq: int
    token: int
    owner: str
    state: State
    crashes: int
    reason: str | None
    last_error: str
    error_signature: str
    suspect: Isolation
    suspicion: str | None
    at_us: int


class HandedBackEvent(BatchRow, frozen=True, kw_only=True):
    """A claimed event that no worker started."""

    seq: int
    token: int
    owner: str
    at_us: int


class ChangedSuspicion(BatchRow, frozen=True, kw_only=True):
    """What is known of an event from now on, if what was `known` still is."""

    seq: int
    known: str
    suspect: Isolation
    suspicion: str | None


class NodeReport(BatchRow, frozen=True, kw_only=True):
    """What a daemon says of itself."""

    node: str
    log_id: str
    incarnation: str
    beat: int
    host: str
    pid: int
    started_at_us: int
    durable_offset: int
    workers: str
    labels: str
    stopped: bool
    seen_at_us: int


class DrainingOwner(BatchRow, frozen=True, kw_only=True):
    """An incarnation that was told to stop."""

    owner: str
    since_us: int


class ReplayedEvent(BatchRow, frozen=True, kw_only=True):
    """A finished event that is queued for a new run, if it still is in this run and state."""

    seq: int
    run: int
    state: State
    at_us: int


class MovedEvent(BatchRow, frozen=True, kw_only=True):
    """An event that somebody moves by hand, if it still is in this run and state."""

    seq: int
    run: int
    state: State
    target: State
    reason: str | None
    due_at_us: int | None
    at_us: int
    result: bytes | None = None


class NotedAction(BatchRow, frozen=True, kw_only=True):
    """What was done to an event outside of attempts."""

    event_seq: int
    at_us: int
    run: int
    action: str
    detail: str
    request_key: str | None = None
    acted_by: str = ""


class RemovedEvent(BatchRow, frozen=True, kw_only=True):
    """An event of which something is removed."""

    seq: int


class RemovedReplay(BatchRow, frozen=True, kw_only=True):
    """A bulk replay that is removed."""

    seq: int


class NamedMember(BatchRow, frozen=True, kw_only=True):
    """An event that becomes a member of a bulk replay by its name."""

    replay_seq: int
    event_seq: int
    event_id: str
    run: int
    state: State


class SizedReplay(BatchRow, frozen=True, kw_only=True):
    """How many events fitted a bulk replay, and how many of them became members."""

    seq: int
    matched: int
    total: int


class MarkedMember(BatchRow, frozen=True, kw_only=True):
    """What became of a member of a bulk replay, if nothing but `before` was known of it."""

    replay_seq: int
    event_seq: int
    before: MemberOutcome
    outcome: MemberOutcome
    note: str


class AdvancedReplay(BatchRow, frozen=True, kw_only=True):
    """What became of members of a bulk replay, and how long the next ones have to wait."""

    seq: int
    at_us: int
    slack_us: int
    replayed: int = 0
    skipped: int = 0
    succeeded: int = 0
    dead_lettered: int = 0
    superseded: int = 0
    through_seq: int = 0
    pause_us: int = 0


class MovedReplay(BatchRow, frozen=True, kw_only=True):
    """A bulk replay that moves, if it still is in this state."""

    seq: int
    state: JobState
    target: JobState
    resumes_as: JobState
    note: str
    at_us: int


class CountedAmount(BatchRow, frozen=True, kw_only=True):
    """What a node has counted by now in one step of time."""

    step_seconds: int
    at_us: int
    node: str
    event_type: str
    name: str
    amount: int


class OpenedLane(BatchRow, frozen=True, kw_only=True):
    """A lane, and what holds in it."""

    lane: str
    strict: bool
    dead_blocks: bool
    width: int
    counts_running: bool
    interval_us: int


class LaneNews(BatchRow, frozen=True, kw_only=True):
    """A lane that is to be looked at."""

    lane: str


class PlacedEvent(BatchRow, frozen=True, kw_only=True):
    """The place of an event in its lane, None for one that has it no more, whether it waits for its turn, and whether a
    rate says when that comes."""

    seq: int
    place: int | None
    blocked: bool
    paced: bool = False


class SortedEvent(BatchRow, frozen=True, kw_only=True):
    """The lane that an event is in from now on."""

    seq: int
    lane: str | None


class SavedLane(BatchRow, frozen=True, kw_only=True):
    """How far a lane has come."""

    lane: str
    last_place: int
    next_at_us: int
    wake_at_us: int | None


class RemovedLane(BatchRow, frozen=True, kw_only=True):
    """A lane that nobody is in."""

    lane: str


BATCHES: dict[str, type[msgspec.Struct]] = {
    "insert_meta": MetaValue,
    "write_meta": MetaValue,
    "open_cursor": OpenedCursor,
    "advance_cursor": AdvancedCursor,
    "count_passed_over": PassedOver,
    "add_tallies": TallyChange,
    "insert_events": StoredEvent,
    "insert_contents": StoredContent,
    "let_wait": WaitingEvent,
    "insert_pause": PausedPattern,
    "delete_pause": ResumedPattern,
    "insert_source_pause": PausedSource,
    "delete_source_pause": ResumedSource,
    "insert_ended_session": EndedSession,
    "insert_refusal": RefusedDelivery,
    "delete_refusals": RemovedRefusal,
    "insert_schedules": KnownSchedule,
    "retime_schedules": KnownSchedule,
    "advance_schedule": AdvancedSchedule,
    "note_schedule_run": RunSchedule,
    "pause_schedule": PausedSchedule,
    "resume_schedule": ResumedSchedule,
    "insert_schedule_notes": ScheduleNote,
    "insert_alerts": Alert,
    "change_alerts": Alert,
    "insert_attempts": EndedAttempt,
    "settle_events": SettledEvent,
    "write_steps": RecordedStep,
    "record_held_steps": HeldStep,
    "note_journals": JournalNote,
    "note_code_changes": NotedChange,
    "end_steps": EndedStep,
    "take_signals": TakenSignal,
    "insert_waits": ParkedWait,
    "delete_waits": RemovedEvent,
    "open_lanes": OpenedLane,
    "add_lane_news": LaneNews,
    "place_events": PlacedEvent,
    "save_lanes": SavedLane,
    "sort_events": SortedEvent,
    "delete_lanes": RemovedLane,
    "reclaim_events": ReclaimedEvent,
    "hand_back_events": HandedBackEvent,
    "report_node": NodeReport,
    "insert_draining": DrainingOwner,
    "change_suspicions": ChangedSuspicion,
    "replay_event": ReplayedEvent,
    "rewrite_steps": RecordedStep,
    "renew_journals": RenewedJournal,
    "move_event": MovedEvent,
    "insert_actions": NotedAction,
    "insert_retired_keys": RetiredKey,
    "delete_events": RemovedEvent,
    "delete_contents": RemovedEvent,
    "delete_attempts": RemovedEvent,
    "delete_actions": RemovedEvent,
    "delete_journals": RemovedEvent,
    "delete_steps": RemovedEvent,
    "insert_members": NamedMember,
    "size_replay": SizedReplay,
    "mark_members": MarkedMember,
    "add_to_replay": AdvancedReplay,
    "move_replay": MovedReplay,
    "delete_replays": RemovedReplay,
    "write_metrics": CountedAmount,
}
