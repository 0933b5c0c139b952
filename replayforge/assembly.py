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
from replayforge.engine.chaos import Chaos
from replayforge.engine.chronicler import Chronicler
from replayforge.engine.controls import Controls
from replayforge.engine.deadlines import Deadlines
from replayforge.engine.dispatcher import Dispatcher
from replayforge.engine.doorkeeper import SORTED_PER_STEP_MAX, Doorkeeper
from replayforge.engine.endpoints import Courier, with_endpoints
from replayforge.engine.execution import Rules
from replayforge.engine.faults import HandlerFaults
from replayforge.engine.furnishing import Furnishing
from replayforge.engine.gates import Gates
from replayforge.engine.handler_report import HandlerReporter
from replayforge.engine.handlers import Handlers
from replayforge.engine.heartbeat import Heartbeat, Pace
from replayforge.engine.incarnation import IncarnationFile, read_former
from replayforge.engine.intake import Intake
from replayforge.engine.janitor import Chore, Intervals, Janitor
from replayforge.engine.loading import load_handlers
from replayforge.engine.loop_watch import LoopWatch
from replayforge.engine.nodes import LOOKS_PER_SWEEP, Neighbours, presence, reporter
from replayforge.engine.overview import Overview
from replayforge.engine.publisher import Publisher
from replayforge.engine.reader import Reader
from replayforge.engine.recaller import Recaller
from replayforge.engine.recount import Recount
from replayforge.engine.recovery import rebuild_window, reclaim_former
from replayforge.engine.replay_jobs import ReplayJobs
from replayforge.engine.replay_runner import ReplayRunner
from replayforge.engine.replayer import Replayer
from replayforge.engine.settler import Settler
from replayforge.engine.strays import Strays
from replayforge.engine.window import Window
from replayforge.engine.workbench import Workbench
from replayforge.engine.worker import Worker
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
    bench: Workbench
    settler: Settler
    intake: Intake
    dispatcher: Dispatcher
    publisher: Publisher
    reader: Reader
    recaller: Recaller
    janitor: Janitor
    replayer: Replayer
    replay_jobs: ReplayJobs
    replay_runner: ReplayRunner
    doorkeeper: Doorkeeper
    handler_reporter: HandlerReporter
    overview: Overview
    workers: list[Worker]
    furnishing: Furnishing
    supervisor: Supervisor
    heartbeat: Heartbeat | None
    chaos: Chaos | None
    chronicler: Chronicler
    incarnation_file: IncarnationFile
    loop_watch: LoopWatch
    url: str = ""

    @property
    def services(self) -> list[str]:
        """The names of the services beside the workers."""
        return [self.dispatcher.name, self.publisher.name, self.reader.name, self.janitor.name, self.replay_runner.name]

    def start(self) -> None:
        """Let every service run and the door open."""
        self.loop_watch.start()
        hearts = [] if self.heartbeat is None else [self.heartbeat]
        services: list[Service] = [*hearts, self.publisher, self.dispatcher, self.reader, self.janitor]
        services += [self.recaller, self.replay_runner, *self.workers]
        for service in services:
            self.supervisor.start(service)
        self.intake.accepting = True

    async def stop(self) -> None:
        """Hand back what nobody began, let running handlers finish within the grace period, then close the door.

        From the beginning readiness says that the daemon stops, so that a balancer goes elsewhere; until the last
        handler has ended events are accepted all the same, and get their rows, which nobody here claims.
        """
        self.intake.draining = True
        self.incarnation_file.drain()
        self.telemetry.emit("daemon.draining")
        marking = ensure_future(self.mark_draining())
        claiming = [self.reader.name, self.recaller.name, self.janitor.name, self.replay_runner.name]
        await self.supervisor.stop(claiming, DRAIN_SECONDS)
        unstarted = self.bench.close()
        leases = [(claimed.event.seq, claimed.event.lease_token) for claimed in unstarted]
        names = [worker.name for worker in self.workers]
        await self.supervisor.stop(names, self.config.supervisor.grace_seconds)
        self.settler.giving_up.set()
        with contextlib.suppress(ReplayForgeError):
            for worker in self.workers:
                await worker.interrupt()
            await self.settler.finish()
            await self.store.hand_back(leases, self.clock.now_us())
            await self.chronicler.write()
        self.intake.accepting = False
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
    courier = Courier(clock)
    handlers = with_endpoints(handlers, config.handlers.http, courier)
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
        stack.push_async_callback(courier.close)
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
    chronicler = Chronicler(store, clock, telemetry)
    if not parts.log.recovery.clean and parts.log.recovery.last_offset > 0:
        chronicler.note_restart(1, {})
    directory = Path(config.data_dir)
    former = read_former(directory)
    recovered = await reclaim_former(store, parts.handlers, clock, telemetry, owner_prefix, former)
    incarnation_file = IncarnationFile.create(directory, store.owner, clock)
    await store.forget_draining(owner_prefix, clock.now_us())
    window = Window(config.ingest.backlog_events_max)
    waiting = rebuild_window(parts.log, window, cursor)
    publisher = Publisher(store, parts.stream, telemetry)
    intake = Intake(parts.log, store, window, clock, telemetry, keys_seconds=config.retention.keys_seconds)
    lease_seconds = config.workers.lease_seconds
    bench = Workbench(clock, workers=config.workers.count, lease_seconds=lease_seconds if store.shared else None)
    gates = Gates(parts.handlers, clock, telemetry, lingering_max=config.workers.count)
    bench.left = gates.leave
    doorkeeper = Doorkeeper(store, bench, gates, publisher, clock, telemetry)
    await doorkeeper.look()
    dispatcher = Dispatcher(
        parts.log,
        store,
        window,
        publisher,
        bench,
        gates,
        clock,
        telemetry,
        incarnation=parts.incarnation,
        projected=cursor,
    )
    settler = Settler(store, bench, telemetry)
    chaos = build_chaos(config, telemetry, parts.rng)
    furnishing = Furnishing(
        get_running_loop(),
        DaemonThreads(HANDLER_THREADS_MAX, "handlers"),
        telemetry,
        lambda: bool(bench.in_hands),
    )
    furnishing.install()
    strays = Strays(bench, gates, furnishing.threads, clock, telemetry)
    workers = build_workers(parts, bench, gates, settler, publisher, strays, furnishing, chaos)
    reader = Reader(
        parts.stream,
        store,
        bench,
        gates,
        publisher,
        incarnation_file,
        clock,
        telemetry,
        solo_seconds=config.workers.solo_seconds,
    )
    recaller = Recaller(store, bench, gates, publisher, clock, telemetry)
    heartbeat = build_heartbeat(parts, bench, workers)
    neighbours = Neighbours(
        store,
        parts.stream,
        publisher,
        parts.handlers,
        heartbeat,
        clock,
        telemetry,
        lease_seconds=lease_seconds,
        sweep_seconds=config.janitor.sweep_seconds,
    )
    controls = Controls(store, reader, neighbours, clock, telemetry, least_seconds=config.workers.control_seconds)
    recount = Recount(store, clock)
    replay_runner = ReplayRunner(store, publisher, clock, telemetry)
    replay_jobs = ReplayJobs(store, replay_runner.wake, clock, telemetry)
    janitor = Janitor(
        parts.log,
        intake,
        store,
        parts.stream,
        dispatcher,
        publisher,
        bench,
        clock,
        telemetry,
        intervals(config),
        parts.rng,
        [
            Chore("recount", config.janitor.disk_seconds, recount.look),
            *shared_chores(config, neighbours, controls, doorkeeper, replay_jobs, chronicler, parts.log.steady_clock),
        ],
    )
    if store.shared:
        janitor.store_now_us = neighbours.store_clock.now_us
    supervisor = Supervisor(
        clock,
        telemetry,
        restarts_max=config.supervisor.restarts_max,
        restart_window_seconds=config.supervisor.restart_window_seconds,
        rng=parts.rng,
    )
    loop_watch = LoopWatch(parts.handlers, telemetry)
    faults = HandlerFaults(parts.handlers)
    telemetry.listeners.append(faults.listen)
    overview = Overview(
        log=parts.log,
        store=store,
        stream=parts.stream,
        intake=intake,
        dispatcher=dispatcher,
        janitor=janitor,
        bench=bench,
        workers=workers,
        supervisor=supervisor,
        telemetry=telemetry,
        clock=clock,
        node=parts.node,
        started_at_us=clock.now_us(),
        recovered=replace(recovered, waiting=waiting),
        neighbours=neighbours,
        controls=controls,
        recount=recount,
        gates=gates,
        loop_watch=loop_watch,
        strays=strays,
        handler_threads=furnishing.threads,
        faults=faults,
    )
    return Daemon(
        config=config,
        clock=clock,
        telemetry=telemetry,
        log=parts.log,
        store=store,
        stream=parts.stream,
        bench=bench,
        settler=settler,
        intake=intake,
        dispatcher=dispatcher,
        publisher=publisher,
        reader=reader,
        recaller=recaller,
        janitor=janitor,
        replayer=Replayer(store, publisher, clock, telemetry),
        replay_jobs=replay_jobs,
        replay_runner=replay_runner,
        doorkeeper=doorkeeper,
        handler_reporter=HandlerReporter(store, bench, gates),
        overview=overview,
        workers=workers,
        furnishing=furnishing,
        supervisor=supervisor,
        heartbeat=heartbeat,
        chaos=chaos,
        chronicler=chronicler,
        incarnation_file=incarnation_file,
        loop_watch=loop_watch,
    )


