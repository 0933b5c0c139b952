"""Which queued events may be claimed now: some handlers are paused, at their limit or behind an open breaker."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from replayforge.domain.errors import Rejected

EVERYTHING = "*"  # a pause under this name holds for every handler
NO_HANDLER = ""  # what an event waits for that no handler takes

PatternOf = Callable[[str], str]  # names the handler of a route; any thread may call it


@dataclass(frozen=True, slots=True)
class Pause:
    """What stands still until somebody resumes it: a handler, with EVERYTHING all of them, a source, or a schedule.

    Raises Rejected without a reason.
    """

    pattern: str
    reason: str
    by: str
    since_us: int

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise Rejected("A pause needs a reason, so that the next person knows why.")


@dataclass(frozen=True, slots=True)
class Admission:
    """How many more events each guarded handler may be given; a handler that is not named takes any number.

    Handlers go by their identities, events by their routes.
    """

    room: Mapping[str, int]
    pattern_of: PatternOf

    def counter(self) -> "AdmissionCounter":
        """Return what counts events through, for one try of one transaction."""
        return AdmissionCounter(self)


@dataclass(frozen=True, slots=True)
class Preference:
    """Runs that others go on with first, for a while: those that code with these labels has parked, which they run."""

    labels: frozenset[str]
    prefer_us: int


class AdmissionCounter:
    """Counts events through to their handlers until there is no more room for them."""

    def __init__(self, admission: Admission) -> None:
        self.left = dict(admission.room)
        self.pattern_of = admission.pattern_of
        self.deferred: Counter[str] = Counter()

    def waits_for(self, route: str) -> str | None:
        """Return the handler that an event with this route has to wait for, or None when it may be claimed."""
        if not self.left:
            return None
        pattern = self.pattern_of(route)
        if self.left.get(pattern, 1) > 0:
            return None
        self.deferred[pattern] += 1
        return pattern

    def admit(self, route: str) -> None:
        """Count an event through that is being claimed."""
        if self.left:
            pattern = self.pattern_of(route)
            if pattern in self.left:
                self.left[pattern] -= 1


ALL_WELCOME = Admission({}, lambda route: NO_HANDLER)
