"""What a check of a log can find, and how grave each of it is."""

from dataclasses import dataclass, field
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


@dataclass(slots=True)
class CheckReport:
    """What a check saw."""

    directory: str
    deep: bool
    live: bool = False
    poisoned: bool = False  # the marker of a log that gave up stands; the next start reads every live byte back
    log_id: str | None = None
    store_id: str | None = None
    projected_offset: int = 0
    consumers: dict[str, int] = field(default_factory=dict)
    segments: int = 0
    first_offset: int = 1
    last_offset: int = 0
    records_checked: int = 0
    bytes_checked: int = 0
    torn_bytes: int = 0
    clean_end: bool = False
    gaps: list[tuple[int, int]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def verdict(self) -> LogVerdict:
        """Return the gravest of the findings."""
        return max((finding.verdict for finding in self.findings), default=LogVerdict.CLEAN)
