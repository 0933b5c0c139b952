"""What chaos writes down for itself, outside the daemon: what was acknowledged, and which effects handlers had."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from replayforge.client.bulk import Line
from replayforge.demo.orders import SCANNED
from replayforge.demo.sender import event_id_of
from replayforge.domain.lifecycle import TERMINAL, State
from replayforge.whole_lines import whole_lines

NAMED_MAX = 5


def for_this_user(path: str, flags: int) -> int:
    """Open a file that nobody else may read, should it be made now."""
    return os.open(path, flags, 0o600)


class AckFile:
    """One line for each event that the daemon acknowledged, written the moment it was."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: TextIO = open(path, "w", buffering=1, opener=for_this_user)  # noqa: SIM115

    def note(self, line: Line) -> None:
        """Write down the id of an acknowledged event."""
        self.note_id(event_id_of(line))

    def note_id(self, event_id: str) -> None:
        """Write down that an event is acknowledged."""
        self.file.write(event_id + "\n")

    def close(self) -> None:
        """Write nothing more."""
        self.file.close()

    def ids(self) -> set[str]:
        """Return the acknowledged events."""
        return set(self.path.read_text().split())


@dataclass(frozen=True, slots=True)
class Effect:
    """An effect that a handler had, or a step of it if one is named."""

    event_id: str
    run: int = 1
    token: int = 1
    step: str = ""


@dataclass(frozen=True, slots=True)
class Effects:
    """The effects that handlers had, in their order."""

    had: tuple[Effect, ...]

    @property
    def again(self) -> int:
        """How many effects were had again: a handler may run more than once, and this is how often one did."""
        return len(self.had) - len({(one.event_id, one.step) for one in self.had})

    @property
    def of_steps(self) -> int:
        """How many of them were those of steps."""
        return sum(bool(one.step) for one in self.had)


def read_effects(path: Path) -> Effects:
    """Read the file that the handlers write."""
    return Effects(tuple(effect_on(line) for line in whole_lines(path)))


def effect_on(line: str) -> Effect:
    """Read a line of that file."""
    event_id, run, token, *step = line.split(" ")
    return Effect(event_id, int(run), int(token), "".join(step))


def objections(acknowledged: set[str], effects: Effects, events: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what the daemon's events contradict: each acknowledged one must be there, ended, and have its effect.

    A signal has none of its own: it is taken by an event that waits for it.
    """
    listed = list(events)
    status = {str(event["id"]): str(event["status"]) for event in listed}
    signals = {str(event["id"]) for event in listed if event["event_type"] == SCANNED}
    affected = {one.event_id for one in effects.had}
    succeeded = {event_id for event_id, state in status.items() if state == State.SUCCEEDED}
    wrong = {
        "acknowledged but not there": acknowledged - status.keys(),
        "not ended": {event_id for event_id, state in status.items() if state not in TERMINAL},
        "succeeded without an effect": succeeded - affected - signals,
        "with an effect but not there": affected - status.keys(),
        "with an effect but not succeeded": affected & status.keys() - succeeded,
    }
    for what, ids in wrong.items():
        if ids:
            yield f"{len(ids):,} events {what}: {', '.join(sorted(ids)[:NAMED_MAX])}"
