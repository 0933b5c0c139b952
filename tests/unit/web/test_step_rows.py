"""The steps of an event as rows: how each stands, what is shown of it, and where it lies."""

from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from replayforge.domain.event import Attempt, StoredEvent
from replayforge.domain.journal import StepKind, StepRecord, StepState
from replayforge.domain.lifecycle import Outcome, State
from replayforge.stores.stories import Relative, ShownStep, Story
from replayforge.web.pages.awaited import awaited_rows, reason_to_stay
from replayforge.web.pages.charts import STEP_ROWS_MAX, TIME_WIDTH, timeline
from replayforge.web.pages.documents import Reading
from replayforge.web.pages.step_rows import Waterfall, waterfall
from tests.support.builders import stored_event

SECOND = 1_000_000
SECRETS = Reading(("password", "token"))
WAITING = stored_event(state=State.WAITING, lease_token=3)
CRASH = Attempt(
    event_id="event-1", token=2, run=1, number=1, outcome=Outcome.CRASHED, ended_run=False, owner="o", worker="w",
    started_at_us=SECOND, ended_at_us=3 * SECOND, error="The process died", error_signature=None,
)  # fmt: skip


def step(name: str = "charge", **fields: Any) -> StepRecord:
    given: dict[str, Any] = {
        "kind": StepKind.STEP, "state": StepState.DONE, "token": 3, "run": 1, "begun": 1, "recorded": 2, "tries": 1,
        "started_at_us": SECOND, "ended_at_us": 2 * SECOND,
    }  # fmt: skip
    return StepRecord(step=name, **(given | fields))


def pending(name: str, kind: StepKind, **fields: Any) -> StepRecord:
    return step(name, kind=kind, state=StepState.PENDING, recorded=0, ended_at_us=None, **fields)


def laid_out(
    *records: StepRecord, event: StoredEvent = WAITING, attempts: tuple[Attempt, ...] = (), **fields: Any
) -> Waterfall:
    shown = [ShownStep(one, len(one.result or b"")) for one in records]
    falls = waterfall(event, attempts, Story(steps=shown, steps_count=len(shown), **fields), 9 * SECOND, SECRETS)
    assert falls is not None
    return falls


@pytest.mark.parametrize(
    ("record", "event_state", "state"),
    [
        (step(), State.WAITING, "done"),
        (step(state=StepState.FAILED, error_type="ValueError"), State.SUCCEEDED, "failed"),
        (pending("scan", StepKind.WAIT), State.WAITING, "waiting"),
        (pending("scan", StepKind.WAIT), State.CANCELLED, "open"),
        (pending("charge", StepKind.STEP, begun=0), State.QUEUED, "again"),
        (step(state=StepState.STARTED, recorded=0), State.PROCESSING, "running"),
        (step(state=StepState.STARTED, recorded=0), State.HELD, "in_doubt"),
    ],
)
def test_how_a_step_stands(record: StepRecord, event_state: State, state: str) -> None:
    """The word of a step follows from its row and from how its event stands."""
    (row,) = laid_out(record, event=stored_event(state=event_state)).rows
    assert row.state == state


def test_a_step_that_was_done_again_says_so() -> None:
    """Of several generations the newest counts, and the older ones stay to be seen."""
    old, new = laid_out(step(), step(generation=1, begun=5, recorded=6, started_at_us=5 * SECOND)).rows
    assert (old.state, new.state) == ("replaced", "done")
    assert old.id != new.id


def test_secrets_of_steps_are_hidden() -> None:
    """Values of masked names are hidden in arguments, results and errors alike, and counted."""
    record = step(
        arguments='[{"card_token": "hide-1"}]', result=b'{"password": "hide-2"}', error_type="E",
        error="token=hide-3", trace="Traceback: {'password': 'hide-4'}",
    )  # fmt: skip
    falls = laid_out(record)
    assert "hide" not in repr(falls)
    assert falls.masked_count == 3
    assert falls.rows[0].headline == 'E: token="•••"'


def test_a_result_that_was_cut_shows_no_half_of_a_secret() -> None:
    """Where the beginning of a result ends in the middle of a hidden value, none of that value is shown."""
    shown = ShownStep(step(result=b'{"ok": 1, "password": "hide-th'), 90_000)
    falls = waterfall(WAITING, [], Story(steps=[shown], steps_count=1), 9 * SECOND, SECRETS)
    assert falls is not None
    text = falls.rows[0].result
    assert text is not None
    assert (text.text, text.cut, text.bytes_count) == ('{"ok": 1, "password": "•••"', True, 90_000)


def test_crashes_stand_between_the_steps_they_came_between() -> None:
    """A crashed attempt has its row after what was done before it ended, and every bar lies within the axis."""
    first, last = step("first", ended_at_us=SECOND + 1), step("last", started_at_us=4 * SECOND, ended_at_us=5 * SECOND)
    falls = laid_out(first, last, attempts=(CRASH, replace(CRASH, token=1, ended_at_us=SECOND - 1)))
    assert [(row.name, row.state) for row in falls.rows] == [("first", "done"), ("", "crashed"), ("last", "done")]
    assert all(row.bar and 0 <= row.bar.x <= row.bar.x + row.bar.width <= TIME_WIDTH for row in falls.rows)


def test_what_an_event_waits_for_in_words() -> None:
    """Each kind of wait has its sentence; what an earlier park waited for is not named."""
    records = [
        pending("scan", StepKind.WAIT, event_type="parcel.scanned", due_at_us=99 * SECOND),
        pending("bill", StepKind.CALL, event_type="invoice.make", other_id="child"),
        pending("grace", StepKind.SLEEP, due_at_us=99 * SECOND),
        pending("charge", StepKind.STEP, error_type="ValueError", error="no", due_at_us=99 * SECOND),
        pending("lost", StepKind.SLEEP, token=2),
    ]
    child = Relative("child", "invoice.make", State.DEAD_LETTERED)
    story = Story(steps=[ShownStep(one) for one in records], relatives=[child])
    rows = awaited_rows(WAITING, story)
    assert [(row.before, row.name, row.after) for row in rows] == [
        ("Waits for", "parcel.scanned", "in its workflow"),
        ("Waits for the end of", "invoice.make", "– replay it, or discard it"),
        ("Sleeps:", "grace", ""),
        ("Tries", "charge", "again, which failed with ValueError"),
    ]
    assert [row.signal for row in rows] == ["parcel.scanned", "", "", ""]
    assert awaited_rows(structs.replace(WAITING, state=State.PROCESSING), story) == []


@pytest.mark.parametrize(
    ("event", "story", "words"),
    [
        (stored_event(), Story(cancel_requested=True), "It is to be cancelled"),
        (stored_event(state=State.SUCCEEDED), Story(cancel_requested=True), ""),
    ],
)
def test_why_an_event_is_where_it_is(event: StoredEvent, story: Story, words: str) -> None:
    """One that is to be cancelled says what comes next."""
    assert reason_to_stay(event, story)[: len(words) or None] == words


def test_steps_lie_below_their_event() -> None:
    """In the picture of a workflow each event has its newest steps below it, and the next event begins after them."""
    events = [WAITING, stored_event(2)]
    steps = {1: [step(f"step-{number}", begun=number + 1) for number in range(STEP_ROWS_MAX + 3)]}
    first, second = timeline(events, [], 9 * SECOND, steps=steps).lanes
    assert (next(one.label for one in first.steps), first.steps_left_out) == ("step-3", 3)
    places = [one.y for one in first.steps]
    assert first.y < places[0] < places[-1] < second.y
    assert (second.steps, second.steps_left_out) == ([], 0)
