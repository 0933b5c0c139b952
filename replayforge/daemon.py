"""The process: takes the port, opens the parts, serves HTTP, hears signals, and ends in order."""

import asyncio
import atexit
import contextlib
import gc
import os
import resource
import socket
import sys
from asyncio import create_task, get_running_loop, wait
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from replayforge.assembly import DRAIN_SECONDS, Daemon, check_code, opened
from replayforge.building import lanes_of
from replayforge.code_watch import CodeWatch, CommandLine
from replayforge.config import Config, LoadedConfig
from replayforge.config.settings import LoggingConfig
from replayforge.daemon_log import leave, listen_to_libraries, loop_exception_handler, output, report_strays
from replayforge.descriptors import Descriptors
from replayforge.domain.api_keys import parse_keys
from replayforge.domain.errors import Fatal, Refused
from replayforge.engine.accept.forgelog_service import ForgeLogService
from replayforge.engine.care.janitor import Chore
from replayforge.event_loop import Escapes, loop_factory, run_to_the_end
from replayforge.forks import Belongings, keep_from_children, open_descriptors
from replayforge.opening import logging_telemetry
from replayforge.reloading import Reloader
from replayforge.service_manager import ServiceManager
from replayforge.shadow.desk import ShadowDesk
from replayforge.shadow.replayed import Job
from replayforge.signals import Signals, stop_children
from replayforge.start_rules import LOOPBACK, check_exposure, check_way_back
from replayforge.stores.trial import try_store
from replayforge.telemetry import Telemetry
from replayforge.web.app import build_app
from replayforge.web.http.body_budget import BodyBudget
from replayforge.web.http.connection import ConnectionLimits, runner_of
from replayforge.web.http.context import Access, RequestLimits, WebContext
from replayforge.web.http.sessions import Sessions

HANDLES_WANTED = 65_536
BACKLOG_MAX = 1024  # connections that wait to be accepted
# The loop gives the interpreter's lock away at every send; the default of 5 ms is how long it would then wait for the
# thread that writes the log or the store.
SWITCH_INTERVAL_SECONDS = 0.0005
BEGIN_ANEW = -1  # no exit code: the process becomes a new one
RELOAD_GRACE_SECONDS = 2.0  # whoever edits handlers waits; what was cut short runs again with the new ones
# Next to nothing of what an event needs is left in cycles, so looking for them every 700 objects is mostly in vain.
COLLECTED_AFTER = (20_000, 20, 50)


def run(loaded: LoadedConfig, adopt_store: bool = False, *, reload: bool = False) -> int:
    """Run the daemon until a signal or a failure ends it; returns the exit code.

    With `reload` the process begins anew when files of handlers have changed and their code can be loaded.
    """
    command_line = CommandLine() if reload else None
    foreign = open_descriptors()
    manager = ServiceManager(os.environ)
    telemetry = begin_log(loaded.config.logging)
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    raise_handle_limit()
    runner, escapes = asyncio.Runner(loop_factory=loop_factory()), Escapes()
    with runner:
        signals = Signals(telemetry)
        signals.install()
        serving = serve(
            loaded, adopt_store, telemetry, signals, manager,
            escapes=escapes, foreign=foreign, command_line=command_line,
        )  # fmt: skip
        code = run_to_the_end(runner.get_loop(), serving, escapes)
        # Nothing of the user's holds up the end: no thread, no executor, no child process, no atexit handler.
        stop_children()
        if command_line is not None and code == BEGIN_ANEW:
            command_line.begin_anew()
        leave(code)
    return code


def begin_log(logging: LoggingConfig) -> Telemetry:
    """Let the daemon write its log, and return what is told all that happens from now on."""
    output.begin(logging.format, logging.level)
    atexit.register(output.flush)
    listen_to_libraries(logging.level)
    telemetry = logging_telemetry()
    report_strays(telemetry)
    return telemetry


