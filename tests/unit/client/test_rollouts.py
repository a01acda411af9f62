"""Plans of rollouts as the client makes them."""

from __future__ import annotations

import math

import pytest
from modelyard.errors import InvalidArgumentError
from modelyard.rollouts import Analysis, duration, make_plan


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


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, 1e300])
def test_what_is_no_time_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidArgumentError):
        duration(seconds)
