"""A command as the root of a trace, when a collector is configured."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from modelyard.errors import ConfigError

VARIABLE = "MODELYARD_OTLP_ENDPOINT"


@contextmanager
def traced(command: str) -> Iterator[None]:
    """Make the command a span and send it to the collector that the environment names."""
    endpoint = os.environ.get(VARIABLE)
    if not endpoint:
        yield
        return
    try:
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ModuleNotFoundError:
        raise ConfigError(
            f"{VARIABLE} is set, but tracing needs its extra: pip install 'modelyard[telemetry]'",
            reason="EXTRA_MISSING",
        ) from None
    provider = TracerProvider(resource=Resource.create({"service.name": "modelyard-cli"}))
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http:"))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    with trace.get_tracer("modelyard").start_as_current_span(command):
        yield
    provider.shutdown()
