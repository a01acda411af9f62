"""How gates judge a version: pure rules, each verdict explained with its numbers.

A missing metric, NaN, and a metric whose better direction is unknown never pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

from services.deployer.domain import (
    Evaluation,
    Evidence,
    Gate,
    GateKind,
    Goal,
    Verdict,
)

Judged = tuple[bool, str]


def judge(gates: Sequence[Gate], evidence: Evidence) -> tuple[Verdict, ...]:
    """Judge a version by each gate, in order."""
    return tuple(Verdict(gate.gate_id, *_JUDGES[gate.kind](gate, evidence)) for gate in gates)


def refusals(verdicts: Sequence[Verdict]) -> str:
    """Say which gates refuse and why; empty when all pass."""
    failed = [verdict for verdict in verdicts if not verdict.passed]
    return "; ".join(f"{verdict.gate_id}: {verdict.explanation}" for verdict in failed)


def _judge_tests(_gate: Gate, evidence: Evidence) -> Judged:
    if evidence.candidate.tests_passed:
        return True, "the source's tests ran in the build and passed"
    return False, "the source's tests did not run in a build and pass"


def _judge_threshold(gate: Gate, evidence: Evidence) -> Judged:
    goal = gate.goal or evidence.goals.get(gate.metric)
    if goal is None:
        return False, _no_goal(gate.metric)
    metrics: Mapping[str, float] = evidence.candidate.metrics
    if gate.dataset:
        found = _on(evidence.evaluations, gate.dataset, gate.metric)
        if not found:
            return False, _not_evaluated("the version", gate)
        metrics = found[0].metrics
    value = metrics.get(gate.metric)
    problem = _problem(gate.metric, value, "the version")
    if value is None or problem:
        return False, problem
    passed = _reaches(value, gate.threshold, goal, strict=gate.strict)
    return passed, _comparison(gate.metric, value, gate.threshold)


def _judge_progress(gate: Gate, evidence: Evidence) -> Judged:
    if evidence.live is None:
        return True, "nothing is live"
    goal = gate.goal or evidence.goals.get(gate.metric)
    if goal is None:
        return False, _no_goal(gate.metric)
    ours, theirs = evidence.candidate.metrics, evidence.live.metrics
    if gate.dataset:
        pair = _on_the_same(evidence, gate)
        if pair is None:
            both = "the version and the live one"
            return False, f"{_not_evaluated(both, gate)}, on the same version of it"
        ours, theirs = pair
    value, present = ours.get(gate.metric), theirs.get(gate.metric)
    problem = _problem(gate.metric, value, "the version")
    problem = problem or _problem(gate.metric, present, "the live version")
    if value is None or present is None or problem:
        return False, problem
    # Decimal, as people wrote them: 0.9 + 0.05 must be reached by 0.95.
    margin = Decimal(repr(gate.margin)) * (1 if goal is Goal.MAXIMIZE else -1)
    passed = _reaches(value, Decimal(repr(present)) + margin, goal, strict=gate.strict)
    wanted = f", which must be beaten by {gate.margin}" if gate.margin else ""
    return passed, f"{_comparison(gate.metric, value, present)} of the live version{wanted}"


def _judge_evaluation(gate: Gate, evidence: Evidence) -> Judged:
    if _on(evidence.evaluations, gate.dataset, gate.metric):
        return True, "it was evaluated"
    return False, _not_evaluated("the version", gate)


def _judge_signature(gate: Gate, evidence: Evidence) -> Judged:
    problem = evidence.unsigned.get(gate.gate_id)
    return problem is None, problem or "its files are signed by a key that is trusted"


def _judge_format(gate: Gate, evidence: Evidence) -> Judged:
    report = evidence.format
    if report is None:
        return False, "nobody looked at its files"
    allowed = {"ALLOWED", "UNVERIFIED"} if gate.unverified else {"ALLOWED"}
    return report.verdict in allowed, report.explanation


def _judge_approval(gate: Gate, evidence: Evidence) -> Judged:
    author = evidence.candidate.creator
    others = [a.principal for a in evidence.approvals if a.principal != author]
    names = f" ({', '.join(others)})" if others else ""
    text = f"{len(others)} of {gate.count} approvals by others than {author or 'its author'}"
    return len(others) >= gate.count, f"{text}{names}"


_JUDGES: Mapping[GateKind, Callable[[Gate, Evidence], Judged]] = {
    GateKind.METRIC_THRESHOLD: _judge_threshold,
    GateKind.BETTER_THAN_LIVE: _judge_progress,
    GateKind.TESTS_PASSED: _judge_tests,
    GateKind.EVALUATION_PRESENT: _judge_evaluation,
    GateKind.SIGNATURE_VALID: _judge_signature,
    GateKind.FORMAT_ALLOWED: _judge_format,
    GateKind.APPROVED: _judge_approval,
}


def _on(evaluations: Sequence[Evaluation], dataset: str, metric: str) -> list[Evaluation]:
    """Return the evaluations on a dataset and with a metric; empty: any."""
    return [
        evaluation
        for evaluation in evaluations
        if (not dataset or evaluation.dataset_version.startswith(f"{dataset}/versions/"))
        and (not metric or metric in evaluation.metrics)
    ]


def _on_the_same(
    evidence: Evidence, gate: Gate
) -> tuple[Mapping[str, float], Mapping[str, float]] | None:
    """Return both versions' metrics on the newest dataset version that both have."""
    ours = _by_dataset(_on(evidence.evaluations, gate.dataset, gate.metric))
    theirs = _by_dataset(_on(evidence.live_evaluations, gate.dataset, gate.metric))
    both = ours.keys() & theirs.keys()
    if not both:
        return None
    newest = max(both, key=lambda name: int(name.rpartition("/")[2]))
    return ours[newest], theirs[newest]


def _by_dataset(evaluations: Sequence[Evaluation]) -> dict[str, Mapping[str, float]]:
    """Return the newest metrics by dataset version."""
    return {e.dataset_version: e.metrics for e in reversed(evaluations)}


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


def _not_evaluated(whose: str, gate: Gate) -> str:
    metric = f" of metrics.{gate.metric}" if gate.metric else ""
    dataset = f" on {gate.dataset}" if gate.dataset else ""
    return f"{whose} has no evaluation{metric}{dataset}"


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
