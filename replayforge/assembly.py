"""Builds every part of the daemon from the configuration, in the order in which they can rely on each other."""

import contextlib
import random
import secrets
from asyncio import ensure_future, get_running_loop
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

from replayforge import crashpoints
from replayforge.config import Config
from replayforge.domain.clock import Clock, SteadyClock, SystemClock
from replayforge.domain.errors import ReplayForgeError, Unavailable
from replayforge.domain.retry import RetryPolicy
from replayforge.engine.accept.intake import Intake
from replayforge.engine.accept.window import Window
from replayforge.engine.care.controls import Controls
from replayforge.engine.care.heartbeat import Heartbeat, LeaseTimes
from replayforge.engine.care.janitor import Chore, Intervals, Janitor
from replayforge.engine.care.peers import LOOKS_PER_SWEEP, Peers, presence, reporter
from replayforge.engine.care.recount import Recount
from replayforge.engine.care.recovery import rebuild_window, reclaim_former
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.claim_desk import ClaimDesk
from replayforge.engine.dispatch.deferred_claimer import DeferredClaimer
from replayforge.engine.dispatch.dispatcher import Dispatcher
from replayforge.engine.dispatch.handler_limits import HandlerLimits
from replayforge.engine.dispatch.incarnation import IncarnationFile, read_former
from replayforge.engine.dispatch.pause_controller import SORTED_PER_STEP_MAX, PauseController
from replayforge.engine.dispatch.publisher import Publisher
from replayforge.engine.dispatch.reader import Reader
from replayforge.engine.handlers.endpoints import WebhookClient, with_endpoints
from replayforge.engine.handlers.faults import HandlerFaults
from replayforge.engine.handlers.handlers import Handlers
from replayforge.engine.handlers.loading import load_handlers
from replayforge.engine.replay.jobs import ReplayJobs
from replayforge.engine.replay.replayer import Replayer
from replayforge.engine.replay.runner import ReplayRunner
from replayforge.engine.report.convergence import ConvergenceQuery
from replayforge.engine.report.daemon_status import DaemonStatus
from replayforge.engine.report.event_queries import EventQueries
from replayforge.engine.report.handler_report import HandlerReporter
from replayforge.engine.report.metrics_recorder import MetricsRecorder
from replayforge.engine.run.chaos import Chaos
from replayforge.engine.run.deadlines import Deadlines
from replayforge.engine.run.execution import Rules
from replayforge.engine.run.furnishing import Furnishing
from replayforge.engine.run.loop_watch import LoopWatch
from replayforge.engine.run.settler import Settler
from replayforge.engine.run.strays import Strays
from replayforge.engine.run.worker import Worker
from replayforge.forgelog.log import ForgeLog
from replayforge.opening import (
    check_copies,
    logging_telemetry,
    make_directory,
    node_name,
    open_log,
    open_stream,
    remember_log_id,
)
from replayforge.stores.store import Store
from replayforge.streams.stream import Stream
from replayforge.supervisor import Service, Supervisor
from replayforge.telemetry import Telemetry
from replayforge.threads import HANDLER_THREADS_MAX, DaemonThreads, in_thread

DRAIN_SECONDS = 5.0


