"""Where things lie in the picture of a workflow."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from replayforge.domain.event import Attempt, StoredEvent
from replayforge.domain.lifecycle import Outcome, State
from replayforge.web.pages.charts import (
    BAR_WIDTH_MIN,
    GAP_WIDTH,
    ROWS_MAX,
    TIME_WIDTH,
    Scale,
    timeline,
)

SECOND = 1_000_000
EVENT = StoredEvent(
    seq=1, id="e1", application_name="default", workflow_id="w", event_type="t", service_name="", idempotency_key=None,
    created_at_us=0, updated_at_us=10 * SECOND, log_id="l", log_offset=1, replay_of=None, max_attempts=None,
    state=State.SUCCEEDED, run=1, attempt_count=1, starts=2, crashes=0, lease_owner=None, lease_token=2,
    due_at_us=None, reason=None, last_error=None, error_signature=None, result=None,
)  # fmt: skip
ATTEMPT = Attempt(
    event_id="e1", token=1, run=1, number=1, outcome=Outcome.FAILED, ended_run=False, owner="o", worker="worker-1",
    started_at_us=SECOND, ended_at_us=SECOND + 1000, error=None, error_signature=None,
)  # fmt: skip

spans = st.lists(
    st.tuples(st.integers(0, 10**10), st.integers(0, 10**9)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=30
)


@given(spans, st.lists(st.integers(-10, 2 * 10**10), min_size=2))
def test_a_later_time_never_lies_further_left(busy: list[tuple[int, int]], times: list[int]) -> None:
    """The axis keeps the order of time, within its own width, however it shortens idle stretches."""
    scale = Scale(0, max([end for _, end in busy], default=1), busy)
    places = [scale.x(time) for time in sorted(times)]
    assert places == sorted(places)
    assert 0 <= places[0] <= places[-1] <= TIME_WIDTH + 0.2


def test_a_long_idle_stretch_is_drawn_short() -> None:
    """Half an hour of backoff between two attempts takes the width of a gap."""
    scale = Scale(0, 1802 * SECOND, [(0, SECOND), (1801 * SECOND, 1802 * SECOND)])
    assert len(scale.gaps) == 1
    first, last = scale.gaps[0]
    assert abs(scale.x(last) - scale.x(first) - GAP_WIDTH) < 0.2


def test_an_attempt_is_always_wide_enough_to_be_seen() -> None:
    """A millisecond among seconds still has a bar, and the retry between two attempts is a backoff."""
    second = replace(ATTEMPT, token=2, outcome=Outcome.SUCCEEDED, started_at_us=9 * SECOND, ended_at_us=10 * SECOND)
    (lane,) = timeline([EVENT], [ATTEMPT, second], 99 * SECOND).lanes
    assert [span.kind for span in lane.spans] == ["waiting", "failed", "backoff", "succeeded"]
    assert all(span.width >= BAR_WIDTH_MIN for span in lane.spans if span.kind in ("failed", "succeeded"))


@pytest.mark.parametrize("ahead_seconds", [3_600, 10**9])
def test_an_attempt_beyond_the_end_stays_in_the_picture(ahead_seconds: int) -> None:
    """Where the wall clock was set back between two attempts, the first lies ahead of all the rest: on its edge."""
    ahead = ahead_seconds * SECOND
    first = replace(ATTEMPT, started_at_us=ahead, ended_at_us=ahead + SECOND)
    second = replace(ATTEMPT, token=2, outcome=Outcome.SUCCEEDED, started_at_us=9 * SECOND, ended_at_us=10 * SECOND)
    (lane,) = timeline([EVENT], [first, second], 99 * SECOND).lanes
    assert {span.kind for span in lane.spans} >= {"failed", "succeeded"}
    for span in lane.spans:
        assert 0 <= span.x <= span.x + span.width <= TIME_WIDTH + BAR_WIDTH_MIN + 0.2


def test_what_runs_now_reaches_to_now() -> None:
    """An event in hand is drawn as running up to this moment."""
    picture = timeline([structs.replace(EVENT, state=State.PROCESSING, updated_at_us=SECOND)], [], 5 * SECOND)
    assert [span.kind for span in picture.lanes[0].spans] == ["running"]
    assert picture.seconds == 5


def test_a_huge_workflow_shows_both_its_ends_and_what_failed() -> None:
    """Beyond what a picture can show, the middle is left out and counted, except for what failed there."""
    events = [structs.replace(EVENT, id=f"e{number}", state=State.SUCCEEDED) for number in range(ROWS_MAX + 50)]
    picture = timeline(events, [], 0)
    assert (len(picture.lanes), picture.left_out) == (ROWS_MAX, 50)
    assert (picture.lanes[0].event_id, picture.lanes[-1].event_id) == ("e0", f"e{ROWS_MAX + 49}")
    middle = ROWS_MAX // 2
    events[middle + 7] = structs.replace(EVENT, id="failed", state=State.DEAD_LETTERED)
    picture = timeline(events, [], 0)
    assert (picture.lanes[middle].event_id, picture.left_out) == ("failed", 49)


def test_idle_time_is_cut_unless_it_is_asked_for() -> None:
    """A long stretch in which nothing ran is drawn short and marked; shown, it takes its share of the axis."""
    later = replace(ATTEMPT, started_at_us=90 * SECOND, ended_at_us=91 * SECOND)
    event = structs.replace(EVENT, state=State.SUCCEEDED, updated_at_us=91 * SECOND)
    cut = timeline([event], [later], 99 * SECOND)
    whole = timeline([event], [later], 99 * SECOND, idle_shown=True)
    assert [any(tick.gap for tick in picture.ticks) for picture in (cut, whole)] == [True, False]
    assert whole.lanes[0].spans[-1].width < cut.lanes[0].spans[-1].width / 10
