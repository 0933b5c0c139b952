"""What the daemon knows about itself: the ledger, convergence, workers, readiness. It only looks."""

from asyncio import gather, wait_for
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from replayforge import crashpoints
from replayforge.daemon_log import output
from replayforge.domain.admission import EVERYTHING, Pause
from replayforge.domain.clock import MICROSECONDS_PER_SECOND, Clock, to_us
from replayforge.domain.errors import NotFound, Refused, Rejected, Unavailable
from replayforge.domain.event import Action, Attempt, Content, EventRecord, StoredEvent
from replayforge.domain.lifecycle import TERMINAL, State
from replayforge.domain.reports import EventFilter, Group, Ledger, LogCursor, Node, WorkflowSummary
from replayforge.engine.accept.intake import Intake, Receipt
from replayforge.engine.care.controls import Controls
from replayforge.engine.care.janitor import Janitor
from replayforge.engine.care.peers import Peers, in_words
from replayforge.engine.care.recount import Recount
from replayforge.engine.care.recovery import Recovered
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.dispatcher import Dispatcher
from replayforge.engine.dispatch.handler_limits import HandlerLimits
from replayforge.engine.handlers.faults import HandlerFaults
from replayforge.engine.run.loop_watch import LoopWatch
from replayforge.engine.run.strays import Strays
from replayforge.engine.run.worker import Worker
from replayforge.forgelog.log import ForgeLog
from replayforge.stores.lookups import EventPage, WorkflowPage
from replayforge.stores.store import Store
from replayforge.stores.suspicions import Suspect
from replayforge.stores.tallies import waiting_of
from replayforge.streams.stream import Stream, StreamStats
from replayforge.supervisor import Guard, Supervisor
from replayforge.telemetry import Telemetry
from replayforge.threads import DaemonThreads

PROBE_SECONDS = 2.0
WAL_BYTES_MAX = 256 << 20  # four times what it is emptied at
OLDEST_QUEUED_SECONDS_MAX = 60
SOON_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Convergence:
    """Whether everything that is due has ended, and if not, what stands in the way, in words.

    Due is also an attempt that follows within `SOON_SECONDS`, so that a short backoff does not look like an end;
    `retrying_later` are those that wait for longer. `living` are the other daemons that share the store, `gone` those
    whose logs cannot be reached. `paused` events wait for handlers that somebody has paused; they are not due. `broken`
    are the handlers whose breakers are not closed, `stuck` says of handlers that do not end.
    """

    converged: bool
    ledger: Ledger
    issues: list[str]
    backlog: int
    oldest_queued_seconds: float
    living: list[Node]
    gone: list[Node]
    retrying_later: int = 0
    paused: int = 0
    pauses: Sequence[Pause] = ()
    broken: Sequence[str] = ()
    stuck: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One answer to "does it work": `ok`, `degraded` or `down`, and how long the answer took."""

    name: str
    status: str
    latency_ms: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker as people see it; `event` is what it holds, `details` what its handler says of itself."""

    name: str
    state: str
    event: StoredEvent | None
    busy_since_us: int | None
    settled_count: int
    restarts: int
    last_error: str | None
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class History:
    """One event with all that happened to it; `content` are the bytes it came with, `suspect` what deaths say of it."""

    event: StoredEvent
    content: Content
    attempts: list[Attempt]
    actions: list[Action]
    suspect: Suspect | None = None


