"""The analysis of a rollout's step: pure rules, each judged with its numbers.

What cannot be judged yet, a missing count, NaN or infinity, never passes: too few
requests wait for more, everything else that is no number fails.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from services.deployer.rollouts.plans import RolloutAnalysis, Traffic

P95 = 0.95


class Result(StrEnum):
    """How an analysis stands."""

    PASSED = "PASSED"
    INCONCLUSIVE = "INCONCLUSIVE"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Finding:
    """How an analysis stands, and why, for a person."""

    result: Result
    explanation: str


def analyse(wanted: RolloutAnalysis, candidate: Traffic | None, live: Traffic | None) -> Finding:
    """Judge what was counted of the new and of the live version in the present step.

    Args:
        wanted: the limits.
        candidate: of the new version; None when it is not known.
        live: of the live one; None when it is not known.
    """
    if candidate is None:
        return Finding(Result.INCONCLUSIVE, "nothing was counted yet")
    if candidate.request_count < wanted.min_request_count:
        count, least = candidate.request_count, wanted.min_request_count
        return Finding(Result.INCONCLUSIVE, f"{count} of at least {least} requests so far")
    findings = list(_findings(wanted, candidate, live))
    for result in (Result.FAILED, Result.INCONCLUSIVE):
        texts = [finding.explanation for finding in findings if finding.result is result]
        if texts:
            return Finding(result, "; ".join(texts))
    texts = [finding.explanation for finding in findings]
    return Finding(Result.PASSED, "; ".join([f"{candidate.request_count} requests", *texts]))


def _findings(
    wanted: RolloutAnalysis, candidate: Traffic, live: Traffic | None
) -> Iterator[Finding]:
    errors, latency = candidate.error_rate, candidate.latency(P95)
    if wanted.max_error_rate is not None:
        yield _within("error rate", errors, wanted.max_error_rate, _percent)
    if math.isnan(latency) and (wanted.max_p95_seconds or wanted.max_p95_ratio):
        # Latencies are merged a moment after the requests are counted.
        yield Finding(Result.INCONCLUSIVE, "no latency was measured yet")
        return
    if wanted.max_p95_seconds is not None:
        yield _within("p95 latency", latency, wanted.max_p95_seconds * 1000, _milliseconds)
    compared = (wanted.max_error_rate_increase, wanted.max_p95_ratio)
    if compared == (None, None):
        return
    if live is None or live.request_count == 0 or math.isnan(live.latency(P95)):
        yield Finding(Result.INCONCLUSIVE, "the live version had no requests to compare with")
        return
    if wanted.max_error_rate_increase is not None:
        bound = live.error_rate + wanted.max_error_rate_increase
        yield _within("error rate", errors, bound, _percent, beside=live.error_rate)
    if wanted.max_p95_ratio is not None:
        present = live.latency(P95)
        bound = present * wanted.max_p95_ratio
        yield _within("p95 latency", latency, bound, _milliseconds, beside=present)


def _within(
    what: str,
    value: float,
    bound: float,
    write: Callable[[float], str],
    *,
    beside: float | None = None,
) -> Finding:
    live = "" if beside is None else f" (live: {write(beside)})"
    text = f"{what} {write(value)}, limit {write(bound)}{live}"
    passed = math.isfinite(value) and math.isfinite(bound) and value <= bound
    return Finding(Result.PASSED if passed else Result.FAILED, text)


def _percent(value: float) -> str:
    return f"{value:.2%}"


def _milliseconds(value: float) -> str:
    return f"{value:.4g} ms"
