"""How the daemon and each of its living parts are at this moment, as values for people and programs. It only looks."""

from asyncio import gather, wait_for
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from shutil import disk_usage
from typing import Any

from replayforge.daemon_log import output
from replayforge.domain.clock import Clock
from replayforge.domain.durations import Durations
from replayforge.domain.errors import Unavailable
from replayforge.domain.event import StoredEvent
from replayforge.domain.lifecycle import State
from replayforge.domain.reports import DeployFindings, Node
from replayforge.engine.accept.intake import Intake
from replayforge.engine.care.controls import Controls
from replayforge.engine.care.daemon_report import WorkerReport, decode_workers
from replayforge.engine.care.database_transactions import DatabaseTransactions
from replayforge.engine.care.janitor import Janitor
from replayforge.engine.care.peers import Peers
from replayforge.engine.care.startup_recovery import Recovered
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.dispatcher import Dispatcher
from replayforge.engine.handlers.faults import HandlerFaults
from replayforge.engine.run.loop_watch import LoopWatch
from replayforge.engine.run.pace import AttemptFigures
from replayforge.engine.run.settler import Settler
from replayforge.engine.run.strays import Strays
from replayforge.engine.run.worker import Worker
from replayforge.forgelog.log import ForgeLog
from replayforge.forgelog.log_recovery import RecoveryReport
from replayforge.forgelog.stats import LogStats
from replayforge.stores.store import Store
from replayforge.streams.stream import Stream, StreamStats
from replayforge.supervisor import Guard, Supervisor
from replayforge.threads import DaemonThreads

