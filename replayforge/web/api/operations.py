"""How the daemon is: convergence with the ledger, workers, services, metrics, health."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import msgspec
from aiohttp import web

from replayforge.crashpoints import POINTS
from replayforge.domain.clock import format_time
from replayforge.domain.histogram import QUANTILES, quantile_us
from replayforge.domain.lifecycle import OPEN, State
from replayforge.domain.metrics_history import RANGES
from replayforge.engine.report.convergence import Convergence
from replayforge.engine.report.daemon_status import HealthCheck, ServiceStatus
from replayforge.engine.run.chaos import Chaos
from replayforge.web.api import shapes
from replayforge.web.api.metrics_history import history_of
from replayforge.web.api.shapes import json_response
from replayforge.web.api.snapshot import convergence_of
from replayforge.web.http.context import WebContext, context_of
from replayforge.web.http.problems import HttpProblem
from replayforge.web.http.reading import query_float, read_object
from replayforge.web.live.live_rates import LIVE_RATES

DAY_SECONDS = 86_400.0
WINDOW_SECONDS_MAX = 365 * DAY_SECONDS
FAILURES_WINDOW_SECONDS = 900.0


async def convergence(request: web.Request) -> web.Response:
    """Answer whether everything accepted has ended, with the ledger that shows it."""
    return json_response(await convergence_report(request))


async def convergence_report(request: web.Request) -> dict[str, Any]:
    """Return the report, legacy names included, and the ledger."""
    context = context_of(request)
    report = await convergence_of(request)
    failures = await context.queries.error_insights(FAILURES_WINDOW_SECONDS)
    stream = await context.status.stream_stats()
    ledger, states = report.ledger, report.ledger.states
    workers = context.status.workers()
    answer = {
        "converged": report.converged,
        "convergence_state": state_of(report),
        "issues": report.issues,
        "ledger": ledger.as_json(),
        "ledger_in_words": ledger.in_words(),
        "nodes": [shapes.node(node) for node in report.living],
        "unreachable_nodes": [shapes.node(node) for node in report.gone],
        "verified_at": format_time(context.clock.now_us()),
        "total_events": ledger.accepted,
        "processed_events": ledger.terminal + ledger.retired,
        "received_events": ledger.unprojected,
        "scheduled_events": states[State.SCHEDULED],
        "queued_events": states[State.QUEUED],
        "processing_events": states[State.PROCESSING],
        "retrying_events": states[State.RETRYING],
        "retrying_later_events": report.retrying_later,
        "waiting": report.waiting,
        "kept": report.kept,
        "held_events": states[State.HELD],
        "paused_events": report.paused,
        "blocked_events": report.blocked,
        "deploy": context.status.deploy,
        "pauses": [shapes.pause_shape(pause) for pause in report.pauses],
        "dead_lettered_events": states[State.DEAD_LETTERED],
        "pending_events": report.backlog,
        "oldest_queued_seconds": report.oldest_queued_seconds,
        "stream_backlog": stream.depth,
        "orphaned_records": ledger.lost,
        "duplicate_deliveries": context.telemetry.counts["event.copied"],
        # Since this daemon started: a handler had succeeded when its lease was gone, so the event ran elsewhere too.
        # Whether its effects are there twice is beyond what anybody but the handler can tell.
        "duplicate_side_effects": context.telemetry.counts["attempt.duplicated"],
        "fenced_results": context.telemetry.counts["attempt.fenced"],
        "recent_failures": sum(group.count for group in failures),
        "recent_failures_capped": any(group.capped for group in failures),
        "active_workers": sum(worker.state in ("busy", "idle") for worker in workers),
        "stale_workers": sum(worker.state not in ("busy", "idle") for worker in workers),
        **shapes.CONSTANTS,
    }
    return shapes.with_legacy_names("Convergence", answer)


def state_of(report: Convergence) -> str:
    """Say in one word how the ledger stands."""
    if report.ledger.lost:
        return "degraded"
    return "converged" if report.converged else "recovering"


async def workers(request: web.Request) -> web.Response:
    """Answer with what each worker does, of this daemon now and of the others when they reported last."""
    context, status = context_of(request), context_of(request).status
    now_us = context.clock.now_us()
    items = [shapes.worker(worker, status.node, now_us) for worker in status.workers()]
    for peer in await status.list_peers():
        items += [shapes.distant_worker(worker, peer.node, is_stale=not peer.is_alive) for worker in peer.workers]
    return json_response({"items": items, "next_cursor": None, "has_more": False})


async def supervisor(request: web.Request) -> web.Response:
    """Answer with the services and how often each was restarted."""
    return json_response({"services": [service(one) for one in context_of(request).status.services()]})


def service(status: ServiceStatus) -> dict[str, Any]:
    """Show a service as the supervisor knows it."""
    return {
        "name": status.name,
        "state": status.state,
        "since": format_time(status.since_us),
        "restarts": status.restarts,
        "last_error": status.last_error,
        "last_error_at": None if status.last_error_at_us is None else format_time(status.last_error_at_us),
        "traceback": status.last_traceback,
    }


async def metrics_json(request: web.Request) -> web.Response:
    """Answer with the metrics under their legacy names."""
    context = context_of(request)
    report = await convergence_report(request)
    counts, states = context.telemetry.counts, (await convergence_of(request)).ledger.states
    stream = await context.status.stream_stats()
    return json_response(
        report
        | paces(context)
        | await latencies(request)
        | {
            **{state.value: states[state] for state in OPEN},
            "succeeded": states[State.SUCCEEDED],
            # Between a failure and its next attempt an event is retrying; no event just stands there failed.
            "failed": states[State.RETRYING],
            "dead_lettered": states[State.DEAD_LETTERED],
            "replay_requeued": counts["event.replayed"] + counts["replay.advanced"],
            "incoming_pending": stream.pending,
            "retry_pending": 0,
            "counters": dict(counts),
        }
    )


async def latencies(request: web.Request) -> dict[str, Any]:
    """Return how fast events come and go here, and how long those of the last hour took on all daemons."""
    history = await history_of(request, RANGES["1h"])
    accepted_per_second, done_per_second = request.config_dict[LIVE_RATES].rates()
    quantiles = {name: quantile_us(history.metrics_history.latencies, share) for name, share in QUANTILES.items()}
    in_ms = {name: None if found is None else found / 1000 for name, found in quantiles.items()}
    return {
        "accepted_per_sec": round(accepted_per_second, 3),
        "done_per_sec": round(done_per_second, 3),
        "p50_latency_ms": in_ms["p50"],
        "p95_latency_ms": in_ms["p95"],
        "p99_latency_ms": in_ms["p99"],
    }


def paces(context: WebContext) -> dict[str, Any]:
    """Return how fast attempts and replays went of late, in this process."""
    figures = context.status.attempt_figures()
    return {
        "processed_per_sec": round(figures.succeeded_per_second, 3),
        "event_attempt_failures": figures.attempt_failures,
        "avg_attempt_duration_ms": figures.attempt_ms_average,
        "p50_attempt_duration_ms": figures.attempt_ms_p50,
        "p95_attempt_duration_ms": figures.attempt_ms_p95,
        "replay_success_rate": round(figures.replay_success_share, 3),
        "replay_latency_ms": figures.replay_ms_average,
    }


async def error_insights(request: web.Request) -> web.Response:
    """Answer with the errors of the last so many seconds, gathered."""
    window = query_float(request, "window_seconds", DAY_SECONDS, low=1, high=WINDOW_SECONDS_MAX)
    groups = await context_of(request).queries.error_insights(window)
    capped = any(group.capped for group in groups)
    items = [shapes.group(group) for group in groups]
    return json_response({"window_seconds": window, "count_capped": capped, "items": items})


async def live(_: web.Request) -> web.Response:
    """Answer that the process is up, and which version it is."""
    return json_response({"status": "ok", "version": package_version()})


@cache
def package_version() -> str:
    """Return the version of the installed package; code that runs from its source has none."""
    try:
        return version("replayforge")
    except PackageNotFoundError:
        return "source"


async def ready(request: web.Request) -> web.Response:
    """Answer whether events can be accepted: 503 if not, else `ok`, or `degraded` with the cause."""
    status = context_of(request).status
    checks, cause = await status.checks(), status.unready_because()
    body = {"status": word(not cause, checks), "checks": {check.name: shown(check) for check in checks}}
    if not cause:
        return json_response(body)
    return json_response(body | {"detail": cause}, status=503, headers={"Retry-After": "1"})


def word(is_ready: bool, checks: list[HealthCheck]) -> str:
    """Return the one word for the whole."""
    if not is_ready:
        return "unavailable"
    return "ok" if all(check.status == "ok" for check in checks) else "degraded"


def shown(check: HealthCheck) -> dict[str, Any]:
    """Show one check."""
    return {"status": check.status, "latency_ms": round(check.latency_ms, 3), "detail": check.detail}


async def stream_health(request: web.Request) -> web.Response:
    """Answer how the stream is."""
    stats = await context_of(request).status.stream_stats()
    body = {"backend": stats.backend, "status": "ok" if stats.up else "down", "warnings": list(stats.warnings)}
    return json_response(body, status=200)


async def stream_stats(request: web.Request) -> web.Response:
    """Answer with the figures of the stream."""
    return json_response(await context_of(request).status.stream_stats())


class CrashRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Which crash point to arm, and the nth time it kills."""

    point: Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(POINTS)})]
    times: Annotated[int, msgspec.Meta(ge=1)] = 1


async def arm_crash(request: web.Request) -> web.Response:
    """Arm a crash point: the process dies there."""
    chaos = require_chaos(context_of(request))
    asked = await read_object(request, CrashRequest)
    chaos.arm(asked.point, asked.times)
    return json_response({"point": asked.point, "times": asked.times}, status=202)


async def crash_worker(request: web.Request) -> web.Response:
    """Crash one worker."""
    context, name = context_of(request), request.match_info["name"]
    require_chaos(context)
    if name not in {worker.name for worker in context.status.workers()}:
        raise HttpProblem("not-found", f"There is no worker {name!r}.")
    context.supervisor.crash(name)
    return json_response({"worker_name": name, "status": "crashed"}, status=202)


def require_chaos(context: WebContext) -> Chaos:
    """Return what simulates crashes; raises 403 unless they are enabled."""
    if context.chaos is None:
        detail = "Start the daemon with --simulate-crashes, or with [chaos] enabled = true."
        raise HttpProblem("chaos-disabled", detail)
    return context.chaos
