"""What a check of a log can find, and how grave each of it is."""

from dataclasses import dataclass
from enum import IntEnum

from replayforge.forgelog.errors import lost_in_words


class LogVerdict(IntEnum):
    """How a log fares; the numbers are the exit codes of `replayforge log verify`."""

    CLEAN = 0
    TORN = 1
    CORRUPT = 2
    USAGE = 3
    LOCKED = 4
    IO_ERROR = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: where, which offsets it costs (None when unknown), and how grave it is."""

    code: str
    what: str
    verdict: LogVerdict
    segment: str | None = None
    segment_id: int | None = None
    position: int | None = None
    end: int | None = None
    first_lost: int | None = None
    last_lost: int | None = None

    def in_words(self) -> str:
        """Say it in one line."""
        place = f"{self.segment or 'log'}" + (f", byte {self.position:,}" if self.position is not None else "")
        return f"{self.code} {place}: {self.what}{lost_in_words(self.first_lost, self.last_lost)}"
