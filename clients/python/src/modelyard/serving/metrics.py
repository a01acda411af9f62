"""What the model server counts, for Prometheus: `GET /metrics` on the HTTP port."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from modelyard.serving.domain import Description, ServingError
from modelyard.serving.jobs import Outcome, Protocol, Result

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_PREFIX = "modelyard_serving_"


class Metrics:
    """The counters of one model server, all its workers together."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            f"{_PREFIX}requests",
            "Infer requests by what came of them; 'overloaded' are the refused ones.",
            ("protocol", "outcome"),
            registry=registry,
        )
        seconds = Histogram(
            f"{_PREFIX}request_seconds",
            "How long answered requests took, waiting included.",
            ("protocol",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._seconds = {kind: seconds.labels(kind.name.lower()) for kind in Protocol}
        self._counted: dict[tuple[Protocol, str], Counter] = {}
        self._restarts = Counter(
            f"{_PREFIX}worker_restarts", "Workers that died and were replaced.", registry=registry
        )

        self._batches = Histogram(
            f"{_PREFIX}batch_size",
            "How many requests were predicted together with each answered one; none: no batching.",
            buckets=_BATCHES,
            registry=registry,
        )
        self._dropped = Counter(
            f"{_PREFIX}samples_dropped",
            "Requests that were to be samples and are none: too many or too large.",
            registry=registry,
        )

    def watch(
        self, served: Description, running: Callable[[], int], waiting: Callable[[], int]
    ) -> None:
        """Tell what is served, how many requests are predicted and how many wait."""
        facts = ("model", "version")
        about = Gauge(f"{_PREFIX}info", "What is served; 1.", facts, registry=self._registry)
        about.labels(served.name, served.version).set(1)
        in_flight = Gauge(
            f"{_PREFIX}in_flight", "Requests that are predicted now.", registry=self._registry
        )
        queued = Gauge(
            f"{_PREFIX}queued", "Requests that wait for a place.", registry=self._registry
        )
        in_flight.set_function(running)
        queued.set_function(waiting)

    def count(self, protocol: Protocol, outcome: Outcome, seconds: float) -> None:
        """Count a request; only answers go into the histogram, refusals would flatter it."""
        refusal = outcome.refusal if isinstance(outcome, ServingError) else None
        key = (protocol, refusal.replace(" ", "_") if refusal else "ok")
        if key not in self._counted:
            self._counted[key] = self._requests.labels(protocol.name.lower(), key[1])
        self._counted[key].inc()
        if refusal is None:
            self._seconds[protocol].observe(seconds)
        if isinstance(outcome, Result) and outcome.batch_size:
            self._batches.observe(outcome.batch_size)

    def count_restart(self) -> None:
        """Count a worker that was replaced."""
        self._restarts.inc()

    def count_dropped_sample(self) -> None:
        """Count a request that was to be a sample and is none."""
        self._dropped.inc()

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self._registry)