def raise_handle_limit() -> None:
    """Open as many files as the system allows: each segment of the log and each connection needs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = HANDLES_WANTED if hard == resource.RLIM_INFINITY else min(hard, HANDLES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def serve(
    loaded: LoadedConfig, adopt_store: bool, telemetry: Telemetry, signals: Signals, manager: ServiceManager, *,
    escapes: Escapes, foreign: set[int], command_line: CommandLine | None = None,
) -> int:  # fmt: skip
    """Open everything, accept events until told to stop, close everything; BEGIN_ANEW when code has changed.

    `foreign` are the descriptors that were open before the daemon's own, and that children may have.
    """
    config, loop = loaded.config, get_running_loop()
    loop.set_exception_handler(loop_exception_handler(telemetry))
    signals.watch_start(loop)
    check_exposure(config)
    check_way_back(config)
    listening = listen(config.server.host, config.server.port)
    own = open_descriptors() - foreign
    keep_from_children(own_of(config, listening.getsockname()[1], frozenset(own)))
    try:
        return await serve_until_told(
            loaded, adopt_store, signals, escapes, listening, manager=manager, command_line=command_line
        )
    except asyncio.CancelledError:
        if not signals.count:
            raise
        telemetry.emit("daemon.stopped", reason="a signal came during the start")
        return 0
    finally:
        listening.close()


async def serve_until_told(
    loaded: LoadedConfig, adopt_store: bool, signals: Signals, escapes: Escapes, listening: socket.socket, *,
    manager: ServiceManager, command_line: CommandLine | None,
) -> int:  # fmt: skip
    """Do so; a signal during the start cancels it."""
    config = loaded.config
    async with opened(config, adopt_store=adopt_store, telemetry=signals.telemetry) as daemon:
        escapes.report_to(signals.telemetry, daemon.interpreter_guard.latest_type)
        signals.install()  # once more: the modules of handlers may have taken them
        signals.at_first(daemon.incarnation_file.drain)
        told = signals.watch_run(config.supervisor.grace_seconds)
        daemon.callbacks.lead_to((config.server.public_url or origin(listening)) + config.server.base_path)
        daemon.start()
        context = web_context(daemon)
        async with site(daemon, context, listening) as url:
            # What is there by now stays for good; full collections that looked through it held the loop for 60 ms.
            gc.freeze()
            gc.set_threshold(*COLLECTED_AFTER)
            daemon.interpreter_guard.remember()
            signals.at_reload(Reloader(loaded, context.access.replace_keys, signals.telemetry).reload)
            watching = watch_code(command_line, signals.telemetry)
            announce(daemon, loaded, url)
            manager.ready(f"Listens on {url}, {config.workers.count} workers.")
            await wait((told, daemon.supervisor.failed, watching), return_when=asyncio.FIRST_COMPLETED)
            manager.stopping()
            begins_anew = watching.done() and not told.done()
            watching.cancel()
            await daemon.stop(RELOAD_GRACE_SECONDS if begins_anew else None)
        code = exit_code(daemon) or (BEGIN_ANEW if begins_anew and not told.done() else 0)
    signals.telemetry.emit("daemon.stopped")
    return code


def watch_code(command_line: CommandLine | None, telemetry: Telemetry) -> "asyncio.Future[None]":
    """Return what is done once other code is to be run; never, where nobody asked for that."""
    if command_line is None:
        return get_running_loop().create_future()
    return create_task(CodeWatch(command_line, telemetry).changed(), name="code watch")


def exit_code(daemon: Daemon) -> int:
    """Return 0 for an ordered end, else say on stderr why the daemon gave up."""
    if not daemon.supervisor.failed.done():
        return 0
    error = daemon.supervisor.failed.result()
    output.err.write(f"ReplayForge ended: {error}\n".encode(errors="backslashreplace"))
    return int(getattr(error, "exit_code", 70))


@contextlib.asynccontextmanager
async def site(daemon: Daemon, context: WebContext, listening: socket.socket) -> AsyncIterator[str]:
    """Serve HTTP on a socket; gives the address."""
    limits = ConnectionLimits(connections_per_address_max=daemon.config.server.connections_per_address_max)
    runner = await runner_of(build_app(context), limits=limits, shutdown_timeout=DRAIN_SECONDS)
    await runner.setup()
    await web.SockSite(runner, listening, backlog=BACKLOG_MAX).start()
    if daemon.store.shared:
        daemon.janitor.add(Chore("look_at_sessions", daemon.config.janitor.refill_seconds, context.sessions.look))
    daemon.janitor.add(Chore("look_at_port", daemon.config.janitor.refill_seconds, port_check(listening)))
    try:
        yield origin(listening) + daemon.config.server.base_path
    finally:
        await runner.cleanup()


def origin(listening: socket.socket) -> str:
    """Return the address that a socket listens on, as the beginning of a URL."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def port_check(listening: socket.socket) -> Callable[[], Awaitable[int]]:
    """Return a chore that raises Fatal once the port is not listened on any more: nothing else would tell of it."""
    descriptors = Descriptors()
    descriptors.note(listening.fileno())

    async def look_at_port() -> int:
        try:
            descriptors.check_all()
        except OSError as error:
            raise Fatal(f"Nobody can connect any more: of the port, {error.strerror}. Restart the daemon.") from error
        return 0

    return look_at_port


