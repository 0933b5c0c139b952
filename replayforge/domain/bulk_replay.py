"""A bulk replay as a job: its states, the outcome of its members, its figures, and what it has to do next."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from replayforge.domain.errors import Conflict
from replayforge.domain.lifecycle import TERMINAL, State

MEMBERS_MAX = 200_000
IDS_MAX = 10_000
CANARY_MAX = 1_000


class JobState(StrEnum):
    """Where a bulk replay stands."""

    PENDING = "pending"
    CANARY = "canary"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    CANCELLED = "cancelled"


class MemberOutcome(StrEnum):
    """Where one member of a bulk replay stands; `superseded` left the run that the job had given it without an end."""

    WAITING = "waiting"
    REPLAYED = "replayed"
    SKIPPED = "skipped"
    SUCCEEDED = "succeeded"
    DEAD_LETTERED = "dead_lettered"
    SUPERSEDED = "superseded"


JOB_TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.PENDING: frozenset({JobState.CANARY, JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED}),
    JobState.CANARY: frozenset({JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.DONE, JobState.PAUSED, JobState.CANCELLED}),
    JobState.PAUSED: frozenset({JobState.PENDING, JobState.CANARY, JobState.RUNNING, JobState.CANCELLED}),
    JobState.DONE: frozenset(),
    JobState.CANCELLED: frozenset(),
}
AT_WORK = frozenset({JobState.PENDING, JobState.CANARY, JobState.RUNNING})
JOB_ENDED = frozenset(state for state, targets in JOB_TRANSITIONS.items() if not targets)


class Miscounted(Conflict):
    """Another number of events fits than was expected, so nothing was done."""

    def __init__(self, expected: int, found: int) -> None:
        super().__init__(
            f"{expected:,} events were expected and {found:,} fit now, so nothing was done; look at them again."
        )
        self.expected = expected
        self.found = found


@dataclass(frozen=True, slots=True)
class ReplayOrder:
    """What somebody wants replayed, beside which events: why, how many at most, how fast, and how carefully.

    With `canary` so many are replayed first, and the others only when none of those became a dead letter again.
    `request_key` names the request, so that sending it again makes no second job; `digest` tells its content.
    """

    reason: str
    selection: dict[str, Any]
    members_max: int = MEMBERS_MAX
    canary: int = 0
    rate_per_second: float | None = None
    expected_count: int | None = None
    request_key: str | None = None
    digest: str = ""
    acted_by: str = ""


@dataclass(frozen=True, slots=True)
class ReplayJob:
    """One bulk replay as its row says. Times are microseconds since the epoch.

    Every figure is counted in the transaction that moves the members it counts: total = waiting + replayed + skipped,
    and replayed = succeeded + dead_lettered + superseded + open. `matched` is how many events fitted when the
    membership was frozen, of which at most `members_max` became members. Members are taken in the order of their row
    numbers; `through_seq` is the last that was.
    """

    seq: int
    state: JobState
    resumes_as: JobState
    note: str
    reason: str
    selection: dict[str, Any]
    members_max: int
    canary: int
    rate_per_second: float | None
    request_key: str | None
    digest: str
    matched: int
    total: int
    replayed: int
    skipped: int
    succeeded: int
    dead_lettered: int
    superseded: int
    through_seq: int
    created_at_us: int
    updated_at_us: int
    acted_by: str = ""

    @property
    def id(self) -> str:
        """The name people know it by."""
        return f"rpl_{self.seq}"

    @property
    def begins_from(self) -> str | None:
        """From where in their journals the members are replayed; None for what is usual."""
        begins_from: str | None = self.selection.get("from")
        return begins_from

    @property
    def waiting(self) -> int:
        """How many members were neither replayed nor skipped yet."""
        return self.total - self.replayed - self.skipped

    @property
    def open(self) -> int:
        """How many members were replayed and have not come to their end again."""
        return self.replayed - self.succeeded - self.dead_lettered - self.superseded


@dataclass(frozen=True, slots=True)
class Member:
    """One event of a bulk replay, with the run and the state it was in when the membership was frozen."""

    seq: int
    event_id: str
    run: int
    state: State


@dataclass(frozen=True, slots=True)
class Skip:
    """Why some members were left alone, how many, and one of them."""

    reason: str
    count: int
    sample: str


@dataclass(frozen=True, slots=True)
class Preview:
    """What a bulk replay would take: how many events fit, and `more` when they were not counted to the end.

    `groups_capped` says that only the oldest 10,000 of them were gathered into groups, and asked for
    `effects`: how many that their journals have recorded would happen once more.
    """

    matched: int
    more: bool
    sample: list[str]
    groups: list[tuple[str, int]]
    groups_capped: bool = False
    effects: int = 0


@dataclass(frozen=True, slots=True)
class Take:
    """Replay so many further members at most."""

    count: int


@dataclass(frozen=True, slots=True)
class Move:
    """Enter another state, and say why where that is not plain."""

    target: JobState
    note: str = ""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before something else happens."""


Step = Take | Move | Wait


def next_step(job: ReplayJob) -> Step:
    """Return what a job has to do next; the same row always gives the same answer, so anybody may carry it on."""
    match job.state:
        case JobState.PENDING:
            return Move(JobState.CANARY if job.canary else JobState.RUNNING)
        case JobState.CANARY:
            return canary_step(job)
        case JobState.RUNNING:
            return Take(job.waiting) if job.waiting else Move(JobState.DONE)
    return Wait()


def canary_step(job: ReplayJob) -> Step:
    """Replay the first few, wait for their ends, and go on only when none of them failed for good again."""
    if job.replayed < job.canary and job.waiting:
        return Take(min(job.waiting, job.canary - job.replayed))
    if job.open:
        return Wait()
    if job.dead_lettered:
        note = (
            f"{job.dead_lettered:,} of the first {job.replayed:,} became dead letters again; the other"
            f" {job.waiting:,} wait. Resume it to replay them all the same, or cancel it."
        )
        return Move(JobState.PAUSED, note)
    return Move(JobState.RUNNING)


def why_skipped(member: Member, now: tuple[str, int, State] | None) -> str:
    """Say why a member must be left alone as its event stands now, (id, run, state) or None; empty when it need not."""
    if now is None or now[0] != member.event_id:
        return "Retention has removed it."
    _, run, state = now
    if run != member.run:
        return "It was replayed by somebody else meanwhile."
    if state is not member.state:
        return f"It was {member.state} and is {state} now."
    return ""


def outcome_now(member: Member, now: tuple[str, int, State] | None) -> MemberOutcome:
    """Return where a replayed member stands, given its event as it is now: (id, run, state), or None when it is gone.

    Only a dead letter can be discarded, so a discarded one has become a dead letter again.
    """
    if now is None or now[0] != member.event_id or now[1] != member.run + 1:
        return MemberOutcome.SUPERSEDED
    state = now[2]
    if state not in TERMINAL:
        return MemberOutcome.REPLAYED
    ends = {State.SUCCEEDED: MemberOutcome.SUCCEEDED, State.CANCELLED: MemberOutcome.SUPERSEDED}
    return ends.get(state, MemberOutcome.DEAD_LETTERED)
