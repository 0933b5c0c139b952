"""The page of the daemon itself, part by part."""

import os
import resource
import sys
from collections.abc import Iterator

from aiohttp import web

from replayforge.domain.clock import format_time
from replayforge.domain.reports import Node
from replayforge.engine.report.convergence import Convergence
from replayforge.engine.report.daemon_status import ChoreStatus, DaemonStatus, ServiceStatus, StoreStatus, WorkerStatus
from replayforge.streams.stream import StreamStats
from replayforge.web.api.alerts import AlertShape, alert_shapes
from replayforge.web.api.snapshot import convergence_of
from replayforge.web.http.context import context_of
from replayforge.web.live.live_rates import LIVE_RATES, LiveRates
from replayforge.web.pages.rendering import PageTemplate, show
from replayforge.web.pages.rows import AlertRow, ChoreRow, Fact, NodeRow, ServiceRow, WorkerRow
from replayforge.web.pages.views import RuntimeView
from replayforge.web.pages.words import count, duration, first_line, plural, size

# Chores whose result is bytes, and of what.
BYTES_OF = {"disk": "free", "scrub": "read"}


async def runtime(request: web.Request) -> web.Response:
    """Show the daemon itself, part by part."""
    status, alerts = context_of(request).status, await alert_shapes(request)
    view = await runtime_view(status, await convergence_of(request), request.config_dict[LIVE_RATES], alerts)
    return await show(request, PageTemplate("runtime.html", "Runtime", "runtime"), view)


async def runtime_view(
    status: DaemonStatus, report: Convergence, live_rates: LiveRates, alerts: list[AlertShape]
) -> RuntimeView:
    """Return the view of the runtime page."""
    workers = status.workers()
    names = {worker.name for worker in workers}
    return RuntimeView(
        process=process_facts(status, live_rates),
        services=[service_row(service) for service in status.services() if service.name not in names],
        workers=[worker_row(worker) for worker in workers],
        stream=stream_facts(await status.stream_stats()),
        log=log_facts(status),
        store=store_facts(await status.store_status()),
        recovery=recovery_facts(status),
        chores=[chore_row(chore) for chore in status.chores()],
        alerts=[row for alert in alerts for row in alert_rows(alert)],
        nodes=[
            *(node_row(node, "running") for node in report.living),
            *(node_row(node, "stopped" if node.stopped else "not heard of") for node in report.gone),
        ],
        ledger=report.ledger.in_words(),
        issues=report.issues,
    )


def process_facts(status: DaemonStatus, live_rates: LiveRates) -> list[Fact]:
    """Say what the process is."""
    return [
        Fact("Process", str(os.getpid())),
        Fact("Node", status.node),
        Fact("Up", duration(status.up_seconds())),
        Fact("Memory", size(memory_bytes()), "resident set"),
        Fact("Event loop late by", duration(live_rates.lag_ms / 1000), "at its worst within the last minute"),
        Fact("Python", sys.version.split()[0]),
    ]


