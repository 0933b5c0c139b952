"""The web application: every path and who answers it."""

from aiohttp import web
from aiohttp.typedefs import Handler

from replayforge.tracing import Tracer
from replayforge.web import status_page
from replayforge.web.api import (
    alerts,
    dead_letters,
    demo,
    events,
    export,
    forgelog_api,
    handlers,
    in_doubt,
    incoming,
    ingest,
    lanes,
    metrics,
    operations,
    replays,
    schedules,
    shadow,
    sources,
    step_callbacks,
)
from replayforge.web.api.openapi import parameters_of
from replayforge.web.http import long_requests
from replayforge.web.http.context import CONTEXT, PARAMETERS, WebContext
from replayforge.web.http.guard import SOURCES_PATH, guard
from replayforge.web.http.routes import (
    ADMIN,
    EVERYBODY,
    INGEST,
    METRICS,
    NEEDS,
    OPERATE,
    READ,
    Route,
    add_routes,
    get,
    post,
)
from replayforge.web.http.shortcut import SHORT_WAYS
from replayforge.web.http.traces import traced
from replayforge.web.pages.error_pages import for_people

INCOMING = "/in/{source}"
STEPS = "/steps/{id:[^/]+}/{token:[0-9]{1,18}}/{signature:[^/]+}"


def build_app(context: WebContext) -> web.Application:
    """Return the application; with a base path all of it lies below that path."""
    app = web.Application(
        middlewares=[for_people, guard],
        client_max_size=max(context.limits.event_bytes_max, context.limits.bulk_bytes_max),
    )
    app[CONTEXT] = context
    add_routes(app, routes(context.tracer))
    app.on_shutdown.append(forgelog_api.let_readers_go)
    long_requests.install(app)
    export.install(app)
    status_page.install(app, context)
    app[PARAMETERS] = parameters_of(app, context.base_path)
    if not context.base_path:
        receive = traced(context.tracer, INCOMING, incoming.receive)
        ways: dict[str, Handler] = {f"{SOURCES_PATH}{name}": receive for name in context.sources.by_name}
        app[SHORT_WAYS] = {"/api/events": traced(context.tracer, "/api/events", ingest.post_event)} | ways
        return app
    outer = web.Application(middlewares=[for_people, guard])
    outer[CONTEXT], outer[NEEDS] = context, app[NEEDS]
    outer.add_subapp(context.base_path, app)
    return outer


