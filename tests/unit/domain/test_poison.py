"""Who killed the process: time alone, controls, and what a row of deaths proves."""

import pytest

from replayforge.domain.event import Lease
from replayforge.domain.lifecycle import Outcome, Reason, State
from replayforge.domain.poison import (
    Death,
    Decision,
    Isolation,
    Suspicion,
    after_death,
    after_proven_death,
    agree,
    control_seconds,
    exonerated,
    seconds_alone,
)
from replayforge.domain.reclaim import FormerIncarnation, InFlight, after_lapse, judge_former

OWNER = "node-1/first"
LEASE = Lease(1, 7)
Times = tuple[float | None, ...]


def died(*alone: float | None, deaths: int = 9) -> Suspicion:
    return Suspicion(deaths, alone)


def alone(seconds: float | None) -> Death:
    return Death(OWNER, "node-1", alone=True, seconds=seconds)


def test_time_alone_doubles_with_each_death() -> None:
    """Everything else waits 1 s for a suspect of one death, and at most about a minute for any."""
    assert [seconds_alone(deaths, 1.0) for deaths in range(1, 9)] == [1, 2, 4, 8, 16, 32, 64, 64]
    assert seconds_alone(10_000, 0.3) == 64
    assert seconds_alone(5, 100.0) == 100


CONTROLS: dict[str, tuple[Times, float]] = {
    "quick": ((0.1,), 10),
    "two seconds": ((2.0,), 10),
    "the longest counts": ((4.0, 12.0, 3.0), 60),
    "at most five minutes": ((64.0,), 300),
    "nobody knows": ((None,), 10),
}


@pytest.mark.parametrize(("times", "seconds"), CONTROLS.values(), ids=CONTROLS.keys())
def test_control_is_five_times_the_longest(times: Times, seconds: float) -> None:
    """The daemon has to live five times the longest time to death without the suspect, from 10 s to 5 min."""
    assert control_seconds(times, 10.0) == seconds


AGREEMENTS: dict[str, tuple[Times, bool]] = {
    "equal": ((2.0, 2.0, 2.0), True),
    "at once": ((0.0, 0.0, 0.02), True),
    "within a tenth": ((0.1, 0.15, 0.2), True),
    "within 1.3": ((10.0, 13.0, 11.0), True),
    "beyond 1.3": ((10.0, 13.1, 11.0), False),
    "two are not enough": ((2.0, 2.0), False),
    "one unknown": ((2.0, None, 2.0), False),
    "unknown": ((None, None, None), False),
}


@pytest.mark.parametrize(("times", "expected"), AGREEMENTS.values(), ids=AGREEMENTS.keys())
def test_agreement(times: Times, expected: bool) -> None:
    """Three deaths agree when the longest is at most 1.3 times the shortest, or a tenth of a second more."""
    assert agree(times) is expected


DEATHS: dict[str, tuple[Suspicion, Death, Decision, Times]] = {
    "first, with others": (Suspicion(), Death(OWNER, "n"), Decision.RUN_ALONE, ()),
    "with others, the row stands": (died(2.0), Death(OWNER, "n"), Decision.RUN_ALONE, (2.0,)),
    "beyond its time, the row is broken": (died(2.0), Death(OWNER, "n", outlived=True), Decision.RUN_ALONE, ()),
    "first alone": (died(), alone(2.0), Decision.SET_ASIDE, (2.0,)),
    "second alone": (died(2.0), alone(2.0), Decision.SET_ASIDE, (2.0, 2.0)),
    "third that agrees": (died(2.0, 2.1), alone(2.2), Decision.CONVICT, (2.0, 2.1, 2.2)),
    "third that does not": (died(2.0, 2.1), alone(9.0), Decision.SET_ASIDE, (2.0, 2.1, 9.0)),
    "fifth, the last three agree": (died(9.0, 1.0, 4.0, 4.0), alone(4.0), Decision.CONVICT, (9.0, 1.0, 4.0, 4.0, 4.0)),
    "sixth, they do not": (died(1.0, 2.0, 4.0, 8.0, 1.0), alone(3.0), Decision.HOLD, (1.0, 2.0, 4.0, 8.0, 1.0, 3.0)),
    "sixth of a machine": (died(*[None] * 5), alone(None), Decision.HOLD, (None,) * 6),
}


@pytest.mark.parametrize(("known", "death", "decision", "times"), DEATHS.values(), ids=DEATHS.keys())
def test_after_a_death(known: Suspicion, death: Death, decision: Decision, times: Times) -> None:
    """What a death means for an event is as the table says, and each one is counted."""
    decided, found = after_death(known, death)
    assert (decided, found.alone) == (decision, times)
    assert found.deaths == known.deaths + 1


def test_exoneration_takes_back_the_deaths_alone() -> None:
    """Whoever died alone and was not the cause begins its row anew, with the time alone it had before."""
    assert exonerated(died(2.0, 2.0, deaths=5)) == Suspicion(3)
    assert exonerated(died(2.0, deaths=1)) == Suspicion(1)


ASIDE = Suspicion(3, (2.0,), died_with="node-1/zeroth", node="node-1")


def test_death_in_a_control_exonerates() -> None:
    """A death while a suspect is set aside on this node clears it, unless another event alone explains the death."""
    death = Death(OWNER, "node-1")
    judged = after_proven_death(Isolation.SET_ASIDE, ASIDE, death, here=True, explained=False)
    assert judged == (Isolation.RUNS_ALONE, Suspicion(2))
    assert after_proven_death(Isolation.SET_ASIDE, ASIDE, death, here=True, explained=True) is None
    assert after_proven_death(Isolation.SET_ASIDE, ASIDE, death, here=False, explained=False) is None


