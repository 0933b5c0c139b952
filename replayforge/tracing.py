"""The seam for traces: spans of requests, attempts and steps. Who makes them is told by the environment, if anybody."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
Attributes = Mapping[str, str | int]


class TraceSpan(Protocol):
    """A piece of work within a trace; `trace` is what is handed on to whatever belongs to it."""

    @property
    def trace(self) -> str:
        """The trace context of what is done within it."""

    def make_current(self) -> None:
        """Have spans that user code begins in the running context, for as long as that is, begin within this one."""

    def end(self, outcome: str, error: str | None = None) -> None:
        """Say that it is over, and how."""


class Tracer(Protocol):
    """Makes spans and sends them somewhere."""

    def begin(self, name: str, kind: str, trace: str | None, attributes: Attributes) -> TraceSpan:
        """Begin a span in a trace, a new one if there is none; `kind` is "server" or "consumer"."""

    def step(self, name: str, attributes: Attributes) -> AbstractContextManager[TraceSpan]:
        """Give a span within the current one, which is the current one meanwhile."""

    def current(self) -> str | None:
        """Return the trace context of the current span, if there is one."""

    def close(self) -> None:
        """Send what has ended, within a few seconds; blocks."""


class TracingMissing(Exception):
    """Traces are wanted, and what would send them is not installed."""


def tracer_for(environment: Mapping[str, str]) -> Tracer | None:
    """Return who sends spans where the standard variables say, None where they say nothing; raises TracingMissing.

    Until they say so nothing of it is imported.
    """
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if disabled or environment.get("OTEL_TRACES_EXPORTER") == "none" or not any(map(environment.get, ENDPOINTS)):
        return None
    try:
        from replayforge.open_telemetry import OpenTelemetryTracer
    except ImportError as error:
        raise TracingMissing(str(error)) from error
    return OpenTelemetryTracer()
