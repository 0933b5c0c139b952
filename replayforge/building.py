"""Builds the engine in the order in which its parts rely on each other: claim, run, care, report."""

import random
from asyncio import get_running_loop
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from msgspec.structs import asdict

from replayforge import crashpoints
from replayforge.config import Config
from replayforge.domain.clock import Clock, to_us
from replayforge.domain.journal import WAITED_IN_PLACE_SECONDS
from replayforge.domain.lane import LaneRule, Lanes
from replayforge.domain.retry import RetryPolicy
from replayforge.domain.schedule import Schedule
from replayforge.domain.webhook_source import Source
from replayforge.engine.accept.intake import Intake
from replayforge.engine.accept.scheduler import Scheduler
from replayforge.engine.accept.sources import Sources
from replayforge.engine.accept.window import Window
from replayforge.engine.care.controls import Controls
from replayforge.engine.care.daemon_report import reporter
from replayforge.engine.care.database_transactions import DatabaseTransactions
from replayforge.engine.care.heartbeat import Heartbeat, LeaseTimes
from replayforge.engine.care.janitor import Chore, Intervals, Janitor
from replayforge.engine.care.peers import LOOKS_PER_SWEEP, Peers
from replayforge.engine.care.recount import Recount
from replayforge.engine.care.startup_recovery import Recovered, rebuild_window, reclaim_former
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.claim_desk import ClaimDesk
from replayforge.engine.dispatch.deferred_claimer import DeferredClaimer
from replayforge.engine.dispatch.dispatcher import Dispatcher
from replayforge.engine.dispatch.handler_limits import HandlerLimits
from replayforge.engine.dispatch.incarnation import IncarnationFile, read_former
from replayforge.engine.dispatch.pause_controller import SORTED_PER_STEP_MAX, PauseController
from replayforge.engine.dispatch.publisher import Publisher
from replayforge.engine.dispatch.reader import Reader
from replayforge.engine.dispatch.releaser import Releaser
from replayforge.engine.handlers.faults import KINDS, HandlerFaults
from replayforge.engine.handlers.registry import Handlers
from replayforge.engine.replay.jobs import ReplayJobs
from replayforge.engine.replay.runner import ReplayRunner
from replayforge.engine.report.alert_delivery import ConfiguredAlert
from replayforge.engine.report.alerter import Alerter
from replayforge.engine.report.convergence import ConvergenceQuery
from replayforge.engine.report.daemon_status import DaemonStatus
from replayforge.engine.report.event_queries import EventQueries
from replayforge.engine.report.handler_report import HandlerReporter
from replayforge.engine.report.metrics_recorder import MetricsRecorder
from replayforge.engine.report.why import WhyQuery
from replayforge.engine.run.attempt import AttemptEnvironment
from replayforge.engine.run.chaos import Chaos
from replayforge.engine.run.children import Children
from replayforge.engine.run.deadlines import Deadlines
from replayforge.engine.run.execution import Rules, opened
from replayforge.engine.run.interpreter_guard import InterpreterGuard
from replayforge.engine.run.journal_records import JournalLimits, JournalTools
from replayforge.engine.run.loop_watch import LoopWatch
from replayforge.engine.run.recorder import Recorder
from replayforge.engine.run.settler import Settler
from replayforge.engine.run.strays import Strays
from replayforge.engine.run.worker import MayGoOn, Worker
from replayforge.forgelog.log import ForgeLog
from replayforge.shadow.deploy_check import Code
from replayforge.shadow.gate import DeployGate
from replayforge.shadow.replayed import Job
from replayforge.stores.store import Store
from replayforge.streams.stream import Stream
from replayforge.supervisor import Supervisor
from replayforge.telemetry import Telemetry
from replayforge.threads import HANDLER_THREADS_MAX, DaemonThreads
from replayforge.tracing import Tracer


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    """What is open before the engine is built on it. `cursor` is the log offset up to which events have rows.

    A `guest` leaves loop and interpreter as they are. Its clock is moved by somebody, so nothing waits beside it.
    """

    config: Config
    node: str
    incarnation: str
    clock: Clock
    telemetry: Telemetry
    rng: random.Random
    log: ForgeLog
    store: Store
    stream: Stream
    handlers: Handlers
    sources: list[Source]
    lanes: Lanes
    schedules: list[Schedule]
    alerts: list[ConfiguredAlert]
    cursor: int
    guest: bool = False
    tracer: Tracer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """What the former incarnation left, and what this one leaves to the next."""

    metrics_recorder: MetricsRecorder
    recovered: Recovered
    incarnation_file: IncarnationFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Claiming:
    """From a request to a claimed event. `unprojected` is how many events of the log had no row yet."""

    intake: Intake
    sources: Sources
    scheduler: Scheduler
    publisher: Publisher
    handler_limits: HandlerLimits
    buffer: ClaimBuffer
    desk: ClaimDesk
    pause_controller: PauseController
    dispatcher: Dispatcher
    reader: Reader
    deferred_claimer: DeferredClaimer
    releaser: Releaser | None
    unprojected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """From a claimed event to a committed outcome."""

    rules: Rules
    recorder: Recorder
    children: Children
    settler: Settler
    interpreter_guard: InterpreterGuard
    strays: Strays
    loop_watch: LoopWatch
    environment: AttemptEnvironment
    workers: list[Worker]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caring:
    """What keeps the promises while the rest works: leases, chores, peers, bulk replays."""

    heartbeat: Heartbeat | None
    peers: Peers
    transactions: DatabaseTransactions
    controls: Controls
    recount: Recount
    replay_runner: ReplayRunner
    replay_jobs: ReplayJobs
    janitor: Janitor
    supervisor: Supervisor


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporting:
    """What the daemon tells of itself."""

    status: DaemonStatus
    convergence: ConvergenceQuery
    queries: EventQueries
    why: WhyQuery
    handler_reporter: HandlerReporter
    alerter: Alerter


