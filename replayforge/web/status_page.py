"""The status page as a whole: its paths, and what its pages share."""

from aiohttp import web

from replayforge.web.api import metrics_history, openapi
from replayforge.web.http.context import WebContext
from replayforge.web.live import hints, live_updates
from replayforge.web.live.cached_answer import CachedAnswer
from replayforge.web.pages import (
    actions,
    api_page,
    assets,
    dead_letters_page,
    event_list,
    event_page,
    guide,
    handler_pages,
    lane_pages,
    login,
    lookup,
    overview_page,
    rendering,
    replay_pages,
    runtime_page,
    schedule_pages,
    sending,
    source_pages,
    workflow_pages,
)


def install(app: web.Application, context: WebContext) -> None:
    """Add the status page to the application."""
    app[assets.ASSETS] = assets.load_assets(assets.static_root())
    app[rendering.ENVIRONMENT] = rendering.build_environment()
    app[rendering.LETTER_GROUPS] = CachedAnswer(context.clock)
    app[metrics_history.HISTORIES] = metrics_history.HistoryCache(context.metrics_recorder, context.clock)
    app.router.add_routes(routes())
    live_updates.install(app, context)


def routes() -> list[web.RouteDef]:
    """Return the paths of the status page."""
    get, post = web.get, web.post
    return [
        get("/", overview_page.overview),
        get("/events", event_list.events),
        get("/events/{id}", event_page.event),
        get("/events/{id}/{part:payload|metadata|result}", event_page.event_part),
        get("/workflows", workflow_pages.workflows),
        get("/workflows/{id:[^/]+}", workflow_pages.workflow),
        get("/dead-letters", dead_letters_page.dead_letters),
        get("/replays", replay_pages.replays),
        get("/replays/new", replay_pages.ask),
        post("/replays", replay_pages.make),
        get("/replays/{id:[^/]+}", replay_pages.replay),
        post("/replays/{id:[^/]+}/{verb}", replay_pages.move),
        get("/handlers", handler_pages.handlers),
        get("/handlers/pause", handler_pages.ask),
        post("/handlers/pause", handler_pages.pause),
        post("/handlers/resume", handler_pages.resume),
        get("/sources", source_pages.sources),
        get("/sources/pause", source_pages.ask),
        post("/sources/pause", source_pages.pause),
        post("/sources/resume", source_pages.resume),
        get("/sources/{name:[^/]+}/refusals", source_pages.refusals),
        post("/sources/{name:[^/]+}/refusals", source_pages.verify),
        get("/schedules", schedule_pages.schedules),
        post("/schedules/run", schedule_pages.run),
        get("/schedules/pause", schedule_pages.ask),
        post("/schedules/pause", schedule_pages.pause),
        post("/schedules/resume", schedule_pages.resume),
        get("/lanes", lane_pages.lanes),
        get("/runtime", runtime_page.runtime),
        get("/search", lookup.search),
        get("/lookup", lookup.look_up),
        get("/send", sending.show_form),
        post("/send", sending.send),
        get("/confirm/{verb}", actions.confirm),
        post("/actions/replay-workflow", actions.replay_workflow),
        post("/actions/subscribers", actions.replay_subscribers),
        post("/actions/signal", sending.send_signal),
        post("/actions/resolve", actions.resolve),
        post("/actions/crash-worker", actions.crash_worker),
        post("/actions/demo-load", actions.demo_load),
        post("/actions/{verb}", actions.act),
        get("/login", login.show_login),
        post("/login", login.login),
        post("/logout", login.logout),
        post("/theme", login.choose_theme),
        get("/docs", api_page.docs),
        get("/guide", guide.contents),
        get("/guide/grafana.json", guide.dashboard),
        get("/guide/{name:[^/]+}", guide.guide),
        get("/openapi.json", openapi.serve),
        get("/api/stream", hints.stream),
        get("/static/{digest}/{path:.+}", assets.serve_asset),
    ]
