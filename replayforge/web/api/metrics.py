"""Figures for Prometheus, read when they are asked for."""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import accumulate

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from replayforge.daemon_log import output
from replayforge.domain.clock import MICROSECONDS_PER_SECOND
from replayforge.domain.durations import Durations, DurationsByType
from replayforge.domain.histogram import BUCKETS, EDGES_US
from replayforge.domain.lifecycle import State
from replayforge.engine.report.convergence import Convergence
from replayforge.telemetry import CATALOG, Kind, Telemetry
from replayforge.web.api.snapshot import convergence_of
from replayforge.web.http.context import WebContext, context_of

# One of two: 1, 2, 5 in each decade are enough to tell how long something takes, and half as many series.
SHOWN = range(0, BUCKETS - 1, 2)
SHOWN_EDGES = [*(f"{EDGES_US[bucket] / MICROSECONDS_PER_SECOND:g}" for bucket in SHOWN), "+Inf"]


class DaemonCollector:
    """One reading of the daemon as a Prometheus collector. `blocked` are counted by the patterns of lanes."""

    def __init__(self, context: WebContext, convergence: Convergence, blocked: Mapping[str, int]) -> None:
        self.context = context
        self.status = context.status
        self.telemetry = context.telemetry
        self.convergence = convergence
        self.ledger = convergence.ledger
        self.blocked = blocked

    def collect(self) -> Iterable[Metric]:
        """Yield every family."""
        yield from self.telemetry_counters()
        yield from self.source_figures()
        yield from self.waiting_figures()
        yield from self.deploy_figures()
        events = GaugeMetricFamily("replayforge_events", "Events by state", labels=["state"])
        for state in State:
            events.add_metric([state.value], self.ledger.states.get(state, 0))
        yield events
        yield GaugeMetricFamily("replayforge_accepted", "Events acknowledged", value=self.ledger.accepted)
        yield GaugeMetricFamily("replayforge_lost", "Acknowledged events without a row", value=self.ledger.lost)
        queued = self.context.intake.queued_events
        yield GaugeMetricFamily("replayforge_ingest_queued_events", "Events that wait to be accepted", value=queued)
        yield GaugeMetricFamily(
            "replayforge_unprojected", "Accepted events without a row yet", value=self.ledger.unprojected
        )
        yield from self.durations()
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

    def source_figures(self) -> Iterable[Metric]:
        """Yield what each source has sent that was accepted, or known before."""
        accepted = CounterMetricFamily("replayforge_deliveries_accepted", "Deliveries made events", labels=["source"])
        words = "Deliveries of events that were known before"
        known = CounterMetricFamily("replayforge_deliveries_duplicated", words, labels=["source"])
        for name, figures in self.context.sources.figures_by_name().items():
            accepted.add_metric([name], figures.accepted)
            known.add_metric([name], figures.duplicates)
        yield from (accepted, known)

    def waiting_figures(self) -> Iterable[Metric]:
        """Yield what waits for workers and for its turn."""
        oldest = self.convergence.oldest_queued_seconds
        words = "For how long the oldest queued event has waited"
        yield GaugeMetricFamily("replayforge_oldest_queued_seconds", words, value=oldest)
        words = "Events that wait for their turn in the lanes of a pattern, up to 10,000"
        blocked = GaugeMetricFamily("replayforge_lane_events_blocked", words, labels=["match"])
        for match, count in self.blocked.items():
            blocked.add_metric([match], count)
        yield blocked
        workers = GaugeMetricFamily("replayforge_workers", "Workers by what they do", labels=["state"])
        states = Counter({"busy": 0, "idle": 0})
        states.update(worker.state for worker in self.status.workers())
        for state, count in states.items():
            workers.add_metric([state], count)
        yield workers

    def deploy_figures(self) -> Iterable[Metric]:
        """Yield what becomes of open runs under the code that the daemon has begun with."""
        words = "Open runs that were looked at as the daemon started, by what the code does with them"
        runs = GaugeMetricFamily("replayforge_deploy_runs", words, labels=["verdict"])
        for verdict, count in self.status.deploy_verdicts().items():
            runs.add_metric([verdict], count)
        yield runs

    def durations(self) -> Iterable[Metric]:
        """Yield how long what ended has taken, since this process began."""
        recorder = self.context.metrics_recorder
        words = "How long attempts of handlers took that have ended"
        yield by_type("replayforge_handler_duration_seconds", words, recorder.handler_durations)
        words = "From acceptance to the recorded end of the first run, of events that waited for nothing outside"
        yield by_type("replayforge_latency_seconds", words, recorder.latencies)
        words = "From the first try of a step to its recorded end"
        yield histogram("replayforge_step_latency_seconds", words, recorder.step_latencies)
        words = "How late the event loop was when it was looked at, some ten times a second"
        yield histogram("replayforge_loop_lag_seconds", words, self.status.loop_lags())

    def log_figures(self) -> Iterable[Metric]:
        """Yield the figures of ForgeLog."""
        stats = self.status.log_stats()
        gauges = {
            "durable_offset": (stats.durable_offset, "The last record that is on the disk"),
            "bytes": (stats.wal_bytes, "What ForgeLog takes on the disk"),
            "segments": (stats.segment_count, "The files of ForgeLog"),
            "writable": (int(not self.status.closed_because()), "Whether ForgeLog takes records: 1 or 0"),
        }
        counters = {
            "scrubbed_bytes": (stats.scrubbed_bytes, "What the scrubber has read"),
            "scrub_errors": (stats.scrub_errors, "Damage that the scrubber has met"),
        }
        for name, (value, words) in gauges.items():
            yield GaugeMetricFamily(f"replayforge_log_{name}", words, value=value)
        for name, (value, words) in counters.items():
            yield CounterMetricFamily(f"replayforge_log_{name}", words, value=value)
        words = "How long syncs of the log took"
        yield histogram("replayforge_log_sync_seconds", words, self.status.sync_durations())


def histogram(name: str, words: str, durations: Durations) -> Metric:
    """Return durations that were counted in buckets."""
    family = HistogramMetricFamily(name, words, labels=[])
    family.add_metric([], shown_buckets(durations), durations.sum_us / MICROSECONDS_PER_SECOND)
    return family


def by_type(name: str, words: str, durations: DurationsByType) -> Metric:
    """Return durations that were counted by event type and outcome."""
    family = HistogramMetricFamily(name, words, labels=["event_type", "outcome"])
    for event_type, by_outcome in durations.by_type.items():
        for outcome, some in by_outcome.items():
            family.add_metric([event_type, outcome], shown_buckets(some), some.sum_us / MICROSECONDS_PER_SECOND)
    return family


def shown_buckets(durations: Durations) -> list[tuple[str, int]]:
    """Return how many were no longer than each edge that is shown."""
    passed = list(accumulate(durations.counts))
    return list(zip(SHOWN_EDGES, [*(passed[bucket] for bucket in SHOWN), passed[-1]], strict=True))


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
    convergence = await convergence_of(request)
    blocked = await context.queries.blocked_by(sorted(context.lanes.by_match))
    collectors.register(DaemonCollector(context, convergence, blocked))
    ProcessCollector(registry=collectors)
    return web.Response(body=generate_latest(collectors), headers={"Content-Type": "text/plain; version=0.0.4"})