async def recover(base: Foundation) -> Restart:
    """Take back what a former incarnation held, and begin this one; counts what it does from the beginning."""
    store, clock, telemetry = base.store, base.clock, base.telemetry
    crashpoints.reach("recovery.opened")
    metrics_recorder = MetricsRecorder(store, clock, telemetry)
    if not base.log.recovery.clean and base.log.recovery.last_offset > 0:
        metrics_recorder.note_restart(1, {})
    # Where one process has the store for itself, whatever is in processing was left by one that is gone.
    owner_prefix = f"{base.node}/" if store.shared else ""
    directory = Path(base.config.data_dir)
    recovered = await reclaim_former(store, base.handlers, clock, telemetry, owner_prefix, read_former(directory))
    incarnation_file = IncarnationFile.create(directory, store.owner, clock)
    await store.forget_draining(owner_prefix, clock.now_us())
    return Restart(metrics_recorder=metrics_recorder, recovered=recovered, incarnation_file=incarnation_file)


def lanes_of(config: Config) -> Lanes:
    """Return the lanes that the configuration names."""
    return Lanes([LaneRule(one.match, one.key, one.rules()) for one in config.lanes])


async def build_releaser(base: Foundation, desk: ClaimDesk) -> Releaser | None:
    """Sort open events into lanes, where these have changed, and return who releases them; None without any lanes."""
    moved = await base.store.sort_lanes(base.lanes)
    if moved is None:
        return None
    if moved:
        base.telemetry.emit("lanes.sorted", moved)
    releaser = Releaser(base.store, base.lanes, desk.hand_on, base.clock, base.telemetry)
    base.store.call_when_lanes_move(releaser.wake.set)
    return releaser


async def build_claiming(base: Foundation, incarnation_file: IncarnationFile) -> Claiming:
    """Build what accepts, dispatches and claims; the window already holds what has no row yet."""
    config, store, clock, telemetry = base.config, base.store, base.clock, base.telemetry
    workers = config.workers
    window = Window(config.ingest.backlog_events_max)
    unprojected = rebuild_window(base.log, window, base.cursor)
    crashpoints.reach("recovery.rebuilt")
    publisher = Publisher(store, base.stream, telemetry)
    limits = HandlerLimits(base.handlers, clock, telemetry, lingering_max=workers.count)
    lease_seconds = workers.lease_seconds if store.shared else None
    buffer = ClaimBuffer(clock, workers=workers.count, lease_seconds=lease_seconds, left=limits.release)
    desk = ClaimDesk(store, buffer, limits, publisher, clock, telemetry)
    desk.prefer(to_us(config.deploy.prefer_seconds))
    intake = Intake(base.log, store, window, clock, telemetry, keys_seconds=config.retention.keys_seconds)
    scheduler = Scheduler(base.schedules, store, intake.accept_slots, clock, telemetry)
    bytes_max = config.server.event_bytes_max
    return Claiming(
        intake=intake,
        sources=Sources(base.sources, store, intake.accept_from, clock, telemetry, event_bytes_max=bytes_max),
        scheduler=scheduler,
        publisher=publisher,
        handler_limits=limits,
        buffer=buffer,
        desk=desk,
        pause_controller=PauseController(store, buffer, limits, desk, clock, telemetry),
        dispatcher=Dispatcher(
            base.log,
            store,
            window,
            desk,
            clock,
            telemetry,
            incarnation=base.incarnation,
            projected=base.cursor,
            signals=base.handlers.signals,
            lane_of=base.lanes.lane_of if base.lanes else None,
            subscribers=base.handlers.subscribers if base.handlers.has_subscribers else None,
            exclusive=scheduler.exclusive,
        ),
        reader=Reader(
            base.stream, store, buffer, desk, incarnation_file, clock, telemetry, solo_seconds=workers.solo_seconds
        ),
        deferred_claimer=DeferredClaimer(store, buffer, limits, desk, clock, telemetry),
        releaser=await build_releaser(base, desk),
        unprojected=unprojected,
    )


