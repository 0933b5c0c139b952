"""What a demo sends, how fast, and what it breaks when."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from replayforge.client.bulk import Line, read_lines
from replayforge.demo.sender import lines_of, with_keys
from replayforge.demo.workload import checkout_events

EVENTS_DEFAULT = 1_000
WATCHABLE_EVENTS_PER_SECOND = 25.0
SENDING_SECONDS = 5.0
FAULTS_SHARE = 0.8
EVENTS_PER_SECOND_MIN = 50.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What is to be broken once so many events have ended."""

    after_events: int
    kind: str


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What somebody wants to see."""

    lines: list[Line]
    events_per_second: float
    faults: list[Fault]
    goes_on: bool
    timeout_seconds: float


def lines_for(events: int | None, path: Path | None, batch: str) -> Iterator[Line]:
    """Return the events to send, each with a key: of the file, or made up."""
    if path is None:
        yield from lines_of(checkout_events(events or EVENTS_DEFAULT, batch))
        return
    with path.open("rb") as file:
        for number, line in enumerate(with_keys(read_lines(file), path.name)):
            if events is not None and number >= events:
                return
            yield line


def paced(number: int) -> float:
    """Return how many events to send a second, so that there is time to break things meanwhile."""
    return max(EVENTS_PER_SECOND_MIN, number / SENDING_SECONDS)


def planned(number: int, kills: int, worker_crashes: int) -> list[Fault]:
    """Spread kills and crashes over the work; the last fifth is left alone."""
    wanted = (("crash", worker_crashes), ("kill", kills))
    faults = [
        Fault(int(FAULTS_SHARE * number * place / (times + 1)), kind)
        for kind, times in wanted
        for place in range(1, times + 1)
    ]
    return sorted(faults, key=lambda fault: (fault.after_events, fault.kind))


def next_batch(data_dir: Path) -> str:
    """Return a name that changes with what the data directory holds, so that each demo on it has events of its own."""
    store = data_dir / "store.db"
    return str(store.stat().st_mtime_ns if store.exists() else 0)