def memory_bytes() -> int:
    """Return the resident memory of this process; its peak where the present is not told."""
    try:
        with open("/proc/self/statm", "rb") as status:  # noqa: PTH123 - two syscalls, read with every page
            return int(status.read().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def stream_facts(stats: StreamStats) -> list[Fact]:
    """Say how the stream is."""
    backend = f"{stats.backend} {stats.server_version}".strip()
    facts = [
        Fact("Backend", backend),
        Fact("State", "up" if stats.up else "down"),
        Fact("Entries", count(stats.depth), "hints on the stream; the rows themselves are in the store"),
        Fact("Pending", count(stats.pending), "read and not yet acknowledged"),
        Fact("Not read yet", count(stats.lag)),
        Fact("Oldest pending", duration(stats.oldest_idle_seconds)),
        Fact("Answers in", f"{stats.latency_ms:.1f} ms"),
    ]
    return facts + [Fact("Warning", warning) for warning in stats.warnings]


def log_facts(status: DaemonStatus) -> list[Fact]:
    """Say how ForgeLog is."""
    stats = status.log_stats()
    consumers = ", ".join(f"{name} {count(offset)}" for name, offset in stats.consumers.items())
    facts = [
        Fact("State", "writable" if stats.writable else f"not writable: {stats.reason}"),
        Fact("Segments", f"{count(stats.segment_count)} · {size(stats.wal_bytes)}"),
        Fact("Durable up to", f"offset {count(stats.durable_offset)}", "everything up to here survives a power cut"),
        Fact("In the store up to", f"offset {count(status.projected_offset())}"),
        Fact("Sync", f"p50 {stats.sync_p50_ms:.1f} ms · p99 {stats.sync_p99_ms:.1f} ms", "of the last 1,024 syncs"),
        Fact("Batches", f"{count(stats.committed_batches)} for {plural(stats.appended_records, 'record')}"),
        Fact("Torn tail repaired", size(stats.torn_bytes_repaired), "cut off at the last start"),
        Fact("Read again", f"{size(stats.scrubbed_bytes)}, {plural(stats.scrub_errors, 'error')}", "by the scrubber"),
    ]
    return [*facts, Fact("Consumers", consumers)] if consumers else facts


def store_facts(store: StoreStatus) -> list[Fact]:
    """Say how the store is."""
    check = store.check
    state = "answers" if check.status == "ok" else f"does not answer: {check.detail}"
    return [
        Fact("Kind", store.dialect),
        Fact("State", state),
        Fact("Answers in", f"{check.latency_ms:.1f} ms"),
        Fact("Write-ahead file", size(store.wal_bytes), "emptied when it is long; 0 where a server keeps it"),
        Fact("Schema", f"version {store.schema_version}"),
        Fact("Store", store.store_id, "the log remembers it, so that the two cannot be mixed up"),
    ]


def recovery_facts(status: DaemonStatus) -> list[Fact]:
    """Say what the last start found."""
    found, taken = status.log_recovery(), status.recovered
    facts = [
        Fact("Started", format_time(status.started_at_us), "time"),
        Fact("Before that", "stopped in order" if found.clean else "the process had died"),
        Fact("Log", f"{count(found.last_offset)} records read in {duration(found.seconds)}"),
        Fact(
            "Not yet dispatched", plural(taken.unprojected, "event"), "accepted, without a row when the process ended"
        ),
        Fact("Taken back", plural(taken.requeued, "event"), "were in flight and run again"),
        Fact("Buried", plural(taken.buried, "event"), "crashed the process three times while alone"),
        Fact("Held", plural(taken.held, "event"), "wait for a person, as their handler asks"),
    ]
    return facts + [Fact("Warning", warning) for warning in found.warnings]


def service_row(service: ServiceStatus) -> ServiceRow:
    """Return a row for a service."""
    return ServiceRow(
        name=service.name,
        state=service.state,
        since=format_time(service.since_us),
        restarts=service.restarts,
        last_error=first_line(service.last_error),
        last_error_at=optional_time(service.last_error_at_us),
        traceback=service.last_traceback or "",
    )


def worker_row(worker: WorkerStatus) -> WorkerRow:
    """Return a row for a worker and what its supervisor knows."""
    service = worker.service
    return WorkerRow(
        name=worker.name,
        state=worker.state,
        event_id=worker.event.id if worker.event else "",
        event_type=worker.event.event_type if worker.event else "",
        busy_since=optional_time(worker.busy_since_us),
        details=", ".join(f"{name} {first_line(str(value))}" for name, value in worker.details.items()),
        settled=worker.settled_count,
        restarts=service.restarts,
        last_error=first_line(service.last_error),
        last_error_at=optional_time(service.last_error_at_us),
        traceback=service.last_traceback or "",
    )


def optional_time(at_us: int | None) -> str | None:
    """Return a moment as text, if there is one."""
    return None if at_us is None else format_time(at_us)


def alert_rows(alert: AlertShape) -> Iterator[AlertRow]:
    """Yield a row for each subject that an alert stands for or could not tell of; one at least."""
    shown = [one for one in alert.subjects if one.ended_at is None or one.last_error]
    for one in shown:
        state = "active" if one.ended_at is None else "ended"
        trouble = one.last_error or ""
        yield AlertRow(alert.name, alert.when, alert.receiver, state, one.began_at, one.detail, trouble)
    if not shown:
        yield AlertRow(alert.name, alert.when, alert.receiver, "quiet", "", "", "")


def node_row(node: Node, state: str) -> NodeRow:
    """Return a row for another daemon."""
    return NodeRow(node.name, node.host, node.pid, state, format_time(node.seen_at_us), node.unprojected)


def chore_row(chore: ChoreStatus) -> ChoreRow:
    """Return a row for a duty of the janitor."""
    did = BYTES_OF.get(chore.name)
    last_time = f"{size(chore.last_count)} {did}" if did else count(chore.last_count)
    return ChoreRow(chore.name.replace("_", " "), chore.interval_seconds, last_time, chore.last_error or "")
