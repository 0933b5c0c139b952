"""Figures for Prometheus, read when they are asked for."""

from collections.abc import Iterable
from itertools import accumulate

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from replayforge.daemon_log import output
from replayforge.domain.clock import MICROSECONDS_PER_SECOND
from replayforge.domain.histogram import EDGES_US
from replayforge.domain.lifecycle import State
from replayforge.domain.metrics_history import FIRST_LATENCY
from replayforge.domain.reports import Ledger
from replayforge.engine.report.metrics_recorder import MetricsRecorder
from replayforge.engine.report.overview import Overview
from replayforge.telemetry import TELEMETRY_EVENTS
from replayforge.web.http.context import context_of


class Figures:
    """One reading of the daemon as a Prometheus collector."""

    def __init__(self, overview: Overview, metrics_recorder: MetricsRecorder, ledger: Ledger) -> None:
        self.overview = overview
        self.metrics_recorder = metrics_recorder
        self.ledger = ledger

    def collect(self) -> Iterable[Metric]:
        """Yield every family."""
        telemetry_events = CounterMetricFamily(
            "replayforge_telemetry_events", "What happened, by name", labels=["name"]
        )
        for name in TELEMETRY_EVENTS:
            telemetry_events.add_metric([name], self.overview.telemetry.counts[name])
        yield telemetry_events
        events = GaugeMetricFamily("replayforge_events", "Events by state", labels=["state"])
        for state in State:
            events.add_metric([state.value], self.ledger.states.get(state, 0))
        yield events
        yield GaugeMetricFamily("replayforge_accepted", "Events acknowledged", value=self.ledger.accepted)
        yield GaugeMetricFamily("replayforge_lost", "Acknowledged events without a row", value=self.ledger.lost)
        yield GaugeMetricFamily("replayforge_waiting", "Accepted events without a row yet", value=self.ledger.waiting)
        yield self.latency()
        yield from self.log_figures()
        wal_bytes = self.overview.store.wal_bytes
        yield GaugeMetricFamily("replayforge_store_wal_bytes", "The store's write-ahead file", value=wal_bytes)
        yield from self.loop_figures()
        yield self.stray_figures()
        yield self.fault_figures()
        words = "Lines of output that were dropped"
        dropped = CounterMetricFamily("replayforge_output_lines_dropped", words, labels=["stream"])
        for sink in (output.out, output.err):
            dropped.add_metric([sink.name], sink.dropped)
        yield dropped

    def stray_figures(self) -> Metric:
        """Return how much of each handler still runs although its attempts were settled."""
        words = "Tasks and threads of settled attempts that still run"
        running = GaugeMetricFamily("replayforge_handler_running_on", words, labels=["handler", "kind"])
        for (handler, kind), count in self.overview.strays.counts().items():
            running.add_metric([handler, kind], count)
        return running

    def fault_figures(self) -> Metric:
        """Return how often each handler failed, or did something to others, by kind."""
        words = "What handlers did that failed or costs others something"
        faults = CounterMetricFamily("replayforge_handler_faults", words, labels=["handler", "kind"])
        for (handler, kind), count in self.overview.faults.counts.copy().items():
            faults.add_metric([handler, kind], count)
        return faults

    def loop_figures(self) -> Iterable[Metric]:
        """Yield how often and for how long each handler has held the event loop."""
        watch = self.overview.loop_watch
        count = CounterMetricFamily("replayforge_loop_blocked", "Times the event loop was held", labels=["handler"])
        held = CounterMetricFamily("replayforge_loop_blocked_seconds", "Seconds it was held", labels=["handler"])
        for handler, seconds in watch.seconds.copy().items():
            count.add_metric([handler], watch.count[handler])
            held.add_metric([handler], seconds)
        yield from (count, held)

    def latency(self) -> Metric:
        """Return how long first runs took from acceptance to their recorded end, since this process began."""
        counts = self.metrics_recorder.counts_since_start()[FIRST_LATENCY:]
        edges = [*(f"{edge_us / MICROSECONDS_PER_SECOND:g}" for edge_us in EDGES_US), "+Inf"]
        buckets = list(zip(edges, accumulate(counts), strict=True))
        sum_seconds = self.metrics_recorder.latency_us_since_start / MICROSECONDS_PER_SECOND
        name = "replayforge_latency_seconds"
        words = "From acceptance to the recorded end of the first run"
        return HistogramMetricFamily(name, words, buckets=buckets, sum_value=sum_seconds)

    def log_figures(self) -> Iterable[Metric]:
        """Yield the figures of ForgeLog."""
        stats = self.overview.log.stats()
        named = {
            "durable_offset": stats.durable_offset,
            "bytes": stats.wal_bytes,
            "segments": stats.segment_count,
            "sync_p50_ms": stats.sync_p50_ms,
            "sync_p99_ms": stats.sync_p99_ms,
            "scrubbed_bytes": stats.scrubbed_bytes,
            "scrub_errors": stats.scrub_errors,
            "writable": int(stats.writable),
        }
        for name, value in named.items():
            yield GaugeMetricFamily(f"replayforge_log_{name}", f"ForgeLog: {name}", value=value)


async def prometheus(request: web.Request) -> web.Response:
    """Answer with all figures in Prometheus' text format."""
    context = context_of(request)
    collectors = CollectorRegistry()
    collectors.register(
        Figures(context.overview, context.metrics_recorder, (await context.overview.convergence()).ledger)
    )
    return web.Response(body=generate_latest(collectors), headers={"Content-Type": "text/plain; version=0.0.4"})
