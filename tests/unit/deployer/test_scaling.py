"""Decisions about how many model servers there are, on a clock of the test's own."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from itertools import pairwise

import pytest

from services.deployer.agent.scaling import MEAN_SECONDS, Scaler
from services.deployer.rollouts.plans import Autoscaling, ServingSpec

COOLDOWN = 60.0


class Clock:
    """Looks once a second; model servers are ready at once unless a test says otherwise."""

    def __init__(
        self, *, least: int = 1, most: int = 8, target: float = 4.0, count: int = 1
    ) -> None:
        plan = Autoscaling(least, most, target, COOLDOWN)
        self.scaler = Scaler(ServingSpec(autoscaling=plan), count)
        self.now = 1_000.0
        self.changes: list[int] = []
        self.times: list[float] = []
        self.why = ""

    def see(self, loads: Iterable[float], *, missing: int = 0) -> list[int]:
        """Look at loads, one a second; return the changes."""
        before = len(self.changes)
        for load in loads:
            self.now += 1.0
            scale = self.scaler.observe(load, self.now, ready=self.scaler.count - missing)
            if scale is not None:
                self.changes.append(scale.count)
                self.times.append(self.now)
                self.why = scale.why
        return self.changes[before:]


def test_a_load_gets_what_it_needs_soon() -> None:
    clock = Clock()
    assert clock.see([14.0] * 5) == []
    assert clock.see([14.0]) == [4]
    assert clock.why == "14.0 requests in hand, 4 wanted for each of 1"
    assert clock.see([14.0] * 300) == []


def test_there_are_fewer_only_after_a_cooldown() -> None:
    clock = Clock(count=4)
    assert clock.see([7.0] * 60) == []
    assert clock.see([7.0]) == [2]
    assert clock.why == "at most 7.0 requests in hand for 60 s, 4 wanted for each"
    assert clock.see([7.0] * 300) == []


def test_the_bounds_hold() -> None:
    clock = Clock(least=2, most=3, count=2)
    assert clock.see([1e9] * 100) == [3]
    assert clock.see([0.0] * 300) == [2]


def test_loads_that_come_and_go_change_nothing() -> None:
    clock = Clock(count=4)
    wave = ([15.0] * 20 + [2.0] * 30) * 20
    assert clock.see(wave) == []


def test_a_peak_that_is_gone_at_once_changes_nothing() -> None:
    clock = Clock()
    assert clock.see([1.0] * 10 + [12.0] + [1.0] * 10) == []


def test_about_the_target_nothing_changes() -> None:
    chance = random.Random(7)  # noqa: S311
    clock = Clock(count=3)
    assert clock.see(chance.uniform(11.0, 13.0) for _ in range(1_000)) == []


@pytest.mark.parametrize("missing", [math.nan, math.inf, -1.0])
def test_a_figure_that_is_missing_changes_nothing(missing: float) -> None:
    clock = Clock(count=2)
    assert clock.see([missing] * 200) == []
    assert clock.see([30.0] * 4 + [missing] + [30.0] * 4) == []  # what was seen before is too old
    assert clock.see([missing] + [0.0] * 59 + [missing] + [0.0] * 59) == []
    assert clock.see([0.0] * 2) == [1]


def test_a_gap_in_what_is_seen_begins_anew() -> None:
    clock = Clock(count=2)
    assert clock.see([0.0] * 59) == []
    clock.now += 30
    assert clock.see([0.0] * 59) == []


def test_nothing_changes_until_all_are_ready() -> None:
    clock = Clock(count=2)
    assert clock.see([40.0] * 50, missing=1) == []
    assert clock.see([40.0] * (int(MEAN_SECONDS) + 1)) == [8]


def test_the_target_is_what_each_predicts_at_once_unless_given() -> None:
    serving = ServingSpec(worker_count=2, concurrency=3, autoscaling=Autoscaling(1, 4))
    scaler = Scaler(serving, 1)
    scales = [scaler.observe(12.0, float(second), ready=1) for second in range(7)]
    assert [scale.count for scale in scales if scale] == [2]


def test_any_load_keeps_to_the_bounds_and_to_the_cooldown() -> None:
    chance = random.Random(11)  # noqa: S311
    clock = Clock(least=1, most=5)
    for _ in range(5_000):
        load = chance.choice([0.0, 3.0, 9.0, 25.0, math.nan])
        clock.see([load] * chance.randrange(1, 40))
    assert set(clock.changes) == {1, 2, 3, 4, 5}
    changed = list(zip(clock.times, [1, *clock.changes], clock.changes, strict=False))
    lowered = [time for time, before, after in changed if after < before]
    assert len(lowered) > 10
    assert all(later - earlier >= COOLDOWN for earlier, later in pairwise(lowered))
