"""Spans by OpenTelemetry, sent by OTLP over HTTP: the only module that knows it, imported only where it is wanted."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

from opentelemetry import trace as api
from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from replayforge.domain.trace import trace_headers, trace_of
from replayforge.tracing import Attributes

CLOSE_SECONDS = 2.0
KINDS = {"server": api.SpanKind.SERVER, "consumer": api.SpanKind.CONSUMER}
FINE = frozenset({"succeeded", "parked", "200", "201"})
propagator = TraceContextTextMapPropagator()


class OpenTelemetrySpan:
    """See TraceSpan."""

    def __init__(self, span: api.Span) -> None:
        self.span = span
        self.context = api.set_span_in_context(span, Context())

    @property
    def trace(self) -> str:
        """See TraceSpan.trace."""
        return trace_in(self.context) or ""

    def make_current(self) -> None:
        """See TraceSpan.make_current."""
        attach(self.context)

    def end(self, outcome: str, error: str | None = None) -> None:
        """See TraceSpan.end."""
        self.span.set_attribute("replayforge.outcome", outcome)
        if outcome not in FINE:
            self.span.set_status(api.StatusCode.ERROR, (error or outcome).partition("\n")[0])
        self.span.end()


class OpenTelemetryTracer:
    """See Tracer. Where user code has set up a provider before, that one makes the spans, and sends them its way."""

    def __init__(self) -> None:
        self.own: TracerProvider | None = None
        if not isinstance(api.get_tracer_provider(), TracerProvider):
            named = Resource({SERVICE_NAME: "replayforge"}).merge(OTELResourceDetector().detect())
            self.own = TracerProvider(resource=Resource.create().merge(named), shutdown_on_exit=False)
            self.own.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
            api.set_tracer_provider(self.own)
        self.tracer = api.get_tracer("replayforge")

    def begin(self, name: str, kind: str, trace: str | None, attributes: Attributes) -> OpenTelemetrySpan:
        """See Tracer.begin."""
        parent = propagator.extract(trace_headers(trace), Context())
        return OpenTelemetrySpan(self.tracer.start_span(name, parent, KINDS[kind], dict(attributes)))

    @contextmanager
    def step(self, name: str, attributes: Attributes) -> Iterator[OpenTelemetrySpan]:
        """See Tracer.step."""
        span = OpenTelemetrySpan(self.tracer.start_span(name, attributes=dict(attributes)))
        mark = attach(api.set_span_in_context(span.span))
        try:
            yield span
        finally:
            detach(mark)
            if span.span.is_recording():  # what was cancelled has not ended yet
                span.end("interrupted")

    def current(self) -> str | None:
        """See Tracer.current."""
        return trace_in(None)

    def close(self) -> None:
        """See Tracer.close."""
        if self.own is not None:
            # Its own limit is not kept while a collector is silent, and a thread like this holds nothing up.
            flushing = Thread(target=self.own.force_flush, name="traces", daemon=True)
            flushing.start()
            flushing.join(CLOSE_SECONDS)


def trace_in(context: Context | None) -> str | None:
    """Return the trace context of the span that is current in a context."""
    headers: dict[str, str] = {}
    propagator.inject(headers, context)
    return trace_of(headers)