def build_heartbeat(parts: Parts, bench: Workbench, workers: list[Worker]) -> Heartbeat | None:
    """Return the heartbeat of a daemon that shares its store; one that has it for itself needs none."""
    if not parts.store.shared:
        return None
    report = reporter(parts.node, parts.incarnation, parts.log, workers, bench, parts.clock.now_us())
    chosen = parts.config.workers
    pace = Pace(chosen.heartbeat_seconds, chosen.lease_seconds, chosen.handler_timeout_seconds)
    return Heartbeat(parts.store, bench, workers, parts.handlers, report, parts.clock, parts.telemetry, pace)


def shared_chores(
    config: Config,
    neighbours: Neighbours,
    controls: Controls,
    doorkeeper: Doorkeeper,
    replay_jobs: ReplayJobs,
    chronicler: Chronicler,
    steady_clock: SteadyClock,
) -> list[Chore]:
    """Return the janitor's chores that concern other daemons, or what all daemons share."""
    seconds = config.janitor
    kept_seconds = config.retention.dead_seconds
    return [
        Chore("take_over", seconds.sweep_seconds / LOOKS_PER_SWEEP, neighbours.take_over),
        Chore("look_at_suspects", seconds.refill_seconds, controls.look),
        Chore("look_at_handlers", seconds.refill_seconds, doorkeeper.look),
        Chore("clear_the_way", seconds.refill_seconds, doorkeeper.clear_the_way, SORTED_PER_STEP_MAX),
        Chore("remove_dead_consumers", seconds.stream_reclaim_seconds, neighbours.remove_dead_consumers),
        Chore(
            "retire_replays", seconds.retention_seconds, lambda: replay_jobs.retire(steady_clock.now_us(), kept_seconds)
        ),
        Chore("write_chronicle", seconds.chronicle_seconds, chronicler.write),
        Chore("retire_chronicle", seconds.retention_seconds, lambda: chronicler.retire(steady_clock.now_us())),
        Chore("forget_nodes", seconds.retention_seconds, neighbours.forget_nodes),
        Chore("long_transactions", seconds.disk_seconds, neighbours.look_for_long_transactions),
    ]


def build_chaos(config: Config, telemetry: Telemetry, rng: random.Random) -> Chaos | None:
    """Return what simulates crashes, or None while that is off."""
    rates = config.chaos
    if not rates.enabled:
        return None
    return Chaos(telemetry, rng, rates.fail_rate, rates.crash_rate, rates.exit_rate)


def build_workers(
    parts: Parts,
    bench: Workbench,
    gates: Gates,
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
            bench,
            parts.handlers,
            gates,
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
        sweep_seconds=chores.sweep_seconds,
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
