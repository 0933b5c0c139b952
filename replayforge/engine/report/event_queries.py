"""What can be asked of events, workflows and dead letters: answered from the store, and from what has no row yet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from replayforge.domain.clock import MICROSECONDS_PER_SECOND, Clock
from replayforge.domain.errors import NotFound
from replayforge.domain.event import Action, Attempt, Content, EventRecord, StoredEvent
from replayforge.domain.journal import StepRecord
from replayforge.domain.lane import LaneReport, Turn, turn_of
from replayforge.domain.lifecycle import State
from replayforge.domain.recorded_run import RecordedRun
from replayforge.domain.replay_plan import PastJournal
from replayforge.domain.reports import EventFilter, Group, WorkflowSummary
from replayforge.domain.retry import RetryPolicy
from replayforge.engine.accept.intake import Intake, Receipt
from replayforge.engine.handlers.registry import Handler, Handlers
from replayforge.stores.content_search import SearchPage
from replayforge.stores.doubts import DoubtPage
from replayforge.stores.lookups import EventPage, RowPage, WorkflowPage
from replayforge.stores.recordings import COMPARABLE, was_handled
from replayforge.stores.store import Store
from replayforge.stores.stories import StepsPage, Story
from replayforge.stores.suspicions import Suspect


@dataclass(frozen=True, slots=True)
class History:
    """One event with all that happened to it; `content` are the bytes it came with, `story` what its handler remembers,
    `edited_replays` the first events that replay it with another payload, `suspect` what deaths say of it, `turn` what
    it waits for in its lane."""

    event: StoredEvent
    content: Content
    attempts: list[Attempt]
    actions: list[Action]
    story: Story
    edited_replays: list[str]
    suspect: Suspect | None = None
    turn: Turn | None = None


class EventQueries:
    """Answers questions about events; nothing here changes anything. `retry` holds where nobody else has a say."""

    def __init__(self, store: Store, intake: Intake, handlers: Handlers, retry: RetryPolicy, clock: Clock) -> None:
        self.store = store
        self.intake = intake
        self.handlers = handlers
        self.retry = retry
        self.clock = clock

    async def find(self, event_id: str, step_bytes: int = 0) -> History | Receipt:
        """Return an event's history, or its receipt while it has no row; raises NotFound.

        With it come its newest steps, with so much of the result of each.
        """
        history = await self.store.history(event_id, step_bytes)
        if history is not None:
            return History(*history, await self.suspicion(history[0]), await self.turn(history[0]))
        receipt = await self.intake.find_unprojected(event_id)
        if receipt is not None:
            return receipt
        # An event that left the window between the two looks has its row by now.
        history = await self.store.history(event_id, step_bytes)
        if history is None:
            raise NotFound(f"There is no event {event_id}.")
        return History(*history)

    async def steps_page(self, event_id: str, after_place: int, limit: int) -> StepsPage:
        """Return steps of an event's current journal in their order; raises NotFound."""
        found = await self.find(event_id)
        if isinstance(found, Receipt):
            return StepsPage(1, 0)
        return await self.store.steps_page(found.event, after_place, limit)

    async def past_journals(self, events: Sequence[StoredEvent]) -> list[tuple[StoredEvent, PastJournal]]:
        """Return those of the events that have a journal, with what it holds."""
        found = await self.store.past_journals(events)
        return [(event, found[event.seq]) for event in events if event.seq in found]

    async def suspicion(self, event: StoredEvent) -> Suspect | None:
        """Return what deaths of the process say of an event that has not gone well yet."""
        return None if event.state is State.SUCCEEDED else await self.store.suspicion(event.id)

    async def turn(self, event: StoredEvent) -> Turn | None:
        """Return what an event waits for in its lane, if it waits for its turn there."""
        if not event.blocked or event.state is not State.QUEUED or event.lane is None:
            return None
        return turn_of(event.id, await self.store.lane(event.lane, self.clock.now_us()))

    async def blocked_by(self, matches: Sequence[str]) -> dict[str, int]:
        """Return how many events wait for their turn in the lanes of each pattern, up to a number."""
        return await self.store.blocked_by(matches) if matches else {}

    async def list_lanes(self, limit: int) -> list[LaneReport]:
        """Return the lanes in which most events wait for their turn, and how they stand."""
        return await self.store.list_lanes(self.clock.now_us(), limit)

    async def events_by_ids(self, event_ids: Sequence[str]) -> list[StoredEvent]:
        """Return events in the order of their ids; ids that name nothing are left out."""
        found = await self.store.events_by_ids(event_ids)
        return [found[event_id][0] for event_id in event_ids if event_id in found]

    async def runs_of(self, events: Sequence[StoredEvent]) -> list[RecordedRun]:
        """Return what is recorded of those events that code can be held against, the oldest first."""
        compared = [event for event in events if event.state in COMPARABLE and was_handled(event)]
        return await self.store.runs_of(sorted(compared, key=lambda event: event.seq))

    async def runs_elsewhere(self, event_id: str, token: int) -> bool:
        """Tell whether an event whose lease of a token is not used here may be running in another daemon."""
        if not self.store.shared:
            return False
        return any(
            event.state is State.PROCESSING and event.lease_token == token
            for event in await self.events_by_ids([event_id])
        )

    async def list_events(self, wanted: EventFilter, before_seq: int | None, limit: int) -> EventPage:
        """Return events that pass the filter, newest first, as many as fit into one page."""
        return await self.store.list_events(wanted, before_seq=before_seq, limit=limit)

    async def find_unprojected_by_key(self, wanted: EventFilter) -> Receipt | None:
        """Return the event that is asked for by its key alone, if it is durable and has no row yet.

        Ask before its row is looked for: it has one once it is found here no more.
        """
        key = wanted.idempotency_key
        if key is None or wanted != EventFilter(idempotency_key=key, application_name=wanted.application_name):
            return None
        return await self.intake.find_unprojected(wanted.id_of_key(key))

    async def search(self, wanted: EventFilter, sought: str, before_seq: int | None, limit: int) -> SearchPage:
        """Return those of these events whose payload or metadata holds a text, as far as one search goes."""
        return await self.store.search(wanted, sought.encode(), before_seq=before_seq, limit=limit)

    async def list_rows(self, wanted: EventFilter, before_seq: int | None, limit: int) -> list[StoredEvent]:
        """Return the same without what came with the events, which may be large."""
        return await self.store.list_rows(wanted, before_seq=before_seq, limit=limit)

    async def page_of_rows(self, wanted: EventFilter, before_seq: int | None, limit: int) -> RowPage:
        """Return a page of them, which may end early where few of very many pass the filter."""
        return await self.store.page_of_rows(wanted, before_seq=before_seq, limit=limit)

    async def list_in_doubt(self, before_seq: int | None, limit: int, *, undecided: bool) -> DoubtPage:
        """Return events of which attempts or steps may have had an effect that nobody recorded, newest first."""
        return await self.store.list_in_doubt(before_seq, limit, undecided=undecided)

    def handler_of(self, event: StoredEvent) -> Handler | None:
        """Return the handler that would run an event now, or None."""
        return self.handlers.find(event.route)

    async def look_up(self, text: str, limit: int) -> list[StoredEvent]:
        """Return events whose id, workflow or key begins with a text, newest first, a few for each of the three."""
        return await self.store.look_up(text, limit)

    async def count_newest(self, wanted: EventFilter, scan_max: int) -> int:
        """Return how many of the newest events pass the filter."""
        return await self.store.count_newest(wanted, scan_max)

    async def queued_types(self, counted_max: int) -> dict[str, int]:
        """Return how many events of each type are queued, counted up to a number."""
        return await self.store.queued_types(counted_max)

    async def workflow(self, workflow_id: str, application: str | None = None) -> WorkflowSummary:
        """Return how the events of a workflow stand; raises NotFound. Without an application all are meant."""
        summary = await self.store.workflow(workflow_id, application)
        if summary is None:
            raise NotFound(f"There is no workflow {workflow_id!r}.")
        return summary

    async def list_workflows(self, before_seq: int | None, limit: int, application: str | None = None) -> WorkflowPage:
        """Return workflows, the one with the newest event first, as many as can be counted for one page."""
        return await self.store.list_workflows(before_seq=before_seq, limit=limit, application=application)

    async def timeline(
        self, workflow_id: str, application: str | None = None
    ) -> tuple[list[StoredEvent], list[Attempt]]:
        """Return a workflow's events in order and their attempts; raises NotFound."""
        events, attempts = await self.store.timeline(workflow_id, application=application)
        if not events:
            raise NotFound(f"There is no workflow {workflow_id!r}.")
        return events, attempts

    async def workflow_steps(self, workflow_id: str, application: str | None = None) -> dict[int, list[StepRecord]]:
        """Return row number -> steps, without what they hold, of the events of a workflow."""
        return await self.store.workflow_steps(workflow_id, application=application)

    async def dead_letter_groups(self, group_by: str) -> list[Group]:
        """Return dead letters gathered by error, type, service or reason."""
        return await self.store.dead_letter_groups(group_by)

    async def dead_letters_of(
        self, group_by: str, belongs: Callable[[str], bool], before_seq: int | None, limit: int
    ) -> list[StoredEvent]:
        """Return those of the newest dead letters whose group belongs to what is looked for, newest first."""
        return await self.store.dead_letters_of(group_by, belongs, before_seq=before_seq, limit=limit)

    async def error_insights(self, window_seconds: float) -> list[Group]:
        """Return the failed attempts of the last so many seconds gathered by error."""
        return await self.store.error_insights(self.clock.now_us() - int(window_seconds * MICROSECONDS_PER_SECOND))

    def is_signal(self, event_type: str) -> bool:
        """Tell whether events of a type are awaited, not handled."""
        return self.handlers.is_signal(event_type)

    def attempts_max(self, event: StoredEvent | EventRecord) -> int:
        """Return after how many failures a run of the event ends: its own number, its handler's, or the default."""
        return self.handlers.policy(event.route, event.max_attempts, self.retry).max_attempts