class Overview:
    """Answers questions about events and about the daemon; nothing here changes anything."""

    def __init__(
        self,
        *,
        log: ForgeLog,
        store: Store,
        stream: Stream,
        intake: Intake,
        dispatcher: Dispatcher,
        janitor: Janitor,
        buffer: ClaimBuffer,
        workers: Sequence[Worker],
        supervisor: Supervisor,
        telemetry: Telemetry,
        clock: Clock,
        node: str,
        started_at_us: int,
        recovered: Recovered,
        peers: Peers,
        controls: Controls,
        recount: Recount,
        handler_limits: HandlerLimits,
        loop_watch: LoopWatch,
        strays: Strays,
        handler_threads: DaemonThreads,
        faults: HandlerFaults,
    ) -> None:
        self.log = log
        self.store = store
        self.stream = stream
        self.intake = intake
        self.dispatcher = dispatcher
        self.janitor = janitor
        self.buffer = buffer
        self.workers = workers
        self.supervisor = supervisor
        self.telemetry = telemetry
        self.clock = clock
        self.node = node
        self.started_at_us = started_at_us
        self.started = clock.elapsed()
        self.recovered = recovered
        self.peers = peers
        self.controls = controls
        self.recount = recount
        self.handler_limits = handler_limits
        self.loop_watch = loop_watch
        self.strays = strays
        self.handler_threads = handler_threads
        self.faults = faults

    # Events

    async def find(self, event_id: str) -> History | Receipt:
        """Return an event's history, or its receipt while it has no row; raises NotFound."""
        history = await self.store.history(event_id)
        if history is not None:
            return History(*history, await self.suspicion(history[0]))
        waiting = await self.intake.find_waiting(event_id)
        if waiting is not None:
            return waiting
        # An event that left the window between the two looks has its row by now.
        history = await self.store.history(event_id)
        if history is None:
            raise NotFound(f"There is no event {event_id}.")
        return History(*history)

    async def suspicion(self, event: StoredEvent) -> Suspect | None:
        """Return what deaths of the process say of an event that has not gone well yet."""
        return None if event.state is State.SUCCEEDED else await self.store.suspicion(event.id)

    async def list_events(self, wanted: EventFilter, before_seq: int | None, limit: int) -> EventPage:
        """Return events that pass the filter, newest first, as many as fit into one page."""
        return await self.store.list_events(wanted, before_seq=before_seq, limit=limit)

    async def list_rows(self, wanted: EventFilter, before_seq: int | None, limit: int) -> list[StoredEvent]:
        """Return the same without what came with the events, which may be large."""
        return await self.store.list_rows(wanted, before_seq=before_seq, limit=limit)

    async def look_up(self, text: str, limit: int) -> list[StoredEvent]:
        """Return events whose id, workflow or key begins with a text, newest first, a few for each of the three."""
        return await self.store.look_up(text, limit)

    async def count_newest(self, wanted: EventFilter, scan_max: int) -> int:
        """Return how many of the newest events pass the filter."""
        return await self.store.count_newest(wanted, scan_max)

    async def workflow(self, workflow_id: str) -> WorkflowSummary:
        """Return how the events of a workflow stand; raises NotFound."""
        summary = await self.store.workflow(workflow_id)
        if summary is None:
            raise NotFound(f"There is no workflow {workflow_id!r}.")
        return summary

    async def list_workflows(self, before_seq: int | None, limit: int) -> WorkflowPage:
        """Return workflows, the one with the newest event first, as many as can be counted for one page."""
        return await self.store.list_workflows(before_seq=before_seq, limit=limit)

    async def timeline(self, workflow_id: str) -> tuple[list[StoredEvent], list[Attempt]]:
        """Return a workflow's events in order and their attempts; raises NotFound."""
        events, attempts = await self.store.timeline(workflow_id)
        if not events:
            raise NotFound(f"There is no workflow {workflow_id!r}.")
        return events, attempts

    async def dead_letter_groups(self, group_by: str) -> list[Group]:
        """Return dead letters gathered by error, type, service or reason."""
        return await self.store.dead_letter_groups(group_by)

    async def error_insights(self, window_seconds: float) -> list[Group]:
        """Return the failed attempts of the last so many seconds gathered by error."""
        return await self.store.error_insights(self.clock.now_us() - int(window_seconds * MICROSECONDS_PER_SECOND))

    def attempts_max(self, event: StoredEvent | EventRecord) -> int:
        """Return after how many failures a run of the event ends: its own number, its handler's, or the default."""
        worker = self.workers[0]
        return worker.handlers.policy(event.event_type, event.max_attempts, worker.rules.retry).max_attempts

    # The ledger

    async def convergence(self) -> Convergence:
        """Return the ledger and whether everything due has ended."""
        # The end of the log is read after the ledger: what is accepted meanwhile counts as waiting, never as lost.
        cursors, booked = await self.store.ledger_snapshot()
        tallies = await self.recount.corrected(booked)
        living, gone = await self.peers.others()
        ends = {node.log_id: node.durable_offset for node in (*living, *gone)}
        totals = ledger(self.log.log_id, self.log.durable_offset, cursors, tallies, ends)
        queued_at_us = await self.store.oldest_queued()
        oldest = 0.0 if queued_at_us is None else (self.clock.now_us() - queued_at_us) / MICROSECONDS_PER_SECOND
        waiting = waiting_of(tallies)
        paused = {pattern: count for pattern, count in waiting.items() if self.handler_limits.is_paused(pattern)}
        soon = await self.store.due_soon(self.clock.now_us(), to_us(SOON_SECONDS))
        retrying_later = max(0, totals.states.get(State.RETRYING, 0) - soon.get(State.RETRYING, 0))
        due = totals.states.get(State.QUEUED, 0) + totals.states.get(State.PROCESSING, 0) + sum(soon.values())
        backlog = max(0, due - sum(paused.values()))
        pauses = sorted(self.handler_limits.pauses.values(), key=lambda pause: pause.since_us)
        broken = [pattern for pattern, limit in self.handler_limits.guarded.items() if limit.breaker.tripped]
        issues = issues_of(totals, oldest, self.supervisor.guards.values())
        issues += self.recount.in_words(booked)
        issues += [paused_in_words(pause, paused) for pause in pauses]
        issues += [broken_in_words(pattern, waiting.get(pattern, 0)) for pattern in broken]
        issues += [in_words(node) for node in gone if node.waiting or not node.stopped]
        issues += self.controls.in_words()
        issues += self.peers.long_transactions
        if self.store.wal_bytes > WAL_BYTES_MAX:
            size = f"{self.store.wal_bytes >> 20:,} MiB"
            issues.append(f"The store's write-ahead file has grown to {size}: some reader never lets go of it.")
        if self.store.write_error is not None:
            issues.append(f"The store cannot be written: {self.store.write_error}")
        issues += self.loop_watch.issues()
        issues += self.faults.issues()
        issues += output.issues()
        stuck = self.strays.issues() + self.handler_threads.issues()
        issues += stuck
        converged = totals.waiting == 0 and backlog == 0 and totals.lost == 0
        return Convergence(
            converged=converged,
            ledger=totals,
            issues=issues,
            backlog=backlog + totals.waiting,
            oldest_queued_seconds=max(0.0, oldest),
            living=living,
            gone=gone,
            retrying_later=retrying_later,
            paused=sum(paused.values()),
            pauses=pauses,
            broken=broken,
            stuck=stuck,
        )

    # The daemon

    async def checks(self) -> list[Check]:
        """Return one check for each part; only the log can make the daemon unready, all else is `degraded`."""
        closed = self.closed_because()
        log = Check("log", "down" if closed else "ok", self.log.stats().sync_p50_ms, closed)
        store, stream = await gather(self.check_store(), self.check_stream())
        services = [guard for guard in self.supervisor.guards.values() if guard.state in ("restarting", "failed")]
        named = ", ".join(guard.service.name for guard in services)
        stuck = self.strays.issues() + self.handler_threads.issues()
        handlers = Check("handlers", "degraded" if stuck else "ok", 0.0, " ".join(stuck))
        return [log, store, stream, Check("services", "degraded" if services else "ok", 0.0, named), handlers]

    async def check_store(self) -> Check:
        """Ask the store."""
        started = self.clock.monotonic()
        try:
            await wait_for(self.store.ping(), PROBE_SECONDS)
        except (Unavailable, TimeoutError) as error:
            return Check("store", "degraded", self.since(started), str(error) or "no answer")
        # A full or read-only disk answers every question.
        if (error_of_write := self.store.write_error) is not None:
            return Check("store", "degraded", self.since(started), f"cannot be written: {error_of_write}")
        return Check("store", "ok", self.since(started))

    async def check_stream(self) -> Check:
        """Ask the stream."""
        stats = await self.stream_stats()
        warnings = "; ".join(stats.warnings)
        status = "ok" if stats.up and not warnings else "degraded"
        return Check("stream", status, stats.latency_ms, warnings or ("" if stats.up else "no answer"))

    async def stream_stats(self) -> StreamStats:
        """Describe the stream."""
        return await self.stream.stats()

    def up_seconds(self) -> float:
        """Return for how long this process has run."""
        return self.clock.elapsed() - self.started

    def since(self, started: float) -> float:
        """Return the milliseconds since a monotonic moment."""
        return (self.clock.monotonic() - started) * 1000

    @property
    def ready(self) -> bool:
        """Whether clients should send events here; a daemon that drains accepts them, but had better be spared."""
        return self.intake.accepting and not self.intake.draining and not self.closed_because()

    def unready_because(self) -> str:
        """Say in words why events cannot be accepted."""
        return self.closed_because() or ("draining" if self.intake.draining else "recovering")

    def closed_because(self) -> str:
        """Say in words why the log takes no events; nothing while it does."""
        if not self.log.writable:
            return self.log.reason
        return "the disk is nearly full" if self.intake.disk_low else ""

    def worker_statuses(self) -> list[WorkerStatus]:
        """Return what each worker does at this moment."""
        return [self.worker_status(worker) for worker in self.workers]

    def worker_status(self, worker: Worker) -> WorkerStatus:
        """Return what one worker does."""
        guard = self.supervisor.guards.get(worker.name)
        held = self.buffer.running.get(worker.name)
        running = guard is not None and guard.state == "running"
        state = "busy" if held is not None and running else "idle" if running else guard.state if guard else "stopped"
        return WorkerStatus(
            name=worker.name,
            state=state,
            event=held.event if held else None,
            busy_since_us=worker.busy_since_us,
            settled_count=worker.settled_count,
            restarts=guard.restarts if guard else 0,
            last_error=guard.last_error if guard else None,
            details=worker.details if held else {},
        )

    def arm_crash(self, specification: str) -> None:
        """Arm a crash point, given as POINT:N; raises Rejected for an unknown one."""
        try:
            crashpoints.arm([specification])
        except Refused as error:
            raise Rejected(str(error)) from error

    def services(self) -> list[Guard]:
        """Return what the supervisor knows of each service."""
        return list(self.supervisor.guards.values())


