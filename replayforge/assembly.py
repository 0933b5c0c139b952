"""One running daemon: opened from the outside in, started, stopped in order."""

import contextlib
import os
import random
import secrets
from asyncio import ensure_future
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from replayforge import crashpoints
from replayforge.building import (
    Foundation,
    build_caring,
    build_claiming,
    build_gate,
    build_reporting,
    build_running,
    lanes_of,
    recover,
)
from replayforge.config import Config
from replayforge.domain.clock import Clock, SystemClock
from replayforge.domain.errors import ReplayForgeError, Unavailable
from replayforge.domain.schedule import Schedule
from replayforge.domain.webhook_source import Source
from replayforge.engine.accept.intake import Intake
from replayforge.engine.accept.schedule_loading import load_schedules
from replayforge.engine.accept.scheduler import Scheduler
from replayforge.engine.accept.source_loading import load_sources
from replayforge.engine.accept.sources import Sources
from replayforge.engine.care.daemon_report import presence
from replayforge.engine.care.heartbeat import Heartbeat
from replayforge.engine.care.janitor import Janitor
from replayforge.engine.dispatch.claim_buffer import ClaimBuffer
from replayforge.engine.dispatch.deferred_claimer import DeferredClaimer
from replayforge.engine.dispatch.dispatcher import Dispatcher
from replayforge.engine.dispatch.incarnation import IncarnationFile
from replayforge.engine.dispatch.pause_controller import PauseController
from replayforge.engine.dispatch.publisher import Publisher
from replayforge.engine.dispatch.reader import Reader
from replayforge.engine.dispatch.releaser import Releaser
from replayforge.engine.handlers.callbacks import Callbacks
from replayforge.engine.handlers.endpoint_handlers import with_endpoints
from replayforge.engine.handlers.endpoints import WebhookClient
from replayforge.engine.handlers.loading import load_handlers
from replayforge.engine.handlers.registry import Handler, Handlers
from replayforge.engine.replay.jobs import ReplayJobs
from replayforge.engine.replay.replayer import Replayer
from replayforge.engine.replay.runner import ReplayRunner
from replayforge.engine.report.alert_delivery import load_alerts
from replayforge.engine.report.alerter import Alerter
from replayforge.engine.report.convergence import ConvergenceQuery
from replayforge.engine.report.daemon_status import DaemonStatus
from replayforge.engine.report.event_queries import EventQueries
from replayforge.engine.report.handler_report import HandlerReporter
from replayforge.engine.report.metrics_recorder import MetricsRecorder
from replayforge.engine.report.why import WhyQuery
from replayforge.engine.run.chaos import Chaos
from replayforge.engine.run.children import Children
from replayforge.engine.run.interpreter_guard import InterpreterGuard
from replayforge.engine.run.loop_watch import LoopWatch
from replayforge.engine.run.recorder import Recorder
from replayforge.engine.run.settler import Settler
from replayforge.engine.run.stopping import Stopping
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
from replayforge.shadow.gate import DeployGate
from replayforge.stores.store import Store
from replayforge.streams.stream import Stream
from replayforge.supervisor import Service, Supervisor
from replayforge.telemetry import Telemetry
from replayforge.threads import in_thread
from replayforge.tracing import Tracer, TracingMissing, tracer_for

DRAIN_SECONDS = 5.0


