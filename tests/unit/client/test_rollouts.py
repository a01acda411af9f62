"""Plans of rollouts as the client makes them."""

from __future__ import annotations

import math
from functools import partial

import pytest
from modelyard.cli.deploy_options import serving_of
from modelyard.errors import InvalidArgumentError
from modelyard.rollouts import Analysis, Serving, duration, make_plan


def test_a_canary_is_completed() -> None:
    analysis = Analysis(min_requests=5, max_error_rate=0.0, max_p95=0.25)
    plan = make_plan(
        [5, 25], hold=1.5, manual=True, analysis=analysis, progress_timeout=None, keep_warm=False
    )
    assert [step.weight for step in plan.steps] == [5, 25, 100]
    assert [step.manual for step in plan.steps] == [True, True, False]
    assert [step.hold.ToMilliseconds() for step in plan.steps] == [1500, 1500, 0]
    assert plan.analysis.HasField("max_error_rate")
    assert not plan.analysis.HasField("max_error_rate_increase")
    assert plan.analysis.max_p95_latency.ToMilliseconds() == 250
    assert not plan.HasField("progress_timeout")


def test_options_say_how_a_version_is_served() -> None:
    plain = partial(serving_of, concurrency=0, queue=0, cpu=0.0, memory="", sample=0.0, batch=0)
    assert plain(1, 1, autoscale="") == Serving()
    scaled = plain(2, 1, autoscale="1-4:2.5").to_proto()
    assert (scaled.replica_count, scaled.autoscaling.max_replica_count) == (2, 4)
    assert scaled.autoscaling.target_concurrency == 2.5
    full = serving_of(1, 3, 4, 5, cpu=0, memory="1M", sample=0.5, batch=8, autoscale="").to_proto()
    assert (full.sampling.share, full.batching.max_size, full.memory_bytes) == (0.5, 8, 1 << 20)
    assert (full.worker_count, full.concurrency, full.queue_size) == (3, 4, 5)
    with pytest.raises(InvalidArgumentError, match="no size"):
        serving_of(1, 1, 0, 0, cpu=0, memory="much", sample=0, batch=0, autoscale="")
    for wrong in ("4", "1-", "one-two", "1-4:", "-1-4"):
        with pytest.raises(InvalidArgumentError):
            plain(1, 1, autoscale=wrong)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, 1e300])
def test_what_is_no_time_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidArgumentError):
        duration(seconds)
