"""Which injuries strike when is decided by the seed alone, before anything begins."""

import random
from collections import Counter
from pathlib import Path

import pytest

from replayforge.chaos import scene
from replayforge.chaos.handlers import HANG, PROBE, events_of
from replayforge.chaos.injuries import CARRIED_OUT
from replayforge.chaos.injury import (
    KILLS,
    OF_POSTGRES,
    OF_REDIS,
    POINTS_ON_THE_WAY,
    WORDS,
    Injury,
    InjuryKind,
    Plan,
    kinds_for,
    planned,
)
from replayforge.chaos.tcp_proxy import TcpProxy
from replayforge.crashpoints import POINTS
from replayforge.domain.errors import Refused

ALL = kinds_for(redis=True, postgres=True)


def plan(seed: int, kills: int = 5, others: int = 40) -> Plan:
    return planned(random.Random(seed), kills, others, ALL)


def flat(one: Plan) -> list[Injury]:
    return [injury for group in one for injury in group]


def test_a_seed_repeats_its_injuries() -> None:
    """The same seed gives the same injuries with the same particulars, another one gives others."""
    assert plan(1) == plan(1)
    assert plan(1) != plan(2)


def test_every_kind_has_its_turn() -> None:
    """Kills are as many as asked for; of the other kinds none comes a second time before all have come once."""
    for seed in range(20):
        counts = Counter(one.kind for one in flat(plan(seed, others=len(ALL) + 3)))
        assert sum(counts[kind] for kind in KILLS) == 5
        assert all(1 <= counts[kind] <= 2 for kind in ALL)


def test_what_is_there_at_the_same_time_strikes_different_targets() -> None:
    """Injuries strike together now and then, each its own target, and while the first of them lasts."""
    together = [group for seed in range(20) for group in plan(seed) if len(group) > 1]
    assert len(together) > 20
    for first, *others in together:
        assert len({one.target for one in (first, *others)}) == 1 + len(others)
        assert all(one.after_seconds <= first.lasts_seconds for one in others)


def test_servers_that_are_not_there_are_not_injured() -> None:
    """Without Redis or PostgreSQL no injury is one of theirs."""
    assert not set(kinds_for(redis=False, postgres=False)) & {*OF_REDIS, *OF_POSTGRES}
    assert set(OF_REDIS) < set(kinds_for(redis=True, postgres=False))


def test_every_injury_can_be_carried_out() -> None:
    """Each kind has words and somebody who does it; points are crash points, and harms are those of a proxy."""
    assert set(InjuryKind) == WORDS.keys() == CARRIED_OUT.keys()
    assert set(POINTS_ON_THE_WAY) <= POINTS.keys()
    cut = {one.detail for seed in range(20) for one in flat(plan(seed)) if one.kind is InjuryKind.REDIS_LINE}
    assert len(cut) == 4
    assert all(callable(getattr(TcpProxy, harm)) for harm in cut)


def test_injuries_say_what_they_are() -> None:
    """A crash point is named with the time at which it kills, and a line with what happens to it."""
    assert Injury(InjuryKind.CRASH_POINT, 0, detail="claim.acked", choice=0.35).in_words().endswith(": claim.acked:4")
    assert Injury(InjuryKind.REDIS_LINE, 0, detail="reset").in_words() == "the line to Redis is reset"


def test_hangs_are_events() -> None:
    """A handler that hangs is an event of its own, and no more of them than workers; one holds the loop for a while."""
    assert len(events_of(Injury(InjuryKind.HANDLER_HANG, 0, choice=0.999), 4)) == 4
    assert events_of(Injury(InjuryKind.HANDLER_HANG, 0), 4) == [(HANG, {})]
    assert events_of(Injury(InjuryKind.LOOP_HANG, 0, lasts_seconds=2), 4) == [(PROBE, {"_force_hang": 2})]


@pytest.mark.parametrize(
    ("redis", "finder", "nothing", "remedy"),
    [(True, "redis_binaries", {}, "install redis-server"), (False, "postgres_bin", None, "install postgresql")],
)
def test_a_server_that_is_not_there_is_said_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis: bool, finder: str, nothing: object, remedy: str
) -> None:
    """Where a binary is not found nothing is made, and it is said how to get it."""
    monkeypatch.setattr(scene, finder, lambda: nothing)
    with pytest.raises(Refused, match=remedy):
        scene.find_servers(tmp_path, redis=redis, postgres=not redis)
    assert list(tmp_path.iterdir()) == []
