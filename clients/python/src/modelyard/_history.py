"""Metric points as a client reads them: columns of steps, times and values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from modelyard.metadata.v1 import run_pb2
from modelyard.metadata.v1 import run_service_pb2 as service

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class MetricPoints:
    """Points of one metric, by step and then by order of logging; the lists have one length."""

    key: str
    steps: list[int]
    times_us: list[int]
    values: list[float]
    sampled_from: int | None = None
    """How many points these were chosen from; None when they are all."""

    @property
    def times(self) -> list[datetime]:
        """Return when the points were logged."""
        return [_EPOCH + timedelta(microseconds=time) for time in self.times_us]

    def __len__(self) -> int:
        return len(self.steps)

    def extend(self, column: run_pb2.MetricColumn) -> None:
        """Add the points of a message."""
        self.steps.extend(column.steps)
        self.times_us.extend(column.times_us)
        self.values.extend(column.values)


def samples(response: service.SampleMetricPointsResponse) -> dict[str, MetricPoints]:
    """Return sampled points by metric."""
    found = {}
    for sample in response.samples:
        points = MetricPoints(sample.points.key, [], [], [], sample.point_count)
        points.extend(sample.points)
        found[points.key] = points
    return found