def shadow_job(config: Config) -> Job:
    """Return how handlers that are only tried are run: as these settings say."""
    return Job((), signals=config.handlers.signals, timeout_seconds=config.workers.handler_timeout_seconds)


def web_context(daemon: Daemon) -> WebContext:
    """Return what the web handlers are given."""
    server, config = daemon.config.server, daemon.config
    hosts = LOOPBACK | set(server.allowed_hosts) if server.allowed_hosts or server.host in LOOPBACK else frozenset()
    if hosts and server.public_url:
        hosts |= {str(urlsplit(server.public_url).hostname)}
    return WebContext(
        intake=daemon.intake,
        sources=daemon.sources,
        scheduler=daemon.scheduler,
        queries=daemon.queries,
        why=daemon.why,
        lanes=lanes_of(config),
        convergence=daemon.convergence,
        status=daemon.status,
        clock=daemon.clock,
        telemetry=daemon.telemetry,
        replayer=daemon.replayer,
        replay_jobs=daemon.replay_jobs,
        pause_controller=daemon.pause_controller,
        handler_reporter=daemon.handler_reporter,
        alerter=daemon.alerter,
        forgelog_service=ForgeLogService(daemon.log, daemon.intake.check_room),
        supervisor=daemon.supervisor,
        limits=RequestLimits(server.event_bytes_max, server.bulk_bytes_max, server.bulk_events_max),
        access=Access(parse_keys(server.api_keys), hosts),
        chaos=daemon.chaos,
        metrics_recorder=daemon.metrics_recorder,
        stored=daemon.dispatcher.wait_projected if config.ingest.ack == "stored" else None,
        sessions=Sessions(daemon.callbacks.key, daemon.store),
        shadow=ShadowDesk(shadow_job(config)),
        base_path=server.base_path,
        public_url=server.public_url,
        masked_names=server.masked_names,
        bodies=BodyBudget(server.bodies_bytes_max),
        callbacks=daemon.callbacks,
        tracer=daemon.tracer,
    )


def check(config: Config) -> int:
    """Return how many handlers a daemon with these settings has; raises Refused for what keeps it from starting."""
    check_exposure(config)
    check_way_back(config)
    count = len(check_code(config).registered)
    asyncio.run(try_store(config.store.url, Path(config.data_dir)))
    return count


def listen(host: str, port: int) -> socket.socket:
    """Take the port before anything is opened; raises Refused when it is busy."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG_MAX)
    except OSError as error:
        listening.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise Refused(f"Port {port} on {host} cannot be used: {reason}. Choose another one with --port.") from None
    return listening


def own_of(config: Config, port: int, opened: frozenset[int]) -> Belongings:
    """Return what no child that a handler forks may keep."""
    store = config.store.sqlite_path
    return Belongings(
        directories=(os.path.realpath(config.data_dir), os.path.realpath(config.log.dir)),
        files=() if store is None else (os.path.realpath(store),),
        port=port,
        opened=opened,
    )


def announce(daemon: Daemon, loaded: LoadedConfig, url: str) -> None:
    """Say on stdout what runs where, and what was recovered."""
    config, recovered, log = daemon.config, daemon.status.recovered, daemon.log.recovery
    named = [*config.handlers.modules, *(f"{endpoint.match} by HTTP" for endpoint in config.handlers.http)]
    handlers = ", ".join(named) or "none (events become dead letters until there is one: --handlers)"
    found = f"log {log.last_offset:,} records in {log.segments} segments, {'clean' if log.clean else 'unclean'} stop"
    again = f"{recovered.unprojected:,} events not yet dispatched, {recovered.requeued:,} in flight taken back"
    lines = [
        f"ReplayForge listens on {url}",
        f"  data      {config.data_dir} (store {daemon.store.driver.dialect}, stream {daemon.stream.name})",
        f"  handlers  {handlers}",
        f"  workers   {config.workers.count}, simulated crashes {'on' if daemon.chaos else 'off'}",
        f"  recovered {found}; {again}, {recovered.buried:,} buried, {recovered.held:,} held",
    ]
    output.out.write(("\n".join(lines) + "\n").encode(errors="backslashreplace"))
    daemon.telemetry.emit("daemon.started", url=url, config=str(loaded.path or "defaults"))
