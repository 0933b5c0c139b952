"""Suspects that are set aside: for how long, in which words, and that none is forgotten."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from replayforge.domain.poison import Isolation, Suspicion
from replayforge.engine.care.controls import Controls
from replayforge.stores.suspicions import Suspect
from replayforge.telemetry import Telemetry
from tests.support.clock import FakeClock


def aside(seq: int, *alone: float, node: str = "here") -> Suspect:
    return Suspect(seq, Isolation.SET_ASIDE, Suspicion(5, alone, "here/one", node), f"event-{seq}")


class Shelf:
    """A store that holds suspects and nothing else."""

    node = "here"
    shared = True

    def __init__(self, *suspects: Suspect) -> None:
        self.suspects = list(suspects)
        self.released: dict[int, Suspicion | None] = {}

    async def set_aside(self) -> list[Suspect]:
        return [one for one in self.suspects if one.seq not in self.released]

    async def next_suspect(self) -> Suspicion | None:
        return next(iter(self.released.values()), None)

    async def end_controls(self, decide: Any) -> int:
        changes = decide(await self.set_aside())
        self.released.update({suspect.seq: known for suspect, _, known in changes})
        return len(changes)


def controls(shelf: Shelf, clock: FakeClock, gone: Sequence[str] = ()) -> tuple[Controls, list[str]]:
    looked: list[str] = []

    async def others() -> tuple[list[Any], list[Any]]:
        return [], [SimpleNamespace(name=name) for name in gone]

    store: Any = shelf
    return Controls(store, lambda: looked.append("looked"), others, clock, Telemetry(), least_seconds=10), looked


async def live(control: Controls, clock: FakeClock, seconds: int) -> None:
    """Let the daemon live, looking once a second."""
    for _ in range(seconds):
        clock.advance(1)
        await control.look()


async def test_a_control_lasts_five_times_the_longest_time_alone() -> None:
    """Each suspect runs again when its own control is over, and until then it is named, with the time that is left."""
    shelf, clock = Shelf(aside(1, 0.1), aside(2, 2.0, 4.0)), FakeClock()
    control, looked = controls(shelf, clock)
    await live(control, clock, 6)
    assert control.in_words() == ["2 events are set aside after a crash; they run again in 14 s."]
    await live(control, clock, 4)
    assert list(shelf.released) == [1]
    assert looked == ["looked"]
    assert control.in_words() == ["1 event is set aside after a crash; it runs again in 10 s."]
    await live(control, clock, 10)
    assert shelf.released[2] == Suspicion(5, (2.0, 4.0), "here/one")
    assert control.in_words() == []


async def test_the_time_of_a_stopped_process_does_not_count() -> None:
    """A daemon that was paused for an hour has not lived without the suspect for an hour."""
    shelf, clock = Shelf(aside(1, 1.0)), FakeClock()
    control, _ = controls(shelf, clock)
    await live(control, clock, 5)
    clock.advance(3600)
    await control.look()
    assert shelf.released == {}
    await live(control, clock, 3)
    assert list(shelf.released) == [1]


async def test_a_living_node_looks_after_its_own() -> None:
    """What another daemon has set aside is named and left to it; if it is gone, the last death proves nothing."""
    shelf, clock = Shelf(aside(1, 2.0, 3.0, node="there")), FakeClock()
    control, _ = controls(shelf, clock)
    await live(control, clock, 400)
    assert shelf.released == {}
    assert control.in_words() == ["1 event is set aside after a crash of node there."]
    control, looked = controls(shelf, clock, gone=["there"])
    await live(control, clock, 1)
    assert shelf.released == {1: Suspicion(5, (2.0,))}
    assert looked == ["looked"]