def build_running(base: Foundation, claiming: Claiming) -> Running:
    """Build the workers and what they share; from now on user code finds what it may use."""
    config, telemetry, buffer, limits = base.config, base.telemetry, claiming.buffer, claiming.handler_limits
    threads = DaemonThreads(HANDLER_THREADS_MAX, "handlers")
    interpreter_guard = InterpreterGuard(get_running_loop(), threads, telemetry, lambda: bool(buffer.running))
    if not base.guest:
        interpreter_guard.install()
    retry = config.retry
    policy = RetryPolicy(retry.max_attempts, retry.base_seconds, retry.factor, retry.max_seconds, retry.jitter)
    deadlines, recorder = Deadlines(), Recorder(base.store, base.clock, telemetry)
    children = Children(claiming.intake.accept_child, claiming.dispatcher.wait_projected, telemetry)
    journals = JournalTools(
        recorder=recorder,
        children=children,
        is_signal=base.handlers.is_signal,
        subscribers=base.handlers.subscribers,
        leases=buffer.leases,
        deadlines=deadlines,
        clock=base.clock,
        rng=base.rng,
        limits=JournalLimits(**asdict(config.journal)),
        # Where a test moves the clock nothing passes by itself.
        in_place_seconds=0.0 if base.guest else WAITED_IN_PLACE_SECONDS,
        telemetry=telemetry,
    )
    seconds = config.workers.handler_timeout_seconds
    rules = Rules(policy, seconds, base.clock, base.rng, deadlines, journals)
    settler = Settler(base.store, buffer, claiming.publisher, telemetry)
    strays = Strays(buffer, limits, threads, base.clock, telemetry)
    environment = AttemptEnvironment(
        may_begin=buffer.leases.begin,
        restore=interpreter_guard.restore,
        open_journal=partial(opened, rules),
        tracer=base.tracer,
        chaos=build_chaos(config, telemetry, base.rng),
    )
    workers = [
        Worker(
            f"worker-{number}",
            buffer=buffer,
            handlers=base.handlers,
            handler_limits=limits,
            settler=settler,
            store=base.store,
            publisher=claiming.publisher,
            rules=rules,
            telemetry=telemetry,
            strays=strays,
            interpreter_guard=interpreter_guard,
            environment=environment,
        )
        for number in range(1, config.workers.count + 1)
    ]
    return Running(
        rules=rules,
        recorder=recorder,
        children=children,
        settler=settler,
        interpreter_guard=interpreter_guard,
        strays=strays,
        loop_watch=LoopWatch(base.handlers, telemetry),
        environment=environment,
        workers=workers,
    )


def build_chaos(config: Config, telemetry: Telemetry, rng: random.Random) -> Chaos | None:
    """Return what simulates crashes, or None while that is off."""
    rates = config.chaos
    if not rates.enabled:
        return None
    return Chaos(telemetry, rng, rates.fail_rate, rates.crash_rate, rates.exit_rate)