@dataclass(slots=True)
class Daemon:
    """One running ReplayForge. Everything in it was made by `opened`, which also takes it apart again."""

    config: Config
    clock: Clock
    telemetry: Telemetry
    log: ForgeLog
    store: Store
    stream: Stream
    buffer: ClaimBuffer
    settler: Settler
    intake: Intake
    dispatcher: Dispatcher
    publisher: Publisher
    reader: Reader
    deferred_claimer: DeferredClaimer
    janitor: Janitor
    replayer: Replayer
    replay_jobs: ReplayJobs
    replay_runner: ReplayRunner
    pause_controller: PauseController
    handler_reporter: HandlerReporter
    queries: EventQueries
    convergence: ConvergenceQuery
    status: DaemonStatus
    workers: list[Worker]
    furnishing: Furnishing
    supervisor: Supervisor
    heartbeat: Heartbeat | None
    chaos: Chaos | None
    metrics_recorder: MetricsRecorder
    incarnation_file: IncarnationFile
    loop_watch: LoopWatch

    @property
    def services(self) -> list[str]:
        """The names of the services beside the workers."""
        return [self.dispatcher.name, self.publisher.name, self.reader.name, self.janitor.name, self.replay_runner.name]

    def start(self) -> None:
        """Let every service run and ingest open."""
        self.loop_watch.start()
        hearts = [] if self.heartbeat is None else [self.heartbeat]
        services: list[Service] = [*hearts, self.publisher, self.dispatcher, self.reader, self.janitor]
        services += [self.deferred_claimer, self.replay_runner, *self.workers]
        for service in services:
            self.supervisor.start(service)
        self.intake.open()

    async def stop(self) -> None:
        """Hand back what nobody began, let running handlers finish within the grace period, then close ingest.

        From the beginning readiness says that the daemon stops, so that a balancer goes elsewhere; until the last
        handler has ended events are accepted all the same, and get their rows, which nobody here claims.
        """
        self.intake.drain()
        self.incarnation_file.drain()
        self.telemetry.emit("daemon.draining")
        marking = ensure_future(self.mark_draining())
        claiming = [self.reader.name, self.deferred_claimer.name, self.janitor.name, self.replay_runner.name]
        await self.supervisor.stop(claiming, DRAIN_SECONDS)
        unstarted = self.buffer.close()
        leases = [claimed.lease for claimed in unstarted]
        names = [worker.name for worker in self.workers]
        await self.supervisor.stop(names, self.config.supervisor.grace_seconds)
        self.settler.give_up()
        with contextlib.suppress(ReplayForgeError):
            for worker in self.workers:
                await worker.interrupt()
            await self.settler.finish()
            await self.store.hand_back(leases, self.clock.now_us())
            await self.metrics_recorder.write()
        self.intake.close()
        await self.dispatcher.catch_up(DRAIN_SECONDS)
        await self.supervisor.stop([self.dispatcher.name, self.publisher.name], DRAIN_SECONDS)
        await self.supervisor.stop([Heartbeat.name], DRAIN_SECONDS)
        await marking
        with contextlib.suppress(ReplayForgeError):
            await in_thread(self.log.bind_store, self.store.store_id, self.dispatcher.projected)

    async def mark_draining(self) -> None:
        """Note in the store, durably, that this incarnation was told to stop: what it leaves was interrupted."""
        with contextlib.suppress(ReplayForgeError):
            await self.store.mark_draining(self.clock.now_us())


@contextlib.asynccontextmanager
async def opened(
    config: Config,
    *,
    adopt_store: bool = False,
    handlers: Handlers | None = None,
    clock: Clock | None = None,
    telemetry: Telemetry | None = None,
) -> AsyncIterator[Daemon]:
    """Open log, store and stream, recover, and build every part; close them again at the end.

    Raises Refused with one sentence when something rules a start out.
    """
    clock, telemetry = clock or SystemClock(), telemetry or logging_telemetry()
    if handlers is None:
        handlers = load_handlers(config.handlers.modules)
    webhook_client = WebhookClient(clock)
    handlers = with_endpoints(handlers, config.handlers.http, webhook_client)
    if config.chaos.enabled:
        crashpoints.arm(config.chaos.crash_at)
    node = node_name(make_directory(Path(config.data_dir)))
    incarnation = secrets.token_hex(8)
    async with contextlib.AsyncExitStack() as stack:
        store = await Store.open(config.store.url, node=node, owner=f"{node}/{incarnation}")
        stack.push_async_callback(store.close)
        log = await open_log(config, store, clock, telemetry, adopt_store)
        stack.push_async_callback(log.close)
        await check_copies(log, store, telemetry, adopt_store)
        cursor = await store.open_cursor(log.log_id, incarnation, 0, clock.now_us())
        await in_thread(remember_log_id, Path(config.data_dir), log.log_id)
        await store.register_node(presence(node, incarnation, log, clock.now_us()))
        await in_thread(log.bind_store, store.store_id, cursor, reset=adopt_store)
        stream = open_stream(config, store.store_id, node, telemetry)
        stack.push_async_callback(stream.close)
        stack.push_async_callback(webhook_client.close)
        # A stream that is away now makes itself ready when it comes back; events are accepted meanwhile.
        with contextlib.suppress(Unavailable):
            await stream.open()
        parts = Parts(config, node, incarnation, clock, telemetry, random.Random(), log, store, stream, handlers)
        daemon = await build(parts, cursor)
        stack.callback(daemon.loop_watch.stop)
        stack.callback(daemon.incarnation_file.close)
        yield daemon


@dataclass(frozen=True, slots=True)
class Parts:
    """What is open before the engine is built on it."""

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


