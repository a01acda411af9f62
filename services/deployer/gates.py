"""How gates judge a version: pure rules, each verdict explained with its numbers.

A missing metric, NaN, and a metric whose better direction is unknown never pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal

from services.deployer.domain import Candidate, Gate, GateKind, Goal, Verdict

Goals = Mapping[str, Goal]


def judge(
    gates: Sequence[Gate], candidate: Candidate, *, live: Candidate | None, goals: Goals
) -> tuple[Verdict, ...]:
    """Judge a version by each gate, in order; `live` is what answers now."""
    return tuple(_judge(gate, candidate, live, goals) for gate in gates)


def refusals(verdicts: Sequence[Verdict]) -> str:
    """Say which gates refuse and why; empty when all pass."""
    failed = [verdict for verdict in verdicts if not verdict.passed]
    return "; ".join(f"{verdict.gate_id}: {verdict.explanation}" for verdict in failed)


def _judge(gate: Gate, candidate: Candidate, live: Candidate | None, goals: Goals) -> Verdict:
    if gate.kind is GateKind.TESTS_PASSED:
        passed, explanation = _judge_tests(candidate)
    elif gate.kind is GateKind.METRIC_THRESHOLD:
        passed, explanation = _judge_threshold(gate, candidate, goals)
    else:
        passed, explanation = _judge_progress(gate, candidate, live, goals)
    return Verdict(gate.gate_id, passed, explanation)


def _judge_tests(candidate: Candidate) -> tuple[bool, str]:
    if candidate.tests_passed:
        return True, "the source's tests ran in the build and passed"
    return False, "the source's tests did not run in a build and pass"


def _judge_threshold(gate: Gate, candidate: Candidate, goals: Goals) -> tuple[bool, str]:
    goal = gate.goal or goals.get(gate.metric)
    if goal is None:
        return False, _no_goal(gate.metric)
    value = candidate.metrics.get(gate.metric)
    problem = _problem(gate.metric, value, "the version")
    if value is None or problem:
        return False, problem
    passed = _reaches(value, gate.threshold, goal, strict=gate.strict)
    return passed, _comparison(gate.metric, value, gate.threshold)


def _judge_progress(
    gate: Gate, candidate: Candidate, live: Candidate | None, goals: Goals
) -> tuple[bool, str]:
    if live is None:
        return True, "nothing is live"
    goal = gate.goal or goals.get(gate.metric)
    if goal is None:
        return False, _no_goal(gate.metric)
    value, present = candidate.metrics.get(gate.metric), live.metrics.get(gate.metric)
    problem = _problem(gate.metric, value, "the version")
    problem = problem or _problem(gate.metric, present, "the live version")
    if value is None or present is None or problem:
        return False, problem
    # Decimal, as people wrote them: 0.9 + 0.05 must be reached by 0.95.
    margin = Decimal(repr(gate.margin)) * (1 if goal is Goal.MAXIMIZE else -1)
    passed = _reaches(value, Decimal(repr(present)) + margin, goal, strict=gate.strict)
    wanted = f", which must be beaten by {gate.margin}" if gate.margin else ""
    return passed, f"{_comparison(gate.metric, value, present)} of the live version{wanted}"


def _reaches(value: float, bound: float | Decimal, goal: Goal, *, strict: bool) -> bool:
    exact, least = Decimal(repr(value)), Decimal(repr(bound) if isinstance(bound, float) else bound)
    if exact == least:
        return not strict
    return exact > least if goal is Goal.MAXIMIZE else exact < least


def _problem(metric: str, value: float | None, whose: str) -> str:
    if value is None:
        return f"{whose} has no metrics.{metric}"
    if math.isnan(value):
        return f"metrics.{metric} of {whose} is NaN"
    if math.isinf(value):
        return f"metrics.{metric} of {whose} is infinite"
    return ""


def _no_goal(metric: str) -> str:
    return f"the model has no goal for metrics.{metric}, so nobody can say what is better"


def _comparison(metric: str, value: float, bound: float) -> str:
    left, right = _short(value, bound)
    relation = "is" if value == bound else "is above" if value > bound else "is below"
    return f"metrics.{metric} {left} {relation} {right}"


def _short(value: float, bound: float) -> tuple[str, str]:
    """Write two numbers briefly, but never two different ones alike."""
    left, right = f"{value:.4g}", f"{bound:.4g}"
    return (left, right) if value == bound or left != right else (repr(value), repr(bound))