@dataclass(slots=True, kw_only=True)
class Daemon:
    """One running ReplayForge. Everything in it was made by `opened`, which also takes it apart again."""

    config: Config
    clock: Clock
    telemetry: Telemetry
    log: ForgeLog
    store: Store
    stream: Stream
    buffer: ClaimBuffer
    recorder: Recorder
    children: Children
    settler: Settler
    intake: Intake
    sources: Sources
    scheduler: Scheduler
    dispatcher: Dispatcher
    publisher: Publisher
    reader: Reader
    deferred_claimer: DeferredClaimer
    releaser: Releaser | None
    janitor: Janitor
    replayer: Replayer
    replay_jobs: ReplayJobs
    replay_runner: ReplayRunner
    pause_controller: PauseController
    handler_reporter: HandlerReporter
    alerter: Alerter
    queries: EventQueries
    why: WhyQuery
    convergence: ConvergenceQuery
    status: DaemonStatus
    workers: list[Worker]
    stopping: Stopping
    tracer: Tracer | None
    interpreter_guard: InterpreterGuard
    supervisor: Supervisor
    heartbeat: Heartbeat | None
    chaos: Chaos | None
    metrics_recorder: MetricsRecorder
    incarnation_file: IncarnationFile
    loop_watch: LoopWatch
    callbacks: Callbacks
    gate: DeployGate | None

    def start(self) -> None:
        """Let every service run and ingest open."""
        self.loop_watch.start()
        hearts = [] if self.heartbeat is None else [self.heartbeat]
        schedulers = [self.scheduler] if self.scheduler.by_name else []
        services: list[Service] = [*hearts, *schedulers, self.publisher, self.dispatcher, self.reader, self.janitor]
        alerters = [self.alerter] if self.alerter.by_name else []
        gates = [] if self.gate is None else [self.gate]
        self.begin([*services, *gates, *self.claimers, self.replay_runner, *alerters, *self.workers])

    def start_without_clock(self) -> None:
        """Do so but for what goes by the time, the janitor, schedules, alerts and bulk replays.

        The caller has to give them their turns. Nobody watches the loop, which is the caller's.
        """
        gates = [] if self.gate is None else [self.gate]
        self.begin([self.publisher, self.dispatcher, self.reader, *gates, *self.claimers, *self.workers])

    @property
    def claimers(self) -> list[Service]:
        """What gives events their turn that waited for a handler, or in a lane."""
        return [self.deferred_claimer, *([] if self.releaser is None else [self.releaser])]

    def begin(self, services: Sequence[Service]) -> None:
        """Let these run, and ingest open."""
        for service in services:
            self.supervisor.start(service)
        self.intake.open()

    async def stop(self, grace_seconds: float | None = None) -> None:
        """Hand back what nobody began, let running handlers finish within the grace period, then close ingest.

        Another grace period than the configured one may be given.

        From the beginning readiness says that the daemon stops, so that a balancer goes elsewhere; until the last
        handler has ended events are accepted all the same, and get their rows, which nobody here claims.
        """
        self.intake.drain()
        self.incarnation_file.drain()
        crashpoints.reach("shutdown.begun")
        self.telemetry.emit("daemon.draining")
        self.stopping.begin()
        marking = ensure_future(self.mark_draining())
        timed = [self.scheduler.name, self.janitor.name, self.replay_runner.name, self.alerter.name]
        claiming = [self.reader.name, DeployGate.name, *(one.name for one in self.claimers), *timed]
        await self.supervisor.stop(claiming, DRAIN_SECONDS)
        unstarted = self.buffer.close()
        leases = [claimed.lease for claimed in unstarted]
        names = [worker.name for worker in self.workers]
        grace = self.config.supervisor.grace_seconds
        await self.supervisor.stop(names, grace if grace_seconds is None else min(grace, grace_seconds))
        crashpoints.reach("shutdown.drained")
        self.recorder.give_up()
        self.children.give_up()
        self.settler.give_up()
        with contextlib.suppress(ReplayForgeError):
            for worker in self.workers:
                await worker.interrupt()
            await self.settler.finish()
            await self.store.hand_back(leases, self.clock.now_us())
            await self.metrics_recorder.write()
        crashpoints.reach("shutdown.settled")
        self.intake.close()
        await self.dispatcher.catch_up(DRAIN_SECONDS)
        await self.supervisor.stop([self.dispatcher.name, self.publisher.name], DRAIN_SECONDS)
        await self.supervisor.stop([Heartbeat.name], DRAIN_SECONDS)
        await marking
        with contextlib.suppress(ReplayForgeError):
            await in_thread(self.log.bind_store, self.store.store_id, self.dispatcher.projected)

    def abandon(self) -> None:
        """Do nothing durable from now on, as if the process had been killed; what is open still has to be closed."""
        self.incarnation_file.close()
        self.log.abandon()
        self.store.abandon()

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
    guest: bool = False,
    changed: Callable[[Handler], Handler] | None = None,
) -> AsyncIterator[Daemon]:
    """Open log, store and stream, recover, and build every part; close them again at the end.

    Every handler, those that are endpoints too, is what `changed` makes of it. A `guest` leaves the loop that it runs
    on, and the interpreter, as their owner has set them up.

    Raises Refused with one sentence when something rules a start out.
    """
    clock, telemetry = clock or SystemClock(), telemetry or logging_telemetry()
    if handlers is None:
        handlers = load_handlers(config.handlers.modules)
    webhook_client, callbacks = WebhookClient(clock), Callbacks()
    handlers, sources, schedules = put_together(config, handlers, webhook_client, callbacks)
    alerts = load_alerts(config.alerts, webhook_client)
    if changed is not None:
        handlers = handlers.changed(changed)
    if config.chaos.enabled:
        crashpoints.arm(config.chaos.crash_at)
    tracer = None if guest else chosen_tracer(telemetry)
    node = node_name(make_directory(Path(config.data_dir)))
    incarnation = secrets.token_hex(8)
    async with contextlib.AsyncExitStack() as stack:
        store = await Store.open(config.store.url, node=node, owner=f"{node}/{incarnation}")
        stack.push_async_callback(store.close)
        callbacks.sign_with(await store.callback_key())
        log = await open_log(config, store, clock, telemetry, adopt_store)
        stack.push_async_callback(log.close)
        await check_copies(log, store, telemetry, adopt_store)
        cursor = await store.open_cursor(log.log_id, incarnation, 0, clock.now_us())
        await in_thread(remember_log_id, Path(config.data_dir), log.log_id)
        labels: frozenset[str] = handlers.labels if store.shared else frozenset()
        await store.register_node(presence(node, incarnation, log, clock.now_us(), labels))
        await in_thread(log.bind_store, store.store_id, cursor, reset=adopt_store)
        stream = open_stream(config, store.store_id, node, telemetry)
        stack.push_async_callback(stream.close)
        stack.push_async_callback(webhook_client.close)
        if tracer is not None:
            stack.push_async_callback(in_thread, tracer.close)
        # A stream that is away now makes itself ready when it comes back; events are accepted meanwhile.
        with contextlib.suppress(Unavailable):
            await stream.open()
        base = Foundation(
            config=config,
            node=node,
            incarnation=incarnation,
            clock=clock,
            telemetry=telemetry,
            rng=random.Random(),
            log=log,
            store=store,
            stream=stream,
            handlers=handlers,
            sources=sources,
            lanes=lanes_of(config),
            schedules=schedules,
            alerts=alerts,
            cursor=cursor,
            guest=guest,
            tracer=tracer,
        )
        daemon = await build(base, callbacks)
        stack.callback(daemon.loop_watch.stop)
        stack.callback(daemon.incarnation_file.close)
        yield daemon


