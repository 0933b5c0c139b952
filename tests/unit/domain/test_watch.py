"""An observer judges by what it saw change on its own clock, and by nothing else."""

from replayforge.domain.watch import Watch

LEASE = 30.0
STEP = 5.0


def watched(watch: Watch[str], until: float, *, since: float = 0.0, **beats: int) -> None:
    """Look every 2.5 s at beats that do not change."""
    now = since
    while now <= until:
        watch.look(beats, now)
        now += 2.5


def test_a_beat_that_stands_still_for_a_lease_is_silent() -> None:
    """Whoever does not beat for a lease is silent, and not a moment before."""
    watch: Watch[str] = Watch(STEP)
    watched(watch, LEASE - 2.5, one=1)
    assert watch.silent(LEASE) == []
    watched(watch, LEASE, since=LEASE, one=1)
    assert watch.silent(LEASE) == ["one"]
    assert watch.silent_seconds("one") == LEASE


def test_any_change_is_a_sign_of_life() -> None:
    """A beat counts from when it was first seen, also one that is lower than before; others are told apart."""
    watch: Watch[str] = Watch(STEP)
    watched(watch, 20, one=7, two=1)
    watched(watch, 40, since=22.5, one=3, two=1)
    assert watch.silent(LEASE) == ["two"]
    assert watch.silent_seconds("one") == 17.5


def test_what_is_seen_for_the_first_time_has_just_begun() -> None:
    """An observer that has just started knows of no silence, however long it has lasted."""
    watch: Watch[str] = Watch(STEP)
    watch.look({"one": 5}, 1e9)
    assert watch.silent(0.1) == []
    assert watch.silent_seconds("one") == 0
    assert watch.silent_seconds("other") is None


def test_time_that_nobody_watched_does_not_count() -> None:
    """When the observer stood still for an hour, so did those it observes, perhaps: only a step of it counts."""
    watch: Watch[str] = Watch(STEP)
    watched(watch, 20, one=1)
    watch.look({"one": 1}, 3620.0)
    assert watch.silent(LEASE) == []
    assert watch.silent_seconds("one") == 25.0
    watched(watch, 3625.0, since=3622.5, one=1)
    assert watch.silent(LEASE) == ["one"]


def test_what_is_gone_is_forgotten() -> None:
    """Whoever is not there at a look is begun anew when it comes back, and so is everybody after `forget`."""
    watch: Watch[str] = Watch(STEP)
    watched(watch, 20, one=1)
    watch.look({}, 22.5)
    watched(watch, 45, since=25, one=1)
    assert watch.silent(LEASE) == []
    watch.forget()
    watched(watch, 60, since=47.5, one=1)
    assert watch.silent_seconds("one") == 12.5
