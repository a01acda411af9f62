"""What a controller may not report: it is stored and read again and again."""

from __future__ import annotations

import math

import pytest
from modelyard.common.v1 import failure_pb2
from modelyard.deployer.v1 import assignment_pb2, deployment_pb2, rollout_pb2

from services.common.errors import ServiceError
from services.deployer import codec


@pytest.mark.parametrize(
    "buckets",
    [[(math.nan, 1)], [(-5.0, 1)], [(1.0, -1)], [(1.0, 2), (2.0, 1)], [(1.0, 1), (1.0, 2)]],
)
def test_buckets_that_make_no_sense_are_refused(buckets: list[tuple[float, int]]) -> None:
    traffic = rollout_pb2.VariantTraffic(
        latency_buckets=[
            rollout_pb2.LatencyBucket(upper_milliseconds=bound, cumulative_count=count)
            for bound, count in buckets
        ]
    )
    _refused(assignment_pb2.VariantStatus(traffic=traffic), "traffic.latency_buckets")


def test_a_reason_without_end_is_refused() -> None:
    failure = failure_pb2.Failure(reason="X" * 64)
    _refused(assignment_pb2.VariantStatus(failure=failure), "failure.reason")


def test_a_cause_of_scaling_without_end_is_refused() -> None:
    _refused(assignment_pb2.VariantStatus(scaling="x" * 301), "scaling")


def _refused(variant: assignment_pb2.VariantStatus, field: str) -> None:
    variant.revision, variant.state = 1, deployment_pb2.VARIANT_STATE_FAILED
    status = assignment_pb2.AssignmentStatus(generation=1, variants=[variant])
    with pytest.raises(ServiceError) as caught:
        codec.decode_report(status)
    assert caught.value.reason == "INVALID_FIELD"
    assert f"status.variants[0].{field}" in str(caught.value.metadata)
