"""The steps of an unfinished rollout: which share comes when, and what it waits for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from services.deployer.domain import (
    Deployment,
    Failure,
    RevisionOutcome,
    VariantState,
)
from services.deployer.rollouts.analysis import Finding, Result, analyse
from services.deployer.rollouts.assigning import confirmed
from services.deployer.rollouts.plans import ALL_AT_ONCE, EVERYTHING, RolloutStep, Traffic


class Wait(StrEnum):
    """What an unfinished rollout waits for."""

    READY = "READY"
    TRAFFIC = "TRAFFIC"
    HOLD = "HOLD"
    ANALYSIS = "ANALYSIS"
    MANUAL = "MANUAL"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a step: it is left, unless one of these says otherwise."""

    passed: str = ""
    """What the analysis said, when there was one."""
    failure: Failure | None = None
    baseline: Deployment | None = None
    """The deployment with new counts to compare with: counting began anew."""


def steps(deployment: Deployment) -> tuple[RolloutStep, ...]:
    """Return the steps of the desired revision; with nothing live there is nothing to share."""
    return deployment.desired.plan.steps if deployment.live_revision else ALL_AT_ONCE


def weight(deployment: Deployment, step: int) -> int:
    """Return the share of a step, from 1."""
    return steps(deployment)[step - 1].weight


def is_last(deployment: Deployment) -> bool:
    """Say whether the present step is the one with all requests."""
    return deployment.assignment.weight(deployment.desired.key) == EVERYTHING


def in_force(deployment: Deployment) -> bool:
    """Say whether the present step's shares were seen in force."""
    return deployment.progress.start_time is not None


def is_manual(deployment: Deployment) -> bool:
    """Say whether the present step waits, or will wait, for somebody to say to go on."""
    step = deployment.progress.step
    return step > 0 and _present(deployment).manual and not deployment.progress.continued


def enter(deployment: Deployment, now: datetime) -> Deployment:
    """Begin a step: from now on counts, and the hold's time passes."""
    progress = replace(deployment.progress, start_time=now, before=_counted(deployment))
    return replace(deployment, progress=progress, update_time=now)


def judge(
    deployment: Deployment, now: datetime, since: datetime, wait: timedelta
) -> Verdict | None:
    """Say what becomes of a step whose shares are in force; None: wait.

    Args:
        deployment: with the newest report.
        now: the present.
        since: since when this replica looks after it: time before does not count as waited.
        wait: how long the analysis may stay without a result once the hold is over.
    """
    finding = examine(deployment)
    if finding is not None and finding.result is Result.FAILED:
        return Verdict(failure=Failure("ANALYSIS_FAILED", finding.explanation))
    if _began_anew(deployment):
        return Verdict(baseline=enter(deployment, now))
    held = _held(deployment, now)
    if held < timedelta():
        return None
    if finding is not None and finding.result is Result.INCONCLUSIVE:
        failure = Failure("ANALYSIS_INCONCLUSIVE", finding.explanation)
        return Verdict(failure=failure) if min(held, now - since) >= wait else None
    if is_manual(deployment):
        return None
    return Verdict(passed=finding.explanation if finding else "")


def examine(deployment: Deployment) -> Finding | None:
    """Analyse the present step; None when the plan asks for no analysis."""
    wanted = deployment.desired.plan.analysis
    if wanted is None:
        return None
    live = deployment.live
    candidate = _since(deployment, deployment.desired.key)
    return analyse(wanted, candidate, _since(deployment, live.key) if live else None)


def waits_for(deployment: Deployment, now: datetime) -> Wait | None:
    """Say what an unfinished rollout waits for; None when there is none."""
    if deployment.desired.outcome is not RevisionOutcome.IN_PROGRESS:
        return None
    if deployment.progress.step == 0:
        status = deployment.report.variant(deployment.desired.key)
        ready = status is not None and status.state is VariantState.READY
        return None if ready and confirmed(deployment) else Wait.READY
    if not in_force(deployment):
        return Wait.TRAFFIC
    if _held(deployment, now) < timedelta():
        return Wait.HOLD
    finding = examine(deployment)
    if finding is not None and finding.result is not Result.PASSED:
        return Wait.ANALYSIS
    return Wait.MANUAL if is_manual(deployment) else None


def _present(deployment: Deployment) -> RolloutStep:
    return steps(deployment)[deployment.progress.step - 1]


def _held(deployment: Deployment, now: datetime) -> timedelta:
    """Return since when the step's hold is over; negative while it is not."""
    start = deployment.progress.start_time or now
    return now - start - timedelta(seconds=_present(deployment).hold_seconds)


def _counted(deployment: Deployment) -> dict[int, Traffic]:
    return {v.revision: v.traffic for v in deployment.report.variants if v.traffic is not None}


def _since(deployment: Deployment, key: int) -> Traffic | None:
    traffic = deployment.report.traffic(key)
    before = deployment.progress.before.get(key, Traffic())
    return None if traffic is None else traffic.since(before)


def _began_anew(deployment: Deployment) -> bool:
    """Say whether a count fell: a variant or its proxy was started again."""
    counted, before = _counted(deployment), deployment.progress.before
    return any(counted[key].since(before[key]) is None for key in counted.keys() & before.keys())
