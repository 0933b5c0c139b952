"""Whether everything that is due has ended: the ledger, what is still to come, and what stands in the way, in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from replayforge.batching import Batcher
from replayforge.domain.admission import EVERYTHING, Pause
from replayforge.domain.clock import MICROSECONDS_PER_SECOND, Clock, to_us
from replayforge.domain.lifecycle import TERMINAL, State
from replayforge.domain.reports import Ledger, LogCursor, Node, dead_in_words, held_in_words
from replayforge.engine.care.peers import Peers, in_words
from replayforge.engine.care.recount import Recount
from replayforge.engine.dispatch.handler_limits import HandlerLimits
from replayforge.engine.report.daemon_status import DaemonStatus
from replayforge.forgelog.log import ForgeLog
from replayforge.stores.lanes import Behind
from replayforge.stores.store import Store
from replayforge.stores.tallies import deferred_of

OLDEST_QUEUED_SECONDS_MAX = 60
SOON_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Convergence:
    """Whether everything that is due has ended, and if not, what stands in the way, in words.

    Due is also an attempt that follows within `SOON_SECONDS`, so that a short backoff does not look like an end;
    `retrying_later` are those that follow later. Neither is what its handler has parked, which is `waiting`, nor a
    signal that is `kept` until somebody waits for it. `living` are the other daemons that share the store, `gone` those
    whose logs cannot be reached. `paused` events are deferred until somebody resumes their handlers; they are not due.
    Nor are those that are `blocked` in their lanes behind a dead letter, or one that is held, parked or paused.
    `broken` are the handlers whose breakers are not closed, `stuck` says of handlers that do not end.
    """

    converged: bool
    ledger: Ledger
    issues: list[str]
    backlog: int
    oldest_queued_seconds: float
    living: list[Node]
    gone: list[Node]
    retrying_later: int = 0
    waiting: int = 0
    kept: int = 0
    paused: int = 0
    blocked: int = 0
    pauses: Sequence[Pause] = ()
    broken: Sequence[str] = ()
    stuck: Sequence[str] = ()


class ConvergenceQuery:
    """Puts what the log holds beside what the store holds.

    One reading at a time: whoever asks while one is under way gets the next one, together with all others who do, so
    that a hundred open pages cost what two cost. A reading begins after each of its callers has asked.
    """

    def __init__(
        self,
        *,
        log: ForgeLog,
        store: Store,
        recount: Recount,
        peers: Peers,
        handler_limits: HandlerLimits,
        status: DaemonStatus,
        clock: Clock,
    ) -> None:
        self.log = log
        self.store = store
        self.recount = recount
        self.peers = peers
        self.handler_limits = handler_limits
        self.status = status
        self.clock = clock
        self.readings: Batcher[None, Convergence] = Batcher(self.read_for)

    async def read(self) -> Convergence:
        """Return the ledger and whether everything due has ended."""
        return await self.readings.add(None)

    async def read_for(self, callers: Sequence[None]) -> Sequence[Convergence]:
        """Read once and give every caller the same."""
        return [await self.read_store()] * len(callers)

    async def read_store(self) -> Convergence:
        """Ask the store, and judge."""
        # The end of the log is read after the ledger: what is accepted meanwhile counts as not yet projected, never as
        # lost.
        now_us = self.clock.now_us()
        found = await self.store.standing(now_us, to_us(SOON_SECONDS))
        tallies = await self.recount.corrected(found.tallies)
        living, gone = await self.peers.others()
        ends = {node.log_id: node.durable_offset for node in (*living, *gone)}
        ledger = compute_ledger(self.log.log_id, self.log.durable_offset, found.cursors, tallies, ends)
        queued_at_us = found.oldest_queued_us
        oldest = 0.0 if queued_at_us is None else (self.clock.now_us() - queued_at_us) / MICROSECONDS_PER_SECOND
        deferred = deferred_of(tallies)
        paused = {pattern: count for pattern, count in deferred.items() if self.handler_limits.is_paused(pattern)}
        pauses = sorted(self.handler_limits.pauses.values(), key=lambda pause: pause.since_us)
        broken = [pattern for pattern, limit in self.handler_limits.guarded.items() if limit.breaker.tripped]
        blocked = [one for one in found.behind if is_stuck(one, paused)]
        backlog, stuck = backlog_of(ledger, found.soon, paused, blocked), self.status.stuck()
        return Convergence(
            converged=ledger.unprojected == 0 and backlog == 0 and ledger.lost == 0,
            ledger=ledger,
            issues=[
                *ledger_issues(ledger, oldest),
                *self.recount.in_words(found.tallies),
                *blocked_in_words(blocked),
                *(paused_in_words(pause, paused) for pause in pauses),
                *(broken_in_words(pattern, deferred.get(pattern, 0)) for pattern in broken),
                *(in_words(node) for node in gone if node.unprojected or not node.stopped),
                *self.status.issues(),
                *stuck,
            ],
            backlog=backlog + ledger.unprojected,
            oldest_queued_seconds=max(0.0, oldest),
            living=living,
            gone=gone,
            retrying_later=max(0, ledger.states[State.RETRYING] - found.soon.get(State.RETRYING, 0)),
            waiting=ledger.states[State.WAITING],
            kept=ledger.states[State.KEPT],
            paused=sum(paused.values()),
            blocked=sum(one.events for one in blocked),
            pauses=pauses,
            broken=broken,
            stuck=stuck,
        )


def compute_ledger(
    log_id: str,
    durable_offset: int,
    cursors: Sequence[LogCursor],
    tallies: dict[str, int],
    ends: Mapping[str, int] = MappingProxyType({}),
) -> Ledger:
    """Put the ledger together: what this log and the logs of other daemons hold against what the store holds.

    `ends` says of the logs of other daemons where they ended when those reported last.
    """
    own = next((cursor for cursor in cursors if cursor.log_id == log_id), None)
    projected = own.log_offset if own else 0
    others = [cursor for cursor in cursors if cursor.log_id != log_id]
    further = sum(max(cursor.log_offset, ends.get(cursor.log_id, 0)) for cursor in others)
    return Ledger(
        records=durable_offset + further,
        unprojected=durable_offset - projected + further - sum(cursor.log_offset for cursor in others),
        not_events=sum(cursor.not_events for cursor in cursors),
        unreadable=sum(cursor.unreadable for cursor in cursors),
        gaps=sum(cursor.gaps for cursor in cursors),
        copies=sum(cursor.copies for cursor in cursors),
        inserted=sum(cursor.inserted for cursor in cursors),
        states={state: tallies.get(state, 0) for state in State},
        retired=sum(tallies.get(f"retired_{state}", 0) for state in TERMINAL),
    )


def backlog_of(
    ledger: Ledger, soon: Mapping[State, int], paused: Mapping[str, int], blocked: Sequence[Behind] = ()
) -> int:
    """Return how many events with rows are due or under way: not those whose handlers are paused, nor those that are
    blocked in their lanes."""
    due = ledger.states[State.QUEUED] + ledger.states[State.PROCESSING] + sum(soon.values())
    return max(0, due - sum(paused.values()) - sum(one.events for one in blocked))


def is_stuck(head: Behind, paused: Mapping[str, int]) -> bool:
    """Tell whether the one at the head of a lane is not due itself, so that nothing behind it is."""
    if head.state == State.QUEUED:
        return head.waits_for is not None and head.waits_for in paused
    return head.later or head.state in (State.DEAD_LETTERED, State.HELD, State.WAITING)


def blocked_in_words(blocked: Sequence[Behind]) -> list[str]:
    """Say how many events are behind dead letters or held ones of their lanes: somebody has to decide."""
    count = sum(one.events for one in blocked if one.state in (State.DEAD_LETTERED, State.HELD))
    return [f"{count:,} events are blocked in their lanes behind a dead letter or a held event."] if count else []


def ledger_issues(ledger: Ledger, oldest_queued_seconds: float) -> list[str]:
    """Say in words what the ledger shows that should not be, or that somebody has to decide."""
    dead, held = ledger.states[State.DEAD_LETTERED], ledger.states[State.HELD]
    issues = []
    if ledger.lost < 0:
        issues.append(f"The store has {-ledger.lost:,} events more than its cursors say: one was removed or set back.")
    if ledger.lost > 0:
        issues.append(f"{ledger.lost:,} acknowledged events have no row: run `replayforge check` to name them.")
    if ledger.unreadable:
        issues.append(f"{ledger.unreadable:,} records of the log are unreadable: `replayforge check` names them.")
    if ledger.gaps:
        issues.append(f"{ledger.gaps:,} records of the log were gone before they had rows.")
    if ledger.unprojected:
        issues.append(f"{ledger.unprojected:,} accepted events wait for their rows.")
    if dead:
        issues.append(dead_in_words(dead))
    if held:
        issues.append(f"{held_in_words(held)}: `replayforge events resolve`.")
    if oldest_queued_seconds > OLDEST_QUEUED_SECONDS_MAX:
        issues.append(f"The oldest queued event has waited {oldest_queued_seconds:,.0f} s.")
    return issues


def paused_in_words(pause: Pause, paused: Mapping[str, int]) -> str:
    """Say of a pause how many events it defers."""
    if pause.pattern == EVERYTHING:
        return f"Everything is paused by {pause.by} ({pause.reason}): {sum(paused.values()):,} events wait."
    count = paused.get(pause.pattern, 0)
    return f"The handler {pause.pattern} is paused by {pause.by} ({pause.reason}): {count:,} events wait for it."


def broken_in_words(pattern: str, deferred: int) -> str:
    """Say of an endpoint that it is left alone for a while."""
    return f"The endpoint for {pattern} fails again and again, so its breaker is open: {deferred:,} events wait for it."
