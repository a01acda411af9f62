"""How a version takes over and how it is served: what an order may say beside the version."""

from __future__ import annotations

from dataclasses import dataclass

EVERYTHING = 100
MAX_STEPS = 20


@dataclass(frozen=True, slots=True)
class RolloutStep:
    """A share of the requests in percent, and what to wait for before the next."""

    weight: int
    hold_seconds: float = 0.0
    manual: bool = False


ALL_AT_ONCE = (RolloutStep(EVERYTHING),)


@dataclass(frozen=True, slots=True)
class RolloutAnalysis:
    """What must hold of the new version while the live one answers too; None: not looked at."""

    min_request_count: int
    max_error_rate: float | None = None
    max_error_rate_increase: float | None = None
    max_p95_seconds: float | None = None
    max_p95_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """How a version takes over from the live one."""

    steps: tuple[RolloutStep, ...] = ALL_AT_ONCE
    analysis: RolloutAnalysis | None = None
    progress_seconds: float = 0.0
    """0: the deployer's setting."""
    keep_previous_warm: bool = False


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """Between how many model servers there are, by the requests in hand."""

    min_count: int
    max_count: int
    target_concurrency: float = 0.0
    """Requests in hand for each; 0: as many as it predicts at once."""
    cooldown_seconds: float = 60.0
    """So long fewer must have been enough before there are fewer."""


@dataclass(frozen=True, slots=True)
class Batching:
    """How many requests are predicted together at most, and how long the first waits for more."""

    max_size: int
    delay_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which requests become rows of a dataset, and how many make a version of it."""

    share: float
    """Of the requests, more than 0, at most 1."""
    rows_per_second: int = 100
    """Of each model server, at most."""
    rows_per_version: int = 1_000
    interval_seconds: float = 900.0
    """When a version is made of fewer rows."""


@dataclass(frozen=True, slots=True)
class ServingSpec:
    """How a version is served; 0: the controller's default."""

    replica_count: int = 1
    worker_count: int = 1
    concurrency: int = 0
    queue_size: int = 0
    cpu_cores: float = 0.0
    memory_bytes: int = 0
    timeout_seconds: float = 0.0
    sampling: Sampling | None = None
    batching: Batching | None = None
    autoscaling: Autoscaling | None = None


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """A header, by its name in lower case and its whole value, that requests may have."""

    name: str
    value: str

    def __str__(self) -> str:
        return f"{self.name}: {self.value}"


@dataclass(frozen=True, slots=True)
class Traffic:
    """What was counted of a variant since it started."""

    request_count: int = 0
    error_count: int = 0
    buckets: tuple[tuple[float, int], ...] = ()
    """(Bound in milliseconds, answers that took at most so long), by rising bound."""

    def since(self, earlier: Traffic) -> Traffic | None:
        """Return what was counted after `earlier`; None when counting began anew since."""
        before = dict(earlier.buckets)
        buckets = tuple((bound, count - before.get(bound, 0)) for bound, count in self.buckets)
        requests = self.request_count - earlier.request_count
        errors = self.error_count - earlier.error_count
        if min(requests, errors, *(count for _, count in buckets)) < 0:
            return None
        return Traffic(requests, errors, buckets)

    @property
    def error_rate(self) -> float:
        """Return the share of failed requests; NaN when there were none."""
        return self.error_count / self.request_count if self.request_count else float("nan")

    def latency(self, quantile: float) -> float:
        """Return a quantile of the latency in milliseconds; NaN when nothing was answered.

        Linear within a bucket, as Prometheus' `histogram_quantile` has it; what lies beyond
        the last finite bound is infinite, so that no limit passes on what was not measured.
        """
        total = self.buckets[-1][1] if self.buckets else 0
        rank, below, least = quantile * total, 0, 0.0
        for bound, count in self.buckets if total else ():
            if count >= rank and count > below:
                return least + (bound - least) * (rank - below) / (count - below)
            least, below = bound, count
        return float("nan")
