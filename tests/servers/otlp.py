"""An OpenTelemetry collector: it keeps the spans it is sent, for tests to look at."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True, slots=True)
class SinkSpan:
    """A span, and the service that sent it."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, str]


class OtlpSink(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans over OTLP/gRPC."""

    def __init__(self) -> None:
        self.endpoint = ""
        self._spans: list[SinkSpan] = []
        self._changed = threading.Condition()

    @property
    def spans(self) -> list[SinkSpan]:
        """Return the spans received so far."""
        with self._changed:
            return list(self._spans)

    def wait_for(
        self, condition: Callable[[list[SinkSpan]], bool], *, seconds: float = 20
    ) -> list[SinkSpan]:
        """Return the spans once they meet a condition."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not condition(self._spans):
                if not self._changed.wait(deadline - time.monotonic()):
                    raise AssertionError(f"not within {seconds} s; received: {self._spans}")
            return list(self._spans)

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._changed:
            for group in request.resource_spans:
                service = _attributes(group.resource.attributes).get("service.name", "")
                for scope in group.scope_spans:
                    self._spans.extend(_span(service, span) for span in scope.spans)
            self._changed.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def running() -> Iterator[OtlpSink]:
    """Run a sink in this process."""
    sink = OtlpSink()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(sink, server)  # type: ignore[no-untyped-call]  # generated
    sink.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield sink
    finally:
        server.stop(None).wait()


def _span(service: str, span: Any) -> SinkSpan:
    return SinkSpan(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes=_attributes(span.attributes),
    )


def _attributes(pairs: Any) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in pairs}