def chosen_tracer(telemetry: Telemetry) -> Tracer | None:
    """Return who sends traces, if anybody is to; where what sends them is missing, that is told."""
    try:
        return tracer_for(os.environ)
    except TracingMissing as missing:
        telemetry.emit("tracing.missing", error=str(missing))
        return None


def put_together(
    config: Config, handlers: Handlers, webhook_client: WebhookClient, callbacks: Callbacks
) -> tuple[Handlers, list[Source], list[Schedule]]:
    """Return handlers, sources and schedules, those of the code and those of the configuration.

    Raises Refused with one sentence for what cannot be used.
    """
    for event_type in config.handlers.signals:
        handlers.signal(event_type)
    sources = load_sources(config.sources, os.environ)
    schedules = load_schedules(config.schedules, handlers)
    return with_endpoints(handlers, config.handlers.http, webhook_client, callbacks), sources, schedules


def check_code(config: Config) -> Handlers:
    """Return the handlers that a daemon would have; raises Refused for what would keep it from starting."""
    webhook_client = WebhookClient(SystemClock())
    load_alerts(config.alerts, webhook_client)
    return put_together(config, load_handlers(config.handlers.modules), webhook_client, Callbacks())[0]


async def build(base: Foundation, callbacks: Callbacks) -> Daemon:
    """Recover what a former incarnation left, and build the engine; each part relies on those built before it."""
    restart = await recover(base)
    claiming = await build_claiming(base, restart.incarnation_file)
    await claiming.pause_controller.look()
    await claiming.sources.look()
    await claiming.scheduler.enter()
    running = build_running(base, claiming)
    caring = build_caring(base, claiming, running, restart.metrics_recorder)
    reporting = build_reporting(base, restart, claiming, running, caring)
    gate = build_gate(base, claiming, running, reporting)
    return Daemon(
        config=base.config,
        clock=base.clock,
        telemetry=base.telemetry,
        log=base.log,
        store=base.store,
        stream=base.stream,
        buffer=claiming.buffer,
        recorder=running.recorder,
        children=running.children,
        settler=running.settler,
        intake=claiming.intake,
        sources=claiming.sources,
        scheduler=claiming.scheduler,
        dispatcher=claiming.dispatcher,
        publisher=claiming.publisher,
        reader=claiming.reader,
        deferred_claimer=claiming.deferred_claimer,
        releaser=claiming.releaser,
        janitor=caring.janitor,
        replayer=Replayer(base.store, claiming.publisher, base.handlers, base.clock, base.telemetry),
        replay_jobs=caring.replay_jobs,
        replay_runner=caring.replay_runner,
        pause_controller=claiming.pause_controller,
        handler_reporter=reporting.handler_reporter,
        alerter=reporting.alerter,
        queries=reporting.queries,
        why=reporting.why,
        convergence=reporting.convergence,
        status=reporting.status,
        workers=running.workers,
        stopping=running.environment.stopping,
        tracer=running.environment.tracer,
        interpreter_guard=running.interpreter_guard,
        supervisor=caring.supervisor,
        heartbeat=caring.heartbeat,
        chaos=running.environment.chaos,
        metrics_recorder=restart.metrics_recorder,
        incarnation_file=restart.incarnation_file,
        loop_watch=running.loop_watch,
        callbacks=callbacks,
        gate=gate,
    )
