"""Gates: who has room for how many, what a promise holds back, and that every place is given back."""

from typing import Any, cast

import pytest

from replayforge.domain.admission import ALL_WELCOME, EVERYTHING, Pause
from replayforge.domain.breaker import FAILURES_MAX, OPEN_SECONDS_MIN
from replayforge.domain.event import Claimed
from replayforge.domain.lifecycle import Outcome, State
from replayforge.domain.recovery import Verdict
from replayforge.engine.gates import Gates
from replayforge.engine.handlers import Handler, Handlers
from replayforge.stores.transactions import Settlement
from replayforge.telemetry import Telemetry
from tests.support.clock import FakeClock


class Row:
    """As much of a claimed event as the gates look at."""

    def __init__(self, seq: int, event_type: str) -> None:
        self.event = self
        self.seq = seq
        self.lease_token = 1
        self.lease = (seq, 1)
        self.event_type = event_type


def row(seq: int, event_type: str) -> Claimed:
    return cast("Claimed", Row(seq, event_type))


def ended(one: Claimed, outcome: Outcome) -> Settlement:
    state = State.SUCCEEDED if outcome is Outcome.SUCCEEDED else State.RETRYING
    return Settlement(one.event, outcome, Verdict(state, 1, 0), "worker-1", 0, 1)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def gates(clock: FakeClock) -> Gates:
    handlers = Handlers()
    handlers.add(Handler("free", cast("Any", None)))
    handlers.add(Handler("narrow", cast("Any", None), concurrency_max=3))
    handlers.add(Handler("hook", cast("Any", None), breaker=True))
    return Gates(handlers, clock, Telemetry())


def room(gates: Gates, count: int = 10, *types: str, alone: bool = False) -> dict[str, int]:
    """Return what a claim that begins now would be promised."""
    with gates.admission(count, types or None, alone=alone) as admission:
        return dict(admission.room)


def test_where_nothing_is_guarded_nothing_is_asked() -> None:
    """Without limits, pauses and failures every claim has the same admission, and no event is looked at."""
    handlers = Handlers()
    handlers.add(Handler("free", cast("Any", None)))
    gates = Gates(handlers, FakeClock(), Telemetry())
    with gates.admission(10) as admission:
        assert admission is ALL_WELCOME
    gates.seat([row(1, "free")])
    assert gates.seats == {}


def test_promised_room_is_held_back_from_others_and_given_back(gates: Gates) -> None:
    """Two claims at the same moment share the places; what the first did not fill is free after it."""
    with gates.admission(2):
        assert room(gates) == {"narrow": 1}
        gates.seat([row(1, "narrow")])
    assert room(gates) == {"narrow": 2}
    gates.leave((1, 1))
    gates.leave((1, 1))
    assert room(gates) == {"narrow": 3}


def test_no_more_is_promised_than_the_types_at_hand_can_fill(gates: Gates) -> None:
    """A claim of known types leaves the other places to others."""
    with gates.admission(10, ["free", "narrow"]) as admission:
        assert admission.room == {"narrow": 1}
        assert room(gates) == {"narrow": 2}


def test_fresh_events_go_behind_those_that_wait(gates: Gates) -> None:
    """While events wait for a handler it has no room for fresh ones, but for one that runs alone."""
    gates.note_turned_away({"narrow": 2})
    assert room(gates) == {"narrow": 0}
    assert room(gates, 1, alone=True) == {"narrow": 1}
    assert [gate.pattern for gate in gates.willing()] == ["narrow"]
    gates.note_waiting("narrow", waiting=False)
    assert room(gates) == {"narrow": 3}


def test_function_that_runs_on_keeps_its_place(gates: Gates) -> None:
    """A place is taken for as long as a function lingers."""
    gates.linger("narrow", 1)
    assert room(gates) == {"narrow": 2}
    gates.linger("narrow", -1)
    assert room(gates) == {"narrow": 3}


def test_handler_that_does_not_end_is_shut_out(gates: Gates) -> None:
    """A handler of which too many attempts run on is given no more; one that ends lets the next one in."""
    gates.linger("free", 16)
    assert room(gates)["free"] == 0
    assert gates.shuts_out(row(1, "free"))
    gates.note_turned_away({"free": 1})
    gates.news.clear()
    gates.linger("free", -1)
    assert gates.news.is_set()
    assert [gate.pattern for gate in gates.willing()] == ["free"]
    assert not gates.shuts_out(row(1, "free"))


def test_pauses_come_and_go(gates: Gates) -> None:
    """A paused handler has no room; lifting the pause of everything leaves one of its own in force."""
    own, everything = Pause("free", "why", "ann", 1), Pause(EVERYTHING, "why", "bob", 2)
    assert gates.see_pauses([everything, own]) == {"", "free", "narrow", "hook"}
    assert set(room(gates).values()) == {0}
    assert gates.see_pauses([own]) == set()
    assert room(gates)["free"] == 0
    assert gates.shuts_out(row(1, "free"))
    assert not gates.shuts_out(row(2, "narrow"))
    gates.see_pauses([])
    # What may have waited comes first, and is not known to be none yet.
    assert {gate.pattern for gate in gates.willing()} == {"", "free", "narrow", "hook"}


def test_half_open_breaker_lets_one_through(gates: Gates, clock: FakeClock) -> None:
    """An open breaker has no room, a half-open one for one event, and only the end of that one decides."""
    early = [row(seq, "hook") for seq in range(FAILURES_MAX + 1)]
    for one in early[:FAILURES_MAX]:
        gates.note(ended(one, Outcome.TIMED_OUT))
    assert room(gates)["hook"] == 0
    gates.note_waiting("hook", waiting=True)
    assert gates.seconds_until_probe() == OPEN_SECONDS_MIN
    clock.advance(OPEN_SECONDS_MIN)
    assert [gate.pattern for gate in gates.willing()] == ["hook"]
    probe = row(100, "hook")
    gates.seat([probe])
    assert gates.willing() == []
    gates.note(ended(early[-1], Outcome.SUCCEEDED))
    assert gates.gates["hook"].breaker.tripped
    gates.note(ended(probe, Outcome.SUCCEEDED))
    gates.leave(probe.lease)
    assert not gates.gates["hook"].breaker.tripped


def test_probe_that_was_cut_short_makes_room_for_another(gates: Gates, clock: FakeClock) -> None:
    """An interrupted probe decides nothing, and the next event is tried."""
    for seq in range(FAILURES_MAX):
        gates.note(ended(row(seq, "hook"), Outcome.FAILED))
    clock.advance(OPEN_SECONDS_MIN)
    probe = row(100, "hook")
    gates.seat([probe])
    gates.note(ended(probe, Outcome.INTERRUPTED))
    assert room(gates)["hook"] == 0
    gates.leave(probe.lease)
    assert room(gates)["hook"] == 1
