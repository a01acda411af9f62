"""Gates: each rule, with the numbers in its explanation."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from services.deployer.domain import (
    Approval,
    Candidate,
    Evaluation,
    Evidence,
    FormatReport,
    Gate,
    GateKind,
    Goal,
    Verdict,
)
from services.deployer.environments.gates import judge, refusals

MAXIMIZE = {"f1": Goal.MAXIMIZE}
MINIMIZE = {"f1": Goal.MINIMIZE}
DATASET = "projects/p/datasets/holdout"


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
    **evidence: Any,
) -> Verdict:
    (found,) = judge([gate], Evidence(version, live=live, goals=goals or {}, **evidence))
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
    text = refusals(judge(gates, Evidence(version, live=live, goals=MAXIMIZE)))
    assert [part.split(":")[0] for part in text.split("; ")] == ["floor", "better", "tests"]
    better_one = Evidence(candidate(f1=0.99), live=live, goals=MAXIMIZE)
    assert refusals(judge(gates, better_one)) == ""


def evaluated(*found: tuple[int, float]) -> tuple[Evaluation, ...]:
    """Return evaluations on versions of a dataset, newest first."""
    return tuple(Evaluation(f"{DATASET}/versions/{n}", {"f1": value}) for n, value in found)


def test_better_on_the_same_data() -> None:
    gate = Gate("better", GateKind.BETTER_THAN_LIVE, metric="f1", dataset=DATASET)
    live = candidate(f1=0.99)

    def judged(ours: tuple[Evaluation, ...], theirs: tuple[Evaluation, ...]) -> Verdict:
        return verdict(
            gate,
            candidate(f1=0.1),
            live=live,
            goals=MAXIMIZE,
            evaluations=ours,
            live_evaluations=theirs,
        )

    assert judged(evaluated((2, 0.8)), evaluated((2, 0.7))).passed
    assert not judged(evaluated((2, 0.8)), evaluated((1, 0.7))).passed
    # The newest data that both were evaluated on counts, and the newest evaluation on it.
    assert not judged(evaluated((2, 0.5), (2, 0.9), (1, 0.9)), evaluated((2, 0.7))).passed
    assert not judged((), evaluated((2, 0.7))).passed


def test_a_threshold_on_a_dataset() -> None:
    gate = Gate("floor", GateKind.METRIC_THRESHOLD, "f1", 0.7, Goal.MAXIMIZE, dataset=DATASET)
    assert verdict(gate, candidate(), evaluations=evaluated((3, 0.75))).passed
    assert not verdict(gate, candidate(f1=0.99), evaluations=evaluated((3, 0.65))).passed
    assert not verdict(gate, candidate(f1=0.99)).passed
    assert not verdict(gate, candidate(f1=0.99), evaluations=evaluated((3, math.nan))).passed


def test_evaluation_present() -> None:
    gate = Gate("evaluated", GateKind.EVALUATION_PRESENT, metric="f1", dataset=DATASET)
    assert verdict(gate, candidate(), evaluations=evaluated((3, 0.1))).passed
    other = (Evaluation(f"{DATASET}-old/versions/1", {"f1": 1.0}),)
    assert not verdict(gate, candidate(), evaluations=other).passed
    anything = Gate("evaluated", GateKind.EVALUATION_PRESENT)
    assert verdict(anything, candidate(), evaluations=other).passed
    assert not verdict(anything, candidate()).passed


@pytest.mark.parametrize(
    ("worst", "strict", "loose"),
    [("ALLOWED", True, True), ("UNVERIFIED", False, True), ("UNSAFE", False, False)],
)
def test_format_allowed(worst: str, strict: bool, loose: bool) -> None:
    report = FormatReport(worst, "so it is")
    for unverified, passed in ((False, strict), (True, loose)):
        gate = Gate("format", GateKind.FORMAT_ALLOWED, unverified=unverified)
        assert verdict(gate, candidate(), format=report).passed is passed
    assert not verdict(Gate("format", GateKind.FORMAT_ALLOWED), candidate()).passed


def test_approvals_by_others() -> None:
    gate = Gate("approved", GateKind.APPROVED, count=2)
    version = replace(candidate(), creator="user:ada")
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def judged(*principals: str) -> Verdict:
        approvals = tuple(Approval(version.name, who, "", now) for who in principals)
        return verdict(gate, version, approvals=approvals)

    assert not judged("user:ada", "user:bob").passed
    assert judged("user:ada", "user:bob").explanation == (
        "1 of 2 approvals by others than user:ada (user:bob)"
    )
    assert judged("user:bob", "user:eve").passed


def test_signature_valid() -> None:
    gate = Gate("signed", GateKind.SIGNATURE_VALID, public_keys=("key",))
    assert verdict(gate, candidate()).passed
    found = verdict(gate, candidate(), unsigned={"signed": "its files are not signed"})
    assert (found.passed, found.explanation) == (False, "its files are not signed")
