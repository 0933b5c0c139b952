"""What an event's handler remembers, as people look at it: its steps, its parent, its children."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from replayforge.domain.code_change import CodeChange, decode_change
from replayforge.domain.event import Action, Attempt, Content, StoredEvent
from replayforge.domain.journal import StepKind, StepRecord, StepState
from replayforge.domain.lifecycle import State
from replayforge.stores import lookups
from replayforge.stores.driver import Fetch, Steps
from replayforge.stores.lookups import PAGE_BYTES_MAX, fitting
from replayforge.stores.rows import STEP_COLUMNS, step_record

EDITED_MAX = 20  # replays with another payload that are named with an event
STEPS_MAX = 200  # how many of the newest steps are shown with an event
WORKFLOW_STEPS_MAX = 2000  # of all events of a workflow together
MAKING_CHILDREN = frozenset({StepKind.SEND, StepKind.CALL})
PARKED = frozenset({State.WAITING, State.RETRYING})


@dataclass(frozen=True, slots=True)
class Relative:
    """The parent of an event, or a child of it, and how it stands."""

    id: str
    event_type: str
    state: State


@dataclass(frozen=True, slots=True)
class ShownStep:
    """A step with the beginning of its result, which has so many bytes."""

    record: StepRecord
    result_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Story:
    """What is remembered of an event: its current journal, and the newest of its `steps_count` steps, oldest first.

    Steps of older generations are among them. `earlier_steps` are those of earlier journals. `relatives` are its
    parent and the children that these steps have made, by their ids; one that retention has removed is missing. `label`
    names the code that wrote the journal last, `change` is what other code does otherwise, if that was noted.
    """

    journal: int = 1
    wakes: int = 0
    cancel_requested: bool = False
    steps_count: int = 0
    earlier_steps: int = 0
    steps: Sequence[ShownStep] = ()
    relatives: Sequence[Relative] = ()
    label: str = ""
    change: CodeChange | None = None

    @property
    def children(self) -> list[tuple[StepRecord, Relative | None]]:
        """The steps that have made children, each with its child."""
        by_id = {one.id: one for one in self.relatives}
        records = (one.record for one in self.steps)
        return [(one, by_id.get(one.other_id)) for one in records if one.kind in MAKING_CHILDREN and one.other_id]

    def parent(self, event: StoredEvent) -> Relative | None:
        """Return the event whose handler made this one."""
        return next((one for one in self.relatives if one.id == event.parent_id), None)

    def awaited(self, event: StoredEvent) -> list[StepRecord]:
        """Return what the event is parked for: the steps that its last park has written, and that are still open."""
        if event.state not in PARKED:
            return []
        begun = [one.record for one in self.steps if one.record.begun > 0]
        return [one for one in begun if one.state is StepState.PENDING and one.token == event.lease_token]


UNTOLD = Story()


class StoredHistory(NamedTuple):
    """One event with all that happened to it; `content` are the bytes it came with."""

    event: StoredEvent
    content: Content
    attempts: list[Attempt]
    actions: list[Action]
    story: Story
    edited_replays: list[str]


@dataclass(frozen=True, slots=True)
class StepsPage:
    """A page of the steps of an event's current journal, in the order they began; `next_place` is where it goes on."""

    journal: int
    earlier_steps: int
    steps: Sequence[StepRecord] = ()
    next_place: int | None = None


def history(event_id: str, step_bytes: int) -> Steps[StoredHistory | None]:
    """Fetch an event with all that happened to it, and what its handler remembers."""
    found = yield from lookups.history(event_id)
    if found is None:
        return None
    event, content, attempts, actions = found
    told = yield from story(event, step_bytes)
    edited = yield Fetch("edited_replays", {"event_id": event.id, "count": EDITED_MAX})
    return StoredHistory(event, content, attempts, actions, told, [row[0] for row in edited])


def story(event: StoredEvent, result_bytes: int) -> Steps[Story]:
    """Fetch what is remembered of an event, with so much of each result; one question where nothing is."""
    rows = yield Fetch("story", {"seq": event.seq})
    if not rows and event.parent_id is None:
        return UNTOLD
    number, wakes, cancel_requested, label, change, count, earlier = rows[0] if rows else (1, 0, 0, "", None, 0, 0)
    asked = {"seq": event.seq, "journal": number, "bytes": result_bytes, "count": STEPS_MAX}
    found = (yield Fetch("newest_steps", asked)) if count else []
    steps = [ShownStep(step_record(row[: len(STEP_COLUMNS)]), row[-1]) for row in reversed(found)]
    made = {one.record.other_id for one in steps if one.record.kind in MAKING_CHILDREN}
    ids = sorted(one for one in made | {event.parent_id} if one is not None)
    relatives = (yield Fetch("relatives", {"ids": ids})) if ids else []
    return Story(
        journal=number,
        wakes=wakes,
        cancel_requested=bool(cancel_requested),
        steps_count=count,
        earlier_steps=earlier,
        steps=steps,
        relatives=[Relative(row[0], row[1], State(row[2])) for row in relatives],
        label=label,
        change=None if change is None else decode_change(change),
    )


def steps_page(event: StoredEvent, after_place: int, limit: int) -> Steps[StepsPage]:
    """Fetch steps of the current journal in order, with their results, as many as fit into a page."""
    rows = yield Fetch("story", {"seq": event.seq})
    if not rows:
        return StepsPage(1, 0)
    number, _, _, _, _, count, earlier = rows[0]
    asked = {"seq": event.seq, "journal": number, "after": after_place}
    sizes = yield Fetch("step_sizes", asked | {"count": limit})
    fit = fitting([row[0] for row in sizes], PAGE_BYTES_MAX)
    found = (yield Fetch("steps_in_order", asked | {"count": fit})) if fit else []
    place = after_place + fit
    return StepsPage(number, earlier, [step_record(row) for row in found], place if place < count else None)


def workflow_steps(workflow_id: str, events_max: int, application: str | None) -> Steps[dict[int, list[StepRecord]]]:
    """Fetch row number -> steps, without what they hold, of the first events of a workflow."""
    given, filters = lookups.of_application(application)
    asked = given | {"workflow_id": workflow_id, "events": events_max, "count": WORKFLOW_STEPS_MAX}
    rows = yield Fetch("workflow_steps", asked, filters)
    found: dict[int, list[StepRecord]] = {}
    for *columns, seq in rows:
        found.setdefault(seq, []).append(step_record(columns))
    return found
