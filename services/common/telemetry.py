"""Traces and metrics: OpenTelemetry spans by W3C context, Prometheus figures.

The SDK is imported only when a collector is configured: without one, tracing
costs nothing at start and a no-op per call.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import prometheus_client
from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, StatusCode

TRACER = "modelyard"

_DURATION = prometheus_client.Histogram(
    "modelyard_rpc_duration_seconds", "How long RPCs took.", ["method", "code"]
)
_REFUSED = prometheus_client.Counter(
    "modelyard_rpc_refused", "RPCs refused as they arrived: too many wait.", ["method"]
)
_IN_FLIGHT = prometheus_client.Gauge("modelyard_rpc_in_flight", "RPCs in progress.")


@dataclass(frozen=True, slots=True)
class MeasuredCall:
    """An RPC under measurement."""

    method: str
    started: float
    span: Span | None


class Telemetry:
    """A process's tracing and metrics."""

    def __init__(self, provider: object | None = None) -> None:
        self._provider = provider
        self._tracer = trace.get_tracer(TRACER)
        self._durations: dict[tuple[str, str], prometheus_client.Histogram] = {}

    def start_call(self, method: str, metadata: Mapping[str, str]) -> MeasuredCall:
        """Start to measure an RPC and make it a span of the caller's trace."""
        _IN_FLIGHT.inc()
        return MeasuredCall(method, time.perf_counter(), self._start_span(method, metadata))

    def end_call(self, call: MeasuredCall, code: str) -> None:
        """Observe what became of an RPC."""
        if call.span is not None:
            if code != "OK":
                call.span.set_status(StatusCode.ERROR, code)
            call.span.end()
        _IN_FLIGHT.dec()
        durations = self._durations.get((call.method, code))
        if durations is None:
            durations = self._durations[call.method, code] = _DURATION.labels(call.method, code)
        durations.observe(time.perf_counter() - call.started)

    def count_refused(self, method: str) -> None:
        """Count an RPC that was refused as it arrived."""
        _REFUSED.labels(method).inc()

    def _start_span(self, method: str, metadata: Mapping[str, str]) -> Span | None:
        if self._provider is None and "traceparent" not in metadata:
            return None  # nobody would see it
        context = propagate.extract(metadata) if "traceparent" in metadata else None
        span = self._tracer.start_span(method, context, SpanKind.SERVER)
        # Attached and never detached: an RPC has a task, and so a context, of its own, and
        # a stream that its caller left is closed in another one.
        otel_context.attach(trace.set_span_in_context(span))
        return span

    def serve_metrics(self, port: int) -> None:
        """Serve Prometheus' text format on a loopback port; 0: do not."""
        if port:
            prometheus_client.start_http_server(port, addr="127.0.0.1")

    def close(self) -> None:
        """Send what is left to the collector."""
        shutdown = getattr(self._provider, "shutdown", None)
        if shutdown is not None:
            shutdown()


@contextlib.contextmanager
def span(name: str, *, trace_parent: str = "") -> Iterator[None]:
    """Make a piece of work a span, of the trace that `trace_parent` names if given."""
    context = propagate.extract({"traceparent": trace_parent}) if trace_parent else None
    with trace.get_tracer(TRACER).start_as_current_span(name, context):
        yield


def inject(metadata: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return call metadata with the current trace context added."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return [*metadata, *carrier.items()]


def trace_parent() -> str:
    """Return the current trace context, to go on with it later; empty when there is none."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent", "")


def configure(service_name: str, *, otlp_endpoint: str | None, sample_ratio: float) -> Telemetry:
    """Set up this process's tracing; spans leave it only when there is a collector."""
    if otlp_endpoint is None:
        return Telemetry()
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio  # noqa: PLC0415

    provider = TracerProvider(
        sampler=ParentBasedTraceIdRatio(sample_ratio),
        resource=Resource.create({"service.name": service_name}),
    )
    exporter = OTLPSpanExporter(endpoint=otlp_endpoint, insecure=otlp_endpoint.startswith("http:"))
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1_000))
    trace.set_tracer_provider(provider)
    return Telemetry(provider)
