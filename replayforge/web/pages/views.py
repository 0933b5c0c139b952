"""What pages show, as values: a frozen dataclass for each template whose page is more than one handler."""

from dataclasses import dataclass

from replayforge.domain.bulk_replay import Skip
from replayforge.engine.report.convergence import Convergence
from replayforge.web.api.shapes import PauseShape
from replayforge.web.pages.awaited import AwaitedRow, CodeChangeRow, RelativeRow, TurnRow
from replayforge.web.pages.charts import Timeline
from replayforge.web.pages.handler_rows import HandlerRow, OrphanRow
from replayforge.web.pages.replay_origins import ReplayOrigin
from replayforge.web.pages.replay_rows import ReplayRow
from replayforge.web.pages.rows import (
    ActionRow,
    ActivityRow,
    AlertRow,
    AttemptRow,
    ChoreRow,
    EventRow,
    Fact,
    GroupRow,
    NodeRow,
    ServiceRow,
    Tile,
    WorkerRow,
    WorkflowRow,
)
from replayforge.web.pages.step_rows import BriefStep, Waterfall
from replayforge.web.pages.trends import Bars, Latency, TypeRow
from replayforge.web.pages.words import Text


@dataclass(frozen=True, slots=True)
class OverviewView:
    """The first page; its charts look back over the range of this name."""

    tiles: list[Tile]
    range_name: str
    range_names: list[str]
    bars: Bars
    latency: Latency
    types: list[TypeRow]
    rows: list[EventRow]
    activity: list[ActivityRow]
    example: str
    ledger: str
    issues: list[str]


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list of events is narrowed to, as it stands in the form."""

    status: str = ""
    type: str = ""
    service: str = ""
    workflow: str = ""
    error: str = ""
    since: str = ""
    q: str = ""
    awaits: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class EventsView:
    """The list of events. `states` are (state, how many); `older` is the link to the next page, or empty.

    `matching` says how many there are; `query` asks the API for the same. `replayable` are the words for those of the
    events that a bulk replay would take, or empty.
    """

    filters: Filters
    filtered: bool
    matching: str
    query: dict[str, str]
    replayable: str
    states: list[tuple[str, int]]
    since_choices: list[tuple[str, str]]
    rows: list[EventRow]
    first_page: bool
    older: str


@dataclass(frozen=True, slots=True)
class HeldView:
    """What an event holds, as its reader wants to see it; `readings` are the other ways, each with its link."""

    payload: Text
    metadata: Text
    result: Text | None
    indented: bool
    readings: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class EventView:
    """One event with its history; `verbs` are the actions its state allows, `why` says what has been decided about it,
    `turn` what it waits for.

    `in_doubt` is the step that a held event waits for a decision about, `code_change` what its code does otherwise, for
    which it is held; `awaits` is what it is parked for, `waterfall` its steps, `parent` the event whose handler has
    made it, `subscribers` who has a child of it, `told` what its handler says of itself while it runs.
    """

    event: EventRow
    facts: list[Fact]
    verbs: frozenset[str]
    attempts: list[AttemptRow]
    actions: list[ActionRow]
    holds: HeldView
    replay_of: str
    edited_replays: list[str]
    why: str
    turn: TurnRow | None
    in_doubt: str
    code_change: CodeChangeRow | None
    awaits: list[AwaitedRow]
    parent: RelativeRow | None
    waterfall: Waterfall | None
    subscribers: list[str]
    told: list[Fact]


@dataclass(frozen=True, slots=True)
class WorkflowsView:
    """The list of workflows."""

    rows: list[WorkflowRow]
    first_page: bool
    older: str


@dataclass(frozen=True, slots=True)
class WorkflowView:
    """One workflow: its totals, its picture, and the same as a table; with `only_failed`, of the failed events alone.

    `application` is what it is narrowed to, or empty; `applications` are those whose events are shown.

    There is no picture of nothing. `steps` and `parents` are those of its events, by their ids.
    """

    workflow_id: str
    application: str
    applications: list[str]
    totals: WorkflowRow
    only_failed: bool
    failed: int
    idle_shown: bool
    timeline: Timeline | None
    rows: list[EventRow]
    attempts: dict[str, list[AttemptRow]]
    steps: dict[str, list[BriefStep]]
    parents: dict[str, RelativeRow]
    replayable: int


@dataclass(frozen=True, slots=True)
class DeadLettersView:
    """Dead letters in groups, and one by one; `chosen` is the group that the list is narrowed to, or None."""

    group_by: str
    groupings: tuple[str, ...]
    groups: list[GroupRow]
    grouped: int
    total: int
    chosen: str | None
    rows: list[EventRow]
    first_page: bool
    older: str


@dataclass(frozen=True, slots=True)
class HandlersView:
    """All handlers, whether everything is paused, pauses of unknown handlers, and types that found no handler."""

    rows: list[HandlerRow]
    everything: PauseShape | None
    strange: list[PauseShape]
    orphans: list[OrphanRow]


@dataclass(frozen=True, slots=True)
class PauseView:
    """The question why something is paused: a handler, a source, a schedule, or, without a kind, every handler.

    The form names it by `field`, and goes to the page `back` of all of its kind.
    """

    kind: str
    name: str
    consequence: str
    field: str
    back: str


@dataclass(frozen=True, slots=True)
class ReplaysView:
    """The list of bulk replays."""

    rows: list[ReplayRow]
    first_page: bool
    older: str


@dataclass(frozen=True, slots=True)
class ReplayView:
    """One bulk replay, and why members of it were left alone."""

    replay: ReplayRow
    skips: list[Skip]


@dataclass(frozen=True, slots=True)
class NewShadowView:
    """The question with which file dead letters are to be compared: how many, of which group."""

    count: int
    what: str
    hidden: list[tuple[str, str]]
    back: str


@dataclass(frozen=True, slots=True)
class ShadowRow:
    """Runs in which the same differs, and the first of them."""

    count: int
    verdict: str
    change: str
    first_id: str
    first_workflow: str


@dataclass(frozen=True, slots=True)
class ShadowTable:
    """Groups of runs of one sort, and how many groups more there are."""

    caption: str
    rows: list[ShadowRow]
    groups_left: int


@dataclass(frozen=True, slots=True)
class ShadowView:
    """What came of a comparison; `hidden` is what the form carries along that has the cured ones replayed."""

    handlers: str
    level: str
    summary: str
    tables: list[ShadowTable]
    cured: int
    hidden: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class NewReplayView:
    """The question before a bulk replay is made: how many events, of which errors, and what the form carries along.

    `again` is where the question is asked, for an answer that makes no sense. `effects` that are recorded would happen
    once more from the start.
    """

    what: str
    count: int
    more: bool
    members_max: int
    groups: list[tuple[str, int]]
    groups_capped: bool
    effects: int
    hidden: list[tuple[str, str]]
    needs_force: bool
    again: str
    back: str


@dataclass(frozen=True, slots=True)
class RuntimeView:
    """The daemon itself, part by part."""

    process: list[Fact]
    services: list[ServiceRow]
    workers: list[WorkerRow]
    stream: list[Fact]
    log: list[Fact]
    store: list[Fact]
    recovery: list[Fact]
    chores: list[ChoreRow]
    alerts: list[AlertRow]
    nodes: list[NodeRow]
    ledger: str
    issues: list[str]


@dataclass(frozen=True, slots=True)
class ConfirmView:
    """A question before something is done: which verb, to how many events, and what the form carries along.

    `more` tells that the group has more events than are taken at once; `all_of_it` is the link to a bulk replay of it,
    or empty. `origins` are from where a replay may begin, where there is a choice.
    """

    verb: str
    count: int
    more: bool
    all_of_it: str
    sample: list[EventRow]
    what: str
    hidden: list[tuple[str, str]]
    needs_force: bool
    origins: list[ReplayOrigin]
    back: str


@dataclass(frozen=True, slots=True)
class SendView:
    """The form that sends an event, or an edited replay of another one."""

    workflow_id: str
    event_type: str
    service_name: str
    application_name: str
    idempotency_key: str
    payload: str
    replay_of: str
    error: str


@dataclass(frozen=True, slots=True)
class LoginView:
    """The form that asks for a key."""

    next: str
    refusal: str


@dataclass(frozen=True, slots=True)
class ErrorView:
    """What went wrong, and a way on; `bare` leaves out everything a stranger may not see."""

    status: int
    heading: str
    detail: str
    request_id: str
    search: bool
    help: str


def state_counts(report: Convergence) -> list[tuple[str, int]]:
    """Return how many events stand in each state, those without any left out, in the order of their life."""
    return [(state.value, number) for state, number in report.ledger.states.items() if number]