def build_caring(base: Foundation, claiming: Claiming, running: Running, metrics_recorder: MetricsRecorder) -> Caring:
    """Build what renews leases, does the chores, knows the peers and replays in bulk, and who restarts it all."""
    config, store, clock, telemetry = base.config, base.store, base.clock, base.telemetry
    heartbeat = build_heartbeat(base, claiming.buffer, running.workers)
    peers = Peers(
        store,
        base.stream,
        claiming.publisher,
        base.handlers,
        lambda: None if heartbeat is None else heartbeat.beating_since,
        claiming.desk.see_labels,
        claiming.desk.note_others,
        clock,
        telemetry,
        log_id=base.log.log_id,
        lease_seconds=config.workers.lease_seconds,
        sweep_seconds=config.janitor.sweep_seconds,
    )
    suspects, least_seconds = claiming.desk.look_for_suspects, config.workers.control_seconds
    controls = Controls(store, suspects, peers.others, clock, telemetry, least_seconds=least_seconds)
    recount, transactions = Recount(store, clock), DatabaseTransactions(store, telemetry)
    replay_runner = ReplayRunner(store, claiming.publisher, base.handlers.signals, clock, telemetry)
    replay_jobs = ReplayJobs(store, replay_runner.wake, clock, telemetry)
    chores = [
        *own_chores(config, claiming, recount),
        *shared_chores(base, claiming.pause_controller, peers, transactions, controls, replay_jobs, metrics_recorder),
    ]
    janitor = build_janitor(base, claiming, peers, chores)
    supervisor = Supervisor(
        clock,
        telemetry,
        restarts_max=config.supervisor.restarts_max,
        restart_window_seconds=config.supervisor.restart_window_seconds,
        rng=base.rng,
    )
    return Caring(
        heartbeat=heartbeat,
        peers=peers,
        transactions=transactions,
        controls=controls,
        recount=recount,
        replay_runner=replay_runner,
        replay_jobs=replay_jobs,
        janitor=janitor,
        supervisor=supervisor,
    )


def build_heartbeat(base: Foundation, buffer: ClaimBuffer, workers: list[Worker]) -> Heartbeat | None:
    """Return the heartbeat of a daemon that shares its store; one that has it for itself needs none."""
    open_store = base.store.beside
    if open_store is None:
        return None
    labels = base.handlers.labels
    report = reporter(base.node, base.incarnation, base.log, workers, buffer, base.clock.now_us(), labels)
    chosen = base.config.workers
    pace = LeaseTimes(chosen.heartbeat_seconds, chosen.lease_seconds, chosen.handler_timeout_seconds)
    return Heartbeat(open_store, buffer, workers, base.handlers, report, base.clock, base.telemetry, pace)


def build_janitor(base: Foundation, claiming: Claiming, peers: Peers, chores: list[Chore]) -> Janitor:
    """Return the janitor, with chores beside its own; a shared store has a clock of its own."""
    return Janitor(
        base.log,
        base.store,
        base.stream,
        base.clock,
        base.telemetry,
        intervals=intervals(base.config),
        rng=base.rng,
        projected=lambda: claiming.dispatcher.projected,
        publish=claiming.publisher.offer,
        note_disk=claiming.intake.note_disk,
        store_now_us=(peers.store_clock if base.store.shared else base.log.steady_clock).now_us,
        signals=base.handlers.signals,
        further_chores=chores,
    )


def own_chores(config: Config, claiming: Claiming, recount: Recount) -> list[Chore]:
    """Return the chores that concern what this process holds."""
    seconds = config.janitor
    return [
        Chore("refill", seconds.refill_seconds, claiming.publisher.refill_if_low),
        Chore("sweep", seconds.sweep_seconds, claiming.desk.sweep),
        Chore("recount", seconds.disk_seconds, recount.look),
        *([Chore("look_for_paced", seconds.refill_seconds, claiming.desk.look_for_paced)] if claiming.releaser else []),
        *([Chore("look_at_sources", seconds.refill_seconds, claiming.sources.look)] if config.sources else []),
    ]


