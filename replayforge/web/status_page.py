"""The status page as a whole: its paths, and what its pages share."""

from aiohttp import web

from replayforge.static_files import static_root
from replayforge.web.api import metrics_history, openapi
from replayforge.web.http.context import WebContext
from replayforge.web.http.routes import ADMIN, EVERYBODY, INGEST, OPERATE, READ, Route, add_routes, get, post
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
    in_doubt_page,
    lane_pages,
    login,
    lookup,
    overview_page,
    rendering,
    replay_pages,
    runtime_page,
    schedule_pages,
    sending,
    shadow_pages,
    source_pages,
    workflow_pages,
)


def install(app: web.Application, context: WebContext) -> None:
    """Add the status page to the application."""
    app[assets.ASSETS] = assets.load_assets(static_root())
    app[rendering.ENVIRONMENT] = rendering.build_environment()
    app[rendering.LETTER_GROUPS] = CachedAnswer(context.clock)
    app[metrics_history.HISTORIES] = metrics_history.HistoryCache(context.metrics_recorder, context.clock)
    add_routes(app, routes())
    live_updates.install(app, context)
    app.on_startup.append(login.learn_of_ended)


def routes() -> list[Route]:
    """Return the paths of the status page, each with the least role that it needs."""
    return [
        get("/", overview_page.overview, READ),
        get("/events", event_list.events, READ),
        get("/events/{id}", event_page.event, READ),
        get("/events/{id}/{part:payload|metadata|result}", event_page.event_part, READ),
        get("/workflows", workflow_pages.workflows, READ),
        get("/workflows/{id:[^/]+}", workflow_pages.workflow, READ),
        get("/dead-letters", dead_letters_page.dead_letters, READ),
        get("/in-doubt", in_doubt_page.in_doubt, READ),
        get("/replays", replay_pages.replays, READ),
        get("/replays/new", replay_pages.ask, READ),
        post("/replays", replay_pages.make, OPERATE),
        get("/replays/{id:[^/]+}", replay_pages.replay, READ),
        post("/replays/{id:[^/]+}/{verb}", replay_pages.move, OPERATE),
        get("/shadow/new", shadow_pages.ask, READ),
        post("/shadow", shadow_pages.compare, ADMIN),
        get("/shadow/{id:[^/]+}", shadow_pages.report, READ),
        get("/handlers", handler_pages.handlers, READ),
        get("/handlers/pause", handler_pages.ask, READ),
        post("/handlers/pause", handler_pages.pause, OPERATE),
        post("/handlers/resume", handler_pages.resume, OPERATE),
        get("/sources", source_pages.sources, READ),
        get("/sources/pause", source_pages.ask, READ),
        post("/sources/pause", source_pages.pause, OPERATE),
        post("/sources/resume", source_pages.resume, OPERATE),
        get("/sources/{name:[^/]+}/refusals", source_pages.refusals, READ),
        post("/sources/{name:[^/]+}/refusals", source_pages.verify, OPERATE),
        get("/schedules", schedule_pages.schedules, READ),
        post("/schedules/run", schedule_pages.run, OPERATE),
        get("/schedules/pause", schedule_pages.ask, READ),
        post("/schedules/pause", schedule_pages.pause, OPERATE),
        post("/schedules/resume", schedule_pages.resume, OPERATE),
        get("/lanes", lane_pages.lanes, READ),
        get("/runtime", runtime_page.runtime, READ),
        get("/search", lookup.search, READ),
        get("/lookup", lookup.look_up, READ),
        get("/send", sending.show_form, READ),
        post("/send", sending.send, INGEST),
        get("/confirm/{verb}", actions.confirm, READ),
        post("/actions/replay-workflow", actions.replay_workflow, OPERATE),
        post("/actions/subscribers", actions.replay_subscribers, OPERATE),
        post("/actions/edited-replay", sending.send_edited, OPERATE),
        post("/actions/signal", sending.send_signal, OPERATE),
        post("/actions/resolve", actions.resolve, OPERATE),
        post("/actions/decide", in_doubt_page.decide, OPERATE),
        post("/actions/crash-worker", actions.crash_worker, ADMIN),
        post("/actions/demo-load", actions.demo_load, ADMIN),
        post("/actions/{verb}", actions.act, OPERATE),
        get("/login", login.show_login, EVERYBODY),
        post("/login", login.login, EVERYBODY),
        post("/logout", login.logout, EVERYBODY),
        post("/theme", login.choose_theme, READ),
        get("/docs", api_page.docs, READ),
        get("/guide", guide.contents, READ),
        get("/guide/grafana.json", guide.dashboard, READ),
        get("/guide/{name:[^/]+}", guide.guide, READ),
        get("/openapi.json", openapi.serve, READ),
        get("/api/stream", hints.stream, READ),
        get("/static/{digest}/{path:.+}", assets.serve_asset, EVERYBODY),
    ]
