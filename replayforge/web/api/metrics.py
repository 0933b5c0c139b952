"""Figures for Prometheus, read when they are asked for."""

from collections.abc import Iterable, Sequence
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
from replayforge.engine.report.daemon_status import DaemonStatus
from replayforge.engine.report.metrics_recorder import MetricsRecorder
from replayforge.telemetry import CATALOG, Kind, Telemetry
from replayforge.web.api.snapshot import convergence_of
from replayforge.web.http.context import context_of


class DaemonCollector:
    """One reading of the daemon as a Prometheus collector."""

    def __init__(
        self, status: DaemonStatus, telemetry: Telemetry, metrics_recorder: MetricsRecorder, ledger: Ledger
    ) -> None:
        self.status = status
        self.telemetry = telemetry
        self.metrics_recorder = metrics_recorder
        self.ledger = ledger

    def collect(self) -> Iterable[Metric]:
        """Yield every family."""
        yield from self.telemetry_counters()
        events = GaugeMetricFamily("replayforge_events", "Events by state", labels=["state"])
        for state in State:
            events.add_metric([state.value], self.ledger.states.get(state, 0))
        yield events
        yield GaugeMetricFamily("replayforge_accepted", "Events acknowledged", value=self.ledger.accepted)
        yield GaugeMetricFamily("replayforge_lost", "Acknowledged events without a row", value=self.ledger.lost)
        yield GaugeMetricFamily(
            "replayforge_unprojected", "Accepted events without a row yet", value=self.ledger.unprojected
        )
        yield self.latency()
        yield self.step_latency()
        yield from self.log_figures()
        wal_bytes = self.status.store_wal_bytes()
        yield GaugeMetricFamily("replayforge_store_wal_bytes", "The store's write-ahead file", value=wal_bytes)
        yield from self.loop_figures()
        yield self.stray_figures()
        yield self.fault_figures()
        words = "Lines of output that were dropped"
        dropped = CounterMetricFamily("replayforge_output_lines_dropped", words, labels=["stream"])
        for sink in (output.out, output.err):
            dropped.add_metric([sink.name], sink.dropped)
        yield dropped

    def telemetry_counters(self) -> Iterable[Metric]:
        """Yield how often what the catalog counts has happened, since this process began."""
        for name, kind in CATALOG.items():
            if kind.metric is None:
                continue
            words, labels = kind.sentence[0].upper() + kind.sentence[1:], [kind.label] if kind.label else []
            counter = CounterMetricFamily(f"replayforge_{kind.metric}", words, labels=labels)
            for values, count in series_of(self.telemetry, name, kind):
                counter.add_metric(values, count)
            yield counter

    def stray_figures(self) -> Metric:
        """Return how much of each handler still runs although its attempts were settled."""
        words = "Tasks and threads of settled attempts that still run"
        running = GaugeMetricFamily("replayforge_handler_running_on", words, labels=["handler", "kind"])
        for (handler, kind), count in self.status.running_on().items():
            running.add_metric([handler, kind], count)
        return running

    def fault_figures(self) -> Metric:
        """Return how often each handler failed, or did something to others, by kind."""
        words = "What handlers did that failed or costs others something"
        faults = CounterMetricFamily("replayforge_handler_faults", words, labels=["handler", "kind"])
        for (handler, kind), count in self.status.fault_counts().items():
            faults.add_metric([handler, kind], count)
        return faults

    def loop_figures(self) -> Iterable[Metric]:
        """Yield how often and for how long each handler has held the event loop."""
        count = CounterMetricFamily("replayforge_loop_blocked", "Times the event loop was held", labels=["handler"])
        held = CounterMetricFamily("replayforge_loop_blocked_seconds", "Seconds it was held", labels=["handler"])
        for one in self.status.loop_held():
            count.add_metric([one.handler], one.count)
            held.add_metric([one.handler], one.seconds)
        yield from (count, held)

    def latency(self) -> Metric:
        """Return how long first runs took from acceptance to their recorded end, since this process began."""
        counts = self.metrics_recorder.counts_since_start()[FIRST_LATENCY:]
        name = "replayforge_latency_seconds"
        words = "From acceptance to the recorded end of the first run, of events that waited for nothing outside"
        return histogram(name, words, counts, self.metrics_recorder.latency_us_since_start)

    def step_latency(self) -> Metric:
        """Return how long steps took from their first try to their recorded end, since this process began."""
        recorder, name = self.metrics_recorder, "replayforge_step_latency_seconds"
        words = "From the first try of a step to its recorded end"
        return histogram(name, words, recorder.step_latencies, recorder.step_latency_us)

    def log_figures(self) -> Iterable[Metric]:
        """Yield the figures of ForgeLog."""
        stats = self.status.log_stats()
        gauges = {
            "durable_offset": (stats.durable_offset, "The last record that is on the disk"),
            "bytes": (stats.wal_bytes, "What ForgeLog takes on the disk"),
            "segments": (stats.segment_count, "The files of ForgeLog"),
            "sync_p50_seconds": (stats.sync_p50_ms / 1000, "Half of the latest syncs took no longer"),
            "sync_p99_seconds": (stats.sync_p99_ms / 1000, "All but a hundredth of the latest syncs took no longer"),
            "writable": (int(stats.writable), "Whether ForgeLog takes records: 1 or 0"),
        }
        counters = {
            "scrubbed_bytes": (stats.scrubbed_bytes, "What the scrubber has read"),
            "scrub_errors": (stats.scrub_errors, "Damage that the scrubber has met"),
        }
        for name, (value, words) in gauges.items():
            yield GaugeMetricFamily(f"replayforge_log_{name}", words, value=value)
        for name, (value, words) in counters.items():
            yield CounterMetricFamily(f"replayforge_log_{name}", words, value=value)


def histogram(name: str, words: str, counts: Sequence[int], sum_us: int) -> Metric:
    """Return durations that were counted in buckets."""
    edges = [*(f"{edge_us / MICROSECONDS_PER_SECOND:g}" for edge_us in EDGES_US), "+Inf"]
    buckets = list(zip(edges, accumulate(counts), strict=True))
    return HistogramMetricFamily(name, words, buckets=buckets, sum_value=sum_us / MICROSECONDS_PER_SECOND)


def series_of(telemetry: Telemetry, name: str, kind: Kind) -> Iterable[tuple[list[str], int]]:
    """Yield the values of the label, if there is one, and how often a telemetry event happened with them."""
    if kind.label is None:
        yield [], telemetry.counts[name]
        return
    seen = {value: count for (one, value), count in dict(telemetry.counts_by_label).items() if one == name}
    for value, count in (dict.fromkeys(kind.values, 0) | seen).items():
        yield [value], count


async def prometheus(request: web.Request) -> web.Response:
    """Answer with all figures in Prometheus' text format."""
    context = context_of(request)
    collectors = CollectorRegistry()
    ledger = (await convergence_of(request)).ledger
    collectors.register(DaemonCollector(context.status, context.telemetry, context.metrics_recorder, ledger))
    return web.Response(body=generate_latest(collectors), headers={"Content-Type": "text/plain; version=0.0.4"})