async def build(parts: Parts, cursor: int) -> Daemon:
    """Recover what a former incarnation left, and build the engine."""
    config, clock, telemetry, store = parts.config, parts.clock, parts.telemetry, parts.store
    # Where one process has the store for itself, whatever is in processing was left by one that is gone.
    owner_prefix = f"{parts.node}/" if store.shared else ""
    metrics_recorder = MetricsRecorder(store, clock, telemetry)
    if not parts.log.recovery.clean and parts.log.recovery.last_offset > 0:
        metrics_recorder.note_restart(1, {})
    directory = Path(config.data_dir)
    former = read_former(directory)
    recovered = await reclaim_former(store, parts.handlers, clock, telemetry, owner_prefix, former)
    incarnation_file = IncarnationFile.create(directory, store.owner, clock)
    await store.forget_draining(owner_prefix, clock.now_us())
    window = Window(config.ingest.backlog_events_max)
    unprojected = rebuild_window(parts.log, window, cursor)
    publisher = Publisher(store, parts.stream, telemetry)
    intake = Intake(parts.log, store, window, clock, telemetry, keys_seconds=config.retention.keys_seconds)
    lease_seconds = config.workers.lease_seconds
    handler_limits = HandlerLimits(parts.handlers, clock, telemetry, lingering_max=config.workers.count)
    buffer = ClaimBuffer(
        clock,
        workers=config.workers.count,
        lease_seconds=lease_seconds if store.shared else None,
        left=handler_limits.release,
    )
    desk = ClaimDesk(store, buffer, handler_limits, publisher, clock, telemetry)
    pause_controller = PauseController(store, buffer, handler_limits, desk, clock, telemetry)
    await pause_controller.look()
    dispatcher = Dispatcher(
        parts.log,
        store,
        window,
        desk,
        clock,
        telemetry,
        incarnation=parts.incarnation,
        projected=cursor,
    )
    settler = Settler(store, buffer, telemetry)
    chaos = build_chaos(config, telemetry, parts.rng)
    furnishing = Furnishing(
        get_running_loop(),
        DaemonThreads(HANDLER_THREADS_MAX, "handlers"),
        telemetry,
        lambda: bool(buffer.running),
    )
    furnishing.install()
    strays = Strays(buffer, handler_limits, furnishing.threads, clock, telemetry)
    workers = build_workers(parts, buffer, handler_limits, settler, publisher, strays, furnishing, chaos)
    reader = Reader(
        parts.stream,
        store,
        buffer,
        desk,
        incarnation_file,
        clock,
        telemetry,
        solo_seconds=config.workers.solo_seconds,
    )
    deferred_claimer = DeferredClaimer(store, buffer, handler_limits, desk, clock, telemetry)
    heartbeat = build_heartbeat(parts, buffer, workers)
    peers = Peers(
        store,
        parts.stream,
        publisher,
        parts.handlers,
        lambda: None if heartbeat is None else heartbeat.beating_since,
        clock,
        telemetry,
        lease_seconds=lease_seconds,
        sweep_seconds=config.janitor.sweep_seconds,
    )
    controls = Controls(
        store, desk.look_for_suspects, peers.others, clock, telemetry, least_seconds=config.workers.control_seconds
    )
    recount = Recount(store, clock)
    replay_runner = ReplayRunner(store, publisher, clock, telemetry)
    replay_jobs = ReplayJobs(store, replay_runner.wake, clock, telemetry)
    janitor = Janitor(
        parts.log,
        store,
        parts.stream,
        clock,
        telemetry,
        intervals=intervals(config),
        rng=parts.rng,
        projected=lambda: dispatcher.projected,
        publish=publisher.offer,
        note_disk=intake.note_disk,
        store_now_us=(peers.store_clock if store.shared else parts.log.steady_clock).now_us,
        further_chores=[
            Chore("refill", config.janitor.refill_seconds, publisher.look),
            Chore("sweep", config.janitor.sweep_seconds, desk.sweep),
            Chore("recount", config.janitor.disk_seconds, recount.look),
            *shared_chores(
                config, peers, controls, pause_controller, replay_jobs, metrics_recorder, parts.log.steady_clock
            ),
        ],
    )
    supervisor = Supervisor(
        clock,
        telemetry,
        restarts_max=config.supervisor.restarts_max,
        restart_window_seconds=config.supervisor.restart_window_seconds,
        rng=parts.rng,
    )
    loop_watch = LoopWatch(parts.handlers, telemetry)
    faults = HandlerFaults(parts.handlers)
    telemetry.listen(faults.listen)
    status = DaemonStatus(
        log=parts.log,
        store=store,
        stream=parts.stream,
        intake=intake,
        dispatcher=dispatcher,
        janitor=janitor,
        buffer=buffer,
        settler=settler,
        live_workers=workers,
        supervisor=supervisor,
        clock=clock,
        node=parts.node,
        started_at_us=clock.now_us(),
        recovered=replace(recovered, unprojected=unprojected),
        peers=peers,
        controls=controls,
        loop_watch=loop_watch,
        strays=strays,
        handler_threads=furnishing.threads,
        faults=faults,
    )
    convergence = ConvergenceQuery(
        log=parts.log,
        store=store,
        recount=recount,
        peers=peers,
        handler_limits=handler_limits,
        status=status,
        clock=clock,
    )
    rules = workers[0].rules
    return Daemon(
        config=config,
        clock=clock,
        telemetry=telemetry,
        log=parts.log,
        store=store,
        stream=parts.stream,
        buffer=buffer,
        settler=settler,
        intake=intake,
        dispatcher=dispatcher,
        publisher=publisher,
        reader=reader,
        deferred_claimer=deferred_claimer,
        janitor=janitor,
        replayer=Replayer(store, publisher, clock, telemetry),
        replay_jobs=replay_jobs,
        replay_runner=replay_runner,
        pause_controller=pause_controller,
        handler_reporter=HandlerReporter(store, buffer, handler_limits, rules),
        queries=EventQueries(store, intake, parts.handlers, rules.retry, clock),
        convergence=convergence,
        status=status,
        workers=workers,
        furnishing=furnishing,
        supervisor=supervisor,
        heartbeat=heartbeat,
        chaos=chaos,
        metrics_recorder=metrics_recorder,
        incarnation_file=incarnation_file,
        loop_watch=loop_watch,
    )


