"""What the handlers of tests/data/sink_handlers.py have left behind, and the acknowledgements a test has written."""

import base64
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from replayforge.whole_lines import whole_lines

SINK_HANDLERS = Path(__file__).parents[1] / "data" / "sink_handlers.py"

QUICK = {
    "retry.base_seconds": 0.05,
    "retry.max_seconds": 0.2,
    "janitor.promote_seconds": 0.05,
    "janitor.refill_seconds": 0.2,
    "workers.solo_seconds": 0.3,
    "workers.control_seconds": 0.5,
}


@dataclass(frozen=True, slots=True)
class Line:
    """One start or end of a handler."""

    word: str
    event_id: str
    run: int
    attempt: int
    token: int
    at_seconds: float
    payload: bytes


def lines_of(directory: Path) -> list[Line]:
    """Return everything the handlers of a daemon's process have noted."""
    lines = []
    for text in whole_lines(directory / "sink.txt"):
        word, event_id, run, attempt, token, at_seconds, payload = text.split("\t")
        lines.append(
            Line(word, event_id, int(run), int(attempt), int(token), float(at_seconds), base64.b64decode(payload))
        )
    return lines


def started(directory: Path) -> Counter[str]:
    """Count how often each event's handler was started."""
    return Counter(line.event_id for line in lines_of(directory) if line.word == "started")


def ended(directory: Path) -> Counter[str]:
    """Count how often each event's handler came to its end."""
    return Counter(line.event_id for line in lines_of(directory) if line.word == "ended")