def routes(tracer: Tracer | None = None) -> list[Route]:
    """Return the paths of the API in the order of API.md, each with the least role that it needs."""
    return [
        post("/in/{source:[^/]+}", traced(tracer, INCOMING, incoming.receive), INGEST),
        get("/in/{source:[^/]+}", incoming.answer_challenge, INGEST, allow_head=False),
        post("/api/events", traced(tracer, "/api/events", ingest.post_event), INGEST),
        post("/api/events/bulk", traced(tracer, "/api/events/bulk", ingest.post_bulk), INGEST),
        get("/api/events", events.list_events, READ),
        get("/api/events/recent", events.recent_events, READ),
        get("/api/events/export", export.export_events, READ),
        get("/api/events/{id:(?!bulk$)[^/]+}", events.show_event, READ),
        get("/api/events/{id:[^/]+}/steps", events.list_steps, READ),
        get("/api/events/{id:[^/]+}/why", events.show_why, READ),
        post("/api/events/{id:[^/]+}/replay", events.replay_event, OPERATE),
        post("/api/events/{id:[^/]+}/retry", events.retry_event, OPERATE),
        post("/api/events/{id:[^/]+}/cancel", events.cancel_event, OPERATE),
        post("/api/events/{id:[^/]+}/resolve", events.resolve_event, OPERATE),
        get("/api/workflows", events.list_workflows, READ),
        get("/api/workflows/{id:[^/]+}", events.show_workflow, READ),
        get("/api/workflows/{id:[^/]+}/timeline", events.show_timeline, READ),
        post("/api/workflows/{id:[^/]+}/replay", events.replay_workflow, OPERATE),
        get("/api/deadletters", dead_letters.list_dead_letters, READ),
        post("/api/deadletters/{id:[^/]+}/replay", dead_letters.replay_dead_letter, OPERATE),
        post("/api/deadletters/{id:[^/]+}/discard", dead_letters.discard_dead_letter, OPERATE),
        get("/api/indoubt", in_doubt.list_in_doubt, READ),
        post("/api/indoubt/{id:[^/]+}/resolve", in_doubt.decide, OPERATE),
        post("/api/replays", replays.create_replay, OPERATE),
        get("/api/replays", replays.list_replays, READ),
        get("/api/replays/{id:[^/]+}", replays.show_replay, READ),
        post("/api/replays/{id:[^/]+}/pause", replays.pause_replay, OPERATE),
        post("/api/replays/{id:[^/]+}/resume", replays.resume_replay, OPERATE),
        post("/api/replays/{id:[^/]+}/cancel", replays.cancel_replay, OPERATE),
        post("/api/shadow", shadow.shadow_runs, ADMIN),
        get("/api/handlers", handlers.list_handlers, READ),
        post("/api/handlers/{pattern:[^/]+}/pause", handlers.pause_handler, OPERATE),
        post("/api/handlers/{pattern:[^/]+}/resume", handlers.resume_handler, OPERATE),
        get("/api/lanes", lanes.list_lanes, READ),
        get("/api/sources", sources.list_sources, READ),
        get("/api/sources/{name:[^/]+}/refusals", sources.list_refusals, READ),
        post("/api/sources/{name:[^/]+}/refusals/verify", sources.verify_refusals, OPERATE),
        post("/api/sources/{name:[^/]+}/pause", sources.pause_source, OPERATE),
        post("/api/sources/{name:[^/]+}/resume", sources.resume_source, OPERATE),
        get("/api/schedules", schedules.list_schedules, READ),
        post("/api/schedules/{name:[^/]+}/run", schedules.run_schedule, OPERATE),
        post("/api/schedules/{name:[^/]+}/pause", schedules.pause_schedule, OPERATE),
        post("/api/schedules/{name:[^/]+}/resume", schedules.resume_schedule, OPERATE),
        get("/api/alerts", alerts.list_alerts, READ),
        post("/api/alerts/{name:[^/]+}/test", alerts.send_test_alert, OPERATE),
        get("/api/convergence", operations.convergence, READ),
        get("/api/workers", operations.workers, READ),
        get("/api/supervisor", operations.supervisor, READ),
        get("/api/metrics", operations.metrics_json, READ),
        get("/metrics", metrics.prometheus, METRICS),
        get("/api/insights/errors", operations.error_insights, READ),
        post("/api/demo/generate-workload", demo.generate_workload, ADMIN),
        post("/api/chaos/crash", operations.arm_crash, ADMIN),
        post("/api/chaos/workers/{name}/crash", operations.crash_worker, ADMIN),
        get("/health", operations.live, EVERYBODY),
        get("/health/live", operations.live, EVERYBODY),
        get("/health/ready", operations.ready, EVERYBODY),
        get("/health/backend", operations.stream_health, EVERYBODY),
        get("/health/backend/stats", operations.stream_stats, EVERYBODY),
        post("/forgelog/append", forgelog_api.append, ADMIN),
        get("/forgelog/read", forgelog_api.read, READ),
        post("/forgelog/commit", forgelog_api.commit, ADMIN),
        get("/forgelog/health", forgelog_api.health, READ),
        get("/forgelog/stats", forgelog_api.statistics, READ),
        post(f"{STEPS}/checkpoint", step_callbacks.post_checkpoint, EVERYBODY),
        get(f"{STEPS}/journal", step_callbacks.show_journal, EVERYBODY),
        get("/schemas/steps.json", step_callbacks.show_schema, READ),
    ]