PROBE_SECONDS = 2.0
WAL_BYTES_MAX = 256 << 20  # four times what it is emptied at
AILING = ("restarting", "failed")


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """One answer to "does it work": `ok`, `degraded` or `down`, and how long the answer took."""

    name: str
    status: str
    latency_ms: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service as its supervisor knows it. Times are microseconds since the epoch."""

    name: str
    state: str
    since_us: int
    restarts: int = 0
    last_error: str | None = None
    last_error_at_us: int | None = None
    last_traceback: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker as people see it; `event` is what it runs, `details` what its handler says of itself."""

    name: str
    state: str
    event: StoredEvent | None
    busy_since_us: int | None
    settled_count: int
    service: ServiceStatus
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ChoreStatus:
    """One duty of the janitor: how often it is done, and how it went last."""

    name: str
    interval_seconds: float
    last_count: int
    last_error: str | None


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What the store is, and whether it answers."""

    dialect: str
    check: HealthCheck
    wal_bytes: int
    schema_version: int
    store_id: str


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """Another daemon as it reported last, and whether it was heard of lately."""

    node: Node
    is_alive: bool
    workers: Sequence[WorkerReport]


@dataclass(frozen=True, slots=True)
class LoopHeld:
    """How often a handler has held the event loop, and for how long in all."""

    handler: str
    count: int
    seconds: float


@dataclass(slots=True, kw_only=True)
class DaemonStatus:
    """Looks at every part of the daemon; what it returns are values that change no more.

    `started_at_us` is when the process began, `recovered` what its start found, `alert_failures` says of alerts by name
    why their receivers could not be told, `deploy` what the gate has found of open runs, if there is one.
    """

    log: ForgeLog
    store: Store
    stream: Stream
    intake: Intake
    dispatcher: Dispatcher
    janitor: Janitor
    buffer: ClaimBuffer
    settler: Settler
    live_workers: Sequence[Worker]
    supervisor: Supervisor
    clock: Clock
    node: str
    started_at_us: int
    recovered: Recovered
    peers: Peers
    transactions: DatabaseTransactions
    controls: Controls
    loop_watch: LoopWatch
    strays: Strays
    handler_threads: DaemonThreads
    faults: HandlerFaults
    alert_failures: Mapping[str, str] = field(default_factory=dict)
    deploy: DeployFindings | None = None
    log_id: str = field(init=False)
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.log_id = self.log.log_id
        self.started = self.clock.elapsed()

    def note_deploy(self, findings: DeployFindings) -> None:
        """Take in what the gate has found."""
        self.deploy = findings

    def deploy_verdicts(self) -> Mapping[str, int]:
        """Return how many open runs the gate has found to meet which fate."""
        return {} if self.deploy is None else self.deploy.verdicts

    # Whether it works

    @property
    def ready(self) -> bool:
        """Whether clients should send events here; a daemon that drains accepts them, but had better be spared."""
        return not self.unready_because()

    def unready_because(self) -> str:
        """Say in words why clients should send no events here; nothing while they should."""
        if closed := self.closed_because():
            return closed
        if self.intake.draining:
            return "draining"
        return "" if self.intake.accepting else "recovering"

    def closed_because(self) -> str:
        """Say in words why the log takes no events; nothing while it does."""
        if not self.log.writable:
            return self.log.reason
        return "the disk is nearly full" if self.intake.disk_low else ""

    async def checks(self) -> list[HealthCheck]:
        """Return one check for each part; only the log can make the daemon unready, all else is `degraded`."""
        closed = self.closed_because()
        log = HealthCheck("log", "down" if closed else "ok", self.log.stats().sync_p50_ms, closed)
        store, stream = await gather(self.check_store(), self.check_stream())
        named = ", ".join(service.name for service in self.services() if service.state in AILING)
        stuck = self.stuck()
        handlers = HealthCheck("handlers", "degraded" if stuck else "ok", 0.0, " ".join(stuck))
        services = HealthCheck("services", "degraded" if named else "ok", 0.0, named)
        unsaid = ", ".join(self.alert_failures)  # why is for those who may read more than this
        alerts = HealthCheck("alerts", "degraded" if unsaid else "ok", 0.0, unsaid)
        return [log, store, stream, services, handlers, alerts]

    async def check_store(self) -> HealthCheck:
        """Ask the store."""
        started = self.clock.monotonic()
        try:
            await wait_for(self.store.ping(), PROBE_SECONDS)
        except (Unavailable, TimeoutError) as error:
            return HealthCheck("store", "degraded", self.milliseconds_since(started), str(error) or "no answer")
        # A full or read-only disk answers every question.
        if (error_of_write := self.store.write_error) is not None:
            detail = f"cannot be written: {error_of_write}"
            return HealthCheck("store", "degraded", self.milliseconds_since(started), detail)
        return HealthCheck("store", "ok", self.milliseconds_since(started))

    async def check_stream(self) -> HealthCheck:
        """Ask the stream."""
        stats = await self.stream_stats()
        warnings = "; ".join(stats.warnings)
        status = "ok" if stats.up and not warnings else "degraded"
        return HealthCheck("stream", status, stats.latency_ms, warnings or ("" if stats.up else "no answer"))

    def milliseconds_since(self, started: float) -> float:
        """Return the milliseconds since a monotonic moment."""
        return (self.clock.monotonic() - started) * 1000

    def issues(self) -> list[str]:
        """Say in words what is wrong with living parts; `stuck` says it of handlers."""
        ailing = [service for service in self.services() if service.state in AILING]
        return [
            *(f"{service.name} is {service.state}: {service.last_error}" for service in ailing),
            *self.controls.in_words(),
            *self.transactions.long_ones,
            *self.store_issues(),
            *self.loop_watch.issues(),
            *self.faults.issues(),
            *self.alert_failures.values(),
            *output.issues(),
        ]

    def store_issues(self) -> list[str]:
        """Say in words what is wrong with the files of the store."""
        issues = []
        if self.store.wal_bytes > WAL_BYTES_MAX:
            size = f"{self.store.wal_bytes >> 20:,} MiB"
            issues.append(f"The store's write-ahead file has grown to {size}: some reader never lets go of it.")
        if self.store.write_error is not None:
            issues.append(f"The store cannot be written: {self.store.write_error}")
        return issues

    def note_alert_failures(self, failures: Mapping[str, str]) -> None:
        """Note which alerts could not be told to their receivers, and why."""
        self.alert_failures = failures

    def disk_free_bytes(self) -> int:
        """Return how much room there is where the log lies."""
        return disk_usage(self.log.storage.directory).free

    def stuck(self) -> list[str]:
        """Say in words which handlers do not end, although their attempts were settled."""
        return self.strays.issues() + self.handler_threads.issues()

    # Its parts

    def services(self) -> list[ServiceStatus]:
        """Return what the supervisor knows of each service, the workers among them."""
        return [service_status(guard) for guard in self.supervisor.guards.values()]

    def workers(self) -> list[WorkerStatus]:
        """Return what each worker does at this moment."""
        return [self.worker_status(worker) for worker in self.live_workers]

    def worker_status(self, worker: Worker) -> WorkerStatus:
        """Return what one worker does."""
        guard = self.supervisor.guards.get(worker.name)
        service = service_status(guard) if guard is not None else ServiceStatus(worker.name, "stopped", 0)
        claimed = self.buffer.running.get(worker.name)
        running = service.state == "running"
        return WorkerStatus(
            name=worker.name,
            state=("busy" if claimed is not None else "idle") if running else service.state,
            event=claimed.event if claimed else None,
            busy_since_us=worker.busy_since_us,
            settled_count=worker.settled_count,
            service=service,
            details=worker.details if claimed else {},
        )

    async def details_of(self, event: StoredEvent) -> Mapping[str, Any]:
        """Return what the handler of an event says of itself while it runs; of another daemon's, what it said last."""
        if event.state is not State.PROCESSING:
            return {}
        for worker in self.live_workers:
            claimed = self.buffer.running.get(worker.name)
            if claimed is not None and claimed.event.id == event.id:
                return worker.details
        reports = [one for peer in await self.list_peers() for one in peer.workers] if self.store.shared else []
        return next((one.details for one in reports if one.event_id == event.id), {})

    async def list_peers(self) -> list[PeerStatus]:
        """Return the other daemons that share the store, or none while it does not answer."""
        known = await self.peers.known_others()
        return [PeerStatus(node, self.peers.alive(node), decode_workers(node.workers)) for node in known]

    def chores(self) -> list[ChoreStatus]:
        """Return the duties of the janitor."""
        chores = self.janitor.chores
        return [ChoreStatus(one.name, one.interval_seconds, one.last_count, one.last_error) for one in chores]

    def log_stats(self) -> LogStats:
        """Describe the log."""
        return self.log.stats()

    def projected_offset(self) -> int:
        """Return up to which offset the log is in the store."""
        return self.dispatcher.projected

    def log_recovery(self) -> RecoveryReport:
        """Return what the log found when it was opened."""
        return self.log.recovery

    async def stream_stats(self) -> StreamStats:
        """Describe the stream."""
        return await self.stream.stats()

    async def store_status(self) -> StoreStatus:
        """Describe the store."""
        store = self.store
        check = await self.check_store()
        return StoreStatus(store.driver.dialect, check, store.wal_bytes, store.schema_version, store.store_id)

    # Its figures

    def up_seconds(self) -> float:
        """Return for how long this process has run."""
        return self.clock.elapsed() - self.started

    def store_wal_bytes(self) -> int:
        """Return the size of the store's write-ahead file."""
        return self.store.wal_bytes

    def attempt_figures(self) -> AttemptFigures:
        """Return how attempts and replays went of late."""
        return self.settler.pace.figures()

    def loop_held(self) -> list[LoopHeld]:
        """Return how often and for how long each handler has held the event loop."""
        watch = self.loop_watch
        return [LoopHeld(handler, watch.count[handler], held) for handler, held in watch.seconds.copy().items()]

    def sync_durations(self) -> Durations:
        """Return how long every sync of the log has taken."""
        return self.log.sync_durations()

    def loop_lags(self) -> Durations:
        """Return how late the event loop was, each time that it was looked at; one that waits for something is not."""
        lags = self.loop_watch.lags.copy()
        lags.counts[0] += self.loop_watch.idle_looks
        return lags

    def running_on(self) -> Mapping[tuple[str, str], int]:
        """Return how many tasks and threads of settled attempts run on, by handler and kind."""
        return self.strays.counts()

    def fault_counts(self) -> Mapping[tuple[str, str], int]:
        """Return how often each handler failed, or did something to others, by handler and kind."""
        return self.faults.counts.copy()


def service_status(guard: Guard) -> ServiceStatus:
    """Return what a guard knows of its service at this moment."""
    return ServiceStatus(
        name=guard.service.name,
        state=guard.state,
        since_us=guard.since_us,
        restarts=guard.restarts,
        last_error=guard.last_error,
        last_error_at_us=guard.last_error_at_us,
        last_traceback=guard.last_traceback,
    )
