"""What the web handlers are given: the engine's parts and the limits at the port."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

from replayforge.domain.api_keys import ApiKey, parse_keys
from replayforge.domain.clock import Clock
from replayforge.domain.lane import Lanes
from replayforge.engine.accept.forgelog_service import ForgeLogService
from replayforge.engine.accept.intake import Intake
from replayforge.engine.accept.scheduler import Scheduler
from replayforge.engine.accept.sources import Sources
from replayforge.engine.dispatch.pause_controller import PauseController
from replayforge.engine.handlers.callbacks import Callbacks
from replayforge.engine.replay.jobs import ReplayJobs
from replayforge.engine.replay.replayer import Replayer
from replayforge.engine.report.alerter import Alerter
from replayforge.engine.report.convergence import ConvergenceQuery
from replayforge.engine.report.daemon_status import DaemonStatus
from replayforge.engine.report.event_queries import EventQueries
from replayforge.engine.report.handler_report import HandlerReporter
from replayforge.engine.report.metrics_recorder import MetricsRecorder
from replayforge.engine.report.why import WhyQuery
from replayforge.engine.run.chaos import Chaos
from replayforge.shadow.desk import ShadowDesk
from replayforge.supervisor import Supervisor
from replayforge.telemetry import Telemetry
from replayforge.tracing import Tracer
from replayforge.web.http.body_budget import BodyBudget
from replayforge.web.http.sessions import Sessions


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one request may bring."""

    event_bytes_max: int = 1 << 20
    bulk_bytes_max: int = 32 << 20
    bulk_events_max: int = 1000


@dataclass(slots=True)
class Access:
    """Who may speak to the daemon: API keys, none needed when empty, and the host names it answers to.

    `listeners` are called, in whichever thread, once others may.
    """

    keys: tuple[ApiKey, ...] = ()
    allowed_hosts: frozenset[str] = frozenset()
    listeners: list[Callable[[], None]] = field(default_factory=list)

    def replace_keys(self, entries: tuple[str, ...]) -> None:
        """Let these keys in from now on, and no others; sessions end with the key they were begun with."""
        self.keys = parse_keys(entries)
        for listener in self.listeners:
            listener()


@dataclass(frozen=True, slots=True)
class WebContext:
    """Everything a web handler may use. `stored` waits until a log offset has its row; None for ack = "log".

    `masked_names` are those whose values the pages hide.
    """

    intake: Intake
    sources: Sources
    scheduler: Scheduler
    queries: EventQueries
    why: WhyQuery
    lanes: Lanes
    convergence: ConvergenceQuery
    status: DaemonStatus
    clock: Clock
    telemetry: Telemetry
    replayer: Replayer
    replay_jobs: ReplayJobs
    pause_controller: PauseController
    handler_reporter: HandlerReporter
    alerter: Alerter
    forgelog_service: ForgeLogService
    supervisor: Supervisor
    limits: RequestLimits
    access: Access
    chaos: Chaos | None
    metrics_recorder: MetricsRecorder
    stored: Callable[[int], Awaitable[None]] | None
    sessions: Sessions
    shadow: ShadowDesk
    base_path: str = ""
    public_url: str = ""
    masked_names: tuple[str, ...] = ()
    bodies: BodyBudget = field(default_factory=BodyBudget)
    callbacks: Callbacks = field(default_factory=Callbacks)
    tracer: Tracer | None = None


CONTEXT: web.AppKey[WebContext] = web.AppKey("context", WebContext)
# Which query parameters each path of the API knows, by method and path.
PARAMETERS: web.AppKey[dict[str, frozenset[str]]] = web.AppKey("parameters", dict)
CALLER: web.RequestKey[ApiKey] = web.RequestKey("caller", ApiKey)  # the key that let it in, where one was needed
REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
BASE_PATH: web.RequestKey[str] = web.RequestKey("base_path", str)  # what the addresses of its answer begin with


def context_of(request: web.Request) -> WebContext:
    """Return the context of the application that serves this request."""
    return request.app[CONTEXT]