def shared_chores(
    base: Foundation,
    pause_controller: PauseController,
    peers: Peers,
    transactions: DatabaseTransactions,
    controls: Controls,
    replay_jobs: ReplayJobs,
    metrics_recorder: MetricsRecorder,
) -> list[Chore]:
    """Return the janitor's chores that concern other daemons, or what all daemons share."""
    seconds, now_us = base.config.janitor, base.log.steady_clock.now_us
    kept_seconds = base.config.retention.dead_seconds
    stalled = Chore("end_stalled_transactions", seconds.sweep_seconds, transactions.end_stalled)
    return [
        *([stalled] if base.store.shared else []),
        Chore("take_over", seconds.sweep_seconds / LOOKS_PER_SWEEP, peers.take_over),
        Chore("look_at_suspects", seconds.refill_seconds, controls.look),
        Chore("look_at_handlers", seconds.refill_seconds, pause_controller.look),
        Chore("clear_the_way", seconds.refill_seconds, pause_controller.clear_the_way, SORTED_PER_STEP_MAX),
        Chore("remove_dead_consumers", seconds.stream_reclaim_seconds, peers.remove_dead_consumers),
        Chore("retire_replays", seconds.retention_seconds, lambda: replay_jobs.retire(now_us(), kept_seconds)),
        Chore("write_metrics", seconds.metrics_seconds, metrics_recorder.write),
        Chore("retire_metrics", seconds.retention_seconds, lambda: metrics_recorder.retire(now_us())),
        Chore("forget_nodes", seconds.retention_seconds, peers.forget_nodes),
        Chore("long_transactions", seconds.disk_seconds, transactions.look_for_long),
    ]


def intervals(config: Config) -> Intervals:
    """Return the intervals of the janitor's chores."""
    chores = config.janitor
    return Intervals(
        promote_seconds=chores.promote_seconds,
        refill_seconds=chores.refill_seconds,
        stream_reclaim_seconds=chores.stream_reclaim_seconds,
        stream_idle_seconds=chores.stream_idle_seconds,
        retention_seconds=chores.retention_seconds,
        mirror_seconds=chores.mirror_seconds,
        disk_seconds=chores.disk_seconds,
        disk_free_bytes_min=config.log.disk_free_bytes_min,
        succeeded_kept_seconds=config.retention.succeeded_seconds,
        dead_kept_seconds=config.retention.dead_seconds,
        signals_kept_seconds=config.retention.kept_seconds,
        keys_kept_seconds=config.retention.keys_seconds,
    )


def build_reporting(
    base: Foundation, restart: Restart, claiming: Claiming, running: Running, caring: Caring
) -> Reporting:
    """Build what answers questions; it looks at all the rest and changes nothing."""
    faults = HandlerFaults(base.handlers)
    base.telemetry.listen(faults.listen, KINDS)
    status = DaemonStatus(
        log=base.log,
        store=base.store,
        stream=base.stream,
        intake=claiming.intake,
        dispatcher=claiming.dispatcher,
        janitor=caring.janitor,
        buffer=claiming.buffer,
        settler=running.settler,
        live_workers=running.workers,
        supervisor=caring.supervisor,
        clock=base.clock,
        node=base.node,
        started_at_us=base.clock.now_us(),
        recovered=replace(restart.recovered, unprojected=claiming.unprojected),
        peers=caring.peers,
        transactions=caring.transactions,
        controls=caring.controls,
        loop_watch=running.loop_watch,
        strays=running.strays,
        handler_threads=running.interpreter_guard.threads,
        faults=faults,
    )
    convergence = ConvergenceQuery(
        log=base.log,
        store=base.store,
        recount=caring.recount,
        peers=caring.peers,
        handler_limits=claiming.handler_limits,
        status=status,
        clock=base.clock,
    )
    queries = EventQueries(base.store, claiming.intake, base.handlers, running.rules.retry, base.clock)
    reporter = HandlerReporter(base.store, claiming.buffer, claiming.handler_limits, running.rules)
    alerter = Alerter(base.alerts, base.store, convergence, status, base.clock, base.telemetry)
    why = WhyQuery(queries, claiming.handler_limits, status, claiming.dispatcher, base.clock)
    return Reporting(
        status=status, convergence=convergence, queries=queries, why=why, handler_reporter=reporter, alerter=alerter
    )


def build_gate(base: Foundation, claiming: Claiming, running: Running, reporting: Reporting) -> DeployGate | None:
    """Build what holds open runs against the code of this start, where there is any that can be tried apart."""
    config = base.config
    if config.deploy.gate == "off" or not config.handlers.modules:
        return None
    signals, seconds = config.handlers.signals, config.workers.handler_timeout_seconds

    def ask_first(may_go_on: MayGoOn | None) -> None:
        for worker in running.workers:
            worker.ask_first(may_go_on)

    return DeployGate(
        base.store,
        Code(
            Job(config.handlers.modules, signals=signals, timeout_seconds=seconds),
            tuple(one.match for one in config.handlers.http),
        ),
        base.clock,
        base.telemetry,
        mode=config.deploy.gate,
        lease_seconds=config.workers.lease_seconds,
        report=reporting.status.note_deploy,
        offer=claiming.publisher.offer,
        ask_first=ask_first,
    )