def test_the_same_death_is_judged_once() -> None:
    """A start that is repeated does not take the death that set an event aside for one that exonerates it."""
    death = Death("node-1/zeroth", "node-1")
    assert after_proven_death(Isolation.SET_ASIDE, ASIDE, death, here=True, explained=False) is None


def test_what_others_took_over_was_in_flight_too() -> None:
    """A take-over charges nobody; once the death of the incarnation is proven, the event runs alone next."""
    lapsed = after_lapse(in_flight(), hold=False)
    assert (lapsed.verdict.state, lapsed.isolation, lapsed.outcome) == (State.QUEUED, Isolation.FREE, Outcome.CRASHED)
    assert lapsed.suspicion == Suspicion(left_by=OWNER)
    judged = after_proven_death(Isolation.FREE, lapsed.suspicion, Death(OWNER, "node-1"), here=False, explained=False)
    assert judged == (Isolation.RUNS_ALONE, Suspicion(1, died_with=OWNER, node="node-1"))
    other = Death("node-1/second", "node-1")
    assert after_proven_death(Isolation.FREE, lapsed.suspicion, other, here=False, explained=False) is None


def test_lapse_of_a_draining_incarnation_says_nothing() -> None:
    """What another daemon takes over from one that was told to end was interrupted, and leaves no suspicion."""
    lapsed = after_lapse(in_flight(), hold=False, draining=True)
    assert (lapsed.verdict.state, lapsed.outcome, lapsed.suspicion) == (State.QUEUED, Outcome.INTERRUPTED, None)


# What former incarnations held


def in_flight(
    name: str = "event-1", owner: str = OWNER, known: Suspicion | None = None, seq: int = LEASE.seq
) -> InFlight:
    return InFlight(seq, name, "test", 1, LEASE.token, 2, 0, owner, 1000, Isolation.FREE, known)


def judged(
    *left: InFlight, former: FormerIncarnation, hold: bool = False
) -> list[tuple[State, Isolation, Suspicion | None]]:
    draining = {former.owner} if former.draining else ()
    reclaims = judge_former(left, former, draining, "node-1", lambda _: hold)
    return [(one.verdict.state, one.isolation, one.suspicion) for one in reclaims]


RAN_ALONE = FormerIncarnation(OWNER, alone=LEASE, seconds=2.0)


def test_one_that_was_only_left_is_no_more_than_a_suspect() -> None:
    """An event that happened to be the only one in flight is not charged: nobody knows for how long it ran alone."""
    ((state, isolation, known),) = judged(in_flight(), former=FormerIncarnation(OWNER))
    assert (state, isolation, known) == (State.QUEUED, Isolation.RUNS_ALONE, Suspicion(1, (), OWNER, "node-1"))


def test_one_that_ran_alone_is_set_aside() -> None:
    """The death of what ran alone is noted with its time, and a control follows."""
    ((state, isolation, known),) = judged(in_flight(known=died(deaths=1)), former=RAN_ALONE)
    assert (state, isolation, known) == (State.QUEUED, Isolation.SET_ASIDE, Suspicion(2, (2.0,), OWNER, "node-1"))


def test_alone_is_judged_by_all_that_the_incarnation_held() -> None:
    """An event beside which the incarnation held another one did not run alone, whatever it left word of."""
    first, second = judged(in_flight(), in_flight("event-2", seq=2), former=RAN_ALONE)
    assert [one[1] for one in (first, second)] == [Isolation.RUNS_ALONE] * 2
    (held_by_another, _) = judged(in_flight(), in_flight("event-2", owner="node-1/older", seq=2), former=RAN_ALONE)
    assert held_by_another[1] is Isolation.SET_ASIDE


def test_draining_incarnation_kills_nobody() -> None:
    """What a draining incarnation left is interrupted and stands as it stood, even if it was killed in the end."""
    former = FormerIncarnation(OWNER, draining=True, alone=LEASE, seconds=2.0)
    known = died(2.0, 2.0)
    left = [in_flight(known=known), in_flight("b", seq=2)]
    reclaims = judge_former(left, former, {OWNER}, "node-1", lambda _: False)
    assert [(one.outcome, one.suspicion) for one in reclaims] == [
        (Outcome.INTERRUPTED, known),
        (Outcome.INTERRUPTED, None),
    ]


def test_conviction_and_doubt() -> None:
    """The third death in agreement makes a dead letter `poison`; six that do not agree are held for a person."""
    (one,) = judge_former([in_flight(known=died(2.0, 2.0))], RAN_ALONE, (), "node-1", lambda _: False)
    assert (one.verdict.state, one.verdict.reason) == (State.DEAD_LETTERED, Reason.POISON)
    unsteady = in_flight(known=died(1.0, 3.0, 9.0, 1.0, 30.0))
    (one,) = judge_former([unsteady], RAN_ALONE, (), "node-1", lambda _: False)
    assert (one.verdict.state, one.verdict.reason) == (State.HELD, Reason.SUSPECTED_POISON)
    assert one.verdict.attempt_count == 2


def test_holding_is_a_matter_of_the_type() -> None:
    """An event whose type asks for it is held after a death, a drain or a lapse; nothing else is."""
    for former in (FormerIncarnation(OWNER), FormerIncarnation(OWNER, draining=True), FormerIncarnation()):
        assert [one[0] for one in judged(in_flight(), former=former, hold=True)] == [State.HELD]
    assert after_lapse(in_flight(), hold=True).verdict.state is State.HELD
    assert judged(former=FormerIncarnation(OWNER)) == []
