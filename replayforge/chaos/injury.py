"""Which injuries there are, and which of them strike when: decided by a seed before anything begins."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

# Points that the workload comes to. A daemon that does not reach its point in time is killed.
POINTS_ON_THE_WAY = (
    "ingest.received", "log.appended", "dispatch.read", "dispatch.committed", "publish.done", "claim.committed",
    "claim.acked", "attempt.started", "attempt.finished", "step.started", "step.returned", "step.committed",
    "park.committed", "signal.matched", "wake.committed", "settle.committed", "promote.committed", "lane.released",
)  # fmt: skip
# What can happen to a line, in words; the names are the verbs of a TcpProxy.
HARMS = {
    "blackhole": "lets nothing through",
    "swallow_answers": "loses answers",
    "half_open": "breaks, and only the server sees it",
    "reset": "is reset",
}
KILLED_WHILE_STARTING_SHARE = 0.25
TOGETHER_SHARE = 0.25
CALM_SHARE = 0.5
WORK_SECONDS_MAX = 1.5
START_SECONDS = 1.0
HANG_SECONDS = 1.0
LASTS_SECONDS_MAX = 3.0
TIMES_MAX = 10


class Injured(StrEnum):
    """Who is injured."""

    DAEMON = "daemon"
    REDIS = "Redis"
    REDIS_LINE = "line to Redis"
    POSTGRES = "PostgreSQL"
    POSTGRES_LINE = "line to PostgreSQL"


class InjuryKind(StrEnum):
    """What is done."""

    KILL = "kill"
    KILL_STARTING = "kill_starting"
    CRASH_POINT = "crash_point"
    WORKER_CRASH = "worker_crash"
    HANDLER_HANG = "handler_hang"
    LOOP_HANG = "loop_hang"
    PAUSE = "pause"
    REDIS_WIPE = "redis_wipe"
    REDIS_KILL = "redis_kill"
    REDIS_LINE = "redis_line"
    POSTGRES_STOP = "postgres_stop"
    POSTGRES_LINE = "postgres_line"


WORDS = {
    InjuryKind.KILL: "kill -9 of the daemon",
    InjuryKind.KILL_STARTING: "kill -9 of the daemon in the middle of its start",
    InjuryKind.CRASH_POINT: "the daemon dies at a crash point",
    InjuryKind.WORKER_CRASH: "a worker crashes",
    InjuryKind.HANDLER_HANG: "handlers hang until their time-out",
    InjuryKind.LOOP_HANG: "a handler holds the event loop",
    InjuryKind.PAUSE: "SIGSTOP of the daemon, then SIGCONT",
    InjuryKind.REDIS_WIPE: "FLUSHALL of Redis",
    InjuryKind.REDIS_KILL: "kill -9 of Redis, started again empty",
    InjuryKind.REDIS_LINE: "the line to Redis is cut",
    InjuryKind.POSTGRES_STOP: "immediate stop of PostgreSQL, started again",
    InjuryKind.POSTGRES_LINE: "the line to PostgreSQL is cut",
}
OF_REDIS = {
    InjuryKind.REDIS_WIPE: Injured.REDIS,
    InjuryKind.REDIS_KILL: Injured.REDIS,
    InjuryKind.REDIS_LINE: Injured.REDIS_LINE,
}
OF_POSTGRES = {InjuryKind.POSTGRES_STOP: Injured.POSTGRES, InjuryKind.POSTGRES_LINE: Injured.POSTGRES_LINE}
OF_SERVERS = OF_REDIS | OF_POSTGRES
KILLS = (InjuryKind.KILL, InjuryKind.KILL_STARTING)
OF_DAEMON = tuple(kind for kind in InjuryKind if kind not in OF_SERVERS and kind not in KILLS)
HANGS = (InjuryKind.HANDLER_HANG, InjuryKind.LOOP_HANG)
LASTING = frozenset({*OF_SERVERS, InjuryKind.PAUSE} - {InjuryKind.REDIS_WIPE})


@dataclass(frozen=True, slots=True)
class Injury:
    """One injury: after how much work it strikes, how long what it does lasts, and its particulars.

    With `after_calm` it waits until everything runs again after those before it, else it strikes into their recovery.
    `choice` is a number from 0 to 1 that decides among what is there when it strikes; `detail` names a crash point or
    what happens to a line.
    """

    kind: InjuryKind
    after_seconds: float
    lasts_seconds: float = 0.0
    detail: str = ""
    choice: float = 0.0
    after_calm: bool = False

    @property
    def target(self) -> Injured:
        """Who is injured."""
        return OF_SERVERS.get(self.kind, Injured.DAEMON)

    @property
    def times(self) -> int:
        """The how manieth time it is that the daemon dies when it comes to its crash point."""
        return 1 + int(self.choice * TIMES_MAX)

    def in_words(self) -> str:
        """Say what it is."""
        if self.kind is InjuryKind.CRASH_POINT:
            return f"{WORDS[self.kind]}: {self.detail}:{self.times}"
        if self.detail:
            return f"the {self.target} {HARMS[self.detail]}"
        return WORDS[self.kind]


Plan = tuple[tuple[Injury, ...], ...]


def kinds_for(*, redis: bool, postgres: bool) -> tuple[InjuryKind, ...]:
    """Return the kinds of injuries beside kills, by the servers that there are."""
    return (*OF_DAEMON, *(OF_REDIS if redis else ()), *(OF_POSTGRES if postgres else ()))


def planned(rng: random.Random, kills: int, others: int, kinds: Sequence[InjuryKind]) -> Plan:
    """Decide everything in advance: kills and as many others, each kind as often as the next, in groups.

    What is in one group is there at the same time; its members strike different targets.
    """
    chosen = [
        InjuryKind.KILL_STARTING if rng.random() < KILLED_WHILE_STARTING_SHARE else InjuryKind.KILL
        for _ in range(kills)
    ]
    while others > 0:
        turn = rng.sample(kinds, len(kinds))[:others]
        chosen += turn
        others -= len(turn)
    rng.shuffle(chosen)
    return tuple(grouped(rng, [injury_of(rng, kind) for kind in chosen]))


def injury_of(rng: random.Random, kind: InjuryKind) -> Injury:
    """Draw the particulars of an injury."""
    calm = rng.random() < CALM_SHARE
    injury = Injury(kind, rng.uniform(0, WORK_SECONDS_MAX), choice=rng.random(), after_calm=calm)
    if kind is InjuryKind.CRASH_POINT:
        return replace(injury, detail=rng.choice(POINTS_ON_THE_WAY))
    if kind in (InjuryKind.REDIS_LINE, InjuryKind.POSTGRES_LINE):
        injury = replace(injury, detail=rng.choice(list(HARMS)))
    if kind in LASTING:
        return replace(injury, lasts_seconds=rng.uniform(LASTS_SECONDS_MAX / 10, LASTS_SECONDS_MAX))
    if kind is InjuryKind.KILL_STARTING:
        return replace(injury, lasts_seconds=rng.uniform(0, START_SECONDS))
    if kind in HANGS:
        return replace(injury, lasts_seconds=HANG_SECONDS)
    return injury


def grouped(rng: random.Random, injuries: Sequence[Injury]) -> Iterator[tuple[Injury, ...]]:
    """Let some injuries strike while the one before them is still there."""
    group: tuple[Injury, ...] = ()
    for injury in injuries:
        together = rng.random() < TOGETHER_SHARE
        if together and group and group[0].kind in LASTING and injury.target not in {one.target for one in group}:
            sooner = rng.uniform(0, group[0].lasts_seconds)
            group = (*group, replace(injury, after_seconds=sooner))
            continue
        if group:
            yield group
        group = (injury,)
    if group:
        yield group


def expected_seconds(plan: Plan) -> float:
    """Return about how long the plan takes, starts of the daemon not counted."""
    return sum(one.after_seconds + one.lasts_seconds for group in plan for one in group)
