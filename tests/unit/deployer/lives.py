"""Lives of deployments in tests: wishes, reports, steps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from services.common.names import DeploymentName
from services.deployer.domain import (
    Assignment,
    Deployment,
    DeploymentState,
    EventType,
    Failure,
    Report,
    Revision,
    RevisionCause,
    Step,
    VariantReport,
    VariantState,
)
from services.deployer.rollouts import beside, rules
from services.deployer.rollouts.plans import (
    HeaderMatch,
    RolloutAnalysis,
    RolloutPlan,
    RolloutStep,
    Traffic,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE, IMPATIENT = 3600.0, 0.0
AT_ONCE = RolloutPlan()
ANALYSIS = RolloutAnalysis(min_request_count=20, max_error_rate=0.1, max_p95_ratio=2.0)
CANARY = RolloutPlan(
    (RolloutStep(5, hold_seconds=10), RolloutStep(50), RolloutStep(100)), analysis=ANALYSIS
)
MANUAL = RolloutPlan((RolloutStep(20, manual=True), RolloutStep(100)))
WARM = RolloutPlan(keep_previous_warm=True)
READY, FAILED = VariantState.READY, VariantState.FAILED
STARTING, DRAINING = VariantState.STARTING, VariantState.DRAINING


def blank() -> Deployment:
    return Deployment(
        name=DeploymentName("p", "production", "churn"),
        state=DeploymentState.PENDING,
        failure=None,
        desired_revision=0,
        live_revision=0,
        assignment=Assignment(),
        report=Report(),
        revisions=(),
        create_time=START,
        update_time=START,
    )


def wish(
    deployment: Deployment,
    version: str,
    cause: RevisionCause = RevisionCause.DEPLOY,
    *,
    plan: RolloutPlan = AT_ONCE,
    variant: int = 0,
) -> Deployment:
    revision = replace(draft(deployment, version, cause), plan=plan, variant=variant)
    wished = rules.wish(deployment, revision).deployment
    return replace(wished, uses=wished.uses | {version} - {""})


def shadow(deployment: Deployment, version: str) -> Deployment:
    revision = draft(deployment, version, RevisionCause.SHADOW)
    revision = replace(revision, mirror_percent=100)
    wished = beside.wish(deployment, revision, START).deployment
    return replace(wished, uses=wished.uses | {version})


def preview(deployment: Deployment, version: str) -> Deployment:
    revision = draft(deployment, version, RevisionCause.PREVIEW)
    revision = replace(revision, header_match=HeaderMatch("x-variant", version))
    wished = beside.wish(deployment, revision, START).deployment
    return replace(wished, uses=wished.uses | {version})


def draft(deployment: Deployment, version: str, cause: RevisionCause) -> Revision:
    number = deployment.last_revision + 1
    return Revision(number, version, f"a-{version}", "", "user:ada", "", cause, START)


def report(deployment: Deployment, *, applied: bool = True, **states: VariantState) -> Deployment:
    """Report on the present assignment; `r1=READY` is revision 1."""
    return tell(deployment, {int(key[1:]): states[key] for key in states}, applied=applied)


def tell(
    deployment: Deployment,
    states: dict[int, VariantState],
    *,
    applied: bool = True,
    traffic: dict[int, Traffic] | None = None,
) -> Deployment:
    """Report on the present assignment, by revision."""
    boom, counted = Failure("CRASHED", "boom"), traffic or {}
    variants = tuple(
        VariantReport(number, state, boom if state is FAILED else None, traffic=counted.get(number))
        for number, state in sorted(states.items())
    )
    step = rules.receive(deployment, Report(deployment.assignment.generation, applied, variants))
    return deployment if step is None else step.deployment


def next_step(deployment: Deployment, *, now: datetime, wait: float) -> Step | None:
    return rules.next_step(deployment, now=now, since=START, progress_seconds=wait)


def run(
    deployment: Deployment, *, now: datetime = START, wait: float = PATIENCE
) -> tuple[Deployment, list[EventType]]:
    """Take steps until there is only waiting left."""
    told: list[EventType] = []
    while (step := next_step(deployment, now=now, wait=wait)) is not None:
        deployment = step.deployment
        told += [entry.type for entry in step.entries]
    return deployment, told


def shares(deployment: Deployment) -> dict[int, int]:
    return {variant.revision: variant.weight for variant in deployment.assignment.variants}


def live(version: str = "v1") -> Deployment:
    deployment, _ = run(wish(blank(), version))
    deployment, _ = run(report(deployment, r1=READY))
    deployment, _ = run(report(deployment, r1=READY))
    return run(report(deployment, r1=READY))[0]
