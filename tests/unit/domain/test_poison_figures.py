"""The rules of poison put to a long row of deaths: random ones convict nobody, steady ones soon the right event.

One event runs on a daemon that is started anew as soon as it dies; the product's own decisions say when it runs, and
what each death means. `pytest -m soak` takes 100,000 deaths and says the figures.
"""

import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from replayforge.domain.poison import (
    Death,
    Decision,
    Isolation,
    Suspicion,
    after_death,
    after_proven_death,
    control_seconds,
    released,
    seconds_alone,
)

SOLO_SECONDS, CONTROL_SECONDS = 1.0, 10.0


@dataclass
class World:
    """`dies_after` says of each life, given how long it takes until the event may run and for how long it then runs
    alone, when it ends; None for never."""

    deaths: int = 0
    ends: Counter[str] = field(default_factory=Counter)

    def live(self, run_seconds: float, deadly: bool, dies_after: Callable[[], float]) -> int:
        """Let one event live until it ends; returns at how many deaths it was in flight."""
        known, isolation, in_flight = Suspicion(), Isolation.FREE, 0
        while True:
            aside = control_seconds(known.alone, CONTROL_SECONDS) if isolation is Isolation.SET_ASIDE else 0.0
            died_at = dies_after()
            if deadly:
                died_at = min(died_at, aside + run_seconds)
            ran = died_at - aside
            if ran >= run_seconds and not deadly:
                self.ends["succeeded"] += 1
                return in_flight
            self.deaths += 1
            death = Death(f"incarnation {self.deaths}", "node")
            if ran < 0:
                judged = after_proven_death(isolation, known, death, here=True, explained=False)
                assert judged is not None
                isolation, known = judged
                continue
            in_flight += 1
            known = released(known) if isolation is Isolation.SET_ASIDE else known
            suspect = isolation is not Isolation.FREE
            alone = suspect and ran < seconds_alone(known.deaths, SOLO_SECONDS)
            death = Death(death.incarnation, "node", alone, ran if alone else None, outlived=suspect and not alone)
            decision, known = after_death(known, death)
            if decision in (Decision.CONVICT, Decision.HOLD):
                self.ends[decision] += 1
                return in_flight
            isolation = Isolation.SET_ASIDE if decision is Decision.SET_ASIDE else Isolation.RUNS_ALONE


def random_kills(deaths: int, run_seconds: float, kill_seconds: float, seed: int = 1) -> Counter[str]:
    """Kill a daemon at random, that often on average, while innocent events run on it; returns how they ended."""
    rng, world = random.Random(seed), World()
    while world.deaths < deaths:
        world.live(rng.uniform(0, run_seconds), False, lambda: rng.expovariate(1 / kill_seconds))
    return world.ends


SHORT = {"up to a second": (1.0, 2.0), "up to 12 s": (12.0, 20.0), "up to 12 s, kills each minute": (12.0, 60.0)}
DELAYS = {"at once": 0.0, "2 s": 2.0, "3.9 s": 3.9, "20 s": 20.0, "59 s": 59.0}


@pytest.mark.parametrize(("run_seconds", "kill_seconds"), SHORT.values(), ids=SHORT.keys())
def test_random_kills_convict_nobody(run_seconds: float, kill_seconds: float) -> None:
    """Of the handlers that run for up to 12 s, kills at random convict none."""
    ends = random_kills(5_000, run_seconds, kill_seconds)
    assert (ends[Decision.CONVICT], ends[Decision.HOLD]) == (0, 0)


@pytest.mark.parametrize("delay", DELAYS.values(), ids=DELAYS.keys())
def test_steady_killer_is_convicted(delay: float) -> None:
    """Who kills the process after a steady delay is convicted within 10 deaths, and below 4 s within 6."""
    world = World()
    assert world.live(delay, True, lambda: float("inf")) <= (6 if delay < 4 else 10)
    assert world.ends == {Decision.CONVICT: 1}


def test_unsteady_killer_is_held_for_a_person() -> None:
    """Who kills the process each time after another while does not run for ever: six deaths alone, and it is held."""
    rng, world = random.Random(1), World()
    while world.ends.total() < 50:
        delays = [1.0, 4.0, 16.0]
        known = Suspicion(9)
        for _ in range(20):
            decision, known = after_death(known, Death("x", "node", alone=True, seconds=rng.choice(delays)))
            if decision in (Decision.CONVICT, Decision.HOLD):
                world.ends[decision] += 1
                break
    assert world.ends[Decision.HOLD] > 25
    assert world.ends[Decision.HOLD] + world.ends[Decision.CONVICT] == 50


@pytest.mark.soak
def test_figures_of_100_000_deaths() -> None:
    """100,000 random kills, one a minute, convict none of the handlers that run for up to 12 s, and few that run for
    minutes; kills as frequent as the control is long are the worst for an innocent one."""
    for run_seconds, kill_seconds in ((1, 2), (5, 20), (12, 20), (12, 60), (12, 12), (180, 60), (300, 60)):
        ends = random_kills(100_000, run_seconds, kill_seconds)
        sys.stdout.write(f"handlers up to {run_seconds} s, a kill each {kill_seconds} s: {dict(ends)}\n")
        assert ends[Decision.CONVICT] <= (20 if run_seconds > 12 else 0 if kill_seconds >= 60 else 10)
    for tenths in range(600):
        world = World()
        count = world.live(tenths / 10, True, lambda: float("inf"))
        assert count <= (6 if tenths < 40 else 10)
        assert world.ends == {Decision.CONVICT: 1}
