"""The web application: every path and who answers it."""

from aiohttp import web
from aiohttp.typedefs import Handler

from replayforge.web import status_page
from replayforge.web.api import (
    dead_letters,
    demo,
    events,
    export,
    forgelog_api,
    handlers,
    incoming,
    ingest,
    lanes,
    metrics,
    operations,
    replays,
    schedules,
    sources,
    step_callbacks,
)
from replayforge.web.api.openapi import parameters_of
from replayforge.web.http.context import CONTEXT, PARAMETERS, WebContext
from replayforge.web.http.guard import SOURCES_PATH, guard
from replayforge.web.http.shortcut import SHORT_WAYS
from replayforge.web.pages.error_pages import for_people


def build_app(context: WebContext) -> web.Application:
    """Return the application; with a base path all of it lies below that path."""
    app = web.Application(
        middlewares=[for_people, guard],
        client_max_size=max(context.limits.event_bytes_max, context.limits.bulk_bytes_max),
    )
    app[CONTEXT] = context
    app.router.add_routes(routes())
    app.on_shutdown.append(forgelog_api.let_readers_go)
    export.install(app)
    status_page.install(app, context)
    app[PARAMETERS] = parameters_of(app, context.base_path)
    if not context.base_path:
        ways: dict[str, Handler] = {f"{SOURCES_PATH}{name}": incoming.receive for name in context.sources.by_name}
        app[SHORT_WAYS] = {"/api/events": ingest.post_event} | ways
        return app
    outer = web.Application(middlewares=[for_people, guard])
    outer[CONTEXT] = context
    outer.add_subapp(context.base_path, app)
    return outer


def routes() -> list[web.RouteDef]:
    """Return the paths of the API in the order of API.md."""
    get, post = web.get, web.post
    return [
        post("/in/{source:[^/]+}", incoming.receive),
        get("/in/{source:[^/]+}", incoming.answer_challenge, allow_head=False),
        post("/api/events", ingest.post_event),
        post("/api/events/bulk", ingest.post_bulk),
        get("/api/events", events.list_events),
        get("/api/events/recent", events.recent_events),
        get("/api/events/export", export.export_events),
        get("/api/events/{id:[^/]+}", events.show_event),
        get("/api/events/{id:[^/]+}/steps", events.list_steps),
        post("/api/events/{id:[^/]+}/replay", events.replay_event),
        post("/api/events/{id:[^/]+}/retry", events.retry_event),
        post("/api/events/{id:[^/]+}/cancel", events.cancel_event),
        post("/api/events/{id:[^/]+}/resolve", events.resolve_event),
        get("/api/workflows", events.list_workflows),
        get("/api/workflows/{id:[^/]+}", events.show_workflow),
        get("/api/workflows/{id:[^/]+}/timeline", events.show_timeline),
        post("/api/workflows/{id:[^/]+}/replay", events.replay_workflow),
        get("/api/deadletters", dead_letters.list_dead_letters),
        post("/api/deadletters/{id:[^/]+}/replay", dead_letters.replay_dead_letter),
        post("/api/deadletters/{id:[^/]+}/discard", dead_letters.discard_dead_letter),
        post("/api/replays", replays.create_replay),
        get("/api/replays", replays.list_replays),
        get("/api/replays/{id:[^/]+}", replays.show_replay),
        post("/api/replays/{id:[^/]+}/pause", replays.pause_replay),
        post("/api/replays/{id:[^/]+}/resume", replays.resume_replay),
        post("/api/replays/{id:[^/]+}/cancel", replays.cancel_replay),
        get("/api/handlers", handlers.list_handlers),
        post("/api/handlers/{pattern:[^/]+}/pause", handlers.pause_handler),
        post("/api/handlers/{pattern:[^/]+}/resume", handlers.resume_handler),
        get("/api/lanes", lanes.list_lanes),
        get("/api/sources", sources.list_sources),
        get("/api/sources/{name:[^/]+}/refusals", sources.list_refusals),
        post("/api/sources/{name:[^/]+}/refusals/verify", sources.verify_refusals),
        post("/api/sources/{name:[^/]+}/pause", sources.pause_source),
        post("/api/sources/{name:[^/]+}/resume", sources.resume_source),
        get("/api/schedules", schedules.list_schedules),
        post("/api/schedules/{name:[^/]+}/run", schedules.run_schedule),
        post("/api/schedules/{name:[^/]+}/pause", schedules.pause_schedule),
        post("/api/schedules/{name:[^/]+}/resume", schedules.resume_schedule),
        get("/api/convergence", operations.convergence),
        get("/api/workers", operations.workers),
        get("/api/supervisor", operations.supervisor),
        get("/api/metrics", operations.metrics_json),
        get("/metrics", metrics.prometheus),
        get("/api/insights/errors", operations.error_insights),
        post("/api/demo/generate-workload", demo.generate_workload),
        post("/api/chaos/crash", operations.arm_crash),
        post("/api/chaos/workers/{name}/crash", operations.crash_worker),
        get("/health", operations.live),
        get("/health/live", operations.live),
        get("/health/ready", operations.ready),
        get("/health/backend", operations.stream_health),
        get("/health/backend/stats", operations.stream_stats),
        post("/forgelog/append", forgelog_api.append),
        get("/forgelog/read", forgelog_api.read),
        post("/forgelog/commit", forgelog_api.commit),
        get("/forgelog/health", forgelog_api.health),
        get("/forgelog/stats", forgelog_api.statistics),
        post("/steps/{id:[^/]+}/{token:[0-9]{1,18}}/{signature:[^/]+}/checkpoint", step_callbacks.post_checkpoint),
        get("/steps/{id:[^/]+}/{token:[0-9]{1,18}}/{signature:[^/]+}/journal", step_callbacks.show_journal),
        get("/schemas/steps.json", step_callbacks.show_schema),
    ]
