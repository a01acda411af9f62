"""How a version takes over and is served: `Analysis` and `Serving`, for `client.deployments`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from modelyard.errors import InvalidArgumentError

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

    from modelyard.deployer.v1 import rollout_pb2

LAST = 100


@dataclass(frozen=True)
class Analysis:
    """What must hold of a canary before it gets more requests; None: not looked at.

    Judged on the server by what its proxy counted since the present step began. Too few
    requests, a missing value and NaN never pass.

    Attributes:
        min_requests: With fewer requests to the new version there is no result.
        max_error_rate: The greatest share of failed requests, 0 to 1.
        max_error_rate_increase: By how much that may be above the live version's.
        max_p95: The greatest 95th percentile of the latency, in seconds.
        max_p95_ratio: The same as a multiple of the live version's.
    """

    min_requests: int = 50
    max_error_rate: float | None = None
    max_error_rate_increase: float | None = None
    max_p95: float | None = None
    max_p95_ratio: float | None = None

    def to_proto(self) -> rollout_pb2.RolloutAnalysis:
        """Return it as the API has it."""
        from modelyard.deployer.v1 import rollout_pb2  # noqa: PLC0415 - grpc waits for its use

        return rollout_pb2.RolloutAnalysis(
            min_request_count=self.min_requests,
            max_error_rate=self.max_error_rate,
            max_error_rate_increase=self.max_error_rate_increase,
            max_p95_latency=None if self.max_p95 is None else duration(self.max_p95),
            max_p95_latency_ratio=self.max_p95_ratio,
        )


@dataclass(frozen=True)
class Autoscaling:
    """Between how many model servers there are, by the requests that they have in hand.

    Attributes:
        most: How many at most.
        least: How many at least.
        target: How many requests each should have in hand; 0: as many as it predicts at once.
        cooldown: Seconds that fewer must have been enough before there are fewer; None: 60.
    """

    most: int
    least: int = 1
    target: float = 0.0
    cooldown: float | None = None

    def to_proto(self) -> rollout_pb2.Autoscaling:
        """Return it as the API has it."""
        from modelyard.deployer.v1 import rollout_pb2  # noqa: PLC0415 - grpc waits for its use

        return rollout_pb2.Autoscaling(
            min_replica_count=self.least,
            max_replica_count=self.most,
            target_concurrency=self.target,
            cooldown=None if self.cooldown is None else duration(self.cooldown),
        )


@dataclass(frozen=True)
class Batching:
    """Which requests are predicted together: those that wait and can be joined row by row.

    Attributes:
        size: How many requests at most, 2 to 1,024.
        delay: Seconds that the first of them waits for more; 0: only what waits anyway is joined.
    """

    size: int
    delay: float = 0.0

    def to_proto(self) -> rollout_pb2.Batching:
        """Return it as the API has it."""
        from modelyard.deployer.v1 import rollout_pb2  # noqa: PLC0415 - grpc waits for its use

        delay = duration(self.delay) if self.delay else None
        return rollout_pb2.Batching(max_size=self.size, max_delay=delay)


@dataclass(frozen=True)
class Sampling:
    """Which requests become rows of the dataset `{model}-{environment}-requests`.

    Of a request its inputs and outputs are taken where they are numbers, truth values or text in
    tensors of one or two dimensions. They are summed up to profiles; the rows are not kept.

    Attributes:
        share: Of the requests, more than 0 and at most 1.
        max_rows_per_second: Of each model server; 0: 100.
        rows: How many make a dataset version; 0: 1,000.
        interval: Seconds after which fewer rows make one; None: 15 minutes.
    """

    share: float
    max_rows_per_second: int = 0
    rows: int = 0
    interval: float | None = None

    def to_proto(self) -> rollout_pb2.Sampling:
        """Return it as the API has it."""
        from modelyard.deployer.v1 import rollout_pb2  # noqa: PLC0415 - grpc waits for its use

        return rollout_pb2.Sampling(
            share=self.share,
            max_rows_per_second=self.max_rows_per_second,
            rows_per_version=self.rows,
            interval=None if self.interval is None else duration(self.interval),
        )


@dataclass(frozen=True)
class Serving:
    """How a version is served; 0: the agent's default.

    Attributes:
        replicas: How many model servers.
        workers: Processes of each model server that predict.
        concurrency: Predictions at a time in each process.
        queue: Requests that may wait in each process; more are refused at once.
        cpu: Cores of each model server.
        memory_bytes: Memory of each model server.
        timeout: How long one prediction may take, in seconds.
        sampling: Which requests become rows of a dataset; None: none.
        batching: Which requests are predicted together; None: none.
        autoscaling: Between how many model servers there are; None: `replicas` of them.
    """

    replicas: int = 1
    workers: int = 1
    concurrency: int = 0
    queue: int = 0
    cpu: float = 0.0
    memory_bytes: int = 0
    timeout: float = 0.0
    sampling: Sampling | None = None
    batching: Batching | None = None
    autoscaling: Autoscaling | None = None

    def to_proto(self) -> rollout_pb2.ServingSpec:
        """Return it as the API has it."""
        from modelyard.deployer.v1 import rollout_pb2  # noqa: PLC0415 - grpc waits for its use

        return rollout_pb2.ServingSpec(
            replica_count=self.replicas,
            worker_count=self.workers,
            concurrency=self.concurrency,
            queue_size=self.queue,
            cpu_cores=self.cpu,
            memory_bytes=self.memory_bytes,
            timeout=duration(self.timeout) if self.timeout else None,
            sampling=None if self.sampling is None else self.sampling.to_proto(),
            batching=None if self.batching is None else self.batching.to_proto(),
            autoscaling=None if self.autoscaling is None else self.autoscaling.to_proto(),
        )


def make_plan(
    canary: Sequence[int],
    *,
    hold: float,
    manual: bool,
    analysis: Analysis | None,
    progress_timeout: float | None,
    keep_warm: bool,
) -> rollout_pb2.RolloutPlan:
    """Return a plan of equal steps; a last one of 100 % is added when it is left out.

    Raises:
        InvalidArgumentError: There is no share below 100 that could be held, or wait.
    """
    from modelyard.deployer.v1 import rollout_pb2  # noqa: PLC0415 - grpc waits for its use

    weights = [*canary] if not canary or canary[-1] == LAST else [*canary, LAST]
    if len(weights) < 2 and (hold or manual):
        problem = "hold and manual need a canary: a share below 100"
        raise InvalidArgumentError(problem, reason="INVALID_FIELD")
    steps = [rollout_pb2.RolloutStep(weight=weight) for weight in weights]
    for step in steps[:-1]:
        step.manual = manual
        if hold:
            step.hold.CopyFrom(duration(hold))
    return rollout_pb2.RolloutPlan(
        steps=steps,
        analysis=None if analysis is None else analysis.to_proto(),
        progress_timeout=None if progress_timeout is None else duration(progress_timeout),
        keep_previous_warm=keep_warm,
    )


def duration(seconds: float) -> Duration:
    """Return so many seconds as the API has them.

    Raises:
        InvalidArgumentError: NaN, infinity, or more than anything may take.
    """
    from google.protobuf.duration_pb2 import Duration  # noqa: PLC0415 - protobuf waits for its use

    message = Duration()
    try:
        message.FromTimedelta(timedelta(seconds=seconds))
    except (ValueError, OverflowError):
        problem = f"{seconds} is no number of seconds that can be waited for"
        raise InvalidArgumentError(problem, reason="INVALID_FIELD") from None
    return message
