"""Lanes as rules: which one an event is in, what a rate is, whose turn it is."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayforge.domain.lane import (
    Ancestor,
    Candidate,
    LaneName,
    LaneNow,
    LaneRule,
    LaneRules,
    Lanes,
    StoredSender,
    Unplaced,
    decide,
    next_start,
    parse_rate,
    parsed_name,
    placed,
    rules_for,
)

STRICT = LaneRules(strict=True, dead_blocks=True, width=1)


def sender(event_type: str = "order.placed", payload: bytes = b"{}", subscriber: str | None = None) -> StoredSender:
    return StoredSender(event_type, subscriber, "workflow-1", "app", payload)


def test_the_most_specific_match_has_the_event() -> None:
    """One without wildcards wins, then the one with more literal characters; what none matches is in no lane."""
    lanes = Lanes([LaneRule(match, "workflow_id", STRICT) for match in ("*.placed", "order.*", "order.placed")])
    named = [lanes.lane_of(sender(kind)) for kind in ("order.placed", "order.paid", "x.placed", "order[.]", "other")]
    assert [None if name is None else parsed_name(name).match for name in named] == [
        "order.placed",
        "order.*",
        "*.placed",
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("key", "payload", "value"),
    [
        ("workflow_id", b"{}", "workflow-1"),
        ("event_type", b"{}", "order.placed"),
        ("payload.customer", b'{"customer": "c-1"}', "c-1"),
        ("payload.customer", b'{"customer": "\\u0063-1"}', "c-1"),
        ("payload.customer", b'{"customer": 7}', 7),
        ("payload.customer", b'{"customer": null}', None),
        ("payload.customer", b"{}", None),
        ("payload.customer", b"[1]", None),
        ("payload.a.b", b'{"a": {"b": [1, 2]}}', [1, 2]),
        ("payload.a.b", b'{"a": 5}', None),
        ("payload.a", b"no JSON", None),
    ],
)
def test_the_key_is_a_value_of_the_event(key: str, payload: bytes, value: object) -> None:
    """A key names a value of the envelope or a path into the payload; a missing value is a lane of its own."""
    lane = Lanes([LaneRule("order.*", key, STRICT)]).lane_of(sender(payload=payload, subscriber="crm"))
    assert lane is not None
    assert parsed_name(lane) == LaneName("order.*", "crm", value)


@given(st.text(max_size=40), st.text(max_size=40))
def test_lanes_of_different_keys_have_different_names(one: str, other: str) -> None:
    """Two keys share a name only if they are the same, and no name holds what a store cannot keep."""
    lanes = Lanes([LaneRule("*", "payload.key", STRICT)])
    first, second = (lanes.lane_of(sender(payload=msgspec.json.encode({"key": key}))) for key in (one, other))
    assert (first == second) == (one == other)
    assert first is not None
    assert "\0" not in first
    assert "\\u0000" not in first


def test_a_name_that_is_too_long_is_hashed() -> None:
    """However long a key is, the name of its lane is short, and its own."""
    lanes = Lanes([LaneRule("*", "payload.key", STRICT)])
    names = {lanes.lane_of(sender(payload=msgspec.json.encode({"key": "k" * 100_000 + end}))) for end in "ab"}
    assert len(names) == 2
    assert all(len(name or "") < 200 for name in names)
    assert {parsed_name(name or "").key for name in names} == {None}


@pytest.mark.parametrize(
    ("text", "interval_us"), [("5/s", 200_000), ("100/min", 600_000), ("1000/h", 3_600_000), ("10000/s", 100)]
)
def test_a_rate_is_so_many_starts_in_a_unit(text: str, interval_us: int) -> None:
    """A rate says how far apart starts are."""
    assert parse_rate(text) == interval_us


@pytest.mark.parametrize("text", ["0/s", "5", "5/day", "-1/s", "1.5/s", "5 /s", "10001/s", "700000/min"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    """A rate that means nothing, or is faster than can be kept, is refused in words."""
    with pytest.raises(ValueError, match="rate"):
        parse_rate(text)


def test_contradictions_are_refused() -> None:
    """Strict order is one at a time, and a lane that orders and limits nothing is a mistake."""
    with pytest.raises(ValueError, match="concurrency must be 1"):
        rules_for(order="strict", on_dead="block", concurrency=2, rate=None, fair=True)
    with pytest.raises(ValueError, match="no effect"):
        rules_for(order="none", on_dead="block", concurrency=None, rate=None, fair=False)


# Places


def unplaced(seq: int, origin: str | None = None) -> Unplaced:
    return Unplaced("lane", seq, "queued", origin)


def test_places_are_given_in_the_order_of_dispatch() -> None:
    """Row numbers decide, whatever order they are looked at in; a place follows the last one given."""
    assert placed([unplaced(9), unplaced(4)], [], {}, 7) == ({4: 8, 9: 9}, 9)


def test_a_child_stands_with_its_open_ancestor() -> None:
    """The nearest ancestor that has a place decides, also one that gets its own only now."""
    ancestors = [Ancestor(5, 3, None), Ancestor(5, 1, 2), Ancestor(6, 4, None)]
    assert placed([unplaced(4), unplaced(5), unplaced(6)], ancestors, {}, 7) == ({4: 8, 5: 2, 6: 8}, 8)


def test_an_edited_replay_takes_the_place_of_what_it_replaces() -> None:
    """It takes no new one, and those after it are not moved."""
    assert placed([unplaced(4), unplaced(5)], [], {5: 1}, 7) == ({4: 8, 5: 1}, 8)


# Whose turn it is


@st.composite
def lanes(draw: st.DrawFn) -> LaneNow:
    """Return a lane as it may stand."""
    places = sorted(draw(st.lists(st.integers(1, 6), max_size=8)))
    head = draw(st.none() | st.integers(0, min(places, default=6)))
    return LaneNow(
        rules=LaneRules(
            strict=draw(st.booleans()),
            width=draw(st.integers(0, 5)),
            counts_running=draw(st.booleans()),
            interval_us=draw(st.sampled_from([0, 1_000, 200_000])),
        ),
        now_us=1_000_000,
        next_at_us=draw(st.integers(0, 2_000_000)),
        head=min(places, default=None) if head is None else head,
        blocked=[Candidate(place, seq) for seq, place in enumerate(places)],
        released=draw(st.integers(0, 6)),
        running=draw(st.integers(0, 6)),
        starting=draw(st.booleans()),
    )


@given(lanes())
def test_a_release_keeps_order_and_limits(lane: LaneNow) -> None:
    """Only the first are released; in strict order those at the head; never more than width and rate allow."""
    release = decide(lane)
    count = len(release.seqs)
    assert list(release.seqs) == [one.seq for one in lane.blocked][:count]
    rules = lane.rules
    if rules.strict:
        assert all(one.place == lane.head for one in lane.blocked[:count])
    elif rules.width and count:
        assert lane.released + count + (lane.running if rules.counts_running else 0) <= rules.width
    if rules.interval_us and count:
        assert lane.next_at_us <= lane.now_us
        assert not lane.starting
        assert lane.released + count <= rules.burst


@given(lanes())
def test_nothing_waits_that_need_not(lane: LaneNow) -> None:
    """Where nobody is released something stands in the way that will make itself known: an event, or a time."""
    release = decide(lane)
    if release.seqs or not lane.blocked:
        return
    rules = lane.rules
    behind_the_head = rules.strict and lane.blocked[0].place != lane.head
    taken = lane.released + (lane.running if rules.counts_running else 0)
    full = not rules.strict and 0 < rules.width <= taken
    by_rate = rules.interval_us > 0 and (
        lane.starting or lane.released >= rules.burst or release.wake_at_us == lane.next_at_us > lane.now_us
    )
    assert behind_the_head or full or by_rate


# Rates

PER_200_MS = LaneRules(interval_us=200_000)
WINDOW_US = 10_000_000


@pytest.mark.parametrize(
    ("next_at_us", "starts", "expected"),
    [
        (0, [1_000_000], 1_200_000),  # an idle lane saves nothing up
        (1_000_000, [1_050_000], 1_200_000),  # one that is a little late keeps its pace
        (1_000_000, [1_260_000], 1_460_000),  # one that is later does not
        (1_000_000, [1_000_000, 1_000_000], 1_400_000),  # every start takes a place
        (9_000_000, [], 1_900_000),  # a clock that was set back makes nobody wait for long
    ],
)
def test_every_start_moves_the_next_one(next_at_us: int, starts: list[int], expected: int) -> None:
    """Starts are an interval apart, without a burst."""
    assert next_start(PER_200_MS, next_at_us, starts, 1_500_000) == expected


def started(delays: list[int]) -> list[int]:
    """Return when those of a lane start that are so late after their time."""
    next_at_us = now_us = 0
    starts = []
    for delay in delays:
        now_us = max(now_us, next_at_us) + delay
        starts.append(now_us)
        next_at_us = next_start(PER_200_MS, next_at_us, [now_us], now_us)
    return starts


@given(st.lists(st.integers(0, 200_000), min_size=55, max_size=60))
def test_every_window_holds_the_rate(delays: list[int]) -> None:
    """Who is never later than by an interval has the starts of the rate in any ten seconds, but for two."""
    starts = started(delays)
    for first in starts:
        if first + WINDOW_US <= starts[-1]:
            assert 50 - 2 <= sum(first < at <= first + WINDOW_US for at in starts) <= 50 + 2


@given(st.lists(st.integers(0, 2_000_000), min_size=30, max_size=60))
def test_no_window_holds_more_than_the_rate(delays: list[int]) -> None:
    """However late some start, what was missed is not made up for, beyond two in any ten seconds."""
    starts = started(delays)
    for first in starts:
        assert sum(first <= at < first + WINDOW_US for at in starts) <= 50 + 2