def build_heartbeat(parts: Parts, buffer: ClaimBuffer, workers: list[Worker]) -> Heartbeat | None:
    """Return the heartbeat of a daemon that shares its store; one that has it for itself needs none."""
    if not parts.store.shared:
        return None
    report = reporter(parts.node, parts.incarnation, parts.log, workers, buffer, parts.clock.now_us())
    chosen = parts.config.workers
    pace = LeaseTimes(chosen.heartbeat_seconds, chosen.lease_seconds, chosen.handler_timeout_seconds)
    return Heartbeat(parts.store, buffer, workers, parts.handlers, report, parts.clock, parts.telemetry, pace)


def shared_chores(
    config: Config,
    peers: Peers,
    controls: Controls,
    pause_controller: PauseController,
    replay_jobs: ReplayJobs,
    metrics_recorder: MetricsRecorder,
    steady_clock: SteadyClock,
) -> list[Chore]:
    """Return the janitor's chores that concern other daemons, or what all daemons share."""
    seconds = config.janitor
    kept_seconds = config.retention.dead_seconds
    return [
        Chore("take_over", seconds.sweep_seconds / LOOKS_PER_SWEEP, peers.take_over),
        Chore("look_at_suspects", seconds.refill_seconds, controls.look),
        Chore("look_at_handlers", seconds.refill_seconds, pause_controller.look),
        Chore("clear_the_way", seconds.refill_seconds, pause_controller.clear_the_way, SORTED_PER_STEP_MAX),
        Chore("remove_dead_consumers", seconds.stream_reclaim_seconds, peers.remove_dead_consumers),
        Chore(
            "retire_replays", seconds.retention_seconds, lambda: replay_jobs.retire(steady_clock.now_us(), kept_seconds)
        ),
        Chore("write_metrics", seconds.metrics_seconds, metrics_recorder.write),
        Chore("retire_metrics", seconds.retention_seconds, lambda: metrics_recorder.retire(steady_clock.now_us())),
        Chore("forget_nodes", seconds.retention_seconds, peers.forget_nodes),
        Chore("long_transactions", seconds.disk_seconds, peers.look_for_long_transactions),
    ]


def build_chaos(config: Config, telemetry: Telemetry, rng: random.Random) -> Chaos | None:
    """Return what simulates crashes, or None while that is off."""
    rates = config.chaos
    if not rates.enabled:
        return None
    return Chaos(telemetry, rng, rates.fail_rate, rates.crash_rate, rates.exit_rate)


def build_workers(
    parts: Parts,
    buffer: ClaimBuffer,
    handler_limits: HandlerLimits,
    settler: Settler,
    publisher: Publisher,
    strays: Strays,
    furnishing: Furnishing,
    chaos: Chaos | None,
) -> list[Worker]:
    """Return as many workers as are configured."""
    retry = parts.config.retry
    policy = RetryPolicy(retry.max_attempts, retry.base_seconds, retry.factor, retry.max_seconds, retry.jitter)
    rules = Rules(policy, parts.config.workers.handler_timeout_seconds, parts.clock, parts.rng, Deadlines())
    return [
        Worker(
            f"worker-{number}",
            buffer,
            parts.handlers,
            handler_limits,
            settler,
            parts.store,
            publisher,
            rules,
            parts.telemetry,
            strays,
            furnishing,
            chaos,
        )
        for number in range(1, parts.config.workers.count + 1)
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
        keys_kept_seconds=config.retention.keys_seconds,
    )
