"""Handler limits: who has room for how many, what a promise holds back, and that every place is given back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from replayforge.domain.admission import ALL_WELCOME, EVERYTHING, Admission, Pause
from replayforge.domain.breaker import FAILURES_MAX, OPEN_SECONDS_MIN
from replayforge.domain.event import ClaimedEvent, Lease
from replayforge.domain.lifecycle import Outcome, State
from replayforge.engine.dispatch.handler_limits import HandlerLimits
from replayforge.engine.handlers.registry import FAN_OUT, Handler, Handlers
from replayforge.stores.transactions import Settlement
from replayforge.telemetry import Telemetry
from tests.support.builders import claimed_event, settlement
from tests.support.clock import FakeClock


def row(seq: int, event_type: str) -> ClaimedEvent:
    return claimed_event(seq, event_type=event_type)


def ended(one: ClaimedEvent, outcome: Outcome) -> Settlement:
    return settlement(one.event, State.SUCCEEDED if outcome is Outcome.SUCCEEDED else State.RETRYING, outcome)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def handler_limits(clock: FakeClock) -> HandlerLimits:
    handlers = Handlers()
    handlers.add(Handler("free", cast("Any", None)))
    handlers.add(Handler("narrow", cast("Any", None), concurrency_max=3))
    handlers.add(Handler("hook", cast("Any", None), breaker=True))
    return HandlerLimits(handlers, clock, Telemetry())


@contextmanager
def admission(handler_limits: HandlerLimits, count: int, *types: str, alone: bool = False) -> Iterator[Admission]:
    """Have a claim under way."""
    admission = handler_limits.open_admission(count, types or None, alone=alone)
    yield admission
    handler_limits.close_admission(admission)


def room(handler_limits: HandlerLimits, count: int = 10, *types: str, alone: bool = False) -> dict[str, int]:
    """Return what a claim that begins now would be promised."""
    with admission(handler_limits, count, *types, alone=alone) as promised:
        return dict(promised.room)


def test_where_nothing_is_guarded_nothing_is_asked() -> None:
    """Without limits, pauses and failures every claim has the same admission, and no event is looked at."""
    handlers = Handlers()
    handlers.add(Handler("free", cast("Any", None)))
    handler_limits = HandlerLimits(handlers, FakeClock(), Telemetry())
    with admission(handler_limits, 10) as promised:
        assert promised is ALL_WELCOME
    handler_limits.acquire([row(1, "free")])
    assert handler_limits.acquired == {}


def test_promised_room_is_held_back_from_others_and_given_back(handler_limits: HandlerLimits) -> None:
    """Two claims at the same moment share the places; what the first did not fill is free after it."""
    with admission(handler_limits, 2):
        assert room(handler_limits) == {"narrow": 1}
        handler_limits.acquire([row(1, "narrow")])
    assert room(handler_limits) == {"narrow": 2}
    handler_limits.release(Lease(1, 1))
    handler_limits.release(Lease(1, 1))
    assert room(handler_limits) == {"narrow": 3}


def test_no_more_is_promised_than_the_types_at_hand_can_fill(handler_limits: HandlerLimits) -> None:
    """A claim of known types leaves the other places to others."""
    with admission(handler_limits, 10, "free", "narrow") as promised:
        assert promised.room == {"narrow": 1}
        assert room(handler_limits) == {"narrow": 2}


def test_fresh_events_go_behind_those_that_wait(handler_limits: HandlerLimits) -> None:
    """While events wait for a handler it has no room for fresh ones, but for one that runs alone."""
    handler_limits.note_deferred({"narrow": 2})
    assert room(handler_limits) == {"narrow": 0}
    assert room(handler_limits, 1, alone=True) == {"narrow": 1}
    assert [limit.pattern for limit in handler_limits.ready()] == ["narrow"]
    handler_limits.set_has_deferred("narrow", False)
    assert room(handler_limits) == {"narrow": 3}


def test_function_that_runs_on_keeps_its_place(handler_limits: HandlerLimits) -> None:
    """A place is taken for as long as a function lingers."""
    handler_limits.linger("narrow", 1)
    assert room(handler_limits) == {"narrow": 2}
    handler_limits.linger("narrow", -1)
    assert room(handler_limits) == {"narrow": 3}


def test_handler_that_does_not_end_is_shut_out(handler_limits: HandlerLimits) -> None:
    """A handler of which too many attempts run on is given no more; one that ends lets the next one in."""
    handler_limits.linger("free", 16)
    assert room(handler_limits)["free"] == 0
    assert handler_limits.blocks(row(1, "free"))
    handler_limits.note_deferred({"free": 1})
    handler_limits.news.clear()
    handler_limits.linger("free", -1)
    assert handler_limits.news.is_set()
    assert [limit.pattern for limit in handler_limits.ready()] == ["free"]
    assert not handler_limits.blocks(row(1, "free"))


def test_pauses_come_and_go(handler_limits: HandlerLimits) -> None:
    """A paused handler has no room; lifting the pause of everything leaves one of its own in force."""
    own, everything = Pause("free", "why", "ann", 1), Pause(EVERYTHING, "why", "bob", 2)
    assert handler_limits.see_pauses([everything, own]) == {"", FAN_OUT.identity, "free", "narrow", "hook"}
    assert set(room(handler_limits).values()) == {0}
    assert handler_limits.see_pauses([own]) == set()
    assert room(handler_limits)["free"] == 0
    assert handler_limits.blocks(row(1, "free"))
    assert not handler_limits.blocks(row(2, "narrow"))
    handler_limits.see_pauses([])
    # What may have waited comes first, and is not known to be none yet.
    assert {limit.pattern for limit in handler_limits.ready()} == {"", FAN_OUT.identity, "free", "narrow", "hook"}


def test_half_open_breaker_lets_one_through(handler_limits: HandlerLimits, clock: FakeClock) -> None:
    """An open breaker has no room, a half-open one for one event, and only the end of that one decides."""
    early = [row(seq, "hook") for seq in range(FAILURES_MAX + 1)]
    for one in early[:FAILURES_MAX]:
        handler_limits.note(ended(one, Outcome.TIMED_OUT))
    assert room(handler_limits)["hook"] == 0
    handler_limits.set_has_deferred("hook", True)
    assert handler_limits.seconds_until_probe() == OPEN_SECONDS_MIN
    clock.advance(OPEN_SECONDS_MIN)
    assert [limit.pattern for limit in handler_limits.ready()] == ["hook"]
    probe = row(100, "hook")
    handler_limits.acquire([probe])
    assert handler_limits.ready() == []
    handler_limits.note(ended(early[-1], Outcome.SUCCEEDED))
    assert handler_limits.by_pattern["hook"].breaker.tripped
    handler_limits.note(ended(probe, Outcome.SUCCEEDED))
    handler_limits.release(probe.lease)
    assert not handler_limits.by_pattern["hook"].breaker.tripped


def test_probe_that_was_cut_short_makes_room_for_another(handler_limits: HandlerLimits, clock: FakeClock) -> None:
    """An interrupted probe decides nothing, and the next event is tried."""
    for seq in range(FAILURES_MAX):
        handler_limits.note(ended(row(seq, "hook"), Outcome.FAILED))
    clock.advance(OPEN_SECONDS_MIN)
    probe = row(100, "hook")
    handler_limits.acquire([probe])
    handler_limits.note(ended(probe, Outcome.INTERRUPTED))
    assert room(handler_limits)["hook"] == 0
    handler_limits.release(probe.lease)
    assert room(handler_limits)["hook"] == 1
