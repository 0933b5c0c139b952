"""The shapes of what an event's handler remembers: steps, what they wait for, parents and children."""

from collections.abc import Sequence
from typing import Any

import msgspec

from replayforge.domain.clock import format_time
from replayforge.domain.code_change import CodeChange, Fate
from replayforge.domain.event import StoredEvent
from replayforge.domain.journal import StepKind, StepRecord, StepState
from replayforge.domain.lifecycle import State
from replayforge.stores.stories import Relative, Story
from replayforge.web.api.shapes import Time


class StepInBrief(msgspec.Struct):
    """A step, as an event names it."""

    name: str
    kind: StepKind
    state: StepState


class AwaitedShape(msgspec.Struct):
    """What a parked event waits for: an event of its workflow, the end of a child event, or nothing but the time."""

    name: str
    kind: StepKind
    event_type: str | None
    event_id: str | None
    since: Time
    until: Time | None


class RelativeShape(msgspec.Struct):
    """An event that another one's handler has made, or that has made it; of one that is gone only the id is known."""

    id: str
    event_type: str | None
    status: State | None


class ChildShape(RelativeShape):
    """A child event, and the step that made it."""

    step: str


class StepErrorShape(msgspec.Struct):
    """Why a step failed, or its last try."""

    type: str
    message: str
    trace: str


class StepShape(StepInBrief):
    """One step of a journal. `begun` and `recorded` are its places in the order of everything the journal has seen.

    `generation` is one more for each replay that had it done again. `event_id` is the child that it made or the signal
    that it took; `arguments` is what it was called with, and of much only the digest; `label` names the code.
    """

    generation: int
    tries: int
    run: int
    lease_token: int
    begun: int
    recorded: int
    started_at: Time
    ended_at: Time | None
    due_at: Time | None
    duration_ms: float | None
    arguments: msgspec.Raw | None
    result: msgspec.Raw | None
    error: StepErrorShape | None
    event_type: str | None
    event_id: str | None
    label: str


class CodeChangeShape(msgspec.Struct):
    """What other code does otherwise than a journal remembers: why its event is held, or what was let pass."""

    verdict: Fate
    step: str
    kind: str
    before: str
    after: str
    sentence: str


def step_shape(one: StepRecord) -> StepShape:
    """Show a step."""
    ended = one.ended_at_us
    return StepShape(
        name=one.step,
        kind=one.kind,
        state=one.state,
        generation=one.generation,
        tries=one.tries,
        run=one.run,
        lease_token=one.token,
        begun=one.begun,
        recorded=one.recorded,
        started_at=format_time(one.started_at_us),
        ended_at=None if ended is None else format_time(ended),
        due_at=time_of(one.due_at_us),
        duration_ms=None if ended is None else max(0, ended - one.started_at_us) / 1000,
        arguments=msgspec.Raw(one.arguments.encode()) if one.arguments else None,
        result=None if one.result is None else msgspec.Raw(one.result),
        error=None if one.error_type is None else StepErrorShape(one.error_type, one.error or "", one.trace or ""),
        event_type=one.event_type,
        event_id=one.other_id,
        label=one.label,
    )


def step_in_brief(one: StepRecord) -> StepInBrief:
    """Name a step."""
    return StepInBrief(one.step, one.kind, one.state)


def time_of(at_us: int | None) -> str | None:
    """Write a time that there may be none of."""
    return None if at_us is None else format_time(at_us)


def stored_story(event: StoredEvent, story: Story) -> dict[str, Any]:
    """Show what the handler of an event remembers."""
    return story_shape(story, story.awaited(event), relative_shape(event.parent_id, story.parent(event)))


def story_shape(story: Story, awaited: Sequence[StepRecord], parent: RelativeShape | None) -> dict[str, Any]:
    """Show what a handler remembers; steps are named only where there are any."""
    answer: dict[str, Any] = {
        "journal": story.journal,
        "wakes": story.wakes,
        "cancel_requested": story.cancel_requested,
        "awaits": [awaited_shape(one) for one in awaited],
        "parent": parent,
        "children": [child_shape(step, child) for step, child in story.children],
        "label": story.label,
        "code_change": None if story.change is None else code_change_shape(story.change),
    }
    brief = [step_in_brief(one.record) for one in story.steps]
    return answer | ({"steps": brief, "steps_count": story.steps_count} if brief else {})


def code_change_shape(change: CodeChange) -> CodeChangeShape:
    """Show what code does otherwise."""
    return CodeChangeShape(change.fate, change.step, change.kind, change.before, change.after, change.words)


def awaited_shape(one: StepRecord) -> AwaitedShape:
    """Show what is waited for."""
    return AwaitedShape(
        name=one.step,
        kind=one.kind,
        event_type=one.event_type,
        event_id=one.other_id,
        since=format_time(one.started_at_us),
        until=time_of(one.due_at_us),
    )


def relative_shape(event_id: str | None, found: Relative | None) -> RelativeShape | None:
    """Show a relative, if there is one."""
    if event_id is None:
        return None
    known = (None, None) if found is None else (found.event_type, found.state)
    return RelativeShape(event_id, *known)


def child_shape(step: StepRecord, child: Relative | None) -> ChildShape:
    """Show a child."""
    state = None if child is None else child.state
    return ChildShape(id=step.other_id or "", event_type=step.event_type, status=state, step=step.step)
