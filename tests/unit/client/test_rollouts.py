"""Plans of rollouts as the client makes them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from modelyard.deployer.v1 import rollout_pb2
from modelyard.errors import InvalidArgumentError
from modelyard.rollouts import make_plan


def plan(canary: Sequence[int], *, hold: float, manual: bool) -> rollout_pb2.RolloutPlan:
    return make_plan(
        canary, hold=hold, manual=manual, analysis=None, progress_timeout=None, keep_warm=False
    )


@pytest.mark.parametrize("canary", [[], [100]])
@pytest.mark.parametrize(("hold", "manual"), [(5.0, False), (0.0, True)])
def test_nothing_goes_live_at_once_that_was_to_wait(
    canary: list[int], hold: float, manual: bool
) -> None:
    with pytest.raises(InvalidArgumentError):
        plan(canary, hold=hold, manual=manual)


def test_all_but_the_last_step_wait() -> None:
    steps = plan([5, 25], hold=2.0, manual=True).steps
    assert [(s.weight, s.manual, s.hold.seconds) for s in steps] == [
        (5, True, 2),
        (25, True, 2),
        (100, False, 0),
    ]
