"""The status page as a whole: its paths, and what keeps it alive while the application runs."""

import asyncio
import contextlib
import itertools
from asyncio import create_task
from collections.abc import AsyncIterator

from aiohttp import web

from replayforge.engine.report.overview import Overview
from replayforge.web.api import metrics_history as past
from replayforge.web.api import openapi
from replayforge.web.http.context import CONTEXT, Context
from replayforge.web.live import hints as live
from replayforge.web.live.cached_answer import Remembered
from replayforge.web.live.hints import HUB, Hub
from replayforge.web.live.live_rates import LIVE_RATES, LiveRates
from replayforge.web.pages import (
    actions,
    api_page,
    assets,
    event_page,
    handler_pages,
    lookup,
    overview_page,
    rendering,
    replay_pages,
    sending,
)
from replayforge.web.pages import list_pages as pages
from replayforge.web.pages import login as session

RATES, TIME, PARTS = frozenset({"rates"}), frozenset({"time"}), frozenset({"parts"})
SAMPLES_PER_LOOK = 6


def install(app: web.Application, context: Context) -> None:
    """Add the status page to the application."""
    app[assets.ASSETS] = assets.load_assets(assets.static_root())
    app[rendering.ENVIRONMENT] = rendering.build_environment()
    app[rendering.LETTERS] = Remembered(context.overview.clock)
    app[LIVE_RATES] = LiveRates(context.metrics_recorder, context.overview.clock)
    app[past.MEMORY] = past.Memory(context.metrics_recorder, context.overview.clock)
    app[HUB] = Hub()
    app.router.add_routes(routes())
    app.cleanup_ctx.append(kept_alive)
    # The streams end before the server waits for open requests, else every open tab would hold up the exit.
    app.on_shutdown.append(close_streams)


async def kept_alive(app: web.Application) -> AsyncIterator[None]:
    """Listen to telemetry and sample the rates for as long as the application runs."""
    hub, live_rates, telemetry = app[HUB], app[LIVE_RATES], app[CONTEXT].overview.telemetry
    hub.open()
    telemetry.listeners += [live_rates.listen, hub.listen]
    sampling = create_task(sample(live_rates, hub, app[CONTEXT].overview), name="live_rates")
    yield
    sampling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sampling
    for listener in (live_rates.listen, hub.listen):
        telemetry.listeners.remove(listener)


async def sample(live_rates: LiveRates, hub: Hub, overview: Overview) -> None:
    """Take samples, and tell open pages when the rates have changed, or whether a part works."""
    shown, working = live_rates.rates(), ""
    for number in itertools.count(1):
        await live_rates.tick()
        # Some words are true for a while only, such as that something crashed a moment ago.
        if number % SAMPLES_PER_LOOK == 0:
            hub.mark(TIME)
        # While nothing happens nobody else notices that the store is away.
        if hub.clients and (found := " ".join(check.status for check in await overview.checks())) != working:
            working = found
            hub.mark(PARTS)
        if (rates := live_rates.rates()) != shown:
            shown = rates
            hub.mark(RATES)


async def close_streams(app: web.Application) -> None:
    """End every open stream."""
    app[HUB].close()


def routes() -> list[web.RouteDef]:
    """Return the paths of the status page."""
    get, post = web.get, web.post
    return [
        get("/", overview_page.overview),
        get("/events", pages.events),
        get("/events/{id}", event_page.event),
        get("/events/{id}/{part:payload|metadata|result}", event_page.event_part),
        get("/workflows", pages.workflows),
        get("/workflows/{id:[^/]+}", pages.workflow),
        get("/dead-letters", pages.dead_letters),
        get("/replays", replay_pages.replays),
        get("/replays/new", replay_pages.ask),
        post("/replays", replay_pages.make),
        get("/replays/{id:[^/]+}", replay_pages.replay),
        post("/replays/{id:[^/]+}/{verb}", replay_pages.move),
        get("/handlers", handler_pages.handlers),
        get("/handlers/pause", handler_pages.ask),
        post("/handlers/pause", handler_pages.pause),
        post("/handlers/resume", handler_pages.resume),
        get("/runtime", pages.runtime),
        get("/search", pages.search),
        get("/lookup", lookup.look_up),
        get("/send", sending.show_form),
        post("/send", sending.send),
        get("/confirm/{verb}", actions.confirm),
        post("/actions/replay-workflow", actions.replay_workflow),
        post("/actions/resolve", actions.resolve),
        post("/actions/crash-worker", actions.crash_worker),
        post("/actions/demo-load", actions.demo_load),
        post("/actions/{verb}", actions.act),
        get("/login", session.show_login),
        post("/login", session.login),
        post("/logout", session.logout),
        post("/theme", session.choose_theme),
        get("/docs", api_page.docs),
        get("/openapi.json", openapi.serve),
        get("/api/stream", live.stream),
        get("/static/{digest}/{path:.+}", assets.serve_asset),
    ]
