"""Keeps open pages up to date while the application runs: hears telemetry, samples the rates, marks what changed."""

import asyncio
import contextlib
import itertools
from asyncio import create_task
from collections.abc import AsyncIterator

from aiohttp import web

from replayforge.engine.report.daemon_status import DaemonStatus
from replayforge.web.http.context import CONTEXT, WebContext
from replayforge.web.live.hints import HUB, TOPICS, Hub
from replayforge.web.live.live_rates import LINES, LIVE_RATES, LiveRates

RATES, TIME, PARTS = frozenset({"rates"}), frozenset({"time"}), frozenset({"parts"})
SAMPLES_PER_LOOK = 6


def install(app: web.Application, context: WebContext) -> None:
    """Prepare an application for hints and rates."""
    app[LIVE_RATES] = LiveRates(context.metrics_recorder, context.clock)
    app[HUB] = Hub()
    app.cleanup_ctx.append(kept_alive)
    # The streams end before the server waits for open requests, else every open tab would hold up the exit.
    app.on_shutdown.append(close_streams)


async def kept_alive(app: web.Application) -> AsyncIterator[None]:
    """Listen to telemetry and sample the rates for as long as the application runs."""
    hub, live_rates, telemetry = app[HUB], app[LIVE_RATES], app[CONTEXT].telemetry
    hub.open()
    with telemetry.heard_by(live_rates.listen, LINES), telemetry.heard_by(hub.listen, TOPICS):
        sampling = create_task(sample(live_rates, hub, app[CONTEXT].status), name="live rates")
        yield
        sampling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sampling


async def sample(live_rates: LiveRates, hub: Hub, status: DaemonStatus) -> None:
    """Take samples, and tell open pages when the rates have changed, or whether a part works."""
    shown, working = live_rates.rates(), ""
    for number in itertools.count(1):
        await live_rates.tick()
        # Some words are true for a while only, such as that something crashed a moment ago.
        if number % SAMPLES_PER_LOOK == 0:
            hub.mark(TIME)
        # While nothing happens nobody else notices that the store is away.
        if hub.clients and (found := " ".join(check.status for check in await status.checks())) != working:
            working = found
            hub.mark(PARTS)
        if (rates := live_rates.rates()) != shown:
            shown = rates
            hub.mark(RATES)


async def close_streams(app: web.Application) -> None:
    """End every open stream."""
    app[HUB].close()
