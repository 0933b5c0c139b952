"""What keeps an event where it is, in words: what it waits for, parked or in its lane, and its relatives."""

from dataclasses import dataclass

from replayforge.domain.clock import format_time
from replayforge.domain.event import StoredEvent
from replayforge.domain.journal import StepKind, StepRecord, StepState
from replayforge.domain.lifecycle import TERMINAL, Reason, State
from replayforge.stores.stories import Story
from replayforge.web.pages.words import first_line


@dataclass(frozen=True, slots=True)
class RelativeRow:
    """The parent of an event, or a child; of one that retention has removed only the id is known."""

    id: str
    event_type: str
    state: str


@dataclass(frozen=True, slots=True)
class TurnRow:
    """What an event waits for: a sentence, in which the event that it names stands for itself."""

    before: str
    event_id: str
    after: str


@dataclass(frozen=True, slots=True)
class AwaitedRow:
    """One thing that a parked event waits for: the sentence begins with `before`, then comes `name`, then `after`.

    At `until` it `ends`, and `then` follows. `signal` is the type of event that somebody may send, `child` the event
    that must end.
    """

    before: str
    name: str
    after: str
    until: str | None
    ends: str
    then: str
    signal: str
    child: RelativeRow | None


@dataclass(frozen=True, slots=True)
class CodeChangeRow:
    """What other code does otherwise than a held run has recorded, and the steps from which it may go on."""

    words: str
    step: str
    before: str
    after: str
    steps: list[str]


def awaited_rows(event: StoredEvent, story: Story) -> list[AwaitedRow]:
    """Return what an event is parked for, and nothing of one that is not."""
    return [awaited_row(one, story) for one in story.awaited(event)]


def awaited_row(one: StepRecord, story: Story) -> AwaitedRow:
    """Say what a step waits for."""
    until, name = None if one.due_at_us is None else format_time(one.due_at_us), one.event_type or one.step
    if one.kind is StepKind.WAIT:
        after = "in its workflow" if until else "in its workflow, for as long as it takes"
        then = "then the handler is told that nothing came" if until else ""
        return AwaitedRow("Waits for", name, after, until, "it gives up", then, name, None)
    if one.kind is StepKind.CALL:
        child = relative_row(one.other_id or "", story)
        return AwaitedRow("Waits for the end of", name, ending_of(child), until, "it gives up", "", "", child)
    if one.kind is StepKind.STEP:
        after = first_line(f"again, which failed with {one.error_type}")
        return AwaitedRow("Tries", name, after, until, "the next try begins", "", "", None)
    return AwaitedRow("Sleeps:", name, "", until, "it wakes", "", "", None)


def ending_of(child: RelativeRow) -> str:
    """Say what has to happen to a child that does not end by itself."""
    return "– replay it, or discard it" if child.state == State.DEAD_LETTERED else ""


def relative_row(event_id: str, story: Story) -> RelativeRow:
    """Return the row of a relative."""
    found = next((one for one in story.relatives if one.id == event_id), None)
    return RelativeRow(event_id, "", "") if found is None else RelativeRow(event_id, found.event_type, found.state)


def reason_to_stay(event: StoredEvent, story: Story) -> str:
    """Say why an event is where it is, when nobody would see it from its state."""
    if event.reason == Reason.OVERLAP and event.state is State.CANCELLED:
        return f"It was not run: {event.last_error}"
    if story.cancel_requested and event.state not in TERMINAL:
        return "It is to be cancelled: that happens at the next step of its handler."
    return ""


def turn_row(words: str, event_id: str | None) -> TurnRow:
    """Take a sentence apart where it names an event."""
    before, _, after = words.partition(event_id) if event_id else (words, "", "")
    return TurnRow(before, event_id or "", after)


def step_in_doubt(event: StoredEvent, story: Story) -> str:
    """Return the step that a held event waits for a decision about, or nothing."""
    if event.reason != Reason.IN_DOUBT or event.state is not State.HELD:
        return ""
    return next((one.record.step for one in story.steps if one.record.state is StepState.STARTED), "")


def code_change_row(event: StoredEvent, story: Story) -> CodeChangeRow | None:
    """Return why an event is held whose code has changed; None for any other."""
    change = story.change
    if change is None or event.state is not State.HELD or event.reason != Reason.CODE_CHANGED:
        return None
    recorded = [one.record.step for one in story.steps if one.record.begun]
    return CodeChangeRow(change.words, change.step, change.before, change.after, recorded)
