"""Gates: each rule, with the numbers in its explanation."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from services.deployer.domain import Candidate, Gate, GateKind, Goal, Verdict
from services.deployer.gates import judge, refusals

MAXIMIZE = {"f1": Goal.MAXIMIZE}
MINIMIZE = {"f1": Goal.MINIMIZE}


def candidate(*, tests_passed: bool = True, **metrics: float) -> Candidate:
    return measured(metrics, tests_passed=tests_passed)


def measured(metrics: dict[str, float], *, tests_passed: bool = True) -> Candidate:
    return Candidate("projects/p/models/m/versions/1", "a", "", metrics, tests_passed)


def floor(threshold: float, goal: Goal | None = None) -> Gate:
    return Gate("floor", GateKind.METRIC_THRESHOLD, metric="f1", threshold=threshold, goal=goal)


def better(margin: float = 0.0) -> Gate:
    return Gate("better", GateKind.BETTER_THAN_LIVE, metric="f1", margin=margin)


def verdict(
    gate: Gate,
    version: Candidate,
    *,
    live: Candidate | None = None,
    goals: dict[str, Goal] | None = None,
) -> Verdict:
    (found,) = judge([gate], version, live=live, goals=goals or {})
    return found


@pytest.mark.parametrize(
    ("value", "threshold", "goal", "passed"),
    [
        (0.95, 0.95, Goal.MAXIMIZE, True),
        (0.96, 0.95, Goal.MAXIMIZE, True),
        (0.912, 0.95, Goal.MAXIMIZE, False),
        (0.3, 0.4, Goal.MINIMIZE, True),
        (0.5, 0.4, Goal.MINIMIZE, False),
    ],
)
def test_threshold(value: float, threshold: float, goal: Goal, passed: bool) -> None:
    assert verdict(floor(threshold, goal), candidate(f1=value)).passed is passed


def test_threshold_explains_itself() -> None:
    found = verdict(floor(0.95), candidate(f1=0.912), goals=MAXIMIZE)
    assert found.explanation == "metrics.f1 0.912 is below 0.95"
    close = verdict(floor(0.95), candidate(f1=0.9499999), goals=MAXIMIZE)
    assert not close.passed
    assert close.explanation == "metrics.f1 0.9499999 is below 0.95"


@pytest.mark.parametrize("gate", [floor(-math.inf, Goal.MAXIMIZE), better()])
@pytest.mark.parametrize("metrics", [{}, {"f1": math.nan}, {"f1": math.inf}, {"f1": -math.inf}])
def test_missing_and_not_a_number_never_pass(gate: Gate, metrics: dict[str, float]) -> None:
    for goals in (MAXIMIZE, MINIMIZE):
        found = verdict(gate, measured(metrics), live=candidate(f1=0.5), goals=goals)
        assert not found.passed
        assert "metrics.f1" in found.explanation


def test_without_a_goal_nothing_passes() -> None:
    for gate in (floor(0.1), better()):
        found = verdict(gate, candidate(f1=0.9), live=candidate(f1=0.1))
        assert not found.passed
        assert "no goal" in found.explanation


@pytest.mark.parametrize(
    ("value", "live", "margin", "goals", "passed"),
    [
        (0.9, 0.9, 0.0, MAXIMIZE, True),
        (0.9, 0.91, 0.0, MAXIMIZE, False),
        (0.95, 0.9, 0.05, MAXIMIZE, True),
        (0.3, 0.1, 0.2, MAXIMIZE, True),
        (0.94, 0.9, 0.05, MAXIMIZE, False),
        (0.1, 0.2, 0.1, MINIMIZE, True),
        (0.15, 0.2, 0.1, MINIMIZE, False),
    ],
)
def test_better_than_live(
    value: float, live: float, margin: float, goals: dict[str, Goal], passed: bool
) -> None:
    found = verdict(better(margin), candidate(f1=value), live=candidate(f1=live), goals=goals)
    assert found.passed is passed, found


@pytest.mark.parametrize(
    ("value", "goal", "passed"),
    [(0.7, Goal.MAXIMIZE, False), (0.71, Goal.MAXIMIZE, True), (0.69, Goal.MINIMIZE, True)],
)
def test_a_strict_gate_wants_more_than_just_enough(value: float, goal: Goal, passed: bool) -> None:
    """It has a goal of its own, whatever the model's is."""
    strict = replace(floor(0.7, goal), strict=True)
    assert verdict(strict, candidate(f1=value)).passed is passed
    strict = replace(better(), goal=goal, strict=True)
    assert verdict(strict, candidate(f1=value), live=candidate(f1=0.7)).passed is passed


def test_better_than_nothing_passes() -> None:
    assert verdict(better(), candidate()).passed


@pytest.mark.parametrize("metrics", [{}, {"f1": math.nan}])
def test_a_live_version_without_the_metric_refuses(metrics: dict[str, float]) -> None:
    found = verdict(better(), candidate(f1=1.0), live=measured(metrics), goals=MAXIMIZE)
    assert not found.passed
    assert "live version" in found.explanation


def test_tests_passed() -> None:
    gate = Gate("tests", GateKind.TESTS_PASSED)
    assert verdict(gate, candidate()).passed
    assert not verdict(gate, candidate(tests_passed=False)).passed


def test_refusals_name_every_gate_that_refuses() -> None:
    gates = [floor(0.9), better(), Gate("tests", GateKind.TESTS_PASSED)]
    version, live = candidate(f1=0.5, tests_passed=False), candidate(f1=0.6)
    text = refusals(judge(gates, version, live=live, goals=MAXIMIZE))
    assert [part.split(":")[0] for part in text.split("; ")] == ["floor", "better", "tests"]
    assert refusals(judge(gates, candidate(f1=0.99), live=live, goals=MAXIMIZE)) == ""