def ledger(
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
        waiting=durable_offset - projected + further - sum(cursor.log_offset for cursor in others),
        not_events=sum(cursor.not_events for cursor in cursors),
        unreadable=sum(cursor.unreadable for cursor in cursors),
        gaps=sum(cursor.gaps for cursor in cursors),
        copies=sum(cursor.copies for cursor in cursors),
        inserted=sum(cursor.inserted for cursor in cursors),
        states={state: tallies.get(state, 0) for state in State},
        retired=sum(tallies.get(f"retired_{state}", 0) for state in TERMINAL),
    )


def issues_of(totals: Ledger, oldest_queued_seconds: float, guards: Iterable[Guard]) -> list[str]:
    """Say in words what stands between the daemon and peace."""
    states = totals.states
    issues = []
    if totals.lost < 0:
        issues.append(f"The store has {-totals.lost:,} events more than its cursors say: one was removed or set back.")
    if totals.lost > 0:
        issues.append(f"{totals.lost:,} acknowledged events have no row: run `replayforge check` to name them.")
    if totals.unreadable:
        issues.append(f"{totals.unreadable:,} records of the log are unreadable: `replayforge check` names them.")
    if totals.gaps:
        issues.append(f"{totals.gaps:,} records of the log were gone before they had rows.")
    if totals.waiting:
        issues.append(f"{totals.waiting:,} accepted events wait for their rows.")
    if states.get(State.DEAD_LETTERED):
        issues.append(f"{states[State.DEAD_LETTERED]:,} dead letters wait for a decision.")
    if states.get(State.HELD):
        issues.append(
            f"{states[State.HELD]:,} events are held after a crash and wait for a decision:"
            " `replayforge events resolve`."
        )
    if oldest_queued_seconds > OLDEST_QUEUED_SECONDS_MAX:
        issues.append(f"The oldest queued event has waited {oldest_queued_seconds:,.0f} s.")
    issues += [f"{guard.service.name} is {guard.state}: {guard.last_error}" for guard in guards if ailing(guard)]
    return issues


def paused_in_words(pause: Pause, paused: Mapping[str, int]) -> str:
    """Say of a pause for how many events it makes wait."""
    if pause.pattern == EVERYTHING:
        return f"Everything is paused by {pause.by} ({pause.reason}): {sum(paused.values()):,} events wait."
    count = paused.get(pause.pattern, 0)
    return f"The handler {pause.pattern} is paused by {pause.by} ({pause.reason}): {count:,} events wait for it."


def broken_in_words(pattern: str, waiting: int) -> str:
    """Say of an endpoint that it is left alone for a while."""
    return f"The endpoint for {pattern} fails again and again, so its breaker is open: {waiting:,} events wait for it."


def ailing(guard: Guard) -> bool:
    """Tell whether a service is not running as it should."""
    return guard.state in ("restarting", "failed")
